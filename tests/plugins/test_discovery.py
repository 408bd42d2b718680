"""Discovery finds what is installed and survives whatever it is."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from advss.errors import UsageError
from advss.plugins import registry
from advss.plugins.discovery import Fault, discover

Install = Callable[..., str]
HEAD = "from advss.hookspecs import Defense, FinetuneScheme, PretextTask, hookimpl\n"
GOOD = """
from advss.hookspecs import Defense

class Good(Defense):
    name = "good"

def advss_defenses():
    return [Good]
"""


def faults_of(name: str) -> list[Fault]:
    return [fault for fault in discover().faults if fault.distribution == name]


def offering(expression: str, *, hook: str = "advss_defenses") -> str:
    return f"{HEAD}\ndef {hook}():\n    return {expression}\n"


def test_builtins_come_through_the_entry_points() -> None:
    found = {(p.kind, p.name) for p in discover().plugins if p.distribution == "advss"}
    assert {("pretext", "selfie"), ("defense", "pgd"), ("finetune", "full")} <= found


def test_an_unmarked_function_of_a_hooks_name_is_a_hook(install: Install) -> None:
    install("acme", GOOD)
    assert ("good", "acme", "2.5") in {(p.name, p.distribution, p.version) for p in discover().plugins}


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("raise SystemExit('bye')", "SystemExit: bye"),
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ("def broken(:", "SyntaxError"),
        (f"{HEAD}def advss_defenses():\n    raise KeyError('x')", "KeyError: 'x'"),
        (f"{HEAD}def advss_defenses():\n    raise SystemExit(3)", "SystemExit: 3"),
        (f"{HEAD}def advss_defence():\n    return []", "unknown hook 'advss_defence'; did you mean 'advss_defenses'"),
        (f"{HEAD}@hookimpl\ndef advss_pretext():\n    return []", "did you mean 'advss_pretext_tasks'"),
        (f"{HEAD}@hookimpl\ndef advss_defenses(config):\n    return []", "PluginValidationError"),
        (offering("None"), "advss_defenses() must return a list of classes, got NoneType"),
        (offering("Defense"), "must return a list of classes, got type"),
        (offering("[3]"), "3 is not a subclass of Defense"),
        (offering("[PretextTask]"), "is not a subclass of Defense"),
        (offering("[Defense()]"), "a hook gives an object of Defense; return the class, not an instance"),
        (offering("[type('D', (Defense,), {})]"), "class D has the name None"),
        (offering("[type('D', (Defense,), {'name': 'my defense'})]"), "class D has the name 'my defense'"),
        (offering("[type('D', (Defense,), {'name': '../x'})]"), "class D has the name '../x'"),
        (offering("[type('D', (Defense,), {'name': 'a:b'})]"), "class D has the name 'a:b'"),
        (offering("[type('D', (Defense,), {'name': 7})]"), "class D has the name 7"),
        (
            offering("[type('T', (PretextTask,), {'name': 'none'})]", hook="advss_pretext_tasks"),
            "class T has the name 'none'",
        ),
        (
            offering("[type('T', (PretextTask,), {'name': 'fresh'})]", hook="advss_pretext_tasks"),
            "class T has the name 'fresh'",
        ),
        (offering("[type('D', (Defense,), {'name': 'd' * 101})]"), "class D has the name 'ddd"),
        (offering("[type('D', (Defense,), {'name': 'd'})] * 2"), "offers the defense 'd' twice"),
        ("advss_api = (2, 0)\n" + GOOD, "needs advss API 2.0, this is 1.0; upgrade advss"),
        ("advss_api = 'new'\n" + GOOD, "advss_api must be a pair of integers such as (1, 0), got 'new'"),
        ("x = 1", "defines none of the hooks advss_pretext_tasks, advss_defenses, advss_finetune_schemes"),
        (
            "from advss.hookspecs import *",
            "only imports advss_pretext_tasks; mark it with @hookimpl where it is defined",
        ),
        ("class E(Exception):\n    def __str__(self): return 1 / 0\nraise E", "E"),
        ("raise ValueError('x' * 10**7)", "xxx..."),
        ("raise ValueError('\\x1b[31mred\\rgone')", "ValueError: [31mred gone"),
        ("def f(): f()\nf()", "RecursionError"),
        ("import asyncio\nraise asyncio.CancelledError", "CancelledError"),
        ("raise BaseException('base')", "BaseException: base"),
        ("input('name? ')", "EOFError"),
        (offering("[type('D', (Defense,), {'name': 'd' * 3 + '\\n'})]"), "class D has the name"),
        (f"{HEAD}def advss_defenses():\n    yield Defense", "must return a list of classes, got generator"),
    ],
)
def test_a_broken_plugin_is_one_fault_and_the_rest_works(install: Install, code: str, error: str) -> None:
    install("broken-one", code)
    install("acme", GOOD)
    found = discover()
    (fault,) = (f for f in found.faults if f.distribution == "broken-one")
    assert error in fault.error
    assert "\n" not in str(fault)
    assert {"good", "selfie", "pgd", "full"} <= {p.name for p in found.plugins}


@pytest.mark.parametrize(
    ("target", "error"),
    [
        (":nothing", "AttributeError: module"),
        (":Good", "names {module}:Good, which is no module; name the one with the hooks"),
        (".missing", "ModuleNotFoundError"),
        (" not a module", "AttributeError|ValueError"),  # importlib.metadata's, or its backport's that mlflow imports
    ],
)
def test_an_entry_point_that_names_no_module(install: Install, target: str, error: str) -> None:
    module = install("acme", GOOD, target=target)
    (fault,) = faults_of("acme")
    assert re.search(error.format(module=module), fault.error)


def test_entry_points_that_cannot_be_read(install: Install, tmp_path: Path) -> None:
    module = install("acme", GOOD)
    (tmp_path / module / "acme-2.5.dist-info" / "entry_points.txt").write_text("[advss]\nno equals sign\n")
    (fault,) = faults_of("acme")
    assert (fault.version, fault.entry_point) == ("2.5", "entry_points.txt")
    assert "cannot be read" in fault.error


def test_a_distribution_without_metadata_is_called_as_its_folder(install: Install, tmp_path: Path) -> None:
    module = install("acme", GOOD)
    (tmp_path / module / "acme-2.5.dist-info" / "METADATA").unlink()
    assert ("good", "acme", "2.5") in {(p.name, p.distribution, p.version) for p in discover().plugins}


def test_a_fault_names_the_line(install: Install, tmp_path: Path) -> None:
    module = install("acme", "x = 1\n\ny = x / 0\n")
    (fault,) = faults_of("acme")
    assert fault.place == f"{tmp_path / module / module}.py:3"


def test_a_syntax_error_names_its_line(install: Install, tmp_path: Path) -> None:
    module = install("acme", "x = 1\ndef broken(:\n")
    (fault,) = faults_of("acme")
    assert fault.place == f"{tmp_path / module / module}.py:2"


@pytest.mark.parametrize(("said", "api"), [("advss_api = (1, 0)\n", "1.0"), ("", "")])
def test_a_plugin_tells_its_api(install: Install, said: str, api: str) -> None:
    install("acme", said + GOOD)
    assert [p.api for p in discover().plugins if p.name == "good"] == [api]


def test_a_plugin_on_an_older_copy_of_its_distribution_is_hidden(install: Install, tmp_path: Path) -> None:
    """Python imports the first on the path, which has no plugin; so a plugin of the second is none."""
    install("acme", GOOD)
    module = install("Acme", GOOD, version="3.0")
    (tmp_path / module / "Acme-3.0.dist-info" / "entry_points.txt").unlink()
    assert "good" not in {p.name for p in discover().plugins}


def test_a_slow_import_is_named(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advss.plugins.discovery.SLOW_S", 0.2)
    install("acme", "import time\ntime.sleep(0.3)\n" + GOOD)
    (fault,) = faults_of("acme")
    assert (fault.status, fault.error) == ("slow", "took 0 s to import; -p no:acme leaves it out")
    assert "good" in {p.name for p in discover().plugins}


def test_a_slow_hook_is_named(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advss.plugins.discovery.SLOW_S", 0.2)
    install("acme", "import time\n" + GOOD.replace("return", "time.sleep(0.3); return"))
    assert [fault.status for fault in faults_of("acme")] == ["slow"]


def test_a_slow_plugin_is_no_error_under_strict(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advss.plugins.discovery.SLOW_S", 0.0)
    install("acme", GOOD)
    assert [f.status for f in registry(strict=True).found.faults] == ["slow"]


@pytest.mark.parametrize(
    ("init", "error"),
    [
        ("self, eps: float = 1.0", "option 'eps' of class Odd must be keyword-only and annotated"),
        ("self, *, eps=1.0", "option 'eps' of class Odd must be keyword-only and annotated"),
        ("self, **options: float", "option 'options' of class Odd must be keyword-only and annotated"),
        ("self, *, eps: 'Missing' = 1.0", "NameError: name 'Missing' is not defined"),
    ],
)
def test_options_must_be_keyword_only_and_typed(install: Install, init: str, error: str) -> None:
    code = f"{HEAD}\nclass Odd(Defense):\n    name = 'odd'\n    def __init__({init}):\n        pass\n"
    install("acme", code + "\ndef advss_defenses():\n    return [Odd]\n")
    (fault,) = faults_of("acme")
    assert error in fault.error


def test_a_class_that_breaks_leaves_its_neighbours(install: Install) -> None:
    install("acme", GOOD.replace("[Good]", "[None, Good]"))
    assert len(faults_of("acme")) == 1
    assert "good" in {p.name for p in discover().plugins}


def test_an_unknown_hook_leaves_the_known_ones(install: Install) -> None:
    install("acme", GOOD + "\ndef advss_report():\n    return []\n")
    assert "unknown hook 'advss_report'" in faults_of("acme")[0].error
    assert "good" in {p.name for p in discover().plugins}


def test_an_older_api_of_the_same_major_is_taken(install: Install) -> None:
    install("acme", "advss_api = (1, 9)\n" + GOOD)
    assert faults_of("acme") == []


def test_a_newer_major_is_not_asked_for_its_classes(install: Install) -> None:
    install("acme", "advss_api = (2, 0)\n" + GOOD.replace("return [Good]", "raise AssertionError"))
    (fault,) = faults_of("acme")
    assert "AssertionError" not in fault.error


def test_entry_points_of_one_name_do_not_hide_each_other(install: Install) -> None:
    install("acme", GOOD, entry="defenses")
    install("other", GOOD.replace('"good"', '"better"'), entry="defenses")
    names = {p.name for p in discover().plugins}
    assert {"good", "better", "pgd"} <= names


def test_one_module_behind_two_distributions_is_a_fault(install: Install, tmp_path: Path) -> None:
    module = install("acme", GOOD)
    info = tmp_path / module / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[advss]\nagain = {module}\n")
    assert "already registered" in faults_of("other")[0].error
    assert "good" in {p.name for p in discover().plugins}


def test_the_first_of_two_distributions_of_a_name_counts(install: Install) -> None:
    install("acme", GOOD, version="1.0")
    install("Acme", GOOD, version="2.0")
    assert {p.version for p in discover().plugins if p.name == "good"} == {"2.0"}


def test_ctrl_c_is_not_a_fault(install: Install) -> None:
    install("acme", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        discover()


@pytest.mark.parametrize("said", ["good", "acme-lab", "ACME_lab", "acme.lab:good", "x, good"])
def test_plugins_are_disabled_by_name(install: Install, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    install("acme-lab", GOOD)
    monkeypatch.setenv("ADVSS_DISABLE_PLUGINS", said)
    assert "good" not in {p.name for p in discover().plugins}


@pytest.mark.parametrize("said", ["goo", "acme", "acme-lab:other", "other:good"])
def test_other_names_disable_nothing(install: Install, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    install("acme-lab", GOOD)
    monkeypatch.setenv("ADVSS_DISABLE_PLUGINS", said)
    assert "good" in {p.name for p in discover().plugins}


def test_a_disabled_distribution_is_not_imported(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    module = install("acme", GOOD)
    monkeypatch.setenv("ADVSS_DISABLE_PLUGINS", "acme")
    discover()
    assert module not in sys.modules


def test_a_broken_plugin_is_one_line_on_stderr(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("acme", "raise RuntimeError('out of order')")
    registry()
    registry()
    line = "advss: warning: plugin acme 2.5 (plugin): RuntimeError: out of order\n"
    assert capsys.readouterr().err == line


def test_strict_makes_it_an_error(install: Install) -> None:
    install("acme", "raise RuntimeError('out of order')")
    with pytest.raises(UsageError, match=r"plugin acme 2\.5 \(plugin\): RuntimeError: out of order"):
        registry(strict=True)


def test_strict_by_environment(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("acme", "raise RuntimeError('out of order')")
    monkeypatch.setenv("ADVSS_STRICT_PLUGINS", "1")
    with pytest.raises(UsageError, match="out of order"):
        registry()


def test_plugins_is_imported_without_torch() -> None:
    import subprocess

    code = (
        "import sys, advss.plugins, advss.cli.commands, advss.configuration.resolve; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
