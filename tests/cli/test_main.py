"""The command line: what is called, what is printed, and the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from advss.cli.main import main
from advss.config import Choice, EvalSettings, RunConfig
from advss.configuration.resolve import resolve, to_yaml
from advss.plugins import forget
from advss.training.reporting import Reporter
from advss.training.signals import Interrupted

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for variable in [name for name in os.environ if name.startswith("ADVSS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    yield
    forget()


class Calls:
    """Stages that only note what they were called with."""

    def __init__(self) -> None:
        self.stage = ""
        self.config: RunConfig
        self.source: Path | None = None
        self.evaluation: EvalSettings
        self.resume = False

    def fit(self, config: RunConfig, *, resume: bool, reporter: Reporter) -> dict[str, Any]:
        self.stage, self.config, self.resume = "fit", config, resume
        return RESULT

    def pretrain(self, config: RunConfig, *, resume: bool, reporter: Reporter) -> dict[str, Any]:
        self.stage, self.config, self.resume = "pretrain", config, resume
        return RESULT | {"ta": None, "ra": None, "ra_attack": None, "best_epoch": None}

    def finetune(self, config: RunConfig, *, source: Path | None, resume: bool, reporter: Reporter) -> dict[str, Any]:
        self.stage, self.config, self.source, self.resume = "finetune", config, source, resume
        return RESULT

    def evaluate(
        self, folder: Path, evaluation: EvalSettings, chosen: tuple[Choice, ...], **_: object
    ) -> Mapping[str, Any]:
        self.stage, self.source, self.evaluation, self.chosen = "evaluate", folder, evaluation, chosen
        return RESULT | {"measured": []}


RESULT: dict[str, Any] = {
    "name": "first",
    "ta": 0.8602,
    "ra": 0.5105,
    "ra_attack": {"evaluation": "pgd", "title": "PGD-20 ℓ∞ 8/255"},
    "best_epoch": 46,
    "epochs": {"pretrain": 3, "finetune": 50},
    "seconds": {"pretrain": 12.3, "finetune": 45.6, "evaluate": 1.0},
    "folder": "runs/first",
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    noted = Calls()
    for stage in ("fit", "pretrain", "finetune"):
        monkeypatch.setattr(f"advss.stages.fit.{stage}", getattr(noted, stage))
    monkeypatch.setattr("advss.evaluations.evaluate.evaluate", noted.evaluate)
    return noted


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A run called first: rotation, seed 4."""
    folder = tmp_path / "runs" / "first"
    folder.mkdir(parents=True)
    config = resolve({"pretext": "rotation", "seed": 4, "runs-dir": "runs"}, environ={})
    (folder / "config.yaml").write_text(to_yaml(config))
    return folder


def error(capsys: Capture) -> str:
    """The one line on stderr, beside the recipe's."""
    (text,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("recipe ")]
    return text


def test_fit_is_called_with_the_configuration(calls: Calls) -> None:
    assert (
        main(["fit", "--pretext", "rotation", "--defense.eps=4/255", "--pretrain_epochs", "2", "--pretrain-flip"]) == 0
    )
    config = calls.config
    assert (calls.stage, calls.resume, config.pretext[0].name) == ("fit", False, "rotation")
    assert (config.defense.options["eps"], config.pretraining.epochs, config.pretraining.flip) == (4 / 255, 2, True)


def test_pretrain_is_called(calls: Calls, capsys: Capture) -> None:
    assert main(["pretrain", "--seed", "3"]) == 0
    assert (calls.stage, calls.config.seed) == ("pretrain", 3)
    assert "not measured" in capsys.readouterr().out


def test_the_environment_stands_below_the_line(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVSS_SEED", "5")
    monkeypatch.setenv("ADVSS_LOG_EVERY", "6")
    assert main(["fit", "--seed", "7"]) == 0
    assert (calls.config.seed, calls.config.log_every) == (7, 6)


def test_resume_goes_on_with_the_run(calls: Calls, first: Path) -> None:
    assert main(["fit", "--resume", "first", "--checkpoint-minutes", "2"]) == 0
    assert (calls.resume, calls.config.seed, calls.config.name, calls.config.checkpoint_minutes) == (
        True,
        4,
        "first",
        2,
    )


def test_resume_by_folder(calls: Calls, first: Path) -> None:
    assert main(["fit", "--resume", str(first)]) == 0
    assert (calls.config.name, calls.config.runs_dir) == ("first", first.parent)


def test_a_resumed_run_is_not_changed(calls: Calls, first: Path, capsys: Capture) -> None:
    assert main(["fit", "--resume", "first", "--seed", "5"]) == 2
    assert "runs/first has seed 4, not 5" in error(capsys)


def test_finetune_takes_the_sources_configuration(calls: Calls, first: Path) -> None:
    assert main(["finetune", "--from", "first", "--finetune", "partial", "--finetune-defense", "none"]) == 0
    config = calls.config
    assert (calls.stage, calls.source, config.seed, config.name) == ("finetune", Path("runs/first"), 4, None)
    assert (config.finetune.name, config.finetune_defense.name, config.defense.name) == ("partial", "none", "pgd")


def test_finetune_from_a_checkpoint(calls: Calls, first: Path) -> None:
    checkpoint = first / "pretrain" / "best.safetensors"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    assert main(["finetune", "--from", str(checkpoint)]) == 0
    assert (calls.source, calls.config.seed) == (checkpoint, 4)


def test_evaluate_is_called_with_the_runs_attack(calls: Calls, first: Path) -> None:
    assert main(["evaluate", "first", "--eval-steps", "50"]) == 0
    assert (calls.stage, calls.source) == ("evaluate", Path("runs/first"))
    assert (calls.evaluation.steps, calls.evaluation.eps) == (50, 8 / 255)
    assert [choice.name for choice in calls.chosen] == ["pgd", "gallery"]


def test_evaluate_takes_options_of_evaluations_and_a_limit(calls: Calls, first: Path) -> None:
    assert main(["evaluate", "first", "--evaluate", "clean,pgd", "--pgd.restarts", "2", "--limit", "9"]) == 0
    assert [(choice.name, choice.options.get("restarts")) for choice in calls.chosen] == [("clean", None), ("pgd", 2)]
    assert calls.evaluation.limit == 9


def test_runs_are_looked_up_in_runs_dir(calls: Calls, first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert main(["evaluate", "first", "--runs-dir", str(first.parent)]) == 0
    monkeypatch.setenv("ADVSS_RUNS_DIR", str(first.parent))
    assert main(["evaluate", "first"]) == 0


def test_the_table_ends_a_run(calls: Calls, capsys: Capture) -> None:
    main(["fit"])
    out = capsys.readouterr().out
    for said in ("86.02 %", "51.05 %", "PGD-20 ℓ∞ 8/255", "46", "3 + 50", "12 + 46 + 1", "runs/first"):
        assert said in out


def test_what_is_only_drawn_is_no_line_of_what_was_measured(
    calls: Calls, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ra = {"ra": {"accuracy": 0.5, "interval": [0.4, 0.6], "images": 9}}
    pgd = {"file": "evaluations/pgd-1.json", "title": "PGD", "figures": ra}
    drawn = {"file": "evaluations/gallery-1.json", "title": "examples", "figures": {}}
    monkeypatch.setitem(RESULT, "evaluation", {"file": pgd["file"]})
    monkeypatch.setitem(RESULT, "evaluations", {"pgd": pgd, "gallery": drawn})
    main(["fit"])
    assert "95 % interval" not in capsys.readouterr().out


def test_print_config_can_be_run_again(calls: Calls, capsys: Capture, tmp_path: Path) -> None:
    line = ["fit", "--pretext", "jigsaw", "--pretext.grid", "3", "--seed", "9"]
    assert main([*line, "--print-config"]) == 0
    assert calls.stage == ""
    (tmp_path / "again.yaml").write_text(capsys.readouterr().out)
    main(["fit", "--config", "again.yaml"])
    again = calls.config
    main(line)
    assert calls.config == again


@pytest.mark.parametrize(
    ("stop", "code"), [(Interrupted(15), 143), (Interrupted(2), 130), (KeyboardInterrupt(), 130)], ids=str
)
def test_a_signal_is_an_exit_code(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, stop: BaseException, code: int
) -> None:
    def stopped(config: RunConfig, *, resume: bool, reporter: Reporter) -> dict[str, Any]:
        raise stop

    monkeypatch.setattr("advss.stages.fit.fit", stopped)
    assert main(["fit"]) == code


@pytest.mark.parametrize(
    ("line", "called", "said"),
    [
        ("fit", "stages.fit.fit", "go on with: advss fit --resume 'my runs/first'"),
        ("finetune --resume first", "stages.fit.finetune", "go on with: advss finetune --resume 'my runs/first'"),
        ("evaluate first", "evaluations.evaluate.evaluate", "what was measured is kept, the same command goes on"),
    ],
)
@pytest.mark.usefixtures("first")
def test_after_a_signal_it_is_said_what_to_type(
    line: str, called: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def stopped(*args: object, **kwargs: object) -> dict[str, Any]:
        stop = Interrupted(15)
        stop.run = "my runs/first"
        raise stop

    monkeypatch.setattr(f"advss.{called}", stopped)
    assert main(line.split()) == 143
    assert error(capsys) == f"advss: stopped by SIGTERM; {said}"


def test_a_finished_run_is_told_without_torch(first: Path, tmp_path: Path) -> None:
    (first / "result.json").write_text(json.dumps(RESULT | {"status": "finished"}))
    (tmp_path / "torch.py").write_text("raise SystemExit('torch is imported')")
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    line = [sys.executable, "-m", "advss.cli.main", "fit", "--resume", "first"]
    done = subprocess.run(line, env=environ, capture_output=True, text=True, check=True)
    assert done.stderr == "run runs/first is finished; nothing to do\n"
    assert "86.02 %" in done.stdout


def test_places_of_a_finished_run_are_where_it_lies_now(first: Path, tmp_path: Path, capsys: Capture) -> None:
    (first / "result.json").write_text(json.dumps(RESULT | {"status": "finished", "ta": None}))
    (first / "finetune").mkdir()
    (first / "finetune/best.safetensors").touch()
    moved = first.rename(tmp_path / "my run")
    assert main(["fit", "--resume", str(moved)]) == 0
    assert "advss evaluate 'my run'" in capsys.readouterr().out


@pytest.mark.parametrize("more", [["--seed", "5"], ["--config", "digits"], ["--print-config"]])
def test_what_is_said_beside_a_finished_run_is_judged(more: list[str], calls: Calls, first: Path) -> None:
    (first / "result.json").write_text(json.dumps(RESULT | {"status": "finished"}))
    assert main(["fit", "--resume", "first", *more]) == (0 if more == ["--print-config"] else 2)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("fti", "unknown command 'fti'; did you mean 'fit'?"),
        ("plugins", "`advss plugins` needs one of: list, show"),
        ("plugins chekc", "unknown command 'plugins chekc'; did you mean 'check'?"),
        ("plugins zzz", "unknown command 'plugins zzz'; known: check, list, new, show"),
        ("fit --sead 3", "unknown flag --sead of `advss fit`; did you mean '--seed'?"),
        ("fit --zzzzzz 3", "unknown flag --zzzzzz of `advss fit`; see --help"),
        (
            "fit --epochs 3",
            "unknown flag --epochs of `advss fit`; did you mean '--pretrain-epochs' or '--finetune-epochs'?",
        ),
        ("fit --seed", "--seed needs a value"),
        ("fit --seed --quiet", "--seed needs a value"),
        ("fit --quiet=3", "--quiet takes no value, got '3'"),
        ("fit -q", "unknown flag -q of `advss fit`: flags begin with --"),
        ("fit selfie", "unexpected word 'selfie' after `advss fit`; flags begin with --"),
        ("fit --pretext selfi", "unknown pretext task 'selfi'; did you mean 'selfie'?"),
        ("fit --pretext.gird 3", "unknown option --pretext.gird of selfie; did you mean 'grid'?"),
        ("fit --defense.steps abc", "--defense.steps: expected int, got 'abc'"),
        ("fit --defense.eps -1", "--defense.eps must be at least 0"),
        ("fit --defense.steps 0", "--defense.steps must be at least 1"),
        ("fit --name ../x", "--name: '../x' is no run name; use letters, digits and . _ - without '..' or separators"),
        ("fit --config nowhere.yaml", "--config: no file and no recipe 'nowhere.yaml'"),
        ("fit --resume nowhere", "there is no run 'nowhere' in runs"),
        (
            "fit --resume first --config digits",
            "--resume first takes its configuration from the run; leave --config out",
        ),
        ("finetune", "`advss finetune` needs one of --from RUN and --resume RUN"),
        ("finetune --from nowhere", "there is no run 'nowhere' in runs"),
        (
            "finetune --from first --pretrain-epochs 3",
            "--pretrain-epochs: `advss finetune` takes pretraining as --from",
        ),
        ("finetune --from first --defense none", "takes pretraining as --from has it; use --finetune-defense"),
        ("evaluate", "`advss evaluate` needs RUN"),
        ("evaluate first --seed 3", "unknown flag --seed of `advss evaluate`"),
        ("evaluate first --eval-valid-limit 9", "unknown flag --eval-valid-limit of `advss evaluate`"),
        ("evaluate first --eval-steps 0", "--eval-steps: must be at least 1, got 0"),
        ("plugins show selfi", "unknown plugin 'selfi'; did you mean 'selfie'?"),
        ("ui --port x", "--port: expected a port number, got 'x'"),
        ("sync nowhere", "there is no run 'nowhere' in runs"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    calls: Calls, first: Path, capsys: Capture, line: str, said: str
) -> None:
    assert main(line.split()) == 2
    text = error(capsys)
    assert text.startswith("advss: error: ")
    assert said in text
    assert calls.stage == ""


def test_a_misspelled_variable_is_an_error(calls: Calls, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVSS_DATA__ROOT", "x")
    assert main(["fit"]) == 2
    assert "ADVSS_DATA__ROOT would be ignored" in error(capsys)


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"advss {version('advss')}\n"


@pytest.mark.parametrize("line", [[], ["--help"], ["-h"]])
def test_overview_names_every_command(capsys: Capture, line: list[str]) -> None:
    assert main(line) == 0
    out = capsys.readouterr().out
    assert all(f"advss {command}" in out for command in ("fit", "pretrain", "finetune", "evaluate RUN", "plugins list"))


def test_help_lists_plugins_and_the_options_of_the_chosen(capsys: Capture) -> None:
    assert main(["fit", "--pretext", "jigsaw", "--pretext.grid", "2", "--help"]) == 0
    out = capsys.readouterr().out
    rows = {words[0]: words[1:] for line in out.splitlines() if (words := line.split())}
    assert {"selfie", "rotation", "jigsaw", "none", "pgd", "partial", "full", "digits", "cifar10-paper"} <= rows.keys()
    assert rows["--pretext.grid"][0] == "2"
    assert rows["--defense.eps"][0] == "8/255"
    assert "--pretext.masked" not in rows


def test_help_shows_the_numbers_of_the_recipe_that_will_be_chosen(capsys: Capture) -> None:
    assert main(["fit", "--data", "cifar10", "--data.limit", "300", "--help"]) == 0
    out = capsys.readouterr().out
    rows = {words[0]: words[1:] for line in out.splitlines() if (words := line.split())}
    small = resolve({"data": "cifar10"}, configs=["small"], environ={})
    stages = (small.pretraining, small.finetuning)
    assert rows["-epochs"][:2] == [str(stage.epochs) for stage in stages]
    assert rows["-epoch-steps"][:2] == [str(stage.epoch_steps) for stage in stages]
    assert rows["--defense.steps"][0] == str(small.defense.options["steps"])
    shown = " ".join(out.split())
    assert all(f"--backbone.{name} " in shown for name in small.backbone.options)


def test_help_of_a_choice_that_lacks_an_option_says_so_and_has_all_the_same(capsys: Capture) -> None:
    assert main(["fit", "--data", "imagefolder", "--help"]) == 0
    out = capsys.readouterr().out
    rows = {words[0]: words[1:] for line in out.splitlines() if (words := line.split())}
    assert "--data.root is missing: imagefolder has no default for it (Path)." in out
    assert (rows["--data.root"][0], rows["--data.size"][0]) == ("required", "0")
    assert {"selfie", "pgd", "--defense.eps", "--seed", "--eval-steps"} <= rows.keys()


@pytest.mark.parametrize("width", [80, 120])
def test_help_keeps_to_the_width(capsys: Capture, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    main(["fit", "--pretext", "selfie,jigsaw", "--help"])
    assert max(len(line) for line in capsys.readouterr().out.splitlines()) <= width


@pytest.mark.parametrize("command", ["pretrain", "finetune", "evaluate", "plugins list", "plugins show", "sync", "ui"])
def test_every_command_has_help(capsys: Capture, command: str) -> None:
    assert main([*command.split(), "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: advss {command}")


def test_plugins_list(capsys: Capture) -> None:
    assert main(["plugins", "list"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["pretext", "selfie", "advss", version("advss"), "1.0", "ok"] in rows


def test_plugins_list_as_json(capsys: Capture) -> None:
    assert main(["plugins", "list", "--json"]) == 0
    rows = {row["name"]: row for row in reversed(json.loads(capsys.readouterr().out))}
    assert (rows["pgd"]["kind"], rows["pgd"]["distribution"], rows["pgd"]["version"]) == (
        "defense",
        "advss",
        version("advss"),
    )


def test_plugins_show_as_json(capsys: Capture) -> None:
    assert main(["plugins", "show", "pgd", "--json"]) == 0
    shown, measures = json.loads(capsys.readouterr().out)
    assert measures["kind"] == "evaluation"
    steps = next(option for option in shown["options"] if option["name"] == "steps")
    assert (shown["kind"], steps["type"], steps["default"]) == ("defense", "int", 10)


def test_plugins_show(capsys: Capture) -> None:
    assert main(["plugins", "show", "pgd"]) == 0
    out = capsys.readouterr().out
    assert "--defense.eps" in out
    assert "8/255" in out


def test_print_config_is_yaml_of_the_flags(capsys: Capture) -> None:
    main(["fit", "--data", "cifar10", "--data.limit", "500", "--print-config"])
    content = yaml.safe_load(capsys.readouterr().out)
    assert (content["data.limit"], list(content["data"])) == (500, ["cifar10"])


def test_what_cannot_begin_is_one_line(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--pretext", "jigsaw", "--pretext.grid", "5", "--tracking", "false"]) == 2
    said = capsys.readouterr()
    wrong = [line for line in said.err.splitlines() if not line.startswith(("recipe ", "starting ", "data "))]
    assert (said.out, len(wrong)) == ("", 1)
    assert not list(tmp_path.glob("runs/*"))
