"""The suite as a whole: no check is without a plugin that it catches."""

from __future__ import annotations

import ast
import runpy
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import FunctionType

import pytest

from advss.hookspecs import Encoder
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


def _caught() -> Iterator[str]:
    """The facts in this folder's tables ``BROKEN``, and the names in each test that says that something is caught."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        if path != Path(__file__):
            for case in runpy.run_path(str(path)).get("BROKEN", []):
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
