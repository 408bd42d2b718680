from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from foolbox.attacks import LinfPGD
from foolbox.models.pytorch import PyTorchModel

import advss
from advss.cli.main import main
from advss.config import EvalSettings, RunConfig
from advss.data.splits import Part, open_splits, part_tensors
from advss.errors import UsageError
from advss.evaluations.evaluate import evaluate
from advss.stages.fit import fit
from advss.tracking.journal import read_metrics
from advss.training.checkpoints import load_checkpoint, save_checkpoint
from advss.training.reporting import Silent
from advss.training.signals import Interrupted

Settings = Callable[..., RunConfig]
EPS, STEP_SIZE, STEPS = 2 / 255, 0.5 / 255, 10


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A classifier of 300 digits, trained for a few epochs: the run's folder and result."""
    runs = tmp_path_factory.mktemp("runs")
    result = advss.fit(
        pretext="none",
        defense="none",
        backbone={"resnet18": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}},
        finetune_epochs=8,
        finetune_batch_size=16,
        eval_valid_steps=1,
        eval_eps=EPS,
        eval_step_size=STEP_SIZE,
        eval_steps=STEPS,
        name="digits",
        runs_dir=str(runs),
        device="cpu",
        memory_format="contiguous",
        tracking=False,
        data_limit=300,
    )
    return runs / "digits", result


def test_fit_returns_what_result_json_holds(trained: tuple[Path, dict[str, Any]]) -> None:
    run, result = trained
    assert json.loads((run / "result.json").read_text()) == result


def test_result_has_the_promised_keys(trained: tuple[Path, dict[str, Any]]) -> None:
    _, result = trained
    types = {
        "name": str,
        "pretext": list,
        "defense": str,
        "finetune": dict,
        "data": str,
        "backbone": str,
        "seed": int,
        "ta": float,
        "ra": float,
        "ra_attack": dict,
        "best_epoch": int,
        "epochs": dict,
        "seconds": dict,
    }
    assert {key: type(result[key]) for key in types} == types
    assert result["finetune"] == {"scheme": "full", "defense": "none"}
    assert result["ra_attack"].items() >= {"norm": "linf", "eps": EPS, "steps": STEPS}.items()
    assert 0 <= result["ra"] <= result["ta"] <= 1


def test_run_folder_holds_the_promised_files(trained: tuple[Path, dict[str, Any]]) -> None:
    run, _ = trained
    promised = ["config.yaml", "result.json", "metrics.jsonl", "figures/finetune.png"]
    promised += [f"finetune/{kind}{suffix}" for kind in ("last", "best") for suffix in (".safetensors", ".json")]
    assert [name for name in promised if not (run / name).is_file()] == []


def test_ta_is_that_of_the_loaded_model(trained: tuple[Path, dict[str, Any]]) -> None:
    run, result = trained
    x, label = advss.load_data(run)
    with torch.no_grad():
        right = advss.load_model(run)(x).argmax(1) == label
    assert float(right.double().mean()) == pytest.approx(result["ta"], abs=1e-9)


def test_ra_is_within_a_point_of_foolbox(trained: tuple[Path, dict[str, Any]]) -> None:
    run, result = trained
    x, label = advss.load_data(run)
    assert len(x) == result["ra_images"] >= 300
    classifier = advss.load_model(run)
    with torch.no_grad():
        clean = classifier(x).argmax(1) == label  # no perturbation is one too: what is wrong unattacked is not robust
    model = PyTorchModel(classifier, bounds=(0, 1), device="cpu")
    attack = LinfPGD(abs_stepsize=STEP_SIZE, steps=STEPS, random_start=True)
    torch.manual_seed(0)
    _, _, broken = attack(model, x, label, epsilons=EPS)
    assert 0.05 < result["ra"] < result["ta"] - 0.05
    assert abs(float((clean & ~broken).double().mean()) - result["ra"]) <= 0.01


def test_images_of_a_run_are_floats_in_the_unit_interval(trained: tuple[Path, dict[str, Any]]) -> None:
    x, label = advss.load_data(trained[0])
    assert (x.dtype, x.shape[1:], label.dtype) == (torch.float32, (3, 32, 32), torch.int64)
    assert 0 <= float(x.min()) < float(x.max()) <= 1


def test_model_loads_by_run_and_by_file_alike(trained: tuple[Path, dict[str, Any]]) -> None:
    run, _ = trained
    x, _ = advss.load_data(run)
    by_run, by_name, by_file = (
        advss.load_model(run),
        advss.load_model(run.name, runs_dir=run.parent),
        advss.load_model(run / "finetune/best.safetensors"),
    )
    logits = by_run(x[:4])
    assert not by_run.training
    assert torch.equal(logits, by_name(x[:4]))
    assert torch.equal(logits, by_file(x[:4]))


def test_unknown_run_is_named_with_the_nearest(trained: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(UsageError, match=r"there is no run 'digit' .*; did you mean 'digits'"):
        advss.load_model("digit", runs_dir=trained[0].parent)


def test_more_restarts_and_steps_find_no_less(run: Path) -> None:
    found = measured(run, EvalSettings(eps=EPS, step_size=STEP_SIZE, steps=STEPS, restarts=2))
    assert found["ra"] <= found["headline"]["ra"]
    assert found["ra_attack"]["restarts"] == 2


# ---------------------------------------------------------------- several measurements
OTHER = EvalSettings(eps=EPS, step_size=STEP_SIZE, steps=1, limit=60)
HEADLINE = ("ta", "ra", "ra_images", "ra_attack", "ta_all", "test_images", "evaluation")


@pytest.fixture
def run(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy of the run, to be measured again."""
    return Path(shutil.copytree(trained[0], tmp_path / "digits"))


def measured(run: Path, settings: EvalSettings = OTHER) -> dict[str, Any]:
    return evaluate(run, settings, device="cpu", reporter=Silent())


def written(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_a_second_measurement_stands_beside_the_first_and_the_headline_stays(run: Path) -> None:
    before = written(run / "result.json")
    found = measured(run)
    after = written(run / "result.json")
    assert {key: after[key] for key in found["headline"]} == found["headline"]
    assert {key: after[key] for key in HEADLINE} == {key: before[key] for key in HEADLINE}
    first, second = before["evaluation"]["file"], found["evaluation"]["file"]
    assert sorted(str(file.relative_to(run)) for file in run.glob("evaluations/pgd-*.json")) == sorted([first, second])
    assert (found["ra_images"], found["ra_attack"]["steps"]) == (60, 1)
    ra = [written(run / file)["figures"]["ra"]["accuracy"] for file in (first, second)]
    assert ra == [before["ra"], found["ra"]]
    assert before["ra"] != found["ra"]


def test_the_same_measurement_takes_its_own_place(run: Path) -> None:
    first = measured(run)
    again = measured(run)
    assert again["ra"] == first["ra"]
    assert len(list(run.glob("evaluations/pgd-*.json"))) == 2


def unmeasured(run: Path) -> None:
    """As after `advss finetune`."""
    shutil.rmtree(run / "evaluations")
    result = written(run / "result.json")
    (run / "result.json").write_text(json.dumps({key: result[key] for key in result if key not in HEADLINE}))


def test_the_first_measurement_is_the_headline_until_the_runs_own_settings_are_measured(
    run: Path, trained: tuple[Path, dict[str, Any]]
) -> None:
    unmeasured(run)
    only = measured(run)
    assert "headline" not in only
    assert written(run / "result.json")["ra_images"] == 60
    third = measured(run, replace(OTHER, steps=2))
    assert third["headline"]["evaluation"] == only["evaluation"] == written(run / "result.json")["evaluation"]
    own = measured(run, EvalSettings(eps=EPS, step_size=STEP_SIZE, steps=STEPS))
    assert "headline" not in own
    after = written(run / "result.json")
    assert (after["ra_images"], after["ra_attack"]) == (len(advss.load_data(run)[1]), trained[1]["ra_attack"])
    assert len(list(run.glob("evaluations/pgd-*.json"))) == 3


def test_the_headline_of_another_checkpoint_gives_way(run: Path) -> None:
    best = load_checkpoint(run / "finetune/best.safetensors")
    best.tensors["head.bias"] += 1.0
    save_checkpoint(best.path, best.tensors, {k: v for k, v in best.manifest.items() if k != "sha256"})
    assert "headline" not in measured(run)


def test_only_the_headline_is_tracked_as_the_runs_own(run: Path) -> None:
    found = measured(run)
    metrics = [one for one in read_metrics(run / "metrics.jsonl") if "test/ra" in one.values]
    stages = {one.stage: one.values["test/ra"] for one in metrics}
    name = Path(found["evaluation"]["file"]).stem
    headline = found["headline"]["ra"]
    own = Path(found["headline"]["evaluation"]["file"]).stem
    assert stages == {"": headline, f"evaluate/{own}": headline, f"evaluate/{name}": found["ra"]}


def test_what_is_the_headline_is_tracked_by_its_evaluations_name_too(trained: tuple[Path, dict[str, Any]]) -> None:
    run, result = trained
    own = [one.values for one in read_metrics(run / "metrics.jsonl") if not one.stage]
    tracked = {name: value for values in own for name, value in values.items()}
    assert tracked["test/pgd/ra"] == tracked["test/ra"] == result["ra"]


def test_ta_beside_ra_is_of_the_same_images(run: Path) -> None:
    found = measured(run)
    splits = open_splits("digits", {}, limit=300, seed=0)
    model = advss.load_model(run)

    def ta(part: Part) -> float:
        x, label = part_tensors(part)
        with torch.no_grad():
            return float((model(x).argmax(1) == label).double().mean())

    chosen = splits.test.subset(60)
    assert (found["ta"], found["ta_all"]) == (ta(chosen), ta(splits.test))
    assert found["ta"] != found["ta_all"]
    assert found["ra"] <= found["ta"]


def test_the_measurement_just_made_is_printed_and_where_the_headline_stays(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["evaluate", str(run), "--quiet", "--eval-steps", "1", "--eval-limit", "60"]) == 0
    out = capsys.readouterr().out
    stays = written(run / "result.json")
    assert "PGD-1 ℓ∞ 2/255, 60 images" in out
    assert f"headline    stays TA {100 * stays['ta']:.2f} %, RA {100 * stays['ra']:.2f} % (PGD-10 ℓ∞ 2/255" in out
    assert "of all 300 test images; in the table of the 60 attacked" in out


def test_python_measures_as_the_command_does(run: Path) -> None:
    found = advss.evaluate(run, evaluate=["clean", {"pgd": {"steps": 2}}], limit=40, eval_eps=EPS)
    assert [one["evaluation"] for one in found["measured"]] == ["clean", "pgd"]
    assert [one["images"]["count"] for one in found["measured"]] == [40, 40]
    options = found["measured"][1]["options"]
    assert (options["eps"], options["steps"]) == (EPS, 2)
    line = ["evaluate", str(run), "--evaluate", "pgd", "--pgd.steps", "2", "--limit", "40", "--eval-eps", str(EPS)]
    before = sorted((run / "evaluations").iterdir())
    assert main([*line, "--quiet"]) == 0
    assert sorted((run / "evaluations").iterdir()) == before


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"limt": 3}, "unknown setting limt; did you mean 'limit'?"),
        ({"eval_step": 3}, "unknown setting eval_step; did you mean 'eval_steps'?"),
        ({"pretext": "rotation"}, "unknown setting pretext; known: data, device, eval_batch_size"),
        ({"evaluate": {"pgd": {"stps": 3}}}, "unknown option --pgd.stps of pgd; did you mean 'steps'?"),
        ({"eval_eps": 8}, "must be at most 1 for linf, got 8.0"),
    ],
)
def test_python_is_told_what_cannot_be_measured(run: Path, said: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as refused:
        advss.evaluate(run, **said)
    assert line in str(refused.value)


def test_evaluating_an_unfinished_run_leaves_it_unfinished(settings: Settings, stopper: Callable[..., Silent]) -> None:
    config = settings("none", "none", stage={"epochs": 2})
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        fit(config, reporter=stopper("finetune", "epoch", 1))
    result = evaluate(config.runs_dir / "run", replace(config.evaluation, steps=1), device="cpu", reporter=Silent())
    assert result["ta"] is not None
    assert fit(config, resume=True, reporter=Silent())["epochs"] == {"finetune": 2}


def test_a_run_outlives_its_pretext_plugin_and_its_place(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = fit(settings("rotation", "none"), reporter=Silent())
    moved = (tmp_path / "runs" / "run").rename(tmp_path / "moved")
    config = (moved / "config.yaml").read_text()
    assert "rotation: {}" in config
    (moved / "config.yaml").write_text(config.replace("rotation: {}", "gone: {share: 0.3}"))
    assert main(["evaluate", str(moved), "--quiet", "--eval-steps", "1", "--eval-limit", "20"]) == 0
    again = json.loads((moved / "result.json").read_text())
    assert again["ta"] == result["ta"]
    assert (again["name"], again["folder"]) == ("moved", str(moved))
    assert len(advss.load_data(moved)[0]) == 80
    capsys.readouterr()
    assert main(["evaluate", str(moved), "--eval-steps", "0"]) == 2
    assert "--eval-steps" in capsys.readouterr().err
