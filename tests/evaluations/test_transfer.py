"""Transferred attacks: the matrix against evaluation and against recomputation, kept examples, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

import advss
from advss.config import Choice, EvalSettings
from advss.data.splits import open_splits
from advss.errors import UsageError
from advss.evaluations import transfer as transfer_module
from advss.evaluations.chunks import Kept, Measuring
from advss.evaluations.evaluate import evaluate
from advss.evaluations.planned import planned
from advss.evaluations.transfer import transfer
from advss.files import write_bytes
from advss.randomness import stream
from advss.runs.finished import Asked
from advss.tracking.journal import read_metrics
from advss.training.checkpoints import load_checkpoint, save_checkpoint
from advss.training.reporting import Silent
from advss.training.signals import Interrupted, StopRequest
from advss_evaluations.examples import Examples

EVALUATION = EvalSettings(eps=2 / 255, step_size=1 / 255, steps=2, restarts=2, batch_size=40)
FEW = replace(EVALUATION, limit=20)
CPU = torch.device("cpu")


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def asked(runs: Path, name: str | None = "transfer", evaluation: EvalSettings = FEW) -> Asked:
    return Asked(evaluation, runs, name, "cpu", tracking=False)


def between(runs: Path, *names: str, reporter: Silent | None = None, **more: Any) -> dict[str, Any]:
    return transfer([runs / name for name in names], asked(runs, **more), reporter=reporter or Said())


def model(runs: Path, name: str) -> torch.nn.Module:
    return advss.load_model(name, runs_dir=runs)


def kept(runs: Path, name: str) -> dict[str, Tensor]:
    (file,) = (runs / name / "evaluations").glob("examples-*.safetensors")
    return load_file(file)


def _blank(outcome: dict[str, Any], path: Path) -> tuple[Path]:
    write_bytes(path, b"")
    return (path,)


@pytest.fixture
def runs(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The copy of the three runs; no figures are drawn of them."""
    for draw in ("draw_asr", "draw_overlap"):
        monkeypatch.setattr(transfer_module, draw, _blank)
    return runs


@pytest.fixture(scope="module")
def compared(three_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[str]]:
    """The three runs compared, once: their folder, the outcome and what was said."""
    runs = Path(shutil.copytree(three_runs, tmp_path_factory.mktemp("compared") / "runs"))
    said = Said()
    return runs, between(runs, "a", "b", "c", evaluation=EVALUATION, reporter=said), said.lines


Compared = tuple[Path, dict[str, Any], list[str]]


@pytest.mark.parametrize("place", [0, 1])
def test_the_diagonal_is_exactly_one_minus_ra_as_evaluate_measures_it(compared: Compared, place: int) -> None:
    runs, outcome, _ = compared
    measured = evaluate(runs / "ab"[place], EVALUATION, device="cpu", reporter=Silent())
    assert outcome["asr"][place][place] == 1 - measured["ra"]
    assert outcome["ta"][place] == measured["ta"]
    assert 0 < measured["ra"] < measured["ta"]


def test_a_run_of_another_seed_is_attacked_with_its_own_draws_on_the_same_images(compared: Compared) -> None:
    runs, outcome, _ = compared
    test = open_splits("digits", {}, limit=100).test
    plan = planned(Choice("pgd"), EVALUATION)
    how = Measuring(CPU, 1, EVALUATION.batch_size, Silent(), StopRequest())
    victim = plan.victim(model(runs, "c"), classes="0123456789", noise=0.0)
    figures = plan.figures(plan.measured(victim, test, how, Kept(None, {}), "x"))
    assert outcome["asr"][2][2] == 1 - figures["ra"]["accuracy"]


def test_rows_are_attacked_models_and_columns_those_the_attack_was_made_on(compared: Compared) -> None:
    runs, outcome, _ = compared
    _, label = advss.load_data("a", runs_dir=runs)
    for column, source in enumerate("abc"):
        x = kept(runs, source)["x"]
        for row, attacked in enumerate("abc"):
            with torch.no_grad():
                wrong = int((model(runs, attacked)(x).argmax(1) != label).sum())
            assert outcome["asr"][row][column] == pytest.approx(wrong / len(x), abs=1e-12), (attacked, source)
    assert len({rate for row in outcome["asr"] for rate in row}) > 3


def test_kept_examples_lie_in_the_ball_around_the_test_images(compared: Compared) -> None:
    runs, _, _ = compared
    x, label = advss.load_data("a", runs_dir=runs)
    made = kept(runs, "b")
    assert (made["x"] - x).abs().max() <= EVALUATION.threat.eps + 1e-6
    assert 0 <= made["x"].min() < made["x"].max() <= 1
    assert torch.equal(made["label"], label)


def by_hand(net: torch.nn.Module, x: Tensor, label: Tensor, generator: torch.Generator) -> Tensor:
    """One PGD as the paper's section 3.1 has it, on all images; those that it would heal stand for themselves."""
    right, eps = net(x).argmax(1) == label, EVALUATION.threat.eps
    made = (x + torch.empty_like(x).uniform_(-eps, eps, generator=generator)).clamp(0, 1)
    for _ in range(EVALUATION.steps):
        made.requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(net(made), label, reduction="sum"), made)
        moved = made.detach() + EVALUATION.threat.step_size * gradient.sign()
        made = torch.min(torch.max(moved, x - eps), x + eps).clamp(0, 1)
    healed = (~right) & (net(made).argmax(1) == label)
    made[healed] = x[healed]
    return made.detach()


def test_off_diagonals_are_those_of_an_attack_written_by_hand(runs: Path) -> None:
    settings = replace(EVALUATION, restarts=1, batch_size=100)
    outcome = between(runs, "a", "b", evaluation=settings)
    x, label = advss.load_data("a", runs_dir=runs)
    for column, (source, target) in enumerate((("a", "b"), ("b", "a"))):
        made = by_hand(model(runs, source), x, label, stream("cpu", 0, "evaluate", "", 0))
        wrong = (model(runs, target)(made).argmax(1) != label).double().mean()
        assert outcome["asr"][1 - column][column] == pytest.approx(float(wrong), abs=1e-12)


def test_success_over_images_that_both_have_right_is_recomputed(compared: Compared) -> None:
    runs, outcome, _ = compared
    x, label = advss.load_data("a", runs_dir=runs)
    with torch.no_grad():
        right = {name: model(runs, name)(x).argmax(1) == label for name in "abc"}
    for column, source in enumerate("abc"):
        made = kept(runs, source)["x"]
        for row, attacked in enumerate("abc"):
            with torch.no_grad():
                fell = model(runs, attacked)(made).argmax(1) != label
            both = right[source] & right[attacked]
            assert outcome["both_right"][row][column] == int(both.sum())
            expected = float(fell[both].double().mean()) if both.any() else None
            assert outcome["asr_both_right"][row][column] == expected
    everyone = right["a"] & right["b"] & right["c"]
    assert outcome["all_right"] == sorted(kept(runs, "a")["index"][everyone].tolist())
    assert outcome["error"] == [1 - ta for ta in outcome["ta"]]


def test_nothing_transfers_to_a_model_of_one_class(runs: Path) -> None:
    """Every example "succeeds" on the nine classes in ten that it never answers; none on what it has right."""
    best = load_checkpoint(runs / "b/finetune/best.safetensors")
    best.tensors["head.weight"].zero_()
    best.tensors["head.bias"].copy_(torch.eye(10)[3])
    save_checkpoint(best.path, best.tensors, {k: v for k, v in best.manifest.items() if k != "sha256"})
    outcome = between(runs, "a", "b", evaluation=EVALUATION)
    x, label = advss.load_data("a", runs_dir=runs)
    with torch.no_grad():
        both = int(((model(runs, "a")(x).argmax(1) == label) & (label == 3)).sum())
    assert outcome["asr"][1] == pytest.approx([0.9, 0.9])
    assert outcome["error"][1] == pytest.approx(0.9)
    assert outcome["asr_both_right"][1] == [0.0, 0.0]
    assert outcome["both_right"][1] == [both, 10]
    assert 0 < both <= 10


def test_sets_are_places_in_the_test_set_of_what_succeeds(compared: Compared) -> None:
    runs, outcome, _ = compared
    made, (_, label) = kept(runs, "a"), advss.load_data("a", runs_dir=runs)
    with torch.no_grad():
        wrong = model(runs, "b")(made["x"]).argmax(1) != label
    assert outcome["sets"]["a"]["b"] == sorted(made["index"][wrong].tolist())
    assert max(made["index"]) > len(label)  # places in the whole test set, not among the images attacked


def test_overlap_leaves_the_source_out_or_has_it(compared: Compared) -> None:
    _, outcome, _ = compared
    sets = {name: set(places) for name, places in outcome["sets"]["a"].items()}
    found = outcome["overlap"]["a"]
    assert found["others"]["union"] == len(sets["b"] | sets["c"])
    assert found["others"]["not_shared"] == pytest.approx(len(sets["b"] ^ sets["c"]) / len(sets["b"] | sets["c"]))
    regions = {tuple(region["models"]): region["count"] for region in found["all"]["regions"]}
    assert regions[("a", "b", "c")] == len(sets["a"] & sets["b"] & sets["c"])
    assert regions.get(("b", "c"), 0) == len(sets["b"] & sets["c"] - sets["a"])
    assert found["others_right"]["union"] == len((sets["b"] | sets["c"]) & set(outcome["all_right"]))


def test_the_folder_holds_what_was_returned_and_figures(compared: Compared) -> None:
    runs, outcome, _ = compared
    folder = runs / "transfer"
    assert json.loads((folder / "transfer.json").read_text()) | {"folder": str(folder)} == outcome
    drawn = {file.name for file in (folder / "figures").iterdir()}
    assert drawn == {"asr.png", "asr.svg", "venn.png", "venn.svg"}
    assert (outcome["attack"]["title"], outcome["attack"]["restarts"]) == ("examples of PGD-2 ×2 ℓ∞ 2/255", 2)
    assert (outcome["images"]["count"], outcome["images"]["run"]) == (100, "a")


def test_rates_are_tracked(compared: Compared) -> None:
    runs, outcome, _ = compared
    (metrics,) = [one for one in read_metrics(runs / "transfer" / "metrics.jsonl") if one.stage == ""]
    assert metrics.values["asr/b/a"] == outcome["asr"][1][0]
    assert metrics.values["asr_both_right/c/a"] == outcome["asr_both_right"][2][0]
    known = [rate for row in outcome["asr_both_right"] for rate in row if rate is not None]
    assert [metrics.values[f"error/{name}"] for name in "abc"] == outcome["error"]
    assert [metrics.values[f"ta/{name}"] for name in "abc"] == outcome["ta"]
    assert len(metrics.values) == 9 + len(known) + 6


def test_of_four_models_the_three_counts_stand_apart(runs: Path) -> None:
    """d is a that answers class 3 alone: it has nine images in ten wrong, and no attack does anything to it."""
    shutil.copytree(runs / "a", runs / "d")
    best = load_checkpoint(runs / "d/finetune/best.safetensors")
    best.tensors["head.bias"][3] += 1e6
    save_checkpoint(best.path, best.tensors, {k: v for k, v in best.manifest.items() if k != "sha256"})
    outcome = between(runs, "a", "b", "c", "d", evaluation=FEW)
    x, label = advss.load_data("a", runs_dir=runs)
    order = open_splits("digits", {}, limit=100).test.index.tolist()
    chosen = [order.index(place) for place in kept(runs, "a")["index"].tolist()]
    x, label = x[chosen], label[chosen]
    with torch.no_grad():
        right = {name: model(runs, name)(x).argmax(1) == label for name in "abcd"}
        fell = {(s, t): model(runs, t)(kept(runs, s)["x"]).argmax(1) != label for s in "abcd" for t in "abcd"}
    for row, target in enumerate("abcd"):
        assert outcome["error"][row] == pytest.approx(float((~right[target]).double().mean()))
        for column, source in enumerate("abcd"):
            both = right[source] & right[target]
            assert outcome["asr"][row][column] == pytest.approx(float(fell[source, target].double().mean()))
            assert outcome["both_right"][row][column] == int(both.sum())
            expected = float(fell[source, target][both].double().mean()) if both.any() else None
            assert outcome["asr_both_right"][row][column] == expected
    assert outcome["asr"][3] == pytest.approx([0.9] * 4)
    assert {rate for rate in outcome["asr_both_right"][3] if rate is not None} == {0.0}
    assert {"".join(region["models"]) for region in outcome["overlap"]["a"]["all"]["regions"]} >= {"d", "abcd"}


# ---------------------------------------------------------------- kept examples
def files(runs: Path) -> dict[str, tuple[bytes, int]]:
    found = sorted(runs.glob("*/evaluations/examples-*.safetensors"))
    return {str(file.relative_to(runs)): (file.read_bytes(), file.stat().st_mtime_ns) for file in found}


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, making examples fails."""

    def forbid() -> None:
        def fail(*args: object, **kwargs: object) -> None:
            raise AssertionError("examples were made")

        monkeypatch.setattr(Examples, "measure", fail)

    return forbid


def test_a_second_call_reuses_the_examples_and_says_so(runs: Path, forbidden: Callable[[], None]) -> None:
    first, before, said = between(runs, "a", "b"), files(runs), Said()
    forbidden()
    again = between(runs, "b", "a", name="again", reporter=said)  # the same images, in another order
    assert files(runs) == before
    assert [row[::-1] for row in again["asr"][::-1]] == first["asr"]
    assert [line for line in said.lines if line.startswith("examples of b: those kept in")]


CHANGES: list[dict[str, Any]] = [{"steps": 1}, {"eps": 0.03}, {"restarts": 1}, {"norm": "l2"}, {"batch_size": 50}]
CHANGES += [{"step_size": 0.01}, {"limit": 30}, {"loss": "margin"}, {"precision": "bf16"}]


def test_another_attack_makes_its_own_examples(runs: Path, forbidden: Callable[[], None]) -> None:
    between(runs, "a", "b")
    forbidden()
    for change in CHANGES:
        with pytest.raises(AssertionError, match="examples were made"):
            between(runs, "a", "b", name="again", evaluation=replace(FEW, **change))


def test_another_checkpoint_makes_its_own_examples(runs: Path) -> None:
    between(runs, "a", "b")
    best = load_checkpoint(runs / "a/finetune/best.safetensors")
    best.tensors["head.bias"] += 1.0
    save_checkpoint(best.path, best.tensors, {k: v for k, v in best.manifest.items() if k != "sha256"})
    between(runs, "a", "b", name="again")
    assert [len(list(runs.glob(f"{name}/evaluations/examples-*.safetensors"))) for name in "ab"] == [2, 1]


def test_damaged_examples_are_made_anew(runs: Path) -> None:
    first = between(runs, "a", "b")
    whole = files(runs)
    (file,) = (runs / "a/evaluations").glob("examples-*.safetensors")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 64
    file.write_bytes(data)
    assert between(runs, "a", "b", name="again")["asr"] == first["asr"]
    assert {name: data for name, (data, _) in files(runs).items()} == {n: data for n, (data, _) in whole.items()}


def test_stopped_it_keeps_what_is_done_and_leaves_nothing_else(runs: Path, stopper: Callable[..., Silent]) -> None:
    settings, elsewhere = replace(FEW, batch_size=10), Path(shutil.copytree(runs, runs.parent / "elsewhere"))
    whole = between(elsewhere, "a", "b", evaluation=settings)
    with pytest.raises(Interrupted):
        between(runs, "a", "b", evaluation=settings, reporter=stopper("examples b", "step", 10))
    assert [name.split("/")[0] for name in files(runs)] == ["a"]
    assert not (runs / "transfer").exists()
    said = Said()
    assert between(runs, "a", "b", evaluation=settings, reporter=said)["sets"] == whole["sets"]
    assert [line for line in said.lines if line.startswith("examples of a: those kept")]
    assert "examples b: 10 of 20 images were measured before, in the same way" in said.lines


# ---------------------------------------------------------------- models that have learnt nothing
def test_a_model_of_one_class_is_told_from_the_others(runs: Path) -> None:
    best = load_checkpoint(runs / "a/finetune/best.safetensors")
    best.tensors["head.bias"][3] += 1e6
    save_checkpoint(best.path, best.tensors, {k: v for k, v in best.manifest.items() if k != "sha256"})
    a, b = between(runs, "a", "b", evaluation=EVALUATION)["runs"]
    assert a["doubt"] == "the model answers '3' for 100 % of the 100 test images, of which 10 % are"
    assert (a["chance"], a["most_answered"]) == (0.1, {"name": "3", "share": 1.0})
    assert b["doubt"] is None


# ---------------------------------------------------------------- labels and names
def test_runs_of_one_name_are_told_apart(runs: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "a"
    shutil.copytree(runs / "b", other)
    outcome = transfer([runs / "a", other], asked(runs), reporter=Silent())
    assert outcome["models"] == ["a", "a#2"]


def test_without_a_name_the_folder_is_named_by_the_date(runs: Path) -> None:
    outcome = between(runs, "a", "b", name=None)
    assert Path(outcome["folder"]).name.startswith("transfer-2")


def test_a_folder_of_examples_that_cannot_be_made_is_one_line_before_any_attack(
    runs: Path, forbidden: Callable[[], None]
) -> None:
    shutil.rmtree(runs / "b/evaluations")
    (runs / "b/evaluations").write_text("in the way")
    forbidden()
    with pytest.raises(UsageError, match=r"cannot save .*b/evaluations"):
        between(runs, "a", "b")
    assert not (runs / "transfer").exists()


def test_a_loss_that_needs_more_classes_is_one_line_before_any_attack(
    runs: Path, forbidden: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    forbidden()
    monkeypatch.setattr("advss.attacks.pgd.DLR_CLASSES", 11)
    with pytest.raises(UsageError, match="loss dlr needs at least 11 classes, the model has 10: choose ce or margin"):
        between(runs, "a", "b", evaluation=replace(FEW, loss="dlr"))
    assert not (runs / "transfer").exists()


def test_examples_are_those_that_evaluate_keeps(runs: Path, forbidden: Callable[[], None]) -> None:
    evaluate(runs / "a", FEW, [Choice("examples")], device="cpu", reporter=Silent())
    said = Said()
    between(runs, "a", "b", reporter=said)
    assert [line for line in said.lines if line.startswith("examples of a: those kept in")]
