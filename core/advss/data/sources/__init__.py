"""The data sources that come with advss, one file each."""

from __future__ import annotations

from advss.hookspecs import DataSource, hookimpl

advss_api = (1, 0)


@hookimpl
def advss_datasets() -> list[type[DataSource]]:
    """Digits that come embedded, torchvision's sets, folders and parquet files of images, and CIFAR-10-C."""
    from advss.data.sources.cifar10c import Cifar10C
    from advss.data.sources.digits import Digits
    from advss.data.sources.imagefolder import ImageFolder
    from advss.data.sources.parquet import Parquet
    from advss.data.sources.torchvision_sets import Cifar10, Cifar100, Stl10

    return [Digits, Cifar10, Cifar100, Stl10, ImageFolder, Parquet, Cifar10C]
