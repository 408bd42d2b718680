"""``advss plugins list`` and ``show``, and -p no:NAME on any command."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from advss.cli.layout import reflowed
from advss.cli.main import main
from advss.plugins import forget

Capture = pytest.CaptureFixture[str]
ACME = """
from typing import Literal
from advss.hookspecs import Defense, PretextTask

advss_api = (1, 0)

class Shaped(Defense):
    '''Shape the ``ball``
    a little.

    A second paragraph whose first line ends in mid-sentence and
    goes on here, [as is] said elsewhere.

    - one thing
    - another

    Args:
        eps: radius, in
            pixels.
        mode: how.
    '''

    name = "shaped"

    def __init__(self, *, eps: float = 8 / 255, mode: Literal["a", "b"] = "a", steps: int): pass

def advss_defenses(): return [Shaped]
"""


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A distribution of one defense, acme 2.5; returns its module's file."""
    info = tmp_path / "acme-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text("[advss]\nall = acme_shaped\n")
    path = tmp_path / "acme_shaped.py"
    path.write_text(ACME)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    forget()
    yield path
    sys.modules.pop("acme_shaped", None)
    forget()


def shown(name: str, capsys: Capture) -> list[dict[str, object]]:
    assert main(["plugins", "show", name, "--json"]) == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


def test_list_has_the_api_and_the_status(acme: Path, capsys: Capture) -> None:
    assert main(["plugins", "list"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["kind", "name", "distribution", "version", "API", "status"]
    assert ["defense", "shaped", "acme", "2.5", "1.0", "ok"] in rows


def test_list_as_json_has_the_file(acme: Path, capsys: Capture) -> None:
    main(["plugins", "list", "--json"])
    (row,) = (row for row in json.loads(capsys.readouterr().out) if row["distribution"] == "acme")
    assert row == {
        "kind": "defense",
        "name": "shaped",
        "distribution": "acme",
        "version": "2.5",
        "file": str(acme),
        "status": "ok",
        "api": "1.0",
        "error": "",
    }


def test_show_as_json_has_the_options(acme: Path, capsys: Capture) -> None:
    (plugin,) = shown("shaped", capsys)
    assert plugin["options"] == [
        {"name": "eps", "type": "float", "default": 8 / 255, "doc": "radius, in pixels."},
        {"name": "mode", "type": "a | b", "default": "a", "doc": "how."},
        {"name": "steps", "type": "int", "default": "required", "doc": ""},
    ]
    assert (plugin["api"], plugin["status"], plugin["file"]) == ("1.0", "ok", str(acme))


def test_show_prints_them(acme: Path, capsys: Capture) -> None:
    assert main(["plugins", "show", "acme:shaped"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"shaped (defense), acme 2.5, API 1.0\n{acme}\n\nShape the ball a little.\n\n")
    rows = {words[0]: words[1:] for line in out.splitlines() if (words := line.split())}
    assert rows["--defense.eps"] == ["8/255", "radius,", "in", "pixels", "(float)"]
    assert rows["--defense.steps"] == ["required", "(int)"]


def test_show_rejoins_a_paragraph(acme: Path, capsys: Capture) -> None:
    main(["plugins", "show", "shaped"])
    joined = "A second paragraph whose first line ends in mid-sentence and goes on here, [as is]"
    lines = capsys.readouterr().out.splitlines()
    (place,) = (i for i, line in enumerate(lines) if line.startswith("A second"))
    assert " ".join(lines[place : place + 2]).replace("  ", " ").startswith(joined)
    assert len(lines[place]) > 70  # filled, not broken where the source was


def test_show_of_a_distribution_shows_all_it_has(capsys: Capture) -> None:
    names = {plugin["name"] for plugin in shown("advss", capsys)}
    assert {"selfie", "pgd", "full"} <= names


def test_show_of_a_broken_distribution_shows_its_error(acme: Path, capsys: Capture) -> None:
    acme.write_text("x = 1\n1 / 0\n")
    (plugin,) = shown("acme", capsys)
    assert (plugin["status"], plugin["error"], plugin["file"], plugin["options"]) == (
        "broken: ZeroDivisionError: division by zero",
        "ZeroDivisionError: division by zero",
        f"{acme}:2",
        [],
    )


def test_show_of_what_is_switched_off_says_so(acme: Path, capsys: Capture) -> None:
    assert main(["-p", "no:acme", "plugins", "show", "acme"]) == 0
    assert capsys.readouterr().out == "acme, acme 2.5\ndisabled by -p no:acme\n\n"


@pytest.mark.parametrize(
    ("text", "paragraphs"),
    [
        ("One\ntwo.", ["One two."]),
        ("One.\n\nTwo\nthree.\n\nArgs:\n    x: four.\n\n    y: five.", ["One.", "Two three."]),
        ("One.\n\nAttributes:\n    x: y.\n\nTwo.", ["One.", "Two."]),
        ("One::\n\n    code\n      more", ["One::", "    code\n      more"]),
        ("- a\n- b", ["- a\n- b"]),
        ("``x`` is\n\n\n\nin ``y``.", ["x is", "in y."]),
        ("", []),
    ],
)
def test_reflowed(text: str, paragraphs: list[str]) -> None:
    assert reflowed(text) == paragraphs


@pytest.mark.parametrize(
    "line",
    [
        "-p no:shaped fit --defense shaped",
        "fit -p no:shaped --defense shaped",
        "fit --defense shaped -p no:shaped",
        "fit -pno:shaped --defense shaped --print-config",
        "fit --defense shaped --pretrain-flip -p no:shaped --print-config",
        "-p no:other -p no:shaped fit --defense shaped -p no:jigsaw",
    ],
)
def test_a_plugin_is_left_out_by_name_anywhere_on_the_line(acme: Path, capsys: Capture, line: str) -> None:
    assert main(line.split()) == 2
    assert "-p no:shaped switches off 'acme:shaped'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["acme", "acme:shaped", "ACME"])
def test_a_distribution_is_left_out_by_name(acme: Path, capsys: Capture, name: str) -> None:
    main(["plugins", "list", "-p", f"no:{name}", "--json"])
    assert "ok" not in {r["status"] for r in json.loads(capsys.readouterr().out) if r["distribution"] == "acme"}


def test_a_line_leaves_out_for_itself_alone(acme: Path, capsys: Capture) -> None:
    main(["plugins", "list", "-p", "no:acme"])
    capsys.readouterr()
    main(["plugins", "show", "shaped"])
    assert capsys.readouterr().out.startswith("shaped (defense)")


@pytest.mark.parametrize(
    "line", ["--strict-plugins plugins list", "plugins list --strict-plugins", "-p no:x --strict-plugins plugins list"]
)
def test_strictness_may_stand_before_or_behind(acme: Path, capsys: Capture, line: str) -> None:
    acme.write_text("1 / 0")
    assert main(line.split()) == 2
    assert capsys.readouterr().err.startswith("advss: error: plugin acme 2.5 (all): ZeroDivisionError")


def test_it_may_stand_before_the_version(capsys: Capture) -> None:
    assert main(["-p", "no:acme", "--version"]) == 0
    assert capsys.readouterr().out == f"advss {version('advss')}\n"


def test_a_bad_switch_is_one_line(capsys: Capture) -> None:
    assert main(["fit", "-p", "acme"]) == 2
    assert capsys.readouterr().err.startswith("advss: error: -p: expected no:NAME of a plugin or distribution")


@pytest.mark.parametrize("line", ["--help", "evaluate --help", "plugins list --help"])
def test_help_tells_of_it(capsys: Capture, line: str) -> None:
    main(line.split())
    assert "-p no:NAME" in capsys.readouterr().out
