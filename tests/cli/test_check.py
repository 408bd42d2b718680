from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
from torch import Generator, Tensor

from advss.cli.main import main
from advss.hookspecs import Batch, Defense, Loss, Views
from advss.plugins import forget, registry
from advss.plugins.discovery import Discovery, Plugin
from advss.plugins.faults import Fault
from advss.testing.ready import ready
from advss.testing.stand_ins import Mirror
from advss.testing.subject import Subject
from advss.testing.verdicts import BrokenError, Check, DoubtError, UncheckedError

Install = Callable[..., None]
PLACE = re.compile(r" \(test_check\.py, line \d+\)")


class Wide(Mirror):
    """With an option that must be given, and one that takes a sequence.

    Args:
        width: of the head.
        places: of images.
    """

    name = "wide"

    def __init__(self, *, width: int, places: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.width, self.places = width, places


class Plain(Mirror):
    """As the stand-in."""

    name = "plain"


class PlainDefense(Defense):
    """Of the task's name."""

    name = "plain"


class Around(Defense):
    """Around another.

    Args:
        base: the other.
    """

    name = "around"

    def __init__(self, *, base: Defense | str = "pgd") -> None:
        self.base = base


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Let classes be installed by "elsewhere", and things be wrong with distributions."""
    kinds: dict[Any, Any] = {Mirror: "pretext", Defense: "defense"}

    def install_all(*offered: Any, faults: tuple[Fault, ...] = ()) -> None:
        plugins = [
            Plugin(kind, o.name, o, "elsewhere", "1.0")
            for o in offered
            for b, kind in kinds.items()
            if issubclass(o, b)
        ]
        found = Discovery([*registry().found.plugins, *plugins], list(faults))
        monkeypatch.setattr(import_module("advss.plugins.registry"), "_discovered", lambda: found)

    yield install_all
    monkeypatch.undo()
    forget()


def holds(subject: Subject) -> None:
    pass


def fails(subject: Subject) -> None:
    raise BrokenError("it is 3; make it 4")


def doubts(subject: Subject) -> None:
    raise DoubtError("it is 3 on purpose?")


def unasked(subject: Subject) -> None:
    raise UncheckedError("nobody asks")


def has_a_loss(subject: Subject) -> None:
    it = ready(subject)
    it.loss(it.views())


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three checks, one of each outcome."""
    checks = [Check("it holds", holds), Check("it fails", fails), Check("it is asked", unasked)]
    monkeypatch.setattr(import_module("advss.testing.suite"), "checks_of", lambda kind: checks)


def with_object(monkeypatch: pytest.MonkeyPatch, look: Callable[[Any], None]) -> None:
    """One check, which looks at the plugin's object."""
    check = Check("it is made", lambda subject: look(subject.new()))
    monkeypatch.setattr(import_module("advss.testing.suite"), "checks_of", lambda kind: [check])


def test_a_built_in_passes_in_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    began = time.process_time()
    assert main(["plugins", "check", "partial"]) == 0
    assert time.process_time() - began < 20
    out = capsys.readouterr().out
    assert out.startswith("partial (finetune), advss ")
    assert "✓ inputs are images in 0 to 1\n" in out
    assert " 0 failed, 0 not checked, in " in out


@pytest.mark.usefixtures("three")
def test_there_is_a_line_a_check_and_the_message_under_one_that_does_not_hold(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install(Plain)
    assert main(["plugins", "check", "plain"]) == 1
    assert PLACE.sub("", capsys.readouterr().out).splitlines()[:6] == [
        "plain (pretext), elsewhere 1.0",
        "✓ it holds",
        "✗ it fails",
        "    it is 3; make it 4",
        "– it is asked",
        "    not checked: nobody asks",
    ]


def test_a_cause_has_one_line_and_a_warning_fails_nothing(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = [Check(f"it is {name}", fact) for name, fact in (("a", doubts), ("b", unasked), ("c", unasked))]
    monkeypatch.setattr(import_module("advss.testing.suite"), "checks_of", lambda kind: checks)
    install(Plain)
    assert main(["plugins", "check", "plain"]) == 0
    *lines, summary = capsys.readouterr().out.strip().splitlines()
    assert lines[1:] == [
        "! it is a",
        "    warning: it is 3 on purpose?",
        "– it is b",
        "    not checked: nobody asks",
        "– 1 more not checked, for what is said above",
    ]
    assert summary.startswith("0 passed, 1 with a warning, 0 failed, 2 not checked, in ")


@pytest.mark.usefixtures("three")
def test_json_has_each_verdict(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install(Plain)
    assert main(["plugins", "check", "plain", "--json"]) == 1
    (told,) = json.loads(capsys.readouterr().out)
    assert {key: told[key] for key in ("kind", "name", "distribution", "version")} == {
        "kind": "pretext",
        "name": "plain",
        "distribution": "elsewhere",
        "version": "1.0",
    }
    assert [(c["check"], c["outcome"], PLACE.sub("", c["message"])) for c in told["checks"]] == [
        ("it holds", "passed", ""),
        ("it fails", "failed", "it is 3; make it 4"),
        ("it is asked", "unchecked", "nobody asks"),
    ]
    assert all(c["seconds"] >= 0 for c in told["checks"])


class Loud(Mirror):
    """Prints wherever it can."""

    name = "loud"

    def __init__(self) -> None:
        super().__init__()
        print("made")

    def views(self, batch: Batch, generator: Generator) -> Views:
        print("seen", file=sys.stdout)
        return super().views(batch, generator)

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        print("lost")
        return super().loss(encoder, inputs, targets)


@pytest.mark.parametrize("switches", [[], ["--json"]])
def test_what_a_plugin_prints_goes_to_stderr(
    install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, switches: list[str]
) -> None:
    install(Loud)
    suite = import_module("advss.testing.suite")
    monkeypatch.setattr(suite, "checks_of", lambda kind: [Check("it has a loss", has_a_loss)])
    assert main(["plugins", "check", "loud", *switches]) == 0
    printed = capsys.readouterr()
    assert printed.err.split() == ["made", "seen", "lost"]
    if switches:
        assert [told["name"] for told in json.loads(printed.out)] == ["loud"]
    else:
        assert printed.out.splitlines()[:2] == ["loud (pretext), elsewhere 1.0", "✓ it has a loss"]


def test_what_cannot_be_asked_is_no_failure(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(Plain)
    monkeypatch.setattr(import_module("advss.testing.suite"), "checks_of", lambda kind: [Check("asked", unasked)])
    assert main(["plugins", "check", "plain"]) == 0


@pytest.mark.usefixtures("three")
def test_a_name_of_several_kinds_is_checked_as_each_or_as_the_one_that_is_said(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install(Plain, PlainDefense)
    main(["plugins", "check", "plain"])
    assert [line for line in capsys.readouterr().out.splitlines() if "elsewhere" in line] == [
        "plain (pretext), elsewhere 1.0",
        "plain (defense), elsewhere 1.0",
    ]
    main(["plugins", "check", "plain", "--kind", "defense"])
    assert "pretext" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rotatoin"], "unknown plugin 'rotatoin'; did you mean 'rotation'?"),
        (
            ["rotation", "--kind", "defence"],
            "--kind: expected one of pretext, defense, finetune, evaluation, launcher, data, got 'defence'",
        ),
        (["rotation", "--kind", "defense"], "unknown defense 'rotation'"),
        (["rotation", "--option", "grid=3"], "unknown option --option grid of rotation"),
        (["selfie", "--option", "grid"], "--option: expected NAME=VALUE, got 'grid'"),
        (["selfie", "--option", "grid=x"], "--option grid: expected int, got 'x'"),
        (["digits", "--option", "size=x"], "--option size: expected int, got 'x'"),
        (["rotation", "--option", "size=8"], "unknown option --option size of rotation"),
        (["wide"], "--option width=VALUE is missing: wide has no default for it (int)"),
        (["wide", "--option", "widht=2"], "unknown option --option widht of wide; did you mean 'width'?"),
    ],
)
def test_bad_input_is_one_line_and_exits_2(
    install: Install, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    install(Wide)
    assert main(["plugins", "check", *words]) == 2
    assert message in capsys.readouterr().err


def test_options_are_those_of_the_object(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    install(Wide)
    with_object(monkeypatch, seen.append)
    assert main(["plugins", "check", "wide", "--option", "width=7", "--option", "places=1,2"]) == 0
    assert (seen[0].width, seen[0].places) == (7, (1, 2))


def test_a_distributions_name_checks_all_it_has_each_with_its_own_options(
    install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    install(Plain, Wide, PlainDefense)
    with_object(monkeypatch, seen.append)
    assert main(["plugins", "check", "Elsewhere", "--option", "width=7"]) == 0
    assert [type(made) for made in seen] == [Plain, Wide, PlainDefense]
    assert seen[1].width == 7
    assert capsys.readouterr().out.count(", elsewhere 1.0\n") == 3


def test_an_option_that_no_plugin_of_a_distribution_has_is_refused(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install(Plain, Wide)
    assert main(["plugins", "check", "elsewhere", "--option", "width=7", "--option", "depth=7"]) == 2
    assert "unknown option --option depth of plain" in capsys.readouterr().err


def test_of_a_distribution_one_kind_can_be_checked(
    install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    install(Plain, PlainDefense)
    with_object(monkeypatch, seen.append)
    assert main(["plugins", "check", "elsewhere", "--kind", "defense"]) == 0
    assert [type(made) for made in seen] == [PlainDefense]


def test_options_of_a_wrapped_defense_are_reached(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    install(Around)
    with_object(monkeypatch, seen.append)
    assert main(["plugins", "check", "around", "--option", "base=trades", "--option", "base.trades.beta=3"]) == 0
    assert (seen[0].base.name, seen[0].base.beta) == ("trades", 3)


def test_where_it_cannot_be_made_the_checks_end(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    class Refuses(Mirror):
        """Never made."""

        name = "refuses"

        def __init__(self) -> None:
            raise RuntimeError("not today")

    install(Refuses)
    assert main(["plugins", "check", "refuses"]) == 1
    *_, told, message, _, _ = capsys.readouterr().out.splitlines()
    assert told == "✗ it is made"
    assert message.startswith("    it raised RuntimeError: not today (test_check.py, line ")


FAULT = Fault("flipping", "advss-flip", "0.3", "ImportError: no module named flap", place="flip.py:3")


@pytest.mark.parametrize("name", ["flip", "advss-flip", "flipping", "advss-flip:flipping"])
def test_one_that_breaks_at_discovery_fails_and_its_fault_is_printed(
    install: Install, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    install(faults=(FAULT,))
    assert main(["plugins", "check", name]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "flipping, advss-flip 0.3",
        "✗ its distribution is found without fault",
        "    ImportError: no module named flap (flip.py:3)",
    ]


def test_the_fault_is_in_json_too(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install(faults=(FAULT,))
    assert main(["plugins", "check", "flip", "--json"]) == 1
    (told,) = json.loads(capsys.readouterr().out)
    assert told["distribution"] == "advss-flip"
    assert told["checks"][0]["message"] == "ImportError: no module named flap"


def test_anothers_fault_does_not_hide_that_a_name_is_unknown(install: Install) -> None:
    install(faults=(FAULT,))
    assert main(["plugins", "check", "rotatoin"]) == 2


def test_a_fault_of_its_distribution_fails_a_plugin_that_is_there(
    install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = import_module("advss.testing.suite")
    monkeypatch.setattr(suite, "checks_of", lambda kind, asked=suite.checks_of: asked(kind)[:1])
    install(Plain, faults=(Fault("more", "elsewhere", "1.0", "prints while it is imported", "untidy"),))
    assert main(["plugins", "check", "plain"]) == 1
    out = capsys.readouterr().out
    assert "✗ its distribution is found without fault\n    more is untidy: prints while it is imported\n" in out
