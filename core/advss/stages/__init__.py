"""Pretrain, fine-tune, evaluate; fit is the three in a row."""
