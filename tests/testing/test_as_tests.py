"""The suite in an author's own tests, in a pytest of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module

import pytest

from advss.plugins import forget
from advss.testing.subject import Subject
from advss.testing.verdicts import Check, DoubtError, UncheckedError

pytest_plugins = ["pytester"]
Run = Callable[..., pytest.RunResult]

PLUGIN = """
from advss.hookspecs import FinetuneScheme, Phase


class Quick(FinetuneScheme):
    {doc}

    name = "quick"

    def phases(self, classifier):
        {phases}


def advss_finetune_schemes():
    return [Quick]
"""
ALL = 'return [Phase(1.0, [{"params": list(classifier.parameters())}])]'
FEW = "docstring or option or phases or head or asked"  # checks, by words of their names
ONE_LINE = """
from advss.testing import conformance

test_quick = conformance("quick")
"""


@pytest.fixture
def run(pytester: pytest.Pytester) -> Iterator[Run]:
    """An author's package, installed, and its tests run: by default those that ask little."""

    def run_tests(
        tests: str,
        *,
        doc: str = '"""Everything trains."""',
        phases: str = ALL,
        plugin: str = PLUGIN,
        asked: str = FEW,
    ) -> pytest.RunResult:
        pytester.makepyfile(quick=plugin.format(doc=doc, phases=phases), test_it=tests)
        info = pytester.mkdir("advss_quick-1.0.dist-info")
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: advss-quick\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[advss]\nquick = quick\n")
        pytester.syspathinsert()
        forget()
        return pytester.runpytest_inprocess("-v", "-k", asked, "-W", "default::UserWarning")

    yield run_tests
    forget()


def test_every_check_is_a_test_with_a_readable_name_and_a_sound_plugin_passes_them_all(run: Run) -> None:
    result = run(ONE_LINE, asked="not under")  # which take long
    result.stdout.fnmatch_lines(["test_it.py::test_quick[[]inputs are images in 0 to 1] PASSED*"])
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] > 30
    assert not set(outcomes) & {"failed", "errors", "skipped"}


def test_a_broken_plugin_fails_the_check_and_is_told_why(run: Run) -> None:
    result = run(ONE_LINE, doc="")
    result.stdout.fnmatch_lines(["test_it.py::test_quick[[]its docstring says what it is] FAILED*"])
    result.stdout.fnmatch_lines(["class Quick has no docstring of its own; *"])
    assert result.parseoutcomes()["failed"] == 1


def test_what_a_plugin_raises_is_shown_with_its_way_there(run: Run) -> None:
    result = run(ONE_LINE, phases='raise RuntimeError("no phases today")')
    result.stdout.fnmatch_lines([">*raise RuntimeError(*no phases today*", "E*RuntimeError: no phases today"])


def test_what_an_earlier_test_said_is_not_said_again(run: Run) -> None:
    result = run(ONE_LINE, phases='raise RuntimeError("no phases today")')
    assert str(result.stdout).count('raise RuntimeError("no phases today")') == 1
    result.stdout.fnmatch_lines(["as above: 'phases have shares and known parameters'"])


def test_a_distributions_name_tests_each_of_its_plugins_and_tells_each_what_fails(run: Run) -> None:
    two = PLUGIN.replace("return [Quick]", "return [Quick, type('Slow', (Quick,), {{'name': 'slow'}})]")
    tests = ONE_LINE.replace('"quick"', '"advss-quick"')
    result = run(tests, plugin=two, phases='raise RuntimeError("no phases today")')
    for name in ("quick", "slow"):
        result.stdout.fnmatch_lines([f"test_it.py::test_quick[[]finetune {name}: the head trains] FAILED*"])
    assert str(result.stdout).count('raise RuntimeError("no phases today")') == 2


def test_a_plugin_that_is_not_installed_is_an_error_of_one_line(run: Run) -> None:
    result = run('from advss.testing import conformance\n\ntest_it = conformance("quik")\n')
    result.stdout.fnmatch_lines(["E*UsageError: unknown plugin 'quik'; did you mean 'quick'[?]"])


def test_what_is_doubtful_is_a_warning_of_a_test_that_passes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fact(subject: Subject) -> None:
        raise DoubtError("on purpose?")

    suite = import_module("advss.testing.as_tests")
    monkeypatch.setattr(suite, "checks_of", lambda kind: [Check("it is asked", fact)])
    result = run(ONE_LINE)
    assert result.parseoutcomes() == {"passed": 1, "warnings": 1}
    result.stdout.fnmatch_lines(["*UserWarning: on purpose?*"])


def test_what_cannot_be_asked_is_skipped_with_the_reason(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fact(subject: Subject) -> None:
        raise UncheckedError("not of this one")

    suite = import_module("advss.testing.as_tests")
    monkeypatch.setattr(suite, "checks_of", lambda kind: [Check("it is asked", fact)])
    result = run(ONE_LINE)
    assert result.parseoutcomes() == {"skipped": 1}
    result.stdout.fnmatch_lines(["*SKIPPED*not of this one*"])
