"""Plugins made up in a test, found as installed ones are, and asked one check."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest

from advss.hookspecs import DataSource, Defense, Evaluation, FinetuneScheme, Launcher, PretextTask
from advss.plugins import Kind, forget, registry
from advss.plugins.discovery import Discovery, Plugin
from advss.testing.subject import Subject
from advss.testing.verdicts import Check, Verdict, judge

Offer = Callable[..., Subject]
Ask = Callable[..., Verdict]
BASES: dict[type, Kind] = {
    PretextTask: "pretext",
    Defense: "defense",
    FinetuneScheme: "finetune",
    Evaluation: "evaluation",
    Launcher: "launcher",
    DataSource: "data",
}


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Offer]:
    """Let a class be installed, by a distribution of the name "elsewhere"."""

    def install(offered: Any, **options: Any) -> Subject:
        kind = next(kind for base, kind in BASES.items() if issubclass(offered, base))
        plugin = Plugin(kind, offered.name, offered, "elsewhere", "1.0")
        found = Discovery([*registry().found.plugins, plugin])
        monkeypatch.setattr(import_module("advss.plugins.registry"), "_discovered", lambda: found)
        return Subject(plugin, options)

    yield install
    monkeypatch.undo()
    forget()


@pytest.fixture
def ask(offer: Offer) -> Ask:
    """The verdict of one check on a class."""

    def ask_one(offered: Any, fact: Callable[[Subject], None], **options: Any) -> Verdict:
        return judge(Check(fact.__name__, fact), offer(offered, **options))

    return ask_one
