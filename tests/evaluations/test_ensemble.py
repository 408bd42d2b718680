"""Averaged classifiers as a run: its numbers, its files, its members, and what is refused before anything is made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from foolbox.attacks import LinfPGD
from foolbox.models.pytorch import PyTorchModel
from torch import Tensor

import advss
from advss.cli.main import main
from advss.config import EvalSettings
from advss.errors import UsageError
from advss.evaluations.ensemble import ensemble
from advss.evaluations.evaluate import evaluate
from advss.evaluations.transfer import transfer
from advss.runs.finished import Asked
from advss.tracking.journal import read_metrics
from advss.training.checkpoints import load_checkpoint, save_checkpoint
from advss.training.reporting import Silent
from advss.training.signals import Interrupted

EVALUATION = EvalSettings(eps=2 / 255, step_size=1 / 255, steps=2, restarts=1, batch_size=40, valid_steps=1)
MEASURED = ("ta", "ra", "ra_images", "ra_attack")


def asked(runs: Path, name: str | None = "average", evaluation: EvalSettings = EVALUATION) -> Asked:
    return Asked(evaluation, runs, name, "cpu", tracking=False)


def averaged(runs: Path, *names: str, **more: Any) -> dict[str, Any]:
    reporter = more.pop("reporter", Silent())
    subsets = more.pop("subsets", False)
    return ensemble([runs / name for name in names], asked(runs, **more), subsets=subsets, reporter=reporter)


def edit_result(run: Path, **content: Any) -> None:
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | content))


@pytest.fixture(scope="module")
def made(three_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The average of the three runs, every subset measured: the folder of runs and the result."""
    runs = Path(shutil.copytree(three_runs, tmp_path_factory.mktemp("averaged") / "runs"))
    edit_result(runs / "a", pretext=["selfie", "rotation"], defense="pgd")
    edit_result(runs / "b", pretext=["jigsaw"])
    return runs, averaged(runs, "a", "b", "c", subsets=True)


Made = tuple[Path, dict[str, Any]]


@pytest.mark.parametrize("count", [2, 3])
def test_copies_of_one_run_have_its_ta_and_ra(count: int, runs: Path) -> None:
    copies = [shutil.copytree(runs / "a", runs / f"copy{place}") for place in range(count)]
    result = averaged(runs, *(copy.name for copy in copies))
    alone = evaluate(runs / "a", EVALUATION, device="cpu", reporter=Silent())
    assert {key: result[key] for key in MEASURED} == {key: alone[key] for key in MEASURED}
    assert 0 < alone["ra"] < alone["ta"]


def mean_probabilities(runs: Path, names: tuple[str, ...], x: Tensor) -> Tensor:
    with torch.no_grad():
        logits = [advss.load_model(name, runs_dir=runs)(x).double() for name in names]
    return sum((one.softmax(1) for one in logits), torch.zeros(len(x), 10, dtype=torch.float64)) / len(names)


def test_the_kept_model_gives_the_logs_of_the_mean_probabilities(made: Made) -> None:
    runs, _ = made
    x, _ = advss.load_data("a", runs_dir=runs)
    model = advss.load_model("average", runs_dir=runs)
    assert not any(module.training for module in model.modules())
    with torch.no_grad():
        assert torch.allclose(model(x).double().exp(), mean_probabilities(runs, ("a", "b", "c"), x), atol=1e-6)


def test_ta_of_every_subset_is_that_of_its_mean_probabilities(made: Made) -> None:
    runs, result = made
    x, label = advss.load_data("a", runs_dir=runs)
    found = {tuple(row["members"]): row["ta"] for row in result["subsets"]}
    assert list(found) == [some for size in (1, 2, 3) for some in combinations("abc", size)]
    for names, ta in found.items():
        right = mean_probabilities(runs, names, x).argmax(1) == label
        assert ta == float(right.double().mean()), names


def test_single_members_of_the_same_seed_have_their_runs_own_ra(made: Made) -> None:
    runs, result = made
    rows = {tuple(row["members"]): row for row in result["subsets"]}
    for name in "ab":
        alone = evaluate(runs / name, EVALUATION, device="cpu", reporter=Silent())
        assert (rows[(name,)]["ta"], rows[(name,)]["ra"]) == (alone["ta"], alone["ra"])


@pytest.mark.parametrize(("evaluate", "attacked"), [("clean", False), ("clean,pgd", True)])
def test_subsets_have_the_ra_that_the_whole_has(runs: Path, evaluate: str, attacked: bool) -> None:
    config = yaml.safe_load((runs / "a/config.yaml").read_text())
    (runs / "a/config.yaml").write_text(yaml.safe_dump(config | {"evaluate": evaluate.split(",")}))
    result = averaged(runs, "a", "b", subsets=True)
    assert [row["ra"] is not None for row in [result, *result["subsets"]]] == [attacked] * 4
    assert all(row["ta"] is not None for row in result["subsets"])


def test_a_pair_among_the_subsets_is_what_the_pair_alone_would_be(made: Made) -> None:
    runs, result = made
    pair = averaged(runs, "a", "b", name="pair")
    row = next(row for row in result["subsets"] if row["members"] == ["a", "b"])
    assert {key: row[key] for key in MEASURED} == {key: pair[key] for key in MEASURED}
    assert "subsets" not in pair


def test_evaluating_the_average_measures_the_same_and_keeps_its_members(made: Made) -> None:
    runs, result = made
    again = evaluate(runs / "average", EVALUATION, device="cpu", reporter=Silent())
    assert {key: again[key] for key in MEASURED} == {key: result[key] for key in MEASURED}
    assert again["members"] == result["members"]


def test_the_result_says_what_the_members_are(made: Made) -> None:
    runs, result = made
    assert result["pretext"] == ["selfie", "rotation", "jigsaw"]
    assert (result["defense"], result["backbone"]) == ("mixed", "resnet18")
    assert result["finetune"] == {"scheme": "full", "defense": "none"}
    digests = [load_checkpoint(runs / name / "finetune/best.safetensors").manifest["sha256"] for name in "abc"]
    assert [(one["run"], one["sha256"]) for one in result["members"]] == list(zip("abc", digests, strict=True))
    assert [one["ta"] for one in result["members"]] == [
        json.loads((runs / n / "result.json").read_text())["ta"] for n in "abc"
    ]
    assert set(json.loads((runs / "c/result.json").read_text())) - set(result) <= {
        "best_epochs",
        "best_metrics",
        "skipped_steps",
        "plugins",
        "command",
        "weights",
    }


def test_its_configuration_is_the_first_members_under_a_comment(made: Made) -> None:
    runs, _ = made
    text = (runs / "average/config.yaml").read_text()
    assert text.startswith("# The average of the classifiers of")
    first, own = (yaml.safe_load((runs / name / "config.yaml").read_text()) for name in ("a", "average"))
    changed = {key for key in own if own[key] != first[key]}
    assert changed <= {"eval-restarts", "runs-dir", "device"}
    assert own["eval-restarts"] == 1


def test_its_data_are_the_first_members(made: Made) -> None:
    runs, _ = made
    for own, first in zip(advss.load_data("average", runs_dir=runs), advss.load_data("a", runs_dir=runs), strict=True):
        assert torch.equal(own, first)


def test_foolbox_attacks_it_as_any_model(made: Made) -> None:
    runs, _ = made
    x, label = advss.load_data("average", runs_dir=runs)
    x, label = x[:20], label[:20]
    model = PyTorchModel(advss.load_model("average", runs_dir=runs), bounds=(0, 1), device="cpu")
    torch.manual_seed(0)
    _, clipped, fooled = LinfPGD(abs_stepsize=0.02, steps=5)(model, x, label, epsilons=0.1)
    assert (clipped - x).abs().max() <= 0.1 + 1e-6
    assert fooled.sum() > (advss.load_model("average", runs_dir=runs)(x).argmax(1) != label).sum()


def test_measured_values_are_tracked(made: Made) -> None:
    runs, result = made
    metrics = {one.stage: one.values for one in read_metrics(runs / "average/metrics.jsonl")}
    assert metrics[""].items() >= {"test/ta": result["ta"], "test/ra": result["ra"]}.items()
    assert metrics["evaluate"]["test/ra/b+c"] == next(r["ra"] for r in result["subsets"] if r["members"] == ["b", "c"])


def test_an_average_can_be_averaged(runs: Path) -> None:
    averaged(runs, "a", "b", evaluation=replace(EVALUATION, limit=10))
    averaged(runs, "average", "c", name="of-averages", evaluation=replace(EVALUATION, limit=10))
    x, _ = advss.load_data("a", runs_dir=runs)
    both = (mean_probabilities(runs, ("a", "b"), x) + mean_probabilities(runs, ("c",), x)) / 2
    with torch.no_grad():
        assert torch.allclose(advss.load_model("of-averages", runs_dir=runs)(x).double().exp(), both, atol=1e-6)


def test_stopped_it_keeps_its_model_which_can_be_measured_later(runs: Path, stopper: Callable[..., Silent]) -> None:
    with pytest.raises(Interrupted):
        averaged(runs, "a", "b", reporter=stopper("evaluate pgd", "step", 40))
    result = json.loads((runs / "average/result.json").read_text())
    assert (result["ta"], result["ra"], result["status"]) == (None, None, "finished")
    assert evaluate(runs / "average", EVALUATION, device="cpu", reporter=Silent())["ra"] is not None


def test_stopped_among_subsets_it_keeps_those_that_were_measured(runs: Path, stopper: Callable[..., Silent]) -> None:
    with pytest.raises(Interrupted):
        averaged(runs, "a", "b", subsets=True, reporter=stopper("evaluate 3/3", "step", 40))
    result = json.loads((runs / "average/result.json").read_text())
    assert [row["members"] for row in result["subsets"]] == [["a"], ["a", "b"]]
    assert result["ra"] == result["subsets"][1]["ra"]


def test_members_that_trained_on_a_device_that_is_not_here_are_averaged(runs: Path) -> None:
    config = runs / "b/config.yaml"
    config.write_text(config.read_text().replace("device: cpu", "device: cuda:99"))
    assert averaged(runs, "a", "b", evaluation=replace(EVALUATION, limit=10))["device"] == "cpu"


# ---------------------------------------------------------------- bad input, of both commands
def edit(runs: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what b's checkpoint says of its data."""
    best = load_checkpoint(runs / "b/finetune/best.safetensors")
    change(best.manifest["data"])
    save_checkpoint(best.path, best.tensors, {k: v for k, v in best.manifest.items() if k != "sha256"})


def other_classes(runs: Path) -> None:
    edit(runs, lambda data: data["classes"].__setitem__(4, "deer"))


def other_data(runs: Path) -> None:
    edit(runs, lambda data: data["test"].update(images=50))


def no_model(runs: Path) -> None:
    shutil.rmtree(runs / "b/finetune")


def not_whole(runs: Path) -> None:
    for path in (runs / "b/finetune").glob("best*.safetensors"):
        path.write_bytes(b"nothing")


def taken(runs: Path) -> None:
    (runs / "outcome").mkdir()


def nothing(runs: Path) -> None:
    pass


BAD: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    "one run": (nothing, ["a"], "at least 2 runs are needed, got 1"),
    "one run twice": (nothing, ["a", "b", "a"], "run .*a is named twice"),
    "no such run": (nothing, ["a", "bb"], "there is no run '.*bb'"),
    "other classes": (other_classes, ["a", "b"], "run .*b is of other data than run .*a: class 4 is 'deer', not '4'"),
    "other data": (other_data, ["a", "b"], "run .*b is of other data than run .*a: 50 test images, not 100; name"),
    "no model": (no_model, ["a", "b"], "run .*b has no fine-tuned model"),
    "damaged": (not_whole, ["a", "b"], "checkpoint .*b/finetune/best.safetensors is damaged"),
}


@pytest.mark.parametrize("command", [ensemble, transfer])
@pytest.mark.parametrize("what", BAD)
def test_bad_runs_are_one_line_and_leave_no_folder(command: Callable[..., Any], what: str, runs: Path) -> None:
    change, names, message = BAD[what]
    change(runs)
    with pytest.raises(UsageError, match=message):
        command([runs / name for name in names], asked(runs, "outcome"), reporter=Silent())
    assert not (runs / "outcome").exists()


@pytest.mark.parametrize("command", [ensemble, transfer])
@pytest.mark.parametrize(
    ("change", "message"),
    [({"name": "a"}, "run folder .*a exists; choose another"), ({"name": "../up"}, "is no run name")],
)
def test_bad_names_are_refused(command: Callable[..., Any], change: dict[str, Any], message: str, runs: Path) -> None:
    with pytest.raises(UsageError, match=message):
        command([runs / "a", runs / "b"], replace(asked(runs), **change), reporter=Silent())


@pytest.mark.parametrize("command", [ensemble, transfer])
def test_a_device_that_is_not_there_is_refused(command: Callable[..., Any], runs: Path) -> None:
    with pytest.raises(UsageError, match="cuda:99"):
        command([runs / "a", runs / "b"], replace(asked(runs), device="cuda:99"), reporter=Silent())
    assert not (runs / "average").exists()


# ---------------------------------------------------------------- from the command line
def test_the_line_measures_as_the_first_run_was_unless_it_says_otherwise(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["a", "b", "--runs-dir", str(runs), "--name", "line", "--eval-limit", "20", "--eval-restarts=1", "--quiet"]
    assert main(["ensemble", *words, "--subsets"]) == 0
    result = json.loads((runs / "line/result.json").read_text())
    assert (result["ra_images"], result["ra_attack"]["restarts"], result["ra_attack"]["steps"]) == (20, 1, 2)
    assert result["ra_attack"]["eps"] == 2 / 255
    assert "a + b" in capsys.readouterr().out
    assert main(["ensemble", *words]) == 2
    assert "choose another --name" in capsys.readouterr().err


def test_the_outcome_lies_beside_the_first_run(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path / "runs")
    words = [str(runs / "a"), str(runs / "b"), "--name", "line", "--eval-limit", "10", "--quiet"]
    assert main(["transfer", *words]) == 0
    assert (runs / "line/transfer.json").is_file()
