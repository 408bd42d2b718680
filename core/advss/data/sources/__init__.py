"""Data sources by name."""

from __future__ import annotations

from advss.data.sources.base import EncodedSource, Source, Split
from advss.data.sources.cifar10c import Cifar10C
from advss.data.sources.digits import Digits
from advss.data.sources.imagefolder import ImageFolder
from advss.data.sources.parquet import Parquet
from advss.data.sources.torchvision_sets import Cifar10, Cifar100, Stl10

SOURCES: dict[str, type[Source]] = {
    source.name: source for source in (Digits, Cifar10, Cifar100, Stl10, ImageFolder, Parquet, Cifar10C)
}

__all__ = ["SOURCES", "EncodedSource", "Source", "Split"]
