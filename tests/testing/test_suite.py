"""The suite as a whole: no check is without a plugin that it catches."""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from advss.hookspecs import Batch, Encoder, Loss, Views
from advss.plugins import registry
from advss.plugins.discovery import Discovery
from advss.plugins.faults import Fault
from advss.testing.checks.options import its_distribution_is_found_without_fault
from advss.testing.stand_ins import Mirror
from advss.testing.subject import Subject
from advss.testing.suite import EVERY, OF_KIND, check, it_is_made
from advss.testing.verdicts import Verdict

Ask = Callable[..., Verdict]
Offer = Callable[..., Subject]
FACTS = sorted({fact.__name__ for facts in (EVERY, *OF_KIND.values()) for fact in facts})


class Unbuilt(Mirror):
    """Fails where its head is made."""

    name = "unbuilt"

    def build(self, encoder: Encoder) -> None:
        raise ValueError("grid must divide the images' side 32, got 5")


class PlainPair(Mirror):
    """Returns a pair in place of Views."""

    name = "plain-pair"

    def views(self, batch: Batch, generator: Generator) -> Views:
        found = super().views(batch, generator)
        return found.inputs, found.targets  # type: ignore[return-value]


class BareValue(Mirror):
    """Returns a tensor in place of a Loss."""

    name = "bare-value"

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        return super().loss(encoder, inputs, targets).value  # type: ignore[return-value]


class OneLogits(Mirror):
    """Returns a tensor in place of a tuple of them."""

    name = "one-logits"

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        loss = super().loss(encoder, inputs, targets)
        return Loss(loss.value, loss.logits[0])  # type: ignore[arg-type]


class NoNumber(Mirror):
    """A loss that is nan."""

    name = "no-number"

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        loss = super().loss(encoder, inputs, targets)
        return Loss(loss.value * float("nan"), loss.logits)


class InPlace(Mirror):
    """Changes the batch."""

    name = "in-place"

    def views(self, batch: Batch, generator: Generator) -> Views:
        batch.x.mul_(0.5)
        return super().views(batch, generator)


class GlobalDraw(Mirror):
    """Draws labels from the global generator."""

    name = "global-draw"

    def views(self, batch: Batch, generator: Generator) -> Views:
        return Views((batch.x,), {"label": torch.randint(2, (len(batch.x),), device=batch.x.device)})


def _caught() -> Iterator[str]:
    """The facts in this folder's tables ``BROKEN`` and ``DOUBTFUL``, and names in tests that say what is caught."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        if path != Path(__file__):
            tables = runpy.run_path(str(path))
            for case in (*tables.get("BROKEN", []), *tables.get("DOUBTFUL", [])):
                yield from (thing.__name__ for thing in case if isinstance(thing, FunctionType))
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and "caught" in node.name:
                names = [n for n in ast.walk(node) if isinstance(n, ast.Attribute | ast.Name)]
                yield from (n.attr if isinstance(n, ast.Attribute) else n.id for n in names)


CAUGHT = set(_caught())


@pytest.mark.parametrize("fact", FACTS)
def test_a_broken_plugin_is_there_for(fact: str) -> None:
    assert fact in CAUGHT


def test_a_task_that_cannot_be_built_is_caught_and_no_more_is_asked(ask: Ask, offer: Offer) -> None:
    verdict = ask(Unbuilt, it_is_made)
    assert verdict.outcome == "failed"
    assert "grid must divide the images' side 32, got 5" in verdict.message
    verdicts = list(check(offer(Unbuilt)))
    assert (verdicts[-1].check, verdicts[-1].outcome) == ("it is made", "failed")


@pytest.mark.parametrize("status", ["broken", "untidy"])
def test_a_fault_of_its_distribution_is_caught(offer: Offer, monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    subject = offer(Mirror)
    fault = Fault("other", "elsewhere", "1.0", "prints while it is imported", status, "other.py:3")  # type: ignore[arg-type]
    found = Discovery([*registry().found.plugins], [fault])
    monkeypatch.setattr(import_module("advss.plugins.registry"), "_discovered", lambda: found)
    with pytest.raises(AssertionError, match=f"other is {status}: prints while it is imported other.py:3"):
        its_distribution_is_found_without_fault(subject)


def _failures(subject: Subject) -> dict[str, str]:
    """What each check says that fails, where it is not said above."""
    return {v.check: v.message for v in check(subject) if v.outcome == "failed" and not v.told}


@pytest.mark.parametrize(
    ("offered", "told"),
    [
        (
            PlainPair,
            r"views\(\) returns tuple \(tuple \(Tensor of shape \(., 3, 32, 32\)\), dict of 'label'\); return ",
        ),
        (BareValue, r"loss\(\) returns Tensor of shape \(\); return Loss\("),
        (OneLogits, r"Loss.logits is Tensor of shape \(6, 2\); give a tuple"),
        (InPlace, r"views\(\) changes batch.x in place; clone it first"),
    ],
)
def test_one_cause_is_told_once(offer: Offer, offered: type, told: str) -> None:
    failures = _failures(offer(offered))
    (message,) = failures.values()
    assert re.match(told, message), failures


def test_a_message_of_before_names_the_check_that_said_it(offer: Offer) -> None:
    verdicts = {verdict.check: verdict.message for verdict in check(offer(BareValue))}
    assert verdicts["it can be copied"] == "as above: 'the loss is a finite float32 scalar'"


def test_of_a_loss_that_is_not_finite_nothing_else_is_said(offer: Offer) -> None:
    verdicts = list(check(offer(NoNumber)))
    assert {v.check: v.message for v in verdicts if v.outcome == "failed"} == {
        "the loss is a finite float32 scalar": "Loss.value is nan at random images and fresh heads",
    }
    assert {v.message for v in verdicts if v.outcome == "unchecked" and not v.told} == {"its loss is not finite: nan"}


class Regression(Mirror):
    """Gives no logits."""

    name = "regression"

    def __init__(self) -> None:
        super().__init__(logits=False)


def test_what_a_task_lacks_is_told_once_whatever_defenses_need_it(offer: Offer) -> None:
    verdicts = [v for v in check(offer(Regression)) if v.outcome != "passed"]
    assert {v.outcome for v in verdicts} == {"unchecked"}
    assert [(v.check, v.message) for v in verdicts if not v.told] == [
        ("it trains under trades", "it gives no Loss.logits, which this defense needs")
    ]


def test_what_follows_from_views_that_do_not_repeat_is_not_compared(offer: Offer) -> None:
    verdicts = list(check(offer(GlobalDraw)))
    assert [v.check for v in verdicts if v.outcome == "unchecked"] == [
        "its state survives a checkpoint",
        "the loss in channels last is the same",
    ]
    assert [v.message for v in verdicts if v.outcome == "unchecked" and not v.told] == ["views do not repeat"]
    assert [v.check for v in verdicts if v.outcome == "failed"] == [
        "views follow from the generator alone",
        "views leave batch and global generator alone",
    ]
