"""Twenty hostile and unlucky distributions installed at once, and the real advss beside them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from advss.plugins.discovery import discover

HEAD = "from advss.hookspecs import Defense, PretextTask, hookimpl\n"
OFFER = HEAD + "class Offered(Defense):\n    name = {name!r}\ndef advss_defenses():\n    return [Offered]\n"
BROKEN = {  # distribution -> code, and what its one line says
    "imports-nothing": ("import no_such_module_anywhere", "No module named 'no_such_module_anywhere'"),
    "exits": ("import sys\nsys.exit(0)", "SystemExit: 0"),
    "exits-late": ("def advss_defenses():\n    raise SystemExit", "SystemExit"),
    "asks": ("input('Your name? ')", "EOFError"),
    "takes-arguments": (HEAD + "@hookimpl\ndef advss_defenses(config):\n    return []", "{'config'} are declared"),
    "unknown-hook": ("def advss_defence():\n    return []", "did you mean 'advss_defenses'?"),
    "raises": ("def advss_defenses():\n    raise RuntimeError('a\\nb')", "RuntimeError: a b"),
    "nonsense": ("def advss_defenses():\n    return {'a': 1}", "must return a list of classes, got dict"),
    "of-the-future": ("advss_api = (2, 0)\n" + OFFER.format(name="later"), "needs advss API 2.0, this is 1."),
    "nameless": (OFFER.format(name=None), "class Offered has the name None"),
    "spaced": (OFFER.format(name="my defense"), "class Offered has the name 'my defense'"),
    "path": (OFFER.format(name="../../etc/x"), "class Offered has the name '../../etc/x'"),
    "hookless": ("x = 1", "defines none of the hooks"),
    "unsayable": ("class E(Exception):\n    def __str__(self): return 1 / 0\nraise E", "E"),
}
UNTIDY = {
    "chatty": ("print('x' * 10**6)\nimport os\nos.write(1, b'y' * 10**6)\n", "printed 2,000,001 bytes on stdout"),
    "spoiler": (
        "import torch, warnings\ntorch.manual_seed(1)\ntorch.set_default_dtype(torch.float64)\n"
        "warnings.simplefilter('error')\n",
        "changed torch's global generator and torch's default dtype and the warnings' filters, put back",
    ),
}
FINE = {"twin-one": "twin", "twin-two": "twin", "shadow": "pgd", "plain": "plain"}  # distribution -> its defense


def install(folder: Path, name: str, code: str, *, version: str = "1.0", entry: str = "pretext") -> None:
    """What pip leaves of a distribution; the entry point is called as one of the built-in ones."""
    module = "m_" + name.replace("-", "_")
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[advss]\n{entry} = {module}\n")
    (folder / f"{module}.py").write_text(code)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables under which all of them are installed."""
    folder = tmp_path_factory.mktemp("site")
    for name, (code, _) in BROKEN.items():
        install(folder / "site", name, code)
    for name, (code, _) in UNTIDY.items():
        install(folder / "site", name, code + OFFER.format(name=name))
    for name, defense in FINE.items():
        install(folder / "site", name, OFFER.format(name=defense))
    install(folder / "older", "plain", OFFER.format(name="outdated"), version="0.9")
    (folder / "site" / "half_removed-1.0.dist-info").mkdir()
    path = os.pathsep.join([str(folder / "site"), str(folder / "older")])
    clean = {key: value for key, value in os.environ.items() if not key.startswith("ADVSS_")}
    return clean | {"PYTHONPATH": path, "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def listed(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return advss("plugins", "list", "--json", environment=environment)


def advss(*words: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("advss")
    return subprocess.run([program, *words], env=environment, capture_output=True, text=True, check=False)


def rows(listed: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(listed.stdout)
    return found


def test_the_rest_works(listed: subprocess.CompletedProcess[str]) -> None:
    assert listed.returncode == 0
    names = {(row["distribution"], row["name"]) for row in rows(listed) if row["status"] == "ok"}
    builtin = {("advss", plugin.name) for plugin in discover().plugins if plugin.distribution == "advss"}
    assert names == builtin | {("plain", "plain"), ("chatty", "chatty"), ("spoiler", "spoiler")}


def test_each_is_one_line_on_stderr(listed: subprocess.CompletedProcess[str]) -> None:
    lines = listed.stderr.splitlines()
    assert all(line.startswith("advss: warning: plugin ") for line in lines)
    assert Counter(line.split()[3] for line in lines) == Counter([*BROKEN, *UNTIDY])


@pytest.mark.parametrize("name", [*BROKEN, *UNTIDY])
def test_its_line_says_what_is_wrong(listed: subprocess.CompletedProcess[str], name: str) -> None:
    _, said = (BROKEN | UNTIDY)[name]
    (line,) = (line for line in listed.stderr.splitlines() if f"plugin {name} 1.0 (pretext): " in line)
    assert said in line


def test_its_row_has_the_error(listed: subprocess.CompletedProcess[str]) -> None:
    found = {row["distribution"]: (row["status"].partition(":")[0], row["error"]) for row in rows(listed)}
    assert all(
        found[name] == ("broken", found[name][1]) and said in found[name][1] for name, (_, said) in BROKEN.items()
    )


def test_rivals_are_called_by_their_full_names(listed: subprocess.CompletedProcess[str]) -> None:
    found = {row["distribution"]: row["status"] for row in rows(listed) if row["distribution"] in FINE}
    twins = {"twin-one": "use twin-one:twin", "twin-two": "use twin-two:twin"}
    assert found == {**twins, "shadow": "use shadow:pgd", "plain": "ok"}


def test_the_first_version_on_the_path_counts(listed: subprocess.CompletedProcess[str]) -> None:
    assert {row["version"] for row in rows(listed) if row["distribution"] == "plain"} == {"1.0"}
    assert "outdated" not in {row["name"] for row in rows(listed)}


def test_strict_is_an_error(environment: dict[str, str]) -> None:
    done = advss("plugins", "list", "--json", "--strict-plugins", environment=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("advss: error: plugin asks 1.0 (pretext): EOFError")
    assert len(done.stderr.splitlines()) == 1


def test_all_of_them_switched_off_is_silence(environment: dict[str, str]) -> None:
    off = [word for name in [*BROKEN, *UNTIDY] for word in ("-p", f"no:{name}")]
    words = ("fit", *off, "--strict-plugins", "--defense", "plain", "--config", "digits", "--print-config")
    done = advss(*words, environment=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "defense:\n  plain: {}" in done.stdout


def test_the_version_imports_none_of_them(environment: dict[str, str]) -> None:
    done = advss("--version", environment=environment)
    assert (done.returncode, done.stderr, done.stdout.split()[0]) == (0, "", "advss")
