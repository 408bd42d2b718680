"""A ViT's position embeddings for images of another side."""

from __future__ import annotations

import math
from collections.abc import Mapping

from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor

NAME = "pos_embed"


def at_positions_of(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """``state`` with its position embeddings resampled, as timm does it, to as many patches as ``own`` has.

    Both are a network's tensors by name; of networks without such embeddings, or of the same side, nothing changes.
    """
    resampled = {}
    for name in own.keys() & state.keys():
        if name.rpartition(".")[2] == NAME and own[name].shape[1] != state[name].shape[1]:
            side = math.isqrt(own[name].shape[1])
            resampled[name] = resample_abs_pos_embed(state[name], [side, side], num_prefix_tokens=0)
    return {**state, **resampled}
