"""``advss ensemble`` and ``advss transfer``: what the stages are called with, the tables, and the exit codes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from advss.cli.compare import print_ensemble, print_transfer
from advss.cli.main import main
from advss.configuration.resolve import resolve, to_yaml
from advss.evaluations import ensemble as ensemble_stage
from advss.evaluations import transfer as transfer_stage
from advss.plugins import forget
from advss.runs.finished import Asked
from advss.tracking.tracker import Tracker
from advss.training.signals import Interrupted

Capture = pytest.CaptureFixture[str]

RESULT: dict[str, Any] = {
    "name": "average",
    "ta": 0.8604,
    "ra": 0.5464,
    "ra_attack": {"evaluation": "pgd", "title": "PGD-20 ℓ∞ 8/255"},
    "folder": "runs/average",
}
SUBSETS = [
    {"members": ["jigsaw"], "ta": 0.845, "ra": 0.4961},
    {"members": ["jigsaw", "rotation"], "ta": 0.8536, "ra": 0.5308},
]
REGIONS = [{"models": ["b"], "count": 12, "share": 0.2}, {"models": ["b", "c"], "count": 48, "share": 0.8}]
OVERLAP = {"others_right": {"regions": REGIONS, "union": 60, "not_shared": 0.2}}
OUTCOME: dict[str, Any] = {
    "models": ["a", "b", "c"],
    "runs": [],
    "ta": [0.8602, 0.8566, 0.845],
    "asr": [[0.4895, 0.3775, 0.3665], [0.3892, 0.496, 0.3812], [0.3896, 0.3956, 0.5117]],
    "error": [0.1398, 0.1434, 0.155],
    "both_right": [[172, 150, 149], [150, 171, 148], [149, 148, 169]],
    "asr_both_right": [[0.4, 0.25, 0.2], [0.3, 0.42, None], [0.21, 0.26, 0.43]],
    "all_right": list(range(140)),
    "overlap": dict.fromkeys("abc", OVERLAP),
    "folder": "runs/transfer",
}


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    yield
    forget()


@pytest.fixture(autouse=True)
def _two_runs(tmp_path: Path) -> None:
    """Runs first and second, without models; the first was evaluated with three restarts."""
    for name, restarts in (("first", 3), ("second", 1)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        config = resolve({"pretext": "none", "eval-restarts": restarts, "name": name}, environ={})
        (folder / "config.yaml").write_text(to_yaml(config))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the stage was called with."""
    noted: dict[str, Any] = {}

    def stage(outcome: dict[str, Any]) -> Callable[..., dict[str, Any]]:
        def call(runs: Sequence[Path], asked: Asked, **rest: Any) -> dict[str, Any]:
            noted.update(runs=runs, asked=asked, **rest)
            return outcome

        return call

    monkeypatch.setattr(ensemble_stage, "ensemble", stage(RESULT))
    monkeypatch.setattr(transfer_stage, "transfer", stage(OUTCOME))
    return noted


RUNS = ["first", "second"]
COMMANDS = ("ensemble", "transfer")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_first_runs_attack_counts_unless_the_line_says_otherwise(command: str, calls: dict[str, Any]) -> None:
    assert main([command, *RUNS, "--eval-steps", "50", "--eval-eps=4/255"]) == 0
    assert calls["runs"] == [Path("runs/first"), Path("runs/second")]
    evaluation = calls["asked"].evaluation
    assert (evaluation.steps, evaluation.eps, evaluation.restarts) == (50, 4 / 255, 3)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_reaches_the_stage(command: str, calls: dict[str, Any], tmp_path: Path) -> None:
    flags = ["--name", "both", "--device", "cpu", "--tracking", "false", "--runs-dir", "runs", "--quiet"]
    assert main([command, *RUNS, *flags]) == 0
    assert calls["asked"] == Asked(calls["asked"].evaluation, Path("runs"), "both", "cpu", tracking=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_outcome_lies_beside_the_first_run_under_a_name_of_its_own(
    command: str, calls: dict[str, Any], tmp_path: Path
) -> None:
    assert main([command, str(tmp_path / "runs/first"), "second"]) == 0
    assert (calls["asked"].name, calls["asked"].runs_dir) == (None, tmp_path / "runs")


@pytest.mark.parametrize(("flags", "wanted"), [([], False), (["--subsets"], True)])
def test_subsets_are_measured_on_request(flags: list[str], wanted: bool, calls: dict[str, Any]) -> None:
    assert main(["ensemble", *RUNS, *flags]) == 0
    assert calls["subsets"] is wanted


BAD = {
    "one run": (["first"], "needs RUN RUN..., got first"),
    "no run": ([], "needs RUN RUN..."),
    "unknown run": (["first", "secnod"], "did you mean 'second'"),
    "unknown flag": ([*RUNS, "--subset"], "unknown flag --subset"),
    "a setting of training": ([*RUNS, "--seed", "1"], "unknown flag --seed"),
    "a setting of validation": ([*RUNS, "--eval-valid-steps", "1"], "unknown flag --eval-valid-steps"),
    "bad attack": ([*RUNS, "--eval-steps", "0"], "--eval-steps: must be at least 1, got 0"),
    "bad name": ([*RUNS, "--name", "../up"], "'../up' is no run name"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("what", BAD)
@pytest.mark.usefixtures("calls")
def test_bad_input_exits_2_with_one_line(command: str, what: str, capsys: Capture) -> None:
    words, message = BAD[what]
    assert main([command, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize("command", COMMANDS)
def test_runs_without_models_exit_2(command: str, capsys: Capture) -> None:
    assert main([command, *RUNS]) == 2
    assert "runs/first has no fine-tuned model" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 143)])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_is_an_exit_code_and_says_what_is_kept(
    command: str, number: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def stopped(*args: object, **kwargs: object) -> None:
        raise Interrupted(number)

    monkeypatch.setattr(ensemble_stage, "ensemble", stopped)
    monkeypatch.setattr(transfer_stage, "transfer", stopped)
    assert main([command, *RUNS]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("advss: stopped by SIG")
    assert "kept" in line
    assert "--resume" not in line


# ---------------------------------------------------------------- tables
def shown(draw: Callable[..., None], content: dict[str, Any], width: int = 100) -> list[list[str]]:
    target = io.StringIO()
    draw(content, Console(file=target, width=width))
    return [line.split() for line in target.getvalue().splitlines()]


def test_rows_of_the_matrix_are_the_attacked_models() -> None:
    lines = shown(print_transfer, OUTCOME)
    assert ["b", "38.92", "%", "49.60", "%", "38.12", "%", "85.66", "%", "14.34", "%"] in lines
    assert ["a", "60", "images", "48", "20.00", "%"] in lines
    assert ["numbers", "runs/transfer/transfer.json"] in lines


def test_success_over_images_that_both_have_right_says_how_many_they_are() -> None:
    lines = shown(print_transfer, OUTCOME)
    assert [*lines[6][:5]] == ["of", "images", "both", "have", "right"]
    assert ["b", "30.00", "%", "of", "150", "42.00", "%", "of", "171", "-", "of", "148"] in lines
    assert lines[12][:6] == ["of", "140", "images", "all", "have", "right"]


def test_of_two_models_no_overlap_is_shown() -> None:
    two = OUTCOME | {"models": ["a", "b"], "ta": [0.1, 0.2], "error": [0.9, 0.8], "asr": [[0.3, 0.4], [0.5, 0.6]]}
    lines = shown(print_transfer, two | {"both_right": [[9, 8], [8, 7]], "asr_both_right": [[0.2, 0.1], [0.1, 0.3]]})
    assert ["b", "50.00", "%", "60.00", "%", "20.00", "%", "80.00", "%"] in lines
    assert not [line for line in lines if "shared" in line]


def test_subsets_have_a_table_of_their_own() -> None:
    lines = shown(print_ensemble, RESULT | {"subsets": SUBSETS})
    assert ["86.04", "%", "54.64", "%", "-", "-", "-"] in lines
    assert ["jigsaw", "+", "rotation", "85.36", "%", "53.08", "%"] in lines
    assert not [line for line in shown(print_ensemble, RESULT) if line[:1] == ["averaged"]]


def test_models_in_doubt_are_named_under_the_table() -> None:
    doubt = "TA 9 % on 60 test images is no better than chance"
    rows = [{**SUBSETS[0], "doubt": doubt}, SUBSETS[1] | {"doubt": "stands above"}]
    notes = [line for line in shown(print_ensemble, RESULT | {"subsets": rows}) if line[:1] == ["note:"]]
    assert notes == [["note:", "jigsaw:", *doubt.split()]]
    ran = [{"model": "a", "doubt": None}, {"model": "b", "doubt": doubt}, {"model": "c"}]
    notes = [line for line in shown(print_transfer, OUTCOME | {"runs": ran}) if line[:1] == ["note:"]]
    assert notes == [["note:", "b:", *doubt.split()]]


# ---------------------------------------------------------------- tracked folders
def test_what_a_comparison_tracked_can_be_sent_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture
) -> None:
    with Tracker(tmp_path / "runs/compared", name="compared", enabled=False) as tracker:
        tracker.metrics("", 0, {"asr/a/b": 0.5})
    sent: list[Path] = []

    def send(folder: Path) -> int:
        sent.append(folder)
        return 3

    monkeypatch.setattr("advss.runs.sending.sync", send)
    assert main(["sync", "compared"]) == 0
    assert sent == [Path("runs/compared")]
    assert "3 records" in capsys.readouterr().out
