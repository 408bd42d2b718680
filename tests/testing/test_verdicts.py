from __future__ import annotations

import re
import sys
from collections.abc import Callable

import pytest
import torch

from advss.hookspecs import Views
from advss.testing.stand_ins import Mirror
from advss.testing.subject import Subject
from advss.testing.verdicts import BrokenError, Check, UncheckedError, Verdict, expect, judge
from advss.training.form import in_words

Ask = Callable[..., Verdict]
Offer = Callable[..., Subject]


def test_a_fact_that_holds_passes_and_says_nothing(ask: Ask) -> None:
    verdict = ask(Mirror, lambda subject: None)
    assert (verdict.outcome, verdict.message, verdict.error) == ("passed", "", None)


def test_what_is_expected_and_not_so_fails_with_the_message(ask: Ask) -> None:
    verdict = ask(Mirror, lambda subject: expect([], "one is\n  less"))
    assert verdict.outcome == "failed"
    assert verdict.message.startswith("one is less")
    assert isinstance(verdict.error, BrokenError)


def test_what_cannot_be_asked_is_neither(ask: Ask) -> None:
    def fact(subject: Subject) -> None:
        raise UncheckedError("no reason")

    verdict = ask(Mirror, fact)
    assert (verdict.outcome, verdict.message, verdict.error) == ("unchecked", "no reason", None)


class Raises(Mirror):
    def __init__(self) -> None:
        raise RuntimeError("out of order")


class Exits(Mirror):
    def __init__(self) -> None:
        sys.exit(3)


def test_an_exception_is_a_failure_with_its_place_in_the_plugins_file(ask: Ask) -> None:
    verdict = ask(Raises, lambda subject: subject.new())
    assert verdict.outcome == "failed"
    assert re.fullmatch(r"it raised RuntimeError: out of order \(test_verdicts\.py, line \d+\)", verdict.message)


def test_no_plugin_ends_the_program(ask: Ask) -> None:
    assert ask(Exits, lambda subject: subject.new()).message.startswith("it raised SystemExit: 3")


def test_ctrl_c_does(offer: Offer) -> None:
    def fact(subject: Subject) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge(Check("interrupted", fact), offer(Mirror))


def test_the_global_generator_is_as_found_after_a_check(ask: Ask) -> None:
    before = torch.get_rng_state()
    ask(Mirror, lambda subject: expect(torch.rand(3).ndim == 1, ""))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_check_runs_on_one_thread_and_gives_the_others_back(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = [3]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    assert ask(Mirror, lambda subject: expect(threads == [3, 1], f"{threads}")).message == ""
    assert threads == [3, 1, 3]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "NoneType"),
        (3, "int"),
        (torch.zeros(6, 3), "Tensor of shape (6, 3)"),
        ((torch.zeros(2), {"label": 1, "b": 2}), "tuple (Tensor of shape (2,), dict of 'label', 'b')"),
        ([0] * 6, "list (int, int, int, int, ...)"),
        ({}, "empty dict"),
        ([], "empty list"),
        (Views(torch.zeros(2)), "Views (inputs = Tensor of shape (2,), targets = empty dict)"),  # type: ignore[arg-type]
    ],
)
def test_a_value_is_said_in_types_and_shapes(value: object, words: str) -> None:
    assert in_words(value) == words
