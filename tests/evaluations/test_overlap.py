"""Exclusive regions against set algebra, shares against counting by hand, figures that say the numbers."""

from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from advss.evaluations.overlap import (
    MOST_BARS,
    Regions,
    _bars,
    _venns,
    draw_asr,
    draw_overlap,
    exclusive_regions,
    overlap,
)

SETS: dict[int, dict[str, set[int]]] = {
    2: {"rotation": {1, 2, 3, 7}, "jigsaw": {3, 4, 7}},
    3: {"selfie": {1, 2, 3, 9}, "rotation": {2, 3, 4}, "jigsaw": {3, 5, 9, 11}},
    4: {"a": {1, 2, 3, 4, 5}, "b": {2, 3, 6}, "c": {3, 4, 6, 7}, "d": {3, 8, 5, 7}},
}


@pytest.mark.parametrize("count", SETS)
def test_regions_are_those_of_set_algebra(count: int) -> None:
    sets = SETS[count]
    regions = exclusive_regions(sets)
    for size in range(1, count + 1):
        for names in combinations(sets, size):
            inside = set.intersection(*(sets[name] for name in names))
            outside = set().union(*(sets[name] for name in sets if name not in names))
            assert regions.get(names, set()) == inside - outside, names


def test_regions_that_are_empty_are_left_out_and_smaller_ones_come_first() -> None:
    assert list(exclusive_regions(SETS[3])) == [
        ("selfie",),
        ("rotation",),
        ("jigsaw",),
        ("selfie", "rotation"),
        ("selfie", "jigsaw"),
        ("selfie", "rotation", "jigsaw"),
    ]


def test_overlap_counts_by_hand() -> None:
    assert overlap(SETS[2]) == {
        "regions": [
            {"models": ["rotation"], "count": 2, "share": 0.4},
            {"models": ["jigsaw"], "count": 1, "share": 0.2},
            {"models": ["rotation", "jigsaw"], "count": 2, "share": 0.4},
        ],
        "union": 5,
        "not_shared": 0.6,
    }


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        ({"a": {1, 2}, "b": {1, 2}}, 0.0),
        ({"a": {1, 2}, "b": {3}}, 1.0),
        ({"a": {1}, "b": set[int]()}, 1.0),
        ({"a": set[int](), "b": set[int]()}, None),
        ({"a": {1, 2}}, None),
    ],
)
def test_share_that_is_not_shared(sets: dict[str, set[int]], expected: float | None) -> None:
    assert overlap(sets)["not_shared"] == expected


# ---------------------------------------------------------------- figures
def outcome(count: int) -> dict[str, Any]:
    labels, draws = [f"run{i}" for i in range(count)], random.Random(0)
    sets = {s: {t: sorted(draws.sample(range(50), 20)) for t in labels} for s in labels}
    asr = [[draws.random() for _ in labels] for _ in labels]
    of_right = [[None if row == column == 0 else asr[row][column] for column in range(count)] for row in range(count)]
    return {"models": labels, "asr": asr, "asr_both_right": of_right, "sets": sets, "all_right": list(range(40))}


@pytest.mark.parametrize("count", [2, 3, 4])
def test_figures_are_drawn_for_any_number_of_models(count: int, tmp_path: Path) -> None:
    for draw in (draw_asr, draw_overlap):
        path, _ = draw(outcome(count), tmp_path / f"{draw.__name__}.png")
        with Image.open(path) as figure:
            assert min(figure.size) > 200
            assert len(set(figure.convert("L").resize((64, 64)).tobytes())) > 10


def test_a_source_that_never_succeeds_is_drawn_too(tmp_path: Path) -> None:
    for count in (2, 3):
        empty = outcome(count)
        empty["sets"] = {source: {target: [] for target in empty["models"]} for source in empty["models"]}
        assert all(file.is_file() for file in draw_overlap(empty, tmp_path / "venn.png"))


def test_venn_diagrams_say_the_sizes_of_the_regions() -> None:
    figure = _venns(
        [{"b": {1, 2, 3, 4}, "c": {3, 4, 5}}, {"a": {1, 2, 9}, "c": {1, 2, 3, 4, 5, 6}}, {"a": set(), "b": set()}],
        "abc",
    )
    said = [sorted(text.get_text() for text in axes.texts if text.get_text()) for axes in figure.axes]
    assert said == [["1", "2", "2"], ["1", "2", "4"], ["none succeeds"]]


def test_bars_are_the_largest_regions() -> None:
    regions: Regions = {(f"r{size}",): set(range(size)) for size in range(1, MOST_BARS + 4)}
    first, _ = _bars([regions, {}]).axes
    assert [text.get_text() for text in first.texts] == [str(size) for size in range(4, MOST_BARS + 4)]
