"""What a set of images looks like, and which set it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from advss.data.images import Images, InMemory

SAMPLE = 4096  # images that stand for a set too large to hold
CHUNK = 512  # images read at once
LEVELS = 256


def channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all pixels in [0, 1].

    Exact for a set in memory, else over :data:`SAMPLE` images. A standard deviation is at least one grey level, so that
    a channel that never changes can be divided by it.
    """
    counts_CL = sum(
        (_histogram(pixels) for pixels in _chunks(images)), torch.zeros(3, LEVELS, dtype=torch.int64)
    ).double()
    share_CL = counts_CL / counts_CL.sum(1, keepdim=True)
    level_L = torch.arange(LEVELS, dtype=torch.float64) / (LEVELS - 1)
    mean_C = (share_CL * level_L).sum(1)
    variance_C = (share_CL * (level_L - mean_C[:, None]).square()).sum(1)
    std_C = variance_C.sqrt().clamp_min(1 / (LEVELS - 1))
    return tuple(mean_C.tolist()), tuple(std_C.tolist())


def digest(images: Images, labels: Tensor) -> str:
    """sha256 (hexadecimal) over labels and images; of a set that is not in memory, :data:`SAMPLE` images are read."""
    sha = hashlib.sha256(labels.numpy().data)
    for pixels in _chunks(images):
        sha.update(pixels.numpy().data)
    return sha.hexdigest()


def _chunks(images: Images) -> Iterator[Tensor]:
    count = len(images) if isinstance(images, InMemory) else min(SAMPLE, len(images))
    places = torch.arange(count) * len(images) // max(count, 1)  # evenly spread: files are often sorted by class
    for chunk in torch.split(places, CHUNK):
        yield images.read(chunk)


def _histogram(pixels_B3SS: Tensor) -> Tensor:
    """How often each level occurs in each channel, (3, 256) int64."""
    return torch.stack([torch.bincount(channel.flatten().int(), minlength=LEVELS) for channel in pixels_B3SS.unbind(1)])
