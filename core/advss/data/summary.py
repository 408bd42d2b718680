"""What a user is told of the data as a run begins."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch

from advss.data.images import Images, InMemory
from advss.data.splits import Splits
from advss.data.statistics import CHUNK


def summary(splits: Splits) -> list[str]:
    """Images by split, files passed over by kind, and how many test images are among those trained or validated on."""
    side, classes = splits.side, len(splits.classes)
    lines = [
        f"data {splits.name}: {len(splits.train)} images to train on, {len(splits.valid)} to validate on, "
        f"{len(splits.test)} to test; {classes} classes, {side}x{side} pixels"
    ]
    if splits.passed_over:
        lines.append(f"passed over: {_counted(splits)}")
    return [*lines, *_overlap(splits)]


def _counted(splits: Splits) -> str:
    most_first = sorted(splits.passed_over.items(), key=lambda kind: (-kind[1], kind[0]))
    return ", ".join(f"{count} {kind}" for kind, count in most_first)


def _overlap(splits: Splits) -> list[str]:
    sets = [part.images for part in (splits.train, splits.valid, splits.test)]
    if not all(isinstance(images, InMemory) for images in sets):
        return ["test images are not looked for among the others: the images are too many to be held in memory"]
    seen = {digest for images in sets[:2] for digest in _digests(images)}
    count = sum(digest in seen for digest in _digests(sets[2]))
    return [
        f"advss: warning: {count} of {len(sets[2])} test images are among the images to train or validate on"
    ] * bool(count)


def _digests(images: Images) -> Iterator[bytes]:
    """sha256 of the pixels of each image."""
    for places in torch.split(torch.arange(len(images)), CHUNK):
        for pixels in images.read(places).numpy():
            yield hashlib.sha256(pixels.data).digest()
