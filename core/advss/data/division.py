"""Which of a source's images are trained on, validated on and tested: chosen by their labels, before any is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from advss.data.fingerprint import CALLED, PartName
from advss.data.reading import read_labels
from advss.data.selection import choose, few
from advss.data.sources.divided import DividedSource
from advss.errors import UsageError
from advss.hookspecs import DataSource, Split
from advss.randomness import stream

VALID_SHARE = 0.1  # of the training images


@dataclass(frozen=True)
class Chosen:
    """The images of a part, before they are read: n of a stored split."""

    split: Split
    places: Tensor  # (n,) int64, in the split
    index: Tensor  # as of the part
    labels: Tensor
    left_out: int = 0  # images of the split that have no label, and of no use without

    @property
    def unlabelled(self) -> int:
        """How many images have no label, of those chosen and of those left out."""
        return int((self.labels < 0).sum()) + self.left_out


def divide(source: DataSource, limit: int, seed: int, parts: Sequence[PartName]) -> dict[PartName, Chosen]:
    """Of which images the parts are; none is read. Images without label are a class among the others.

    Raises:
        UsageError: they are too few; or of these parts the test images are one, and one of them has no labels at all.
    """
    if limit < 0:
        raise UsageError(f"--data.limit {limit}: expected a number of images, or 0 for all")
    chosen: dict[PartName, Chosen] = {}
    if "train" in parts or "valid" in parts:  # one set of images, divided
        chosen["train"], chosen["valid"] = _to_train_on(source, limit, seed)
    if "test" in parts:
        chosen["test"] = _to_test(source, limit)
        _check_labelled(source, chosen)
    return {part: choice for part, choice in chosen.items() if part in parts}


def _to_train_on(source: DataSource, limit: int, seed: int) -> tuple[Chosen, Chosen]:
    """What is trained and validated on; places are those among both, so that per-image buffers are no larger."""
    if "valid" in source.splits():
        train, valid = (_kept(read_labels(source, split), split, limit, seed) for split in ("train", "valid"))
        index = torch.arange(len(train.labels) + len(valid.labels))
        return replace(train, index=index[: len(train.labels)]), replace(valid, index=index[len(train.labels) :])
    labels = read_labels(source, "train")
    parts = _divided(labels, limit, seed)
    both = torch.cat(parts).sort().values
    to_train, to_validate = (Chosen("train", p, torch.searchsorted(both, p), labels[p]) for p in parts)
    return to_train, to_validate


def _to_test(source: DataSource, limit: int) -> Chosen:
    """The test images that have a label: nothing can be measured on the others."""
    if "test" not in source.splits() and not isinstance(source, DividedSource):  # which says itself what to do
        has_none = "there are no test images, nor an option --data.test-share as imagefolder has it"
        raise UsageError(f"--data {source.name}: {has_none}; `advss pretrain` alone needs none")
    labels = read_labels(source, "test")
    labelled = (labels >= 0).nonzero().squeeze(1)
    few_of_them = _kept(labels[labelled], "test", limit)
    places = labelled[few_of_them.places]
    return replace(few_of_them, places=places, index=places, left_out=len(labels) - len(labelled))


def _kept(labels: Tensor, split: Split, limit: int, seed: int = 0) -> Chosen:
    places = few(labels, limit, "data", split, seed=seed)
    return Chosen(split, places, places, labels[places])


def _check_labelled(source: DataSource, chosen: dict[PartName, Chosen]) -> None:
    for part, choice in chosen.items():
        if not (choice.labels >= 0).any():
            raise UsageError(
                f"--data {source.name}: none of the {choice.unlabelled} {CALLED[part]} images has a label; without, "
                "`advss pretrain` takes images, and nothing else"
            )


def _divided(labels: Tensor, limit: int, seed: int) -> tuple[Tensor, Tensor]:
    """Places to train on and to validate on: all images are divided first, so that no limit moves one over."""
    count = min(limit or len(labels), len(labels))
    if count < 2:
        raise UsageError(f"{count} training image: at least 2 are needed, one of them to validate on")
    valid = choose(labels, _valid(len(labels)), stream("cpu", seed, "data", "valid"))
    train = torch.ones(len(labels), dtype=torch.bool)
    train[valid] = False
    parts = (train.nonzero().squeeze(1), count - _valid(count)), (valid, _valid(count))
    chosen, validated = (places[few(labels[places], n, "data", "limit", seed=seed)] for places, n in parts)
    return chosen, validated


def _valid(count: int) -> int:
    """How many of so many training images are validated on."""
    return max(1, round(VALID_SHARE * count))
