"""What is measured on the validation part after each epoch, and which epoch is best; the test part is never seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advss.attacks.evaluation import answers, in_chunks, right_clean_and_attacked
from advss.attacks.victim import as_victim
from advss.config import EvalSettings
from advss.data.loader import Loader
from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Batch, Defense
from advss.models.weights import load_strict
from advss.randomness import of_member, stream
from advss.training.signals import StopRequest
from advss.training.work import Metrics, Modules

CLEAN, ADVERSARIAL = "clean", "adversarial"


def pretext_validation(
    loader: Loader, batch_size: int, defense: Defense, *, seed: int, stop: StopRequest
) -> Callable[[Modules], Metrics]:
    """Mean loss and metrics of the pretext objective, clean and under the defense's own attack.

    The views are the same after every epoch, and the attack is on the losses alone, so that epochs compare, and runs
    of any diversity.
    """

    def validate(modules: Modules) -> Metrics:
        sums: Metrics = {}
        count = 0
        with as_victim(modules):
            for place, batch in enumerate(loader.in_order(batch_size)):
                count += len(batch.x)
                for name, value in _measure(modules, batch, defense, (seed, "valid", place), stop).items():
                    sums[name] = sums.get(name, 0.0) + value * len(batch.x)
        return {name: total / count for name, total in sums.items()}

    return validate


def _measure(
    modules: Modules, batch: Batch, defense: Defense, key: tuple[int | str, ...], stop: StopRequest
) -> Metrics:
    tasks = modules.tasks()
    with torch.no_grad():
        views = tuple(task.views(batch, stream(batch.x.device, *key, of_member(name))) for name, task in tasks.items())
    objective = TaskObjective(
        modules.trunk, tasks, views, index=batch.index, stage=modules.stage, key=key, between=stop.check
    )
    with torch.no_grad():
        measured = _named(CLEAN, objective, objective.inputs)
        if defense.adversarial:
            with torch.enable_grad():
                inputs = defense.attack(objective, stream(batch.x.device, *key, "defense"))
            measured |= _named(ADVERSARIAL, objective, inputs)
    return measured


def _named(kind: str, objective: TaskObjective, inputs: tuple[Tensor, ...]) -> Metrics:
    """Loss and metrics at ``inputs``, and how far the members' gradients point apart there, as numbers."""
    loss = objective(inputs, penalty=False)
    named = {"loss": loss.value, **loss.metrics, **objective.measure(inputs)}
    return {f"{kind}/{name}": float(value) for name, value in named.items()}


def pretext_score(metrics: Metrics) -> tuple[float, ...]:
    """Adversarial pretext accuracy (clean under standard training), averaged over members; else the loss, negated."""
    kind = ADVERSARIAL if f"{ADVERSARIAL}/loss" in metrics else CLEAN
    members = [name for name in metrics if name.startswith(f"{kind}/") and name.endswith("/loss")]
    accuracies = [metrics.get(name.removesuffix("loss") + "accuracy") for name in members]
    known = [value for value in accuracies if value is not None]
    losers = len(members) - len(known) - (1 if len(members) > 1 else 0)  # an ensemble's own loss has no accuracy
    if known and losers == 0:
        return (sum(known) / len(known), -metrics[f"{kind}/loss"])
    return (-metrics[f"{kind}/loss"],)


def classifier_validation(
    loader: Loader,
    evaluation: EvalSettings,
    *,
    seed: int,
    adversarial: bool,
    stop: StopRequest,
    plain: nn.Module | None = None,
) -> Callable[[Modules], Metrics]:
    """Cross-entropy and TA, and RA under a PGD of ``valid_steps`` steps when the stage trains adversarially.

    They are of what is deployed, which is loaded into ``plain`` where the classifier that trains is of another form.
    """
    threat = replace(evaluation.threat, steps=evaluation.valid_steps)
    names = (f"{CLEAN}/loss", "ta", "ra") if adversarial else (f"{CLEAN}/loss", "ta")

    def validate(modules: Modules) -> Metrics:
        batches = loader.in_order(evaluation.batch_size)
        model = modules.trunk
        if plain is not None:
            load_strict(plain, modules.deployed(), what="deployed()")
            model = plain
        with stop.asked_by(model):
            measured = [_measured(model, batch, place) for place, batch in enumerate(batches)]
        return {name: float(torch.cat(parts).double().mean()) for name, *parts in zip(names, *measured, strict=True)}

    def _measured(model: nn.Module, batch: Batch, place: int) -> tuple[Tensor, ...]:
        def part(start: int, end: int) -> tuple[Tensor, ...]:
            x, label = batch.x[start:end], batch.label[start:end]
            with as_victim(model), torch.no_grad():
                logits_BK = model(x).float()
            loss_B = F.cross_entropy(logits_BK, label, reduction="none")
            if not adversarial:
                return loss_B, answers(logits_BK) == label
            draws = stream(x.device, seed, "valid", place, start)
            return loss_B, *right_clean_and_attacked(model, x, label, draws, threat)

        return in_chunks(part, len(batch.x), len(batch.x))

    return validate


def classifier_score(*, adversarial: bool) -> Callable[[Metrics], tuple[float, ...]]:
    """RA with ties by TA for adversarial training; TA for standard training."""
    return lambda metrics: (metrics["ra"], metrics["ta"]) if adversarial else (metrics["ta"],)
