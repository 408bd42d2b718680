"""``advss certify``: short for ``advss evaluate --evaluate certify``; what it is called with, the table, exit codes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from advss.cli.arguments import sort_words
from advss.cli.certify import FLAGS, SWITCH, print_certified
from advss.cli.commands import COMMANDS
from advss.cli.main import main
from advss.config import Choice, EvalSettings
from advss.configuration.resolve import resolve, to_yaml
from advss.errors import UsageError
from advss.evaluations import evaluate as stage
from advss.evaluations.certified import summary
from advss.evaluations.planned import planned
from advss.measuring import Measured, Victim
from advss.models.smoothed import ABSTAIN
from advss.plugins import forget, options_of, registry
from advss.training.signals import Interrupted

Capture = pytest.CaptureFixture[str]


def share(accuracy: float) -> dict[str, Any]:
    return {"accuracy": accuracy, "interval": [0.0, 1.0], "images": 100}


FIGURES: dict[str, Any] = {
    "sigma": 0.25,
    "abstained": 0.04,
    "acr": 0.41257,
    "clean_accuracy": share(0.82),
    "accuracy_0.25": share(0.72),
    "accuracy_0.5": share(0.58),
    "accuracy_0.75": share(0.31),
    "radius": [0.0, 0.05],
    "accuracy": [0.82, 0.8],
    "notes": [],
}
CONTENT: dict[str, Any] = {
    "title": "smoothing n 10,000, α 0.001",
    "options": {"sigma": 0.25, "n0": 100, "n": 10_000, "alpha": 0.001},
    "images": {"count": 100, "chunk": 1},
    "figures": FIGURES,
    "file": "evaluations/certify-0.json",
    "pictures": ["figures/certify-0-certified.png"],
}


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    yield
    forget()


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A run called first, without a model, that was evaluated on 30 images."""
    folder = tmp_path / "runs" / "first"
    folder.mkdir(parents=True)
    config = resolve({"pretext": "none", "runs-dir": "runs", "eval-limit": 30}, environ={})
    (folder / "config.yaml").write_text(to_yaml(config))
    return folder


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the stage was called with."""
    noted: dict[str, Any] = {}

    def evaluate(run: Path, settings: EvalSettings, chosen: list[Choice], **rest: Any) -> dict[str, Any]:
        noted.update(run=run, settings=settings, chosen=planned(chosen[0], settings), **rest)
        return {"measured": [CONTENT]}

    monkeypatch.setattr(stage, "evaluate", evaluate)
    return noted


def test_its_flags_are_the_evaluations_options() -> None:
    options = {option.name.replace("_", "-") for option in options_of(registry().find("evaluation", "certify"))}
    assert options == {*FLAGS, SWITCH}


@pytest.mark.usefixtures("first")
def test_without_flags_the_defaults_count(calls: dict[str, Any]) -> None:
    assert main(["certify", "first"]) == 0
    assert calls["run"] == Path("runs/first")
    assert calls["chosen"].options == planned(Choice("certify"), EvalSettings()).options


@pytest.mark.usefixtures("first")
def test_of_the_runs_own_limit_nothing_is_heard(calls: dict[str, Any]) -> None:
    assert main(["certify", "first"]) == 0
    assert calls["settings"].limit == 0


def test_every_flag_reaches_the_evaluation(calls: dict[str, Any], first: Path) -> None:
    flags = "--sigma 0.5 --n0 7 --n 70 --alpha 0.05 --limit 0 --batch-size 32 --other-sigma --device cpu --quiet"
    assert main(["certify", "first", "--runs-dir", str(first.parent), *flags.split()]) == 0
    asked = {"sigma": 0.5, "n0": 7, "n": 70, "alpha": 0.05, "limit": 0, "batch_size": 32, "other_sigma": True}
    assert (calls["chosen"].options, calls["device"]) == (asked, "cpu")


@pytest.mark.usefixtures("first")
def test_sigma_may_be_a_fraction_of_255(calls: dict[str, Any]) -> None:
    assert main(["certify", "first", "--sigma=51/255"]) == 0
    assert calls["chosen"].options["sigma"] == 0.2


# ---------------------------------------------------------------- the table
@pytest.mark.usefixtures("calls", "first")
def test_table_has_the_curve_at_round_radii(capsys: Capture) -> None:
    assert main(["certify", "first"]) == 0
    title, headings, _, numbers, *places = capsys.readouterr().out.splitlines()
    assert title == "run first: accuracy certified within ℓ2 radii, σ 0.25, 100 images, n 10,000, α 0.001"
    assert headings.split() == ["0", "0.25", "0.5", "0.75", "abstained", "ACR"]
    assert numbers.split() == ["82.00", "%", "72.00", "%", "58.00", "%", "31.00", "%", "4.00", "%", "0.413"]
    assert [line.split(None, 1) for line in places if line] == [
        ["certificate", "runs/first/evaluations/certify-0.json"],
        ["figure", "runs/first/figures/certify-0-certified.png"],
    ]


def shown(folder: Path, **figures: Any) -> list[str]:
    target = io.StringIO()
    print_certified(folder, CONTENT | {"figures": FIGURES | figures}, Console(file=target, width=80))
    return target.getvalue().splitlines()


def test_a_model_in_doubt_has_one_line_under_the_table(tmp_path: Path) -> None:
    lines = shown(tmp_path, notes=["TA 9 % is no better than chance"])
    assert lines[4:6] == ["note: smoothing n 10,000, α 0.001: TA 9 % is no better than chance", ""]


@pytest.mark.parametrize("largest", [0.1, 1.5, 3.0, 50.0])
def test_the_widest_table_fits_a_terminal(tmp_path: Path, largest: float) -> None:
    answers = {"predicted": torch.tensor([1, ABSTAIN]), "radius": torch.tensor([largest, 0.0], dtype=torch.float64)}
    found = summary(Measured(answers, torch.tensor([1, 1]), torch.arange(2), ("a", "b")), largest=largest)
    figures = {name: one for name, one in FIGURES.items() if not name.startswith("accuracy_")} | found
    target = io.StringIO()
    full = {"clean_accuracy": share(1.0), "abstained": 1.0}
    print_certified(tmp_path, CONTENT | {"figures": figures | full}, Console(file=target, width=80))
    assert max(map(len, target.getvalue().splitlines()[1:4])) <= 80


# ---------------------------------------------------------------- exit codes
def stops(number: int) -> Callable[..., dict[str, Any]]:
    def evaluate(*_: object, **__: object) -> dict[str, Any]:
        raise Interrupted(number)

    return evaluate


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize(("number", "code", "name"), [(15, 143, "SIGTERM"), (2, 130, "SIGINT")])
def test_a_signal_says_how_to_go_on(
    number: int, code: int, name: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(stage, "evaluate", stops(number))
    assert main(["certify", "first"]) == code
    said = capsys.readouterr()
    assert said.err == f"advss: stopped by {name}; what was measured is kept, the same command goes on\n"
    assert said.out == ""


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("certify", "`advss certify` needs RUN"),
        ("certify frist", "there is no run 'frist' in runs; did you mean 'first'?"),
        ("certify first", "has no fine-tuned model; run `advss fit --resume"),
        ("certify first --eval-steps 3", "unknown flag --eval-steps of `advss certify`"),
        ("certify first --certify.n 30", "unknown flag --certify.n of `advss certify`"),
        ("certify first --device gpu", "--device: must be auto, cpu, cuda or cuda:N, got gpu"),
    ],
)
def test_bad_input_is_one_line(line: str, message: str, capsys: Capture) -> None:
    assert main(line.split()) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert message in said


@pytest.mark.usefixtures("first", "calls")
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--n 1.5", "--n: expected int, got '1.5'"),
        ("--sigma wide", "--sigma: expected a number, such as 0.5 or 8/255, got 'wide'"),
        ("--n 5", "--n must be at least 10, got 5: so few copies can certify nothing at alpha 0.001"),
        ("--n0 0", "--n0 must be at least 1, got 0"),
        ("--batch-size 0", "--batch-size must be at least 1, got 0"),
        ("--alpha 0.5", "--alpha must be above 0 and below 0.5, got 0.5"),
        ("--sigma 0", "--sigma must be above 0 and finite, got 0"),
        ("--limit -1", "--limit must be a number of test images, or 0 for all, got -1"),
    ],
)
def test_options_are_called_as_they_were_typed(flags: str, message: str, capsys: Capture) -> None:
    name, value = flags.split()
    assert main(["certify", "first", f"{name}={value}"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"advss: error: {message}")


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize(
    ("flags", "noise", "message"),
    [
        ("", 0.0, "the model of runs/first was fine-tuned without noise, .* by --sigma 0.25 --other-sigma, or"),
        ("--sigma 0.5", 0.25, "--sigma 0.5: the model of runs/first was fine-tuned on noise .* add --other-sigma to"),
    ],
)
def test_a_sigma_that_does_not_follow_says_what_to_type(
    flags: str, noise: float, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(run: Path, settings: EvalSettings, chosen: list[Choice], **rest: Any) -> None:
        planned(chosen[0], settings).check(Victim(torch.nn.Identity(), classes="ab", noise=noise))

    monkeypatch.setattr(stage, "evaluate", evaluate)
    command = COMMANDS["certify"]
    with pytest.raises(UsageError, match=f"^{message}"):
        command.run(sort_words(["first", *flags.split()], command.grammar))


def test_help_has_every_setting_with_its_default(capsys: Capture) -> None:
    assert main(["certify", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "stopped goes on, one that was finished is reused" in out
    for words in ("--sigma SIGMA", "(100)", "(10000)", "(0.001)", "(1000)", "--other-sigma", "--device", "--runs-dir"):
        assert words in out
