"""Stage 3: TA and RA of a run's classifier on its test part."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advss.attacks.evaluation import answered, in_chunks, right_clean_and_attacked
from advss.config import EvalSettings
from advss.data.splits import Part, part_tensors
from advss.evaluations.chance import against_chance
from advss.evaluations.measurement import Measurement
from advss.randomness import stream
from advss.runs.classifier import restored
from advss.runs.folder import classifier_of, find_run
from advss.runs.lock import writing
from advss.runs.opened import Result, close, reopened
from advss.runs.session import Session, tracked
from advss.training.checkpoints import load_checkpoint
from advss.training.reporting import Reporter
from advss.training.signals import StopRequest

STAGE = "evaluate"


def evaluate(
    run: Path,
    evaluation: EvalSettings,
    *,
    device: str = "auto",
    where: Mapping[str, str] | None = None,
    reporter: Reporter,
) -> Result:
    """TA and RA of a run's best classifier on its test images, kept beside what was measured before.

    ``where`` says by option of their source where its data are now.

    Returns:
        The content of result.json with what was measured now in its place. Where that is not the run's headline,
        result.json keeps the headline, and it stands under ``headline``.

    Raises:
        UsageError: the run has no classifier or no data.
        Interrupted: a signal came; nothing of the measurement is kept.
    """
    folder = find_run(run)
    classifier_of(folder)
    with reopened(folder, device=device, reporter=reporter, where=where) as session:
        session.record(name=folder.name, folder=str(folder.path))  # the run may have been moved since
        return evaluated(session, evaluation, status=folder.read_result().get("status", "running"))


def evaluated(session: Session, asked: EvalSettings | None = None, *, status: str = "finished") -> Result:
    """TA and RA of the best classifier of an opened run, written down, see :func:`evaluate`.

    Args:
        session: the run.
        asked: what is measured, if not what the run's own settings say.
        status: how the run then stands.
    """
    began = time.monotonic()
    settings = asked or session.config.evaluation
    checkpoint = load_checkpoint(session.folder.best("finetune"))
    this = measurement(session, settings, checkpoint.manifest["sha256"])
    heads = this.heads(measurement(session, session.config.evaluation, checkpoint.manifest["sha256"]))
    stage = STAGE if heads else f"{STAGE}/{this.key}"
    model = restored(checkpoint, what=str(checkpoint.path))
    with tracked(session.tracker, stage):
        measured = evaluate_model(
            model,
            session.splits.test,
            settings,
            classes=session.splits.classes,
            device=session.device,
            seed=session.config.seed,
            reporter=session.reporter,
            stop=session.stop,
        )
        keep(session, this, measured, seconds=time.monotonic() - began, stage=stage)
    with writing(session.folder.path):
        took = session.folder.read_result().get("seconds", {}) | {STAGE: round(time.monotonic() - began, 2)}
        content = {**measured, "evaluation": this.reference, "seconds": took}
        if heads:
            session.record(**content)
    result = close(session, status=status)
    return result if heads else result | content | {"headline": {key: result[key] for key in (*measured, "evaluation")}}


def measurement(session: Session, settings: EvalSettings, checkpoint: str) -> Measurement:
    """What the settings measure of an opened run; ``checkpoint`` is its classifier's sha256."""
    images = {
        "data": session.splits.fingerprint.of("test").sha256,
        "count": len(session.splits.test.subset(settings.limit)),
    }
    known_by = {"attack": attack_of(settings), "images": images, "seed": session.config.seed, "checkpoint": checkpoint}
    return Measurement(session.folder, "pgd", known_by)


def keep(session: Session, this: Measurement, measured: Mapping[str, Any], *, seconds: float, stage: str) -> None:
    """Write a measurement into its file and track it, the headline as the whole run's too."""
    this.keep({**measured, "seconds": round(seconds, 2), "device": str(session.device), "advss": version("advss")})
    accuracies = {f"test/{name}": measured[name] for name in ("ta", "ra")}
    for place in (stage, "") if stage == STAGE else (stage,):
        session.tracker.metrics(place, 0, accuracies)
    session.tracker.artifact(this.path, stage=stage)


def evaluate_model(  # noqa: PLR0913 - a model, its images, the threat, and who is told
    model: nn.Module,
    test: Part,
    settings: EvalSettings,
    *,
    classes: Sequence[str],
    device: torch.device,
    seed: int,
    reporter: Reporter,
    stop: StopRequest,
    title: str = STAGE,
) -> dict[str, Any]:
    """TA and RA on the test part, or on ``settings.limit`` of its images, the same for every seed.

    Returns:
        What stands in result.json: ``ta`` and ``ra``, over the same ``ra_images`` images; ``ra_attack``; ``ta_all``,
        TA over all ``test_images``; and what :func:`advss.evaluations.chance.against_chance` says of these.

    Raises:
        Interrupted: a signal came; nothing of the measurement is kept.
    """
    model = model.to(device)
    chosen = test.subset(settings.limit)
    attack = partial(right_clean_and_attacked, model)
    with stop.asked_by(model):
        answer_N = answered(model, partial(read_images, test, device), len(test), settings.batch_size)
        clean, robust = attack_images(
            attack, chosen, settings, device=device, seed=seed, reporter=reporter, stop=stop, title=title
        )
    return {
        "ta": share(clean),
        "ra": share(robust),
        "ra_images": len(chosen),
        "ra_attack": attack_of(settings),
        "ta_all": share(answer_N == test.labels),
        "test_images": len(test),
        **against_chance(answer_N, test.labels, classes),
    }


def share(chosen_N: Tensor) -> float:
    """Of the images, those chosen: (N,) bool to a number from 0 to 1."""
    return float(chosen_N.double().mean())


def attack_images(
    attack: Callable[..., tuple[Tensor, ...]],
    images: Part,
    settings: EvalSettings,
    *,
    device: torch.device,
    seed: int,
    reporter: Reporter,
    stop: StopRequest,
    title: str,
) -> tuple[Tensor, ...]:
    """What ``attack`` says of the images, with the draws that measure RA whatever it is.

    Args:
        attack: a function of :mod:`advss.attacks.evaluation`, given its model, which is on ``device``.
        images: all that are attacked.
        settings: of the attack; its limit is not heeded here.
        device: where the images go.
        seed: of the draws.
        reporter: told how many images are done.
        stop: looked at after each batch.
        title: what the reporter calls it.

    Raises:
        Interrupted: a signal came.
    """
    done = 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        reporter.step(step=done, images=count, metrics={})
        stop.check()

    def part(start: int, end: int) -> tuple[Tensor, ...]:
        x, label = _read(images, start, end, device)
        draws = stream(device, seed, STAGE, start)
        return attack(x, label, draws, settings.threat, restarts=settings.restarts)

    reporter.start(title, steps=len(images), done=0, epochs=1)
    try:
        return in_chunks(part, len(images), settings.batch_size, tick)
    finally:
        reporter.finish()


def attack_of(settings: EvalSettings) -> dict[str, Any]:
    """The attack alone, as it stands in result.json."""
    return asdict(settings.threat) | {"restarts": settings.restarts}


def read_images(part: Part, device: torch.device, start: int, end: int) -> Tensor:
    """The images at the places from ``start`` to before ``end``; only these are decoded and held."""
    return _read(part, start, end, device)[0]


def _read(part: Part, start: int, end: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images and labels at the places from ``start`` to before ``end``: only these are decoded and held."""
    x, label = part_tensors(part.select(torch.arange(start, end)))
    return x.to(device), label.to(device)
