"""Measurements of a run's classifier, each in files of its own that say what was measured.

``RUN/evaluations/NAME-DIGEST.json`` holds the figures and ``NAME-DIGEST.safetensors`` the answers by image: the digest
is of all that they hang on. So what is measured under another attack, or of other images, stands beside what was
measured before, and the same again takes its own place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor

from advss.files import write_bytes, write_json
from advss.measuring import Measured
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
        """The file of its figures."""
        return self.folder.path / FOLDER / f"{self.key}.json"

    @property
    def answers(self) -> Path:
        """The file of its answers by image."""
        return self.path.with_suffix(".safetensors")

    @property
    def unfinished(self) -> Path:
        """The folder of what is measured of it while it is not done."""
        return self.path.with_suffix(".part")

    @property
    def reference(self) -> dict[str, Any]:
        """How result.json names it: its file in the run's folder, and what it is known by."""
        return {"file": f"{FOLDER}/{self.key}.json", **self.known_by}

    def keep(self, content: Mapping[str, Any], measured: Measured | None = None) -> dict[str, Any]:
        """Write it down, the answers first, each file whole or not at all; returns what stands in the figures' file."""
        if measured is None:
            write_json(self.path, whole := {**self.known_by, **content})
            return whole
        data = save_bytes({**measured.answers, "label": measured.label, "index": measured.index})
        whole = {**self.known_by, **content, "answers_sha256": hashlib.sha256(data).hexdigest()}
        write_bytes(self.answers, data)
        write_json(self.path, whole)
        return whole

    def kept(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Figures and answers, ``label`` and ``index`` among them; None where they are not both there and whole."""
        try:
            content, data = json.loads(self.path.read_text("utf-8")), self.answers.read_bytes()
        except (OSError, ValueError):
            return None
        if not isinstance(content, dict) or content.get("answers_sha256") != hashlib.sha256(data).hexdigest():
            return None
        return content, load_bytes(data)

    def heads(self, own: Self | None) -> bool:
        """Whether it is the run's one of its name: what ``own``, the run's own settings, measure.

        Until that is measured, the first measurement of the checkpoint is.
        """
        now = self.folder.read_result().get("evaluations", {}).get(self.name)
        if self == own or not now or now["file"] == self.reference["file"]:
            return True
        return bool(now["checkpoint"] != self.known_by["checkpoint"]) or not (self.folder.path / now["file"]).is_file()
