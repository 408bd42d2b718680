from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from advss.errors import UsageError
from advss.hookspecs import Defense
from advss.plugins import KINDS
from advss.testing.stand_ins import Mirror
from advss.testing.subject import Subject, find

Offer = Callable[..., Subject]


class Wide(Mirror):
    """With an option that must be given.

    Args:
        width: of the head.
    """

    name = "wide"

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.width = width


class WideDefense(Defense):
    """Of the same name."""

    name = "wide"


def test_a_short_name_and_a_full_one_find_the_same() -> None:
    assert find("rotation") == find("advss:rotation") != find("jigsaw")


def test_a_name_of_several_kinds_finds_each(offer: Offer) -> None:
    offer(Mirror)
    offer(WideDefense)

    class Same(WideDefense):
        name = "mirror"

    offer(Same)
    assert [subject.kind for subject in find("mirror")] == ["pretext", "defense"]
    assert [subject.kind for subject in find("mirror", kind="defense")] == ["defense"]


def test_a_distributions_name_finds_all_it_has_in_any_spelling(offer: Offer) -> None:
    offer(Mirror)
    assert [subject.plugin.offered for subject in find("Elsewhere")] == [Mirror]
    of_advss = find("advss", options={"root": "."})
    assert [kind for kind, _ in itertools.groupby(subject.kind for subject in of_advss)] == list(KINDS)
    assert find("advss", kind="pretext") == [subject for subject in of_advss if subject.kind == "pretext"]


def test_of_a_distributions_plugins_each_takes_its_own_options(offer: Offer) -> None:
    offer(Mirror)
    offer(Wide)
    assert [subject.options for subject in find("elsewhere", options={"width": 7})] == [{}, {"width": 7}]
    with pytest.raises(UsageError, match=r"unknown option --pretext\.widht of mirror"):
        find("elsewhere", options={"width": 7, "widht": 7})


def test_a_plugins_name_goes_before_a_distributions(offer: Offer) -> None:
    class Same(WideDefense):
        name = "elsewhere"

    offer(Same)
    offer(Mirror)
    assert [subject.plugin.offered for subject in find("elsewhere")] == [Same]


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown plugin 'rotatoin'; did you mean 'rotation'"):
        find("rotatoin")


def test_a_name_of_another_kind_is_unknown() -> None:
    with pytest.raises(UsageError, match="unknown defense 'rotation'"):
        find("rotation", kind="defense")


def test_an_option_that_must_be_given_is_named(offer: Offer) -> None:
    offer(Wide)
    with pytest.raises(UsageError, match=r"--pretext\.width is missing: wide has no default for it \(int\)"):
        find("wide")


def test_options_are_those_of_the_object(offer: Offer) -> None:
    offer(Wide)
    (subject,) = find("wide", options={"width": "7"})
    assert subject.new().width == 7


def test_an_unknown_option_is_refused(offer: Offer) -> None:
    offer(Wide)
    with pytest.raises(UsageError, match=r"unknown option --pretext\.widht of wide; did you mean 'width'"):
        find("wide", options={"widht": 7})


def test_a_data_source_is_asked_for_a_side() -> None:
    subject = find("digits", options={"size": "8"})[0]
    assert (subject.size, subject.new().size, subject.options) == (8, 8, {})
