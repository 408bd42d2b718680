"""Who is told while the images of a run are read: on folders of many large ones that takes minutes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from advss.data.fingerprint import PartName


@dataclass(frozen=True)
class Found:
    """What is known of a run's data before its images are read."""

    source: str  # its name
    counts: Mapping[PartName, int]  # images
    classes: int
    side: int  # in pixels
    passed_over: Mapping[str, int]  # files among the images that are not read, by kind
    unlabelled: Mapping[PartName, int] = field(default_factory=dict)  # images that have no label


class Watch:
    """Told of reading; does nothing with it."""

    def found(self, found: Found) -> None:
        """The labels are known, and one image was read."""

    def read(self, *, done: int, of: int) -> None:
        """So many of all the images are read, or where they are too many to be held, looked at."""
