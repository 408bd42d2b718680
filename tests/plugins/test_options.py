"""Options of a class: found with type, default and documentation; values converted to their types."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from torch import nn

from advss.errors import UsageError
from advss.plugins import options_of
from advss.plugins.options import REQUIRED, Option, completed, convert


class Documented:
    """A class.

    Args:
        first: what it is for,
            on two lines.
        second: another.
    """

    def __init__(self, *, first: int, second: float | Literal["auto"] = "auto") -> None:
        self.first, self.second = first, second


class Narrower(Documented):
    """With the options of another."""


class Inherits(nn.Module):
    """Nothing of its own."""


@dataclass
class Settings:
    """Settings.

    Attributes:
        epochs: passes over the data
    """

    epochs: int
    lr: float = 0.1


def test_inherited_options_keep_their_documentation() -> None:
    assert [(o.name, o.doc) for o in options_of(Narrower)] == [
        ("first", "what it is for, on two lines."),
        ("second", "another."),
    ]


def test_options_of_a_class() -> None:
    assert options_of(Documented) == (
        Option("first", int, REQUIRED, "what it is for, on two lines."),
        Option("second", float | Literal["auto"], "auto", "another."),
    )


def test_a_module_without_init_has_no_options() -> None:
    assert options_of(Inherits) == ()


def test_options_of_a_dataclass() -> None:
    assert options_of(Settings) == (
        Option("epochs", int, REQUIRED, "passes over the data"),
        Option("lr", float, 0.1, ""),
    )


def test_a_required_option_is_asked_for() -> None:
    with pytest.raises(UsageError, match=r"--x\.first is missing: thing has no default for it \(int\)"):
        completed(Documented, {}, flag="--x.", what="thing")


@pytest.mark.parametrize(
    ("annotation", "said", "expected"),
    [
        (float, "8/255", 8 / 255),
        (float, " 1 / 4 ", 0.25),
        (float, "-1/4", -0.25),
        (float, "1e-4", 1e-4),
        (float, 3, 3.0),
        (float | Literal["auto"], "1/2", 0.5),
        (float | Literal["auto"], "auto", "auto"),
        (float | None, "8/255", 8 / 255),
        (float | None, None, None),
        (int, "4", 4),
        (bool, "true", True),
        (bool, False, False),
        (str, "8/255", "8/255"),
        (str, "12", "12"),
        (Path, "a/b", Path("a/b")),
        (tuple[int, ...], "[60,80]", (60, 80)),
        (tuple[int, ...], "60, 80", (60, 80)),
        (tuple[int, ...], [60, 80], (60, 80)),
        (tuple[int, ...] | None, "60,80", (60, 80)),
        (tuple[int, ...] | None, None, None),
        (tuple[float, ...], "1/4, 0.5", (0.25, 0.5)),
        (tuple[float, ...] | None, ["1/4", 1], (0.25, 1.0)),
        (tuple[float, ...], "[]", ()),
        (list[str], ["a"], ["a"]),
        (list[str], "1/4,b", ["1/4", "b"]),
    ],
)
def test_convert(annotation: Any, said: Any, expected: Any) -> None:
    converted = convert(Option("x", annotation, None, ""), said, flag="--x")
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "type_name"),
    [
        (int, "int"),
        (float | Literal["auto"], "float | auto"),
        (tuple[int, ...], "tuple[int, ...]"),
        (str | None, "str | null"),
        (Literal["linf", "l2"], "linf | l2"),
    ],
)
def test_types_as_a_user_reads_them(annotation: Any, type_name: str) -> None:
    assert Option("x", annotation, None, "").type == type_name
