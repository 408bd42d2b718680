"""Encoder, classifier, strict loading, and the description from which a checkpoint's model is built again."""
