"""``advss certify``: what the stage is called with, the table, and the exit codes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from advss.cli.certify import print_certified
from advss.cli.main import main
from advss.config import CertifySettings
from advss.configuration.resolve import resolve, to_yaml
from advss.evaluations import certify as stage
from advss.plugins import forget
from advss.training.signals import Interrupted

Capture = pytest.CaptureFixture[str]
CONTENT: dict[str, Any] = {
    "sigma": 0.25,
    "n": 10_000,
    "alpha": 0.001,
    "images": 100,
    "file": "evaluations/certify-0.json",
    "figure": "figures/certify-0.png",
    "abstained": 0.04,
    "acr": 0.41257,
    "radius": [round(j / 20, 2) for j in range(17)],  # up to 0.8, beyond the largest, 0.773
    "accuracy": [0.82] * 5 + [0.72] * 5 + [0.58] * 5 + [0.31, 0.0],
}


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    yield
    forget()


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A run called first, without a model."""
    folder = tmp_path / "runs" / "first"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(resolve({"pretext": "none", "runs-dir": "runs"}, environ={})))
    return folder


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the stage was called with."""
    noted: dict[str, Any] = {}

    def certify(run: Path, settings: CertifySettings, **rest: Any) -> dict[str, Any]:
        noted.update(run=run, settings=settings, **rest)
        return CONTENT

    monkeypatch.setattr(stage, "certify", certify)
    return noted


@pytest.mark.usefixtures("first")
def test_without_flags_the_defaults_count(calls: dict[str, Any]) -> None:
    assert main(["certify", "first"]) == 0
    assert (calls["run"], calls["settings"]) == (Path("runs/first"), CertifySettings())


def test_every_flag_reaches_the_stage(calls: dict[str, Any], first: Path) -> None:
    flags = "--sigma 0.5 --n0 7 --n 70 --alpha 0.05 --limit 0 --batch-size 32 --other-sigma --device cpu --quiet"
    assert main(["certify", "first", "--runs-dir", str(first.parent), *flags.split()]) == 0
    asked = CertifySettings(sigma=0.5, n0=7, n=70, alpha=0.05, limit=0, batch_size=32, other_sigma=True)
    assert (calls["settings"], calls["device"], calls["run"]) == (asked, "cpu", first)


@pytest.mark.usefixtures("first")
def test_sigma_may_be_a_fraction_of_255(calls: dict[str, Any]) -> None:
    assert main(["certify", "first", "--sigma=51/255"]) == 0
    assert calls["settings"] == replace(CertifySettings(), sigma=0.2)


# ---------------------------------------------------------------- the table
@pytest.mark.usefixtures("first", "calls")
def test_table_has_the_curve_at_round_radii(capsys: Capture) -> None:
    assert main(["certify", "first"]) == 0
    title, headings, _, numbers, *places = capsys.readouterr().out.splitlines()
    assert title == "run first: accuracy certified within ℓ2 radii, σ 0.25, 100 images, n 10,000, α 0.001"
    assert headings.split() == ["0", "0.25", "0.5", "0.75", "abstained", "ACR"]
    assert numbers.split() == ["82.00", "%", "72.00", "%", "58.00", "%", "31.00", "%", "4.00", "%", "0.413"]
    assert [line.split(None, 1) for line in places if line] == [
        ["certificate", "runs/first/evaluations/certify-0.json"],
        ["figure", "runs/first/figures/certify-0.png"],
    ]


def test_a_model_in_doubt_has_one_line_under_the_table(tmp_path: Path) -> None:
    target = io.StringIO()
    print_certified(tmp_path, CONTENT | {"doubt": "TA 9 % is no better than chance"}, Console(file=target, width=80))
    assert target.getvalue().splitlines()[4:6] == ["note: TA 9 % is no better than chance", ""]


def test_the_widest_table_fits_a_terminal(tmp_path: Path) -> None:
    def shown(steps: int) -> Iterator[int]:
        radii = [j / 20 for j in range(steps)]
        content = CONTENT | {"radius": radii, "accuracy": [1.0] * steps, "abstained": 1.0}
        target = io.StringIO()
        print_certified(tmp_path, content, Console(file=target, width=80))
        return map(len, target.getvalue().splitlines()[1:4])

    assert max(max(shown(steps)) for steps in (2, 31, 60, 1000)) <= 80


# ---------------------------------------------------------------- exit codes
def stops(number: int) -> Callable[..., dict[str, Any]]:
    def certify(*_: object, **__: object) -> dict[str, Any]:
        raise Interrupted(number)

    return certify


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize(("number", "code", "name"), [(15, 143, "SIGTERM"), (2, 130, "SIGINT")])
def test_a_signal_says_how_to_go_on(
    number: int, code: int, name: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(stage, "certify", stops(number))
    assert main(["certify", "first"]) == code
    said = capsys.readouterr()
    assert said.err == f"advss: stopped by {name}; images that were done are kept, the same command goes on\n"
    assert said.out == ""


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("certify", "`advss certify` needs RUN"),
        ("certify frist", "there is no run 'frist' in runs; did you mean 'first'?"),
        ("certify first", "has no fine-tuned model; run `advss fit --resume"),
        ("certify first --n 1.5", "--n: expected int, got '1.5'"),
        ("certify first --sigma wide", "--sigma: expected float | null, got 'wide'"),
        ("certify first --n 5", "--n: 5 copies can certify nothing at --alpha 0.001"),
        ("certify first --n0 0", "--n0: must be at least 1, got 0"),
        ("certify first --batch-size 0", "--batch-size: must be at least 1, got 0"),
        ("certify first --alpha 0.5", "--alpha: must be above 0 and below 0.5, got 0.5"),
        ("certify first --sigma 0", "--sigma: must be above 0 and finite, got 0"),
        ("certify first --device gpu", "--device: must be auto, cpu, cuda or cuda:N, got gpu"),
        ("certify first --eval-steps 3", "unknown flag --eval-steps of `advss certify`"),
    ],
)
def test_bad_input_is_one_line(line: str, message: str, capsys: Capture) -> None:
    assert main(line.split()) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert message in said


def test_help_has_every_setting_with_its_default(capsys: Capture) -> None:
    assert main(["certify", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "stopped goes on, one that was finished is reused" in out
    for words in ("--sigma SIGMA", "(100)", "(10000)", "(0.001)", "(1000)", "--other-sigma", "--device", "--runs-dir"):
        assert words in out
