"""Encoder and last stage without a head: images -> features."""

from __future__ import annotations

from torch import Tensor, nn

from advss.hookspecs import Encoder


class ImageFeatures(nn.Module):
    """Images in [0, 1] (B, C, S, S) -> features (B, ``features``); normalisation is the encoder's.

    Args:
        encoder: gives the map, which ``encoder(images)`` is.
        tail: last stage and pooling; None takes the map's mean over its places.
    """

    def __init__(self, encoder: Encoder, tail: nn.Module | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.tail = MapMean() if tail is None else tail
        self.features = encoder.channels if tail is None else encoder.features

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Features, as they enter a linear head."""
        features_BD: Tensor = self.tail(self.encoder(x_BCHW))
        return features_BD


class MapMean(nn.Module):
    """The mean of a map (B, D, h, w) over its places, (B, D)."""

    def forward(self, map_BDhw: Tensor) -> Tensor:
        """Global average pooling."""
        return map_BDhw.mean((2, 3))
