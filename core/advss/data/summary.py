"""What a user is told of the data as a run begins."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import torch

from advss.data.fingerprint import PARTS, PartName
from advss.data.images import Images, InMemory
from advss.data.splits import Part, Splits
from advss.data.statistics import CHUNK
from advss.data.watch import Found

PURPOSE: Mapping[PartName, str] = {"train": "to train on", "valid": "to validate on", "test": "to test"}


def summary(found: Found, flag: str = "data") -> list[str]:
    """Images by split, and files passed over by kind: what is known before the images of a flag are read."""
    classes = f"{found.classes} classes" if found.classes else "no labels"
    line = f"{flag} {found.source}: {_by_part(found.counts, 'images ')}; {classes}, {found.side}x{found.side} pixels"
    if found.unlabelled and found.classes and flag == "data":
        line += f"; without label, and left out of fine-tuning and measuring: {_by_part(found.unlabelled)}"
    return [line, *([f"passed over: {_counted(found)}"] if found.passed_over else [])]


def _by_part(counts: Mapping[PartName, int], what: str = "") -> str:
    (first, count), *others = [(PURPOSE[part], counts[part]) for part in PARTS if part in counts]
    return ", ".join([f"{count} {what}{first}", *(f"{count} {purpose}" for purpose, count in others)])


def _counted(found: Found) -> str:
    most_first = sorted(found.passed_over.items(), key=lambda kind: (-kind[1], kind[0]))
    return ", ".join(f"{count} {kind}" for kind, count in most_first)


def overlap(splits: Splits, pretrained: Splits | None = None) -> list[str]:
    """A line where test images are among those trained or validated on, or where they are too many to look.

    ``pretrained`` are those of pretraining, where they are others.
    """
    if "test" not in splits.parts:
        return []
    lines = _among(splits.test, splits, "train or validate on")
    return lines + (_among(splits.test, pretrained, "pretrain on") if pretrained else [])


def _among(test: Part, splits: Splits, what: str) -> list[str]:
    sets = [test.images, splits.train.images, splits.valid.images]
    if not all(isinstance(images, InMemory) for images in sets):
        return [f"test images are not looked for among those to {what}: the images are too many to be held in memory"]
    seen = {digest for images in sets[1:] for digest in _digests(images)}
    count = sum(digest in seen for digest in _digests(test.images))
    return [f"advss: warning: {count} of {len(test)} test images are among the images to {what}"] * bool(count)


def _digests(images: Images) -> Iterator[bytes]:
    """sha256 of the pixels of each image."""
    for places in torch.split(torch.arange(len(images)), CHUNK):
        for pixels in images.read(places).numpy():
            yield hashlib.sha256(pixels.data).digest()
