"""Measurements of a run's classifier, each in a file of its own that says what was measured.

``RUN/evaluations/NAME-DIGEST.json``: the digest is of all that the figures hang on. So what is measured under another
attack, or of other images, stands beside what was measured before, and the same again takes its own place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from advss.files import write_json
from advss.runs.folder import RunFolder

FOLDER = "evaluations"


def digest_of(known_by: Mapping[str, Any]) -> str:
    """What all that figures hang on comes to in the name of a file."""
    return hashlib.sha256(json.dumps(known_by, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Measurement:
    """One measurement: what it is known by, and where it is kept."""

    folder: RunFolder
    name: str  # of the evaluation: pgd, certify
    known_by: Mapping[str, Any]  # all that its figures hang on, the checkpoint's sha256 among it

    @property
    def key(self) -> str:
        """``NAME-DIGEST``."""
        return f"{self.name}-{digest_of(self.known_by)}"

    @property
    def path(self) -> Path:
        """Its file."""
        return self.folder.path / FOLDER / f"{self.key}.json"

    @property
    def reference(self) -> dict[str, Any]:
        """How result.json names it: its file in the run's folder, and what it is known by."""
        return {"file": f"{FOLDER}/{self.key}.json", **self.known_by}

    def keep(self, content: Mapping[str, Any]) -> None:
        """Write it down, whole or not at all."""
        write_json(self.path, {**self.known_by, **content})

    def heads(self, own: Self) -> bool:
        """Whether it is the run's headline: what ``own``, the run's own settings, measure.

        Until that is measured, the first measurement of the checkpoint is the headline.
        """
        now = self.folder.read_result().get("evaluation")
        if self == own or not now or now == self.reference:
            return True
        return bool(now["checkpoint"] != self.known_by["checkpoint"]) or not (self.folder.path / now["file"]).is_file()
