"""RA over strength as it is drawn, and the two checks: what breaks them is told, and what cannot be told is not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from advss.attacks import Norm
from advss.evaluations.intervals import wilson
from advss.evaluations.pictures import Curve, draw_strength, sanity, verdict
from advss.figures import save_figure


def right(hits: int, of: int = 100) -> Tensor:
    return torch.arange(of) < hits


def axes_of(curve: Curve) -> list[Any]:
    return draw_strength(curve).axes


SOUND = Curve(
    "linf",
    by_eps={0: right(98), 8 / 255: right(60), 64 / 255: right(3)},
    by_steps={5: right(70), 10: right(61), 20: right(60)},
    steps=20,
    eps=8 / 255,
)


def test_a_curve_that_falls_and_levels_off_is_sound() -> None:
    assert sanity(SOUND) == []


def test_ra_at_a_large_eps_is_told() -> None:
    (line,) = sanity(dataclasses.replace(SOUND, by_eps={8 / 255: right(60), 64 / 255: right(41)}))
    assert line == (
        "RA is still 41 % at eps 64/255: gradients may be masked, or steps too short; "
        "a larger eps, with longer steps, must bring it near 0"
    )


def test_where_every_image_can_be_grey_it_is_said() -> None:
    (line,) = sanity(dataclasses.replace(SOUND, by_eps={0.5: right(41)}))
    assert line.startswith("RA is still 41 % at eps 0.5, where every image can be made the same grey: gradients")


def test_ra_that_falls_with_more_steps_is_told() -> None:
    (line,) = sanity(dataclasses.replace(SOUND, by_steps={10: right(61), 20: right(55), 5: right(70)}))
    assert line == "RA still falls with more steps, from 61 % at 10 to 55 % at 20: measure it with more"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "both checks hold"),
        ({"by_eps": {0.5: right(41)}}, "one of the two checks fails"),
        ({"by_eps": {0.5: right(41)}, "by_steps": {1: right(60), 2: right(30)}}, "both checks fail"),
        ({"by_steps": {0: right(98), 20: right(60)}}, "the check over eps holds"),
        ({"by_eps": {0: right(98)}, "by_steps": {1: right(60), 2: right(30)}}, "the check over steps fails"),
        ({"by_eps": {}, "by_steps": {}}, "nothing is checked"),
    ],
)
def test_the_two_checks_in_a_few_words(changed: dict[str, Any], said: str) -> None:
    assert verdict(dataclasses.replace(SOUND, **changed)) == said


# Wilson's lower end is above 5 % from 10 of 100 on, and from 2 of 10
@pytest.mark.parametrize(("hits", "of", "told"), [(9, 100, False), (10, 100, True), (1, 10, False), (2, 10, True)])
def test_the_largest_eps_is_told_where_the_interval_is_above_five_per_cent(hits: int, of: int, told: bool) -> None:
    assert bool(sanity(dataclasses.replace(SOUND, by_eps={0.25: right(hits, of)}))) == told


@pytest.mark.parametrize(("fell", "told"), [(-9, False), (0, False), (5, False), (6, True)])
def test_steps_are_told_where_the_interval_of_what_fell_is_above_a_point(fell: int, told: bool) -> None:
    curve = dataclasses.replace(SOUND, by_steps={10: right(60), 20: right(60 - fell)})
    assert bool(sanity(curve)) == told


def test_images_that_rise_again_make_it_less_sure() -> None:
    before, last = right(60), right(54)  # six fall, which is told
    last[60:64] = True  # and four rise: 6 - 4 of 100 are within what the draws may do
    assert sanity(dataclasses.replace(SOUND, by_steps={10: before, 20: last})) == []


def test_no_attack_is_no_strength() -> None:
    assert sanity(dataclasses.replace(SOUND, by_eps={0: right(98)}, by_steps={0: right(98), 10: right(60)})) == []


def test_what_was_not_measured_is_not_judged() -> None:
    assert sanity(dataclasses.replace(SOUND, by_eps={}, by_steps={})) == []


def test_lines_are_ra_in_per_cent_and_bands_its_intervals() -> None:
    left, steps = axes_of(SOUND)
    assert left.lines[0].get_xydata().tolist() == [[0, 98], [8 / 255, 60], [64 / 255, 3]]
    assert steps.lines[0].get_xydata().tolist() == [[5, 70], [10, 61], [20, 60]]
    band = {tuple(point) for point in left.collections[0].get_paths()[0].vertices.tolist()}
    assert {(8 / 255, 100 * end) for end in wilson(60, 100)} <= band


@pytest.mark.parametrize(
    ("norm", "ticks", "title"), [("linf", ["0", "8/255", "64/255"], "eps 8/255"), ("l2", ["0", "0.5", "1"], "eps 0.5")]
)
def test_radii_are_written_as_the_field_writes_them(norm: Norm, ticks: list[str], title: str) -> None:
    radii = {"linf": [0, 8 / 255, 64 / 255], "l2": [0, 0.5, 1]}[norm]
    curve = dataclasses.replace(SOUND, norm=norm, by_eps={eps: right(50) for eps in radii}, eps=radii[1])
    left, steps = axes_of(curve)
    assert [text.get_text() for text in left.get_xticklabels()] == ticks
    assert steps.get_title() == title


def test_the_figure_says_what_does_not_hold() -> None:
    curve = dataclasses.replace(SOUND, by_eps={0.25: right(41)})
    assert draw_strength(curve).get_supxlabel() == sanity(curve)[0]
    assert draw_strength(SOUND).get_supxlabel() == ""


@pytest.mark.parametrize(
    ("by_eps", "by_steps"), [({}, {}), ({0: right(1, 1)}, {1: right(0, 1)}), ({0.1: right(1, 1)}, {})]
)
def test_whatever_was_measured_is_drawn(
    by_eps: dict[float, Tensor], by_steps: dict[int, Tensor], tmp_path: Path
) -> None:
    figure = draw_strength(dataclasses.replace(SOUND, by_eps=by_eps, by_steps=by_steps))
    said = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert said == ["not measured"] * ((not by_eps) + (not by_steps))
    assert all(file.stat().st_size for file in save_figure(figure, tmp_path / "strength.png"))


def test_many_strengths_have_few_ticks() -> None:
    curve = dataclasses.replace(SOUND, by_steps={steps: right(60) for steps in range(1, 41)})
    assert len(axes_of(curve)[1].get_xticks()) <= 9
