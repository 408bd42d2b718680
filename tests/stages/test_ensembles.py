"""Whole runs that pretrain on several tasks: order, diversity's options, what is logged, which last stage goes on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from advss import randomness
from advss.config import Choice, RunConfig
from advss.configuration.resolve import resolve
from advss.data.splits import open_splits
from advss.errors import UsageError
from advss.randomness import seed_of
from advss.runs.folder import RunFolder
from advss.runs.session import Session
from advss.runs.start import read_start
from advss.stages.fit import finetune, pretrain
from advss.stages.pretrain import pretrain_work
from advss.tracking.journal import read_metrics
from advss.tracking.tracker import Tracker
from advss.training.reporting import Silent
from advss.training.signals import StopRequest
from advss.training.work import Work

Settings = Callable[..., RunConfig]
Tensors = Callable[[RunConfig, str, str], dict[str, Tensor]]
BOTH = "rotation,jigsaw"


@pytest.fixture
def work_of(tmp_path: Path) -> Callable[[RunConfig], Work]:
    """The pretraining stage of a configuration, built and not trained."""

    def make(config: RunConfig) -> Work:
        folder = RunFolder(tmp_path / "work")
        folder.path.mkdir(exist_ok=True)
        splits = open_splits("digits", {}, limit=config.limit)
        tracker = Tracker(folder.path, name="work", enabled=False)
        return pretrain_work(Session(config, folder, splits, torch.device("cpu"), tracker, Silent(), StopRequest()))

    return make


def logged(config: RunConfig) -> dict[str, set[str]]:
    """Names of the metrics in a run's journal, by stage."""
    names: dict[str, set[str]] = defaultdict(set)
    for record in read_metrics(config.runs_dir / "run/metrics.jsonl"):
        names[record.stage] |= set(record.values)
    return names


# ---------------------------------------------------------------- the step
def test_the_order_in_which_tasks_are_named_changes_nothing(settings: Settings, tensors: Tensors) -> None:
    ends = []
    for name, tasks in (("one", "rotation,jigsaw"), ("other", "jigsaw,rotation")):
        config = settings(tasks, name=name, diversity=0.1)
        pretrain(config, reporter=Silent())
        ends.append(tensors(config, "pretrain", "last"))
    weights = [{n: t for n, t in end.items() if not n.startswith("optimizer.")} for end in ends]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_same_task_twice_with_other_options(settings: Settings) -> None:
    twice = (
        Choice("jigsaw", {"permutations": 5}, "jigsaw"),
        Choice("jigsaw", {"grid": 2, "permutations": 4}, "jigsaw#2"),
    )
    config = replace(settings("jigsaw", diversity=0.1), pretext=twice)
    pretrain(config, reporter=Silent())
    assert {"valid/adversarial/jigsaw/accuracy", "valid/adversarial/jigsaw#2/accuracy"} <= logged(config)["pretrain"]


def test_the_averaged_loss_is_the_released_one(settings: Settings, work_of: Callable[[RunConfig], Work]) -> None:
    """(Σ clean + Σ attacked) / 2M + α·g."""
    work = work_of(settings(BOTH, diversity=0.1, ensemble_loss="mean"))
    objective = work.objective(work.loader.batch(0, 0, progress=0.0), step=0)
    inputs = tuple((x + 0.01).clamp(0, 1) for x in objective.inputs)
    total = float(work.total(work.defense.loss(objective, inputs, torch.Generator())).detach())
    clean, attacked = (objective(x, penalty=False).value.item() for x in (objective.inputs, inputs))
    penalty = torch.as_tensor(objective(inputs).penalty).item()
    assert penalty < 0
    assert total == pytest.approx((clean + attacked) / 4 + penalty, rel=1e-5)


def test_the_summed_loss_is_eq_3(settings: Settings, work_of: Callable[[RunConfig], Work]) -> None:
    work = work_of(settings(BOTH, diversity=0.1))
    objective = work.objective(work.loader.batch(0, 0, progress=0.0), step=0)
    inputs = tuple((x + 0.01).clamp(0, 1) for x in objective.inputs)
    total = float(work.total(work.defense.loss(objective, inputs, torch.Generator())).detach())
    clean, attacked = (objective(x, penalty=False).value.item() for x in (objective.inputs, inputs))
    assert total == pytest.approx((clean + attacked) / 2 + torch.as_tensor(objective(inputs).penalty).item(), rel=1e-5)


def test_options_of_the_term_reach_the_step(settings: Settings, work_of: Callable[[RunConfig], Work]) -> None:
    work = work_of(settings(BOTH, diversity=0.1, diversity_sign="minus", diversity_every=2, diversity_pixels="image"))
    batch = work.loader.batch(0, 0, progress=0.0)
    first, second, third = (work.objective(batch, step=step) for step in range(3))
    assert (first.attack_weight, first.loss_weight) == (0.1, -0.1)
    assert (second.attack_weight, second.loss_weight) == (0.0, 0.0)
    assert first.pixels is not None
    assert second.pixels is None
    assert (third.attack_weight, third.loss_weight) == (0.1, -0.1)
    assert not any(x.requires_grad for x in first.inputs)


def test_validation_attacks_the_losses_alone(settings: Settings, work_of: Callable[[RunConfig], Work]) -> None:
    plain, diverse = (work_of(settings(BOTH, diversity=weight)) for weight in (0.0, 5.0))
    assert plain.validate(plain.modules, plain.arithmetic) == diverse.validate(diverse.modules, diverse.arithmetic)


@pytest.mark.parametrize("name", ["encoder", "defense"])
def test_a_task_called_as_what_core_draws_for_has_a_stream_of_its_own(
    name: str, settings: Settings, work_of: Callable[[RunConfig], Work], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[tuple[randomness.Key, ...]] = []

    def noted(*key: randomness.Key) -> int:
        keys.append(key)
        return seed_of(*key)

    monkeypatch.setattr(randomness, "seed_of", noted)
    work = work_of(replace(settings("rotation"), pretext=(Choice("rotation", {}, name),)))
    work.validate(work.modules, work.arithmetic)
    drawn = [
        key for key in keys if (len(key) == 3 and key[1] == "init") or (len(key) == 4 and key[1:3] == ("valid", 0))
    ]
    assert len(set(drawn)) == 4  # encoder, head; views, attack


# ---------------------------------------------------------------- what is logged
@pytest.mark.parametrize("diversity", [0.0, 0.1])
def test_terms_cosines_and_each_members_metrics_are_logged(diversity: float, settings: Settings) -> None:
    config = settings(BOTH, diversity=diversity, log_every=1)
    pretrain(config, reporter=Silent())
    names = logged(config)
    assert {"step/diversity", "step/cosine:jigsaw/rotation", "step/abs_cosine:jigsaw/rotation"} <= names["pretrain"]
    assert {"valid/adversarial/diversity", "step/jigsaw/loss", "step/rotation/accuracy"} <= names["pretrain"]
    for member in ("jigsaw", "rotation"):
        wanted = {"step/loss", "step/accuracy", "train/accuracy", "valid/clean/loss", "valid/adversarial/accuracy"}
        assert wanted <= names[f"pretrain/{member}"]
    figures = config.runs_dir / "run/figures"
    assert {path.relative_to(figures).as_posix() for path in figures.rglob("*.png")} == {
        "pretrain.png",
        "diversity.png",
        "pretrain/jigsaw.png",
        "pretrain/rotation.png",
    }


def test_a_single_task_has_neither_members_nor_a_term(settings: Settings) -> None:
    config = settings("rotation", log_every=1)
    pretrain(config, reporter=Silent())
    names = logged(config)
    assert "step/loss" in names["pretrain"]
    assert not any("diversity" in name or "cosine" in name for name in names["pretrain"])
    assert not any(stage.startswith("pretrain/") for stage in names)


# ---------------------------------------------------------------- which last stage is fine-tuned
@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"folder": tmp_path_factory.mktemp("three")}


@pytest.fixture
def source(settings: Settings, three: dict[str, Path]) -> Path:
    """An ensemble's pretraining checkpoint: Selfie has no last stage, the others have."""
    if "made" not in three:
        config = settings("selfie,rotation,jigsaw", runs_dir=three["folder"])
        pretrain(config, reporter=Silent())
        three["made"] = three["folder"] / "run/pretrain/best.safetensors"
    return three["made"]


@pytest.mark.parametrize(("tail", "member"), [("auto", "rotation"), ("rotation", "rotation"), ("jigsaw", "jigsaw")])
def test_fine_tuning_starts_from_the_chosen_members_last_stage(
    tail: str, member: str, source: Path, settings: Settings, tensors: Tensors
) -> None:
    from advss.training.checkpoints import load_checkpoint

    config = settings("selfie,rotation,jigsaw", finetune="partial", finetune_tail=tail)
    finetune(config, source=source, reporter=Silent())
    kept = load_checkpoint(source).tensors
    for name, tensor in tensors(config, "finetune", "last").items():
        if name.startswith("tail."):  # what was loaded stands still in partial fine-tuning
            assert torch.equal(tensor, kept[f"tasks.{member}.{name}"]), name


def test_a_fresh_last_stage_is_nobodys(source: Path) -> None:
    start = read_start(source, "fresh")
    assert start.tail is None
    assert start.encoder


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ("selfie", "selfie has no last stage of its own; choose rotation, jigsaw, fresh or auto"),
        ("flip", "flip is no pretext task of this run; choose rotation, jigsaw, fresh or auto"),
    ],
)
def test_a_member_without_a_last_stage_is_no_start(tail: str, message: str, source: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read_start(source, tail)


def test_it_is_said_before_pretraining(settings: Settings) -> None:
    config = settings("selfie,rotation", finetune_tail="selfie")
    with pytest.raises(UsageError, match="--finetune-tail selfie: selfie has no last stage of its own"):
        pretrain(config, reporter=Silent())
    assert not (config.runs_dir / "run").exists()


# ---------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"pretext": BOTH, "diversity": "-0.1"}, "--diversity: must be at least 0, got -0.1"),
        ({"pretext": "rotation", "diversity": "0.1"}, "needs two or more pretext tasks, got --pretext rotation"),
        ({"pretext": BOTH, "diversity-in": "attack"}, "--diversity-in attack has no effect with --diversity 0"),
        ({"pretext": BOTH, "diversity-every": "3"}, "--diversity-every 3 has no effect with --diversity 0"),
        ({"pretext": BOTH, "diversity": "0.1", "diversity-every": "0"}, "--diversity-every: must be at least 1, got 0"),
        ({"pretext": BOTH, "diversity": "0.1", "diversity-sign": "up"}, "--diversity-sign"),
        ({"pretext": BOTH, "finetune-tail": "rotatoin"}, "rotatoin is no task of --pretext .*did you mean 'rotation'"),
        ({"pretext": "none", "finetune-tail": "fresh"}, "--finetune-tail fresh is no task of --pretext none"),
    ],
)
def test_bad_options_are_one_line(said: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        resolve(said, environ={}, text=True)
    assert "\n" not in str(caught.value)


def test_the_papers_recipe_averages_the_losses_of_an_ensemble() -> None:
    said = {"pretext": "selfie,rotation,jigsaw", "diversity": "0.1"}
    assert resolve(said, configs=["cifar10-paper"], environ={}, text=True).ensemble_loss == "mean"
    assert resolve(said, configs=["digits"], environ={}, text=True).ensemble_loss == "sum"
