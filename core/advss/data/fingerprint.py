"""Which data a run is of: what its checkpoints say, and what is compared wherever the run meets its data again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

PartName = Literal["train", "valid", "test"]
PARTS: tuple[PartName, ...] = ("train", "valid", "test")
CALLED: Mapping[PartName, str] = {"train": "training", "valid": "validation", "test": "test"}


@dataclass(frozen=True)
class Digest:
    """How many images, and the sha256 (hexadecimal) of them and their labels."""

    images: int
    sha256: str


@dataclass(frozen=True)
class Fingerprint:
    """The classes' names in the order of the labels, and a digest of each part."""

    classes: tuple[str, ...]
    parts: Mapping[PartName, Digest]

    @property
    def sha256(self) -> str:
        """One digest of all."""
        return hashlib.sha256(repr(self.to_json()).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        return {"classes": list(self.classes)} | {name: vars(digest) | {} for name, digest in self.parts.items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Fingerprint:
        """What :meth:`to_json` gave."""
        return cls(tuple(content["classes"]), {name: Digest(**content[name]) for name in CALLED if content.get(name)})

    def of(self, *parts: PartName) -> Fingerprint:
        """The classes and these parts alone."""
        return Fingerprint(self.classes, {name: digest for name, digest in self.parts.items() if name in parts})

    def unlike(self, other: Fingerprint) -> str:
        """What of these data is not as in ``other``, of the parts that both know; empty where all is.

        ``class 4 is 'deer', not 'cat'``, or ``360 test images, not 361``.
        """
        if len(self.classes) != len(other.classes):
            return f"{len(self.classes)} classes, not {len(other.classes)}"
        for place, (name, wanted) in enumerate(zip(self.classes, other.classes, strict=True)):
            if name != wanted:
                return f"class {place} is '{name}', not '{wanted}'"
        for part in CALLED:
            ours, theirs = self.parts.get(part), other.parts.get(part)
            if ours is None or theirs is None or ours == theirs:
                continue
            if ours.images != theirs.images:
                return f"{ours.images} {CALLED[part]} images, not {theirs.images}"
            return f"other {CALLED[part]} images or labels (sha256 {ours.sha256[:8]}, not {theirs.sha256[:8]})"
        return ""
