"""The suite in an author's own tests."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from advss.errors import UsageError
from advss.plugins import Kind
from advss.plugins.discovery import Plugin
from advss.testing.subject import Subject, find
from advss.testing.suite import checks_of
from advss.testing.verdicts import BrokenError, Check, Told, judge


def conformance(
    name: str, *, kind: Kind | None = None, options: Mapping[str, Any] | None = None
) -> Callable[[Subject, Check], None]:
    """A test function that pytest runs once for every check of a plugin.

    Args:
        name: the plugin's, ``distribution:name``, or a distribution's, for all that it has; as a name of several kinds
            it is checked as each.
        kind: "pretext", "defense", "finetune", "evaluation", "launcher" or "data", to check it as that alone.
        options: of the plugin; those without a default are needed. Of several plugins each takes those that it has.

    Raises:
        UsageError: pytest or the plugin is not installed, or its options are refused.
    """
    try:
        import pytest
    except ModuleNotFoundError as error:
        raise UsageError("conformance() needs pytest; pip install 'advss[testing]'") from error
    subjects = find(name, kind=kind, options=options)
    asked = [(subject, check) for subject in subjects for check in checks_of(subject.kind)]
    told: dict[Plugin, Told] = defaultdict(Told)
    several = len(subjects) > 1

    @pytest.mark.parametrize(
        ("subject", "check"),
        asked,
        ids=[f"{s.kind} {s.plugin.name}: {c.name}" if several else c.name for s, c in asked],
    )
    def test(subject: Subject, check: Check) -> None:
        verdict = told[subject.plugin].once(judge(check, subject))
        if verdict.outcome == "unchecked":
            pytest.skip(verdict.message)
        if verdict.outcome == "warned":
            warnings.warn(verdict.message, stacklevel=1)
            return
        if verdict.told or isinstance(verdict.error, BrokenError):
            pytest.fail(verdict.message, pytrace=False)
        if verdict.error is not None:
            raise verdict.error  # with its way through the plugin

    return test
