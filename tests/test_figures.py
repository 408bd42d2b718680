"""Figures are the same bytes each time, and told apart without colour."""

from __future__ import annotations

import math
import warnings
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image, ImageColor

from advss.figures import LABEL_LENGTH, LOOKS, Look, look, new_figure, plain, save_figure, short_labels

STEP = 15  # of lightness L*, 0 to 100, between any two looks


def drawn(folder: Path, *, title: str = "TA and RA") -> tuple[Path, Path]:
    figure = new_figure(width=2, height=2)
    axes = figure.subplots()
    axes.plot([0, 1], **LOOKS[1].of_line)
    axes.bar([0], [1], **LOOKS[1].of_area)
    axes.set_title(title)
    return save_figure(figure, folder / "a.b.png")


def lightness(colour: str) -> float:
    """CIE L* of an sRGB colour, IEC 61966-2-1."""
    red, green, blue = (
        c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in ImageColor.getrgb(colour)[:3]
    )
    y: float = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return 116 * math.cbrt(y) - 16


def test_a_figure_is_a_png_and_an_svg_beside_it(tmp_path: Path) -> None:
    png, svg = drawn(tmp_path)
    assert (png, svg) == (tmp_path / "a.b.png", tmp_path / "a.b.svg")
    with Image.open(png) as image:
        assert image.size == (240, 240)
    assert ElementTree.parse(svg).getroot().attrib["width"] == "144pt"


def test_the_text_of_an_svg_is_text(tmp_path: Path) -> None:
    _, svg = drawn(tmp_path)
    assert "TA and RA" in [node.text for node in ElementTree.parse(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_same_figure_is_the_same_bytes(tmp_path: Path) -> None:
    for one, other in zip(drawn(tmp_path / "one"), drawn(tmp_path / "other"), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_nothing_says_when_a_figure_was_drawn(tmp_path: Path) -> None:
    _, svg = drawn(tmp_path)
    assert "date" not in svg.read_text().lower()


@pytest.mark.parametrize("title", ["猫", "a$x^$b", "$"])
def test_any_title_is_drawn_without_a_word(title: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, svg = drawn(tmp_path, title=plain(title))
    assert title in [node.text for node in ElementTree.parse(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize(("one", "other"), list(combinations(LOOKS, 2)))
def test_looks_differ_in_lightness_line_marker_and_hatch(one: Look, other: Look) -> None:
    assert abs(lightness(one.colour) - lightness(other.colour)) >= STEP
    assert one.line != other.line
    assert one.marker != other.marker
    assert one.hatch != other.hatch


def test_each_look_can_be_seen_on_white() -> None:
    assert max(lightness(one.colour) for one in LOOKS) <= 100 - STEP


def test_sixteen_things_have_sixteen_looks() -> None:
    assert [look(place) for place in range(4)] == list(LOOKS)
    assert len({look(place) for place in range(16)}) == 16


def test_long_labels_keep_their_ends() -> None:
    long = [f"selfie-pgd-full-20261121-07000{i}" for i in range(3)]
    short = short_labels(["first", *long])
    assert short[0] == "first"
    assert [label[-1] for label in short[1:]] == ["0", "1", "2"]
    assert max(map(len, short)) <= LABEL_LENGTH


def test_labels_that_differ_in_the_middle_alone_are_numbered() -> None:
    short = short_labels([f"selfie-pgd-{i}-full-20261121" for i in range(3)])
    assert len(set(short)) == 3
