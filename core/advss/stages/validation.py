"""What is measured on the validation part after each epoch, and which epoch is best; the test part is never seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advss.arithmetic import Arithmetic, Computed
from advss.attacks.evaluation import answers, in_chunks
from advss.attacks.pgd import PGD
from advss.attacks.victim import as_victim
from advss.config import EvalSettings, StageSettings
from advss.data.loader import Loader
from advss.ensemble.objective import Stage, TaskObjective
from advss.hookspecs import Batch, Defense
from advss.models.weights import load_strict
from advss.randomness import of_member, stream
from advss.runs.session import Session
from advss.training.signals import StopRequest
from advss.training.work import Metrics, Modules, Validate

CLEAN, ADVERSARIAL = "clean", "adversarial"


@dataclass(frozen=True)
class ValidationImages:
    """The images that a stage is validated on, in order, the same after every epoch."""

    every: Loader  # of the loss and of clean accuracy
    attacked: Loader  # of what is measured under attack


def validation_images(session: Session, settings: StageSettings, stage: Stage) -> ValidationImages:
    """All of a stage's; ``--eval-valid-limit`` of them are attacked, as many of each class."""
    part, key = session.seen_by(stage).valid, f"{stage}-valid"
    some = part.subset(session.config.evaluation.valid_limit)
    every = session.loader(part, settings, key)
    return ValidationImages(every, every if some is part else session.loader(some, settings, key))


def pretext_validation(
    images: ValidationImages, batch_size: int, defense: Defense, *, seed: int, stop: StopRequest
) -> Validate:
    """Mean loss and metrics of the pretext objective, clean and under the defense's own attack.

    The views are the same after every epoch, and the attack is on the losses alone, so that epochs compare, and runs
    of any diversity.
    """
    kinds = {CLEAN: images.every} | ({ADVERSARIAL: images.attacked} if defense.adversarial else {})

    def validate(modules: Modules, arithmetic: Arithmetic) -> Metrics:
        sums: Metrics = {}
        with as_victim(modules):
            for kind, place, batch in _batches(kinds, batch_size):
                objective = _objective(modules, batch, (seed, "valid", place), stop, arithmetic)
                for name, value in _measured(objective, defense, kind).items():
                    sums[name] = sums.get(name, 0.0) + value * len(batch.x)
        return {name: total / len(kinds[name.partition("/")[0]]) for name, total in sums.items()}

    return validate


def _batches(kinds: Mapping[str, Loader], batch_size: int) -> Iterator[tuple[str, int, Batch]]:
    for kind, loader in kinds.items():
        for place, batch in enumerate(loader.in_order(batch_size)):
            yield kind, place, batch


def _objective(
    modules: Modules, batch: Batch, key: tuple[int | str, ...], stop: StopRequest, arithmetic: Arithmetic
) -> TaskObjective:
    tasks = modules.tasks()
    with torch.no_grad():
        views = tuple(task.views(batch, stream(batch.x.device, *key, of_member(name))) for name, task in tasks.items())
    return TaskObjective(
        modules.trunk,
        tasks,
        views,
        index=batch.index,
        stage=modules.stage,
        key=key,
        bf16=arithmetic.bf16,
        memory_format=arithmetic.memory_format,
        between=stop.check,
    )


def _measured(objective: TaskObjective, defense: Defense, kind: str) -> Metrics:
    """Loss and metrics, clean or attacked, and how far the members' gradients point apart there, as numbers."""
    inputs = objective.inputs
    if kind == ADVERSARIAL:
        inputs = defense.attack(objective, stream(objective.device, *objective.key, "defense"))
    with torch.no_grad():
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
    images: ValidationImages,
    evaluation: EvalSettings,
    *,
    seed: int,
    adversarial: bool,
    stop: StopRequest,
    plain: nn.Module | None = None,
) -> Validate:
    """Cross-entropy and TA of all images, and RA of those that are attacked when the stage trains adversarially.

    RA is under a PGD of ``valid_steps`` steps. They are of what is deployed, which is loaded into ``plain`` where the
    classifier that trains is of another form.
    """
    threat = replace(evaluation.threat, steps=evaluation.valid_steps)

    def validate(modules: Modules, arithmetic: Arithmetic) -> Metrics:
        model = modules.trunk
        if plain is not None:
            load_strict(plain, modules.deployed(), what="deployed()")
            model = plain.to(memory_format=arithmetic.memory_format)
        computed = Computed(model, arithmetic)

        def attacked(x_BCHW: Tensor, label_B: Tensor, place: tuple[int, int]) -> tuple[Tensor, ...]:
            draws = stream(x_BCHW.device, seed, "valid", *place)
            return (PGD()(computed, x_BCHW, label_B, threat, draws).robust_B,)

        with stop.asked_by(model):
            loss, ta = _means(images.every, evaluation.batch_size, partial(_clean, computed))
            metrics = {f"{CLEAN}/loss": loss, "ta": ta}
            if adversarial:
                (metrics["ra"],) = _means(images.attacked, evaluation.batch_size, attacked)
        return metrics

    return validate


def _clean(model: nn.Module, x_BCHW: Tensor, label_B: Tensor, _: tuple[int, int]) -> tuple[Tensor, ...]:
    """Each image's cross-entropy, and whether it is right."""
    with as_victim(model), torch.no_grad():
        logits_BK = model(x_BCHW)
    return F.cross_entropy(logits_BK, label_B, reduction="none"), answers(logits_BK) == label_B


def _means(
    loader: Loader, batch_size: int, measure: Callable[[Tensor, Tensor, tuple[int, int]], tuple[Tensor, ...]]
) -> list[float]:
    """Means over all images of what ``measure`` says of some; it is told their batch's place and the first's in it."""

    def of_batch(place: int, batch: Batch) -> tuple[Tensor, ...]:
        def part(start: int, end: int) -> tuple[Tensor, ...]:
            return measure(batch.x[start:end], batch.label[start:end], (place, start))

        return in_chunks(part, len(batch.x), len(batch.x))

    measured = [of_batch(place, batch) for place, batch in enumerate(loader.in_order(batch_size))]
    return [float(torch.cat(parts).double().mean()) for parts in zip(*measured, strict=True)]


def classifier_score(*, adversarial: bool) -> Callable[[Metrics], tuple[float, ...]]:
    """RA with ties by TA for adversarial training; TA for standard training."""
    return lambda metrics: (metrics["ra"], metrics["ta"]) if adversarial else (metrics["ta"],)
