"""A ViT's position embeddings at another side, against timm's own way of loading them."""

from __future__ import annotations

from typing import Any

import timm
import torch

from advss.hookspecs import DataFacts
from advss.models.encoder import build_encoder
from advss.models.positions import at_positions_of

OPTIONS: dict[str, Any] = {"patch_size": 8, "depth": 4, "embed_dim": 16, "num_heads": 2}


def _whole(side: int, **more: Any) -> Any:
    fixed: dict[str, Any] = {"num_classes": 0, "global_pool": "avg", "class_token": False, "dynamic_img_size": True}
    return timm.create_model("test_vit", img_size=side, **fixed, **OPTIONS, **more)


def test_they_are_resampled_as_timm_resamples_them() -> None:
    torch.manual_seed(0)
    small = _whole(32).state_dict()
    wanted = _whole(96, pretrained=True, pretrained_cfg_overlay={"state_dict": small, "custom_load": False})
    found = at_positions_of(_whole(96).state_dict(), small)
    assert torch.equal(found["pos_embed"], wanted.pos_embed)
    assert found.keys() == small.keys()


def test_of_the_same_side_nothing_changes() -> None:
    state = _whole(32).state_dict()
    assert at_positions_of(_whole(32).state_dict(), state)["pos_embed"] is state["pos_embed"]


def test_weights_to_start_from_are_resampled_too() -> None:
    torch.manual_seed(0)
    small = _whole(32).state_dict()
    encoder = build_encoder("test_vit", OPTIONS, DataFacts(4, 96), mean=[0.5] * 3, std=[0.25] * 3, weights=small)
    assert torch.equal(encoder.net.pos_embed, at_positions_of(_whole(96).state_dict(), small)["pos_embed"])
