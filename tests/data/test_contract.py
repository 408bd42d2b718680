"""The conformance suite on every source that comes with advss, each with a few images of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from advss.data.sources import advss_datasets
from advss.plugins import registry
from advss.testing.subject import Subject, find
from advss.testing.suite import checks_of
from advss.testing.verdicts import Check, judge

Pixels = NDArray[np.uint8]
Options = dict[str, Any]
SOURCES = sorted(source.name for source in advss_datasets())
WITHOUT = {  # checks that cannot be asked: data that come embedded are never missing; CIFAR-10-C has no training images
    ("digits", "making it reads nothing"),
    ("digits", "missing data are a usage error"),
    ("cifar10c", "its splits are there"),
}


@pytest.fixture
def options(request: pytest.FixtureRequest, source: str, tmp_path: Path) -> Options:
    """What is said of a source whose files have been written."""

    def use(fixture: str) -> Any:
        return request.getfixturevalue(fixture)

    def cifar() -> Options:
        use("write_cifar")(source, _noise(10, 32))
        return {"root": str(tmp_path)}

    def stl10() -> Options:
        use("write_stl10")(_noise(10, 96))
        return {"root": str(tmp_path)}

    made: dict[str, Callable[[], Options]] = {
        "digits": dict,
        "cifar10": cifar,
        "cifar100": cifar,
        "stl10": stl10,
        "imagefolder": lambda: {"root": str(use("folder_root"))},
        "parquet": lambda: {"root": str(use("parquet_root"))},
        "cifar10c": lambda: {"root": str(use("corrupted")), "corruption": "fog"},
    }
    return made[source]()


def _noise(count: int, side: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_they_come_through_the_entry_point() -> None:
    found = {p.name: p.offered for p in registry().found.plugins if (p.kind, p.distribution) == ("data", "advss")}
    assert found == {source.name: source for source in advss_datasets()}


@pytest.mark.parametrize("check", checks_of("data"), ids=lambda check: check.name)
@pytest.mark.parametrize("source", SOURCES)
def test_it_keeps_the_contract(source: str, options: Options, check: Check) -> None:
    (subject,) = find(source, kind="data", options=options)
    assert isinstance(subject, Subject)
    verdict = judge(check, subject)
    assert verdict.outcome == ("unchecked" if (source, check.name) in WITHOUT else "passed"), verdict.message
