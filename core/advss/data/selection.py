"""Choosing some of many images with regard to their classes."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from advss.randomness import Key, stream


def choose(labels_N: Tensor, count: int, generator: Generator, *, equal: bool = False) -> Tensor:
    """``count`` places of 0 to N-1, at random within each class, in rising order.

    Args:
        labels_N: the class of each image, int64; -1, no label, is one class.
        count: how many to choose, at most N.
        generator: on the CPU.
        equal: as many of each class as of any other, as far as a class reaches; else each class in proportion to its
            size. Either holds to within one image a class.
    """
    labels_N = labels_N + 1  # from 0
    shuffled = torch.randperm(len(labels_N), generator=generator)
    by_class = shuffled[labels_N[shuffled].argsort(stable=True)]
    sizes = torch.bincount(labels_N)
    starts = sizes.cumsum(0) - sizes
    classes = labels_N[by_class]
    rank = (torch.arange(len(labels_N)) - starts[classes]).double()  # 0, 1, 2 ... within the class
    turn = rank if equal else (rank + 0.5) / sizes[classes]
    # ties fall at random, else the first classes would win them all
    tie = torch.randperm(len(labels_N), generator=generator)
    return by_class[tie[turn[tie].argsort(stable=True)[:count]]].sort().values


def few(labels_N: Tensor, count: int, *key: Key, seed: int = 0) -> Tensor:
    """Places of ``count`` of the images, as many of each class; of fewer images, or where it is 0, of all."""
    if not 0 < count < len(labels_N):
        return torch.arange(len(labels_N))
    return choose(labels_N, count, stream("cpu", seed, *key), equal=True)
