"""What the contract asks of a plugin, asked of every one that is installed, by whomever: the suite of advss.testing."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from advss import hookspecs
from advss.plugins import KINDS, options_of, registry
from advss.plugins.discovery import GROUP
from advss.plugins.kinds import HOOKS
from advss.testing.subject import Subject
from advss.testing.suite import checks_of
from advss.testing.verdicts import Check, judge

QUICK: dict[tuple[str, str], dict[str, Any]] = {  # options of what takes minutes without
    ("evaluation", "certify"): {"n0": 10, "n": 40},
    ("evaluation", "corruptions"): {"kinds": ("shot_noise", "jpeg_compression"), "severities": (1, 5)},
    ("evaluation", "autoattack"): {"version": "custom", "attacks": ("apgd-ce", "fab-t")},  # all: tests/attacks
    ("evaluation", "unforeseen"): {"attacks": ("pgd_linf", "jpeg_l1", "gabor"), "steps": 2},  # all: tests/unforeseen
}
SUBJECTS = [
    # sources of data that lie somewhere are asked where there are some: tests/data/test_contract.py
    Subject(plugin, QUICK.get((plugin.kind, plugin.name), {}))
    for plugin in registry().found.plugins
    if plugin.kind != "data" or not options_of(plugin.offered)
]
ASKED = [(subject, check) for subject in SUBJECTS for check in checks_of(subject.kind)]


def test_the_suite_covers_every_hook_of_the_contract() -> None:
    specified = {name for name, f in inspect.getmembers(hookspecs, inspect.isfunction) if hasattr(f, "advss_spec")}
    assert specified == set(HOOKS)
    assert set(HOOKS.values()) == set(KINDS) == {subject.kind for subject in SUBJECTS}


def test_no_installed_plugin_is_broken() -> None:
    assert registry().found.faults == []


@pytest.mark.parametrize(("subject", "check"), ASKED, ids=[f"{s.kind}-{s.choice.name}: {c.name}" for s, c in ASKED])
def test_it_keeps_the_contract(subject: Subject, check: Check) -> None:
    verdict = judge(check, subject)
    if verdict.outcome == "unchecked" and (
        subject.kind in ("data", "launcher") or subject.plugin.distribution != GROUP
    ):
        pytest.skip(verdict.message)
    assert verdict.outcome == "passed", verdict.message
