"""Measurements in a run's folder: the figures of each, and of an accuracy the answers by image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from advss.files import read_json
from advss.naming import in_words
from advss.runs.folder import RunFolder
from advss.runs.listing import number, printable

EXAMPLES = "examples"  # the evaluation whose answers are images; its accuracies are the attack's, measured once more
KINDS: Mapping[str, Any] = {"BOOL": np.bool_, "I64": np.int64}


@dataclass(frozen=True)
class Column:
    """A figure of an evaluation under one attack, which several runs may have."""

    evaluation: str
    title: str
    options: str  # as JSON has them, sorted
    figure: str
    words: str = field(default="", compare=False)  # the figure, as people read it

    @property
    def measured_by(self) -> tuple[str, str, str]:
        """The evaluation and all of its options."""
        return self.evaluation, self.title, self.options


@dataclass(frozen=True)
class Figure:
    """A figure of one run, and of an accuracy the answers.

    Attributes:
        value: the share of images that are right, from 0 to 1, or a number.
        images: how many there are; None where it is no accuracy.
        data: sha256 of the test images.
        index: (N,) their places in the test set, in order; None where answers are gone.
        right: (N,) whether each is right.
    """

    value: float
    images: int | None = None
    data: str = ""
    index: NDArray[np.int64] | None = None
    right: NDArray[np.bool_] | None = None

    def same_images(self, other: Figure) -> bool:
        """Whether two are of the same images, answer for answer."""
        return (
            self.data == other.data
            and self.index is not None
            and other.index is not None
            and np.array_equal(self.index, other.index)
        )


def flat(content: Mapping[str, Any], head: str = "") -> dict[str, Any]:
    """A nested mapping by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= flat(value, f"{head}{key}.") if isinstance(value, Mapping) else {f"{head}{key}": value}
    return found


def contents(folder: RunFolder, result: Mapping[str, Any], digest: str) -> Iterator[dict[str, Any]]:
    """Files of measurements: those of the study, those that the result names, and all others of its classifier."""
    named = [one.get("file") for one in (result.get("evaluations") or {}).values() if isinstance(one, dict)]
    first = [*((result.get("studied") or {}).get(digest) or ()), *named]
    others = sorted(f"evaluations/{path.name}" for path in (folder.path / "evaluations").glob("*.json"))
    tested: Any = (result.get("evaluation") or {}).get("checkpoint")
    for file in dict.fromkeys([*first, *others]):
        content = read_json(folder.path / str(file))
        of_it = file in first or (content.get("checkpoint") == tested and content.get("evaluation") != EXAMPLES)
        if of_it and isinstance(content.get("figures"), dict) and isinstance(content.get("images"), dict):
            yield {**content, "file": file, "answers": (folder.path / str(file)).with_suffix(".safetensors")}


def measured_by(content: Mapping[str, Any]) -> tuple[str, str, str]:
    """The evaluation of a measurement, its title, and its options as JSON."""
    options = json.dumps(content.get("options"), sort_keys=True)
    return printable(content.get("evaluation")), printable(content.get("title")), options


def figures_of(content: Mapping[str, Any]) -> Iterator[tuple[Column, Figure]]:
    """The figures of a measurement that are accuracies or numbers."""
    by, data, answers = measured_by(content), str(content["images"].get("data")), _answers(content)
    index_N = answers.get("index")
    said = content.get("titles")
    words: Mapping[str, Any] = said if isinstance(said, dict) else {}
    for name, one in content["figures"].items():
        column = Column(*by, printable(name), printable(words.get(name) or in_words(name)))
        share = number(one.get("accuracy")) if isinstance(one, dict) else None
        if share is None:
            if (value := number(one)) is not None and not isinstance(one, bool):
                yield column, Figure(value)
            continue
        found, right_N = Figure(share, int(one.get("images") or 0), data), answers.get(name)
        if index_N is not None and right_N is not None and right_N.shape == index_N.shape:
            order_N = np.argsort(index_N)
            found = replace(found, index=index_N[order_N], right=right_N[order_N])
        yield column, found


def _answers(content: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Places of the images and what is right or wrong of each; none where the figures were not counted from them."""
    try:
        data = content["answers"].read_bytes()
        if hashlib.sha256(data).hexdigest() != content.get("answers_sha256"):
            return {}
        read: Any = deserialize
        found = {name: one for name, one in read(data) if one["dtype"] in KINDS}
    except (OSError, SafetensorError):
        return {}
    return {n: np.frombuffer(o["data"], KINDS[o["dtype"]]).reshape(o["shape"]) for n, o in found.items()}
