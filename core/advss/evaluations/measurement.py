"""Measurements of a run's classifier, each in files of its own that say what was measured.

``RUN/evaluations/NAME-DIGEST.json`` holds the figures and ``NAME-DIGEST.safetensors`` the answers by image: the digest
is of all that they hang on. So what is measured under another attack, or of other images, stands beside what was
measured before, and the same again takes its own place.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from advss.evaluations.packed import packed, unpacked
from advss.files import saving, write_bytes, write_json
from advss.measuring import Measured
from advss.runs.folder import RunFolder
from advss.runs.lock import check_free

FOLDER = "evaluations"


def digest_of(known_by: Mapping[str, Any]) -> str:
    """What all that figures hang on comes to in the name of a file."""
    return hashlib.sha256(json.dumps(known_by, sort_keys=True).encode()).hexdigest()[:12]


def check_writable(folder: RunFolder) -> None:
    """Make the folder of a run's measurements, so that hours are not spent on what cannot be kept.

    Raises:
        UsageError: it cannot be made or written to, or another process trains in the run's folder.
    """
    check_free(folder.path)
    kept = folder.path / FOLDER
    with saving(kept):
        kept.mkdir(exist_ok=True)
        if not os.access(kept, os.W_OK):
            raise PermissionError(errno.EACCES, "permission denied")


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
    def images_apart(self) -> bool:
        """Whether each image is measured on its own, so that its answers serve whatever others are measured."""
        return bool(self.known_by["images"]["chunk"] == 1)

    @property
    def of_chunks(self) -> dict[str, Any]:
        """All that the answers about a chunk hang on: nothing beyond it where that is an image."""
        images = self.known_by["images"]
        apart = {key: value for key, value in images.items() if key != "count"}
        return {**self.known_by, "images": apart if self.images_apart else images}

    @property
    def unfinished(self) -> Path:
        """The folder of what is measured of it while it is not done."""
        return self.path.with_name(f"{self.name}-{digest_of(self.of_chunks)}.part")

    @property
    def reference(self) -> dict[str, Any]:
        """How result.json names it: its file in the run's folder, and what it is known by."""
        return {"file": f"{FOLDER}/{self.key}.json", **self.known_by}

    def keep(self, content: Mapping[str, Any], measured: Measured) -> dict[str, Any]:
        """Write it down, the answers first, each file whole or not at all; returns what stands in the figures' file."""
        data = packed({**measured.answers, "label": measured.label, "index": measured.index})
        whole = {**self.known_by, **content, "answers_sha256": hashlib.sha256(data).hexdigest()}
        write_bytes(self.answers, data)
        write_json(self.path, whole)
        return whole

    def kept(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Figures and answers, ``label`` and ``index`` among them; None where they are not both there and whole."""
        try:
            content, data = json.loads(self.path.read_text("utf-8")), self.answers.read_bytes()
            if content["answers_sha256"] != hashlib.sha256(data).hexdigest():
                return None
            if any(content[key] != value for key, value in self.known_by.items()) or "figures" not in content:
                return None
            return content, unpacked(data)[0]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def rows(self) -> dict[int, dict[str, Tensor]]:
        """What is known of single images, by place in the test set, from measurements that differ in these alone."""
        found: dict[int, dict[str, Tensor]] = {}
        for other in self._others() if self.images_apart else ():
            if (known := other.kept()) is None:
                continue
            answers = {name: answer for name, answer in known[1].items() if name != "label"}
            for row, place in enumerate(answers.pop("index").tolist()):
                found[place] = {name: answer[row : row + 1] for name, answer in answers.items()}
        return found

    def _others(self) -> Iterator[Self]:
        """The measurements that differ in the number of images."""
        for path in sorted(self.path.parent.glob(f"{self.name}-*.json")):
            with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # it is no measurement's file
                content = json.loads(path.read_text("utf-8"))
                other = replace(self, known_by={key: content[key] for key in self.known_by})
                if other.of_chunks == self.of_chunks:
                    yield other

    def heads(self, own: Self | None, usual: Self | None, name: str) -> bool:
        """Whether it is the run's one of a name, or is to take the place of that in result.json.

        First comes ``own``, what the run's own settings measure; then what is measured as ``usual`` is, of however many
        images; then what is of more images; then what was measured first. Of another checkpoint nothing counts.
        """
        now = self.folder.read_result().get("evaluations", {}).get(name)

        def rank(one: Mapping[str, Any]) -> tuple[bool, bool, int]:
            as_usual = usual is not None and all(one[k] == v for k, v in usual.known_by.items() if k != "images")
            return one["file"] == (own and own.reference["file"]), as_usual, one["images"]["count"]

        try:
            gone = now["checkpoint"] != self.known_by["checkpoint"] or not (self.folder.path / now["file"]).is_file()
            return gone or now["file"] == self.reference["file"] or rank(self.reference) > rank(now)
        except (KeyError, TypeError):  # there is none that can be read
            return True
