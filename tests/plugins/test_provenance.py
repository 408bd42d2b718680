"""Checkpoints and results name the plugins that made them; what is said when these are not here, or others are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import advss
from advss.cli.main import main
from advss.config import Choice
from advss.errors import UsageError
from advss.plugins import forget, provenance
from advss.plugins.provenance import agrees, needed, used, used_by
from advss.plugins.registry import registry
from advss.tracking.journal import read_records
from advss.training.checkpoints import load_checkpoint

Install = Callable[..., str]
Capture = pytest.CaptureFixture[str]
CODE = """
import torch.nn.functional as F
from torch import nn
from advss.hookspecs import Defense, FinetuneScheme, Loss, Phase, PretextTask, Views, accuracy

class Flip(PretextTask):
    name = "flip"
    def build(self, encoder):
        self.tail = encoder.tail()
        self.head = nn.Linear(encoder.features, 2)
    def views(self, batch, generator):
        flipped = (batch.x.new_empty(len(batch.x)).uniform_(0, 1, generator=generator) < 0.5).long()
        return Views((batch.x.where(flipped[:, None, None, None] == 0, batch.x.flip(3)),), {"flipped": flipped})
    def loss(self, encoder, inputs, targets):
        logits = self.head(self.tail(encoder(inputs[0]))).float()
        right = accuracy(logits, targets["flipped"])
        return Loss(F.cross_entropy(logits, targets["flipped"]), (logits,), {"accuracy": right})

class Calm(Defense):
    name = "calm"
    adversarial = False

class Wrap(Defense):
    name = "wrap"
    def __init__(self, *, base: Defense | str = "acme-lab:calm"):
        self.base = base

class Everything(FinetuneScheme):
    name = "everything"
    def phases(self, classifier):
        return [Phase(1.0, [{"params": list(classifier.parameters())}])]

def advss_pretext_tasks(): return [Flip]
def advss_defenses(): return [Calm, Wrap]
def advss_finetune_schemes(): return [Everything]
"""
SETTINGS: Any = {
    "pretext": "flip",
    "defense": "calm",
    "finetune": "everything",
    "finetune_defense": "none",
    "backbone": {"resnet18": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}},
    "data_limit": 40,
    "data_size": 16,
    "pretrain_epochs": 1,
    "finetune_epochs": 1,
    "pretrain_batch_size": 18,
    "finetune_batch_size": 18,
    "eval_valid_steps": 1,
    "eval_steps": 1,
    "eval_limit": 10,
    "device": "cpu",
    "memory_format": "contiguous",
    "tracking": False,
}
HERE = version("advss")


def record(kind: str, name: str, distribution: str = "acme-lab", version: str = "2.5") -> dict[str, str]:
    return {"kind": kind, "name": name, "distribution": distribution, "version": version}


FLIP, CALM, EVERYTHING = record("pretext", "flip"), record("defense", "calm"), record("finetune", "everything")
NONE = record("defense", "none", "advss", HERE)
DIGITS = record("data", "digits", "advss", HERE)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: one, by the plugins of acme-lab 2.5."""
    folder = tmp_path_factory.mktemp("provenance")
    info = folder / "site" / "acme_lab-2.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-lab\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text("[advss]\nall = provenance_plugins\n")
    (folder / "site" / "provenance_plugins.py").write_text(CODE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder / "site")
        forget()
        advss.fit(**SETTINGS, name="one", runs_dir=str(folder / "runs"))
    forget()
    return folder / "runs"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the run, which has the evaluation still to do; acme-lab is not installed."""
    provenance._warned.clear()
    folder = Path(shutil.copytree(trained, tmp_path / "runs")) / "one"
    content = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(content | {"status": "running"}))
    forget()
    yield folder
    provenance._warned.clear()


def only_line(capsys: Capture) -> str:
    """What is wrong, beside what every run begins with."""
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("advss: "))
    return line


def test_manifests_name_the_plugins_of_their_stage(run: Path) -> None:
    named = {
        stage: load_checkpoint(run / stage / "best.safetensors").manifest["plugins"]
        for stage in ("pretrain", "finetune")
    }
    assert named == {"pretrain": [FLIP, CALM, DIGITS], "finetune": [EVERYTHING, NONE, DIGITS]}
    assert load_checkpoint(run / "pretrain" / "last.safetensors").manifest["plugins"] == [FLIP, CALM, DIGITS]


def test_the_result_names_all(run: Path) -> None:
    named = json.loads((run / "result.json").read_text())["plugins"]
    assert [one for one in named if one["kind"] != "evaluation"] == [FLIP, CALM, EVERYTHING, NONE, DIGITS]
    assert [one["name"] for one in named if one["kind"] == "evaluation"] == ["pgd", "gallery"]


def test_the_tracked_run_has_them_as_parameters(run: Path) -> None:
    said = [record.payload["config"] for record in read_records(run / "metrics.jsonl") if record.kind == "params"]
    (plugins,) = [config["plugins"] for config in said if "plugins" in config]
    assert plugins == {
        "pretext.flip": "acme-lab 2.5",
        "defense.calm": "acme-lab 2.5",
        "finetune.everything": "acme-lab 2.5",
        "defense.none": f"advss {HERE}",
        "data.digits": f"advss {HERE}",
        "evaluation.pgd": f"advss {HERE}",
        "evaluation.gallery": f"advss {HERE}",
    }


def test_a_defense_within_a_defense_is_named(install: Install) -> None:
    install("acme-lab", CODE)
    assert used("defense", Choice("wrap")) == [record("defense", "wrap"), CALM]
    trades = record("defense", "trades", "advss", HERE)
    assert used("defense", Choice("wrap", {"base": {"wrap": {"base": "trades"}}})) == [
        record("defense", "wrap"),
        record("defense", "wrap"),
        trades,
    ]


def test_each_is_named_once(install: Install) -> None:
    install("acme-lab", CODE)
    both = [("defense", Choice("calm")), ("defense", Choice("acme-lab:calm"))]
    assert used_by(both) == [CALM]  # type: ignore[arg-type]


@pytest.mark.parametrize("line", ["fit --resume", "pretrain --resume", "finetune --from"])
def test_a_missing_plugin_is_what_to_install(run: Path, capsys: Capture, line: str) -> None:
    assert main([*line.split(), str(run)]) == 2
    said = "needs the pretext task 'flip' of acme-lab 2.5, which is not installed; pip install acme-lab==2.5"
    assert only_line(capsys) == f"advss: error: run {run} {said}"


def test_the_others_that_are_missing_are_named_too(run: Path, capsys: Capture) -> None:
    """Not one error after the other on a new machine."""
    content = json.loads((run / "result.json").read_text())
    more = [record("finetune", "everything", "other-lab", "0.3"), record("defense", "calm", "third", "1+x y")]
    (run / "result.json").write_text(json.dumps(content | {"plugins": [*content["plugins"], *more, *more]}))
    assert main(["fit", "--resume", str(run)]) == 2
    others = "not installed either, of those that it used: other-lab==0.3 'third==1+x y'"
    assert only_line(capsys).endswith(f"which is not installed; pip install acme-lab==2.5; {others}")


def test_an_option_that_another_version_no_longer_has(run: Path, install: Install, capsys: Capture) -> None:
    """The error is of the option; the warning before it says where it may have gone."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"defense": {"calm": {"strength": 3}}}))
    install("acme-lab", CODE, version="3.0")
    assert main(["fit", "--resume", str(run)]) == 2
    warning, error = capsys.readouterr().err.splitlines()
    assert warning == f"advss: warning: run {run} was made with acme-lab 2.5; acme-lab 3.0 is installed"
    assert error.startswith("advss: error: ")
    assert "strength" in error


def test_evaluation_needs_none_of_them(run: Path, capsys: Capture) -> None:
    assert main(["evaluate", str(run), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_evaluation_of_what_several_tasks_pretrained_needs_none_of_them(run: Path, capsys: Capture) -> None:
    """Settings of an ensemble mean nothing without its tasks."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    several = {"pretext": ["flip", "rotation"], "diversity": 0.1, "diversity-sign": "minus", "finetune-tail": "flip"}
    (run / "config.yaml").write_text(yaml.safe_dump(config | several))
    assert main(["evaluate", str(run), "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    x, _ = advss.load_data(run, split="test")
    assert x.shape[1:] == (3, 16, 16)


def test_a_model_is_loaded_without_them(run: Path) -> None:
    model = advss.load_model(run)
    assert model(torch.rand(2, 3, 16, 16)).shape == (2, 10)


def test_what_is_chosen_anew_is_not_needed(run: Path, install: Install, capsys: Capture) -> None:
    """The scheme is gone, and another one is said; the task and its defense are there."""
    install("acme-lab", CODE.replace("return [Everything]", "return []"))
    assert main(["finetune", "--from", str(run), "--print-config"]) == 2
    assert "needs the fine-tuning scheme 'everything' of acme-lab 2.5; 2.5 is here and does not have it" in only_line(
        capsys
    )
    assert main(["finetune", "--from", str(run), "--finetune", "full", "--print-config"]) == 0


def test_another_version_without_the_plugin_says_so(run: Path, install: Install, capsys: Capture) -> None:
    install("acme-lab", CODE.replace("return [Flip]", "return []"), version="3.0")
    assert main(["fit", "--resume", str(run)]) == 2
    assert only_line(capsys).endswith("of acme-lab 2.5; 3.0 is here and does not have it; pip install acme-lab==2.5")


def test_a_plugin_that_is_here_and_broken_says_so(run: Path, install: Install, capsys: Capture) -> None:
    install("acme-lab", "1 / 0", version="2.6")
    assert main(["fit", "--resume", str(run)]) == 2
    _, line = capsys.readouterr().err.splitlines()
    broken = "2.6 is here and broken (ZeroDivisionError: division by zero); mend it, or pip install acme-lab==2.5"
    assert line.endswith(f"of acme-lab 2.5; {broken}")


def test_a_plugin_that_is_switched_off_says_by_what(run: Path, install: Install, capsys: Capture) -> None:
    install("acme-lab", CODE)
    assert main(["fit", "--resume", str(run), "-p", "no:flip"]) == 2
    assert only_line(capsys).endswith("unknown pretext task 'flip'; -p no:flip switches off 'acme-lab:flip'")


def test_a_run_of_before_records_says_what_it_did(run: Path, capsys: Capture) -> None:
    (run / "result.json").unlink()
    assert main(["fit", "--resume", str(run)]) == 2
    assert "unknown pretext task 'flip'" in only_line(capsys)


def test_the_same_version_goes_on_in_silence(run: Path, install: Install, capsys: Capture) -> None:
    install("acme-lab", CODE)
    assert main(["fit", "--resume", str(run), "--quiet"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_another_version_goes_on_and_is_named_once(run: Path, install: Install, capsys: Capture) -> None:
    install("acme-lab", CODE, version="2.6")
    assert main(["fit", "--resume", str(run), "--quiet"]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    checkpoint = run / "pretrain" / "last.safetensors"
    assert warnings == [
        f"advss: warning: checkpoint {checkpoint} was made with acme-lab 2.5; acme-lab 2.6 is installed"
    ]
    assert json.loads((run / "result.json").read_text())["plugins"][0]["version"] == "2.6"


def test_a_version_with_one_more_option_goes_on(run: Path, install: Install) -> None:
    more = "class Calm(Defense):\n    def __init__(self, *, depth: int = 3): self.depth = depth\n"
    install("acme-lab", CODE.replace("class Calm(Defense):\n", more), version="2.6")
    assert main(["fit", "--resume", str(run), "--quiet"]) == 0


SELFIE = {"selfie": {"name": "selfie", "options": {"grid": 4, "base": {"pgd": {"steps": 3}}}}}


@pytest.mark.parametrize(
    ("now", "same"),
    [
        (SELFIE, True),
        (
            {"selfie": {"name": "selfie", "options": {"grid": 4, "base": {"pgd": {"steps": 3, "new": 1}}, "more": 1}}},
            True,
        ),
        ({"selfie": {"name": "selfie", "options": {"grid": 5, "base": {"pgd": {"steps": 3}}}}}, False),
        ({"selfie": {"name": "selfie", "options": {"grid": 4, "base": {"pgd": {"steps": 4}}}}}, False),
        ({"selfie": {"name": "selfie", "options": {"grid": 4}}}, False),
        ({"selfie": {"name": "other", "options": SELFIE["selfie"]["options"]}}, False),
        (SELFIE | {"rotation": {"name": "rotation", "options": {}}}, False),
        ({}, False),
        (None, False),
    ],
)
def test_only_options_may_be_added(now: object, same: bool) -> None:
    assert agrees(SELFIE, now) is same


def test_a_backbone_s_options_may_not() -> None:
    assert not agrees({"backbone": "r", "options": {}}, {"backbone": "r", "options": {"drop_rate": 0.5}})


def test_fine_tuning_what_another_version_pretrained_names_it(run: Path, install: Install, capsys: Capture) -> None:
    install("acme-lab", CODE, version="2.6")
    words = ["--finetune", "full", "--finetune-epochs", "1", "--runs-dir", str(run.parent), "--name", "two", "--quiet"]
    main(["finetune", "--from", str(run), *words])
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    checkpoint = run / "pretrain" / "best.safetensors"
    assert warnings == [
        f"advss: warning: checkpoint {checkpoint} was made with acme-lab 2.5; acme-lab 2.6 is installed"
    ]


@pytest.mark.parametrize("records", [None, 7, [7], [{}], [{"kind": "pretext", "name": "flip"}]])
def test_records_that_are_none_are_passed_over(records: object) -> None:
    with pytest.raises(UsageError) as unknown:
        registry().plugin("pretext", "flip")
    assert needed(unknown.value, records, run="x") is None


def test_another_error_needs_nothing() -> None:
    assert needed(UsageError("--seed: must be at least 0"), [FLIP], run="x") is None


def test_an_error_within_an_option_needs_it_too() -> None:
    with pytest.raises(UsageError) as unknown:
        registry().plugin("defense", "calm")
    outer = UsageError("--defense.base: ...")
    outer.__cause__ = unknown.value
    assert needed(outer, [FLIP, CALM], run="x") is not None
