"""Stage 3: TA and RA of a run's classifier on its test part."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from advss.attacks.evaluation import answered, in_chunks, right_clean_and_attacked
from advss.config import EvalSettings
from advss.data.splits import Part, part_tensors
from advss.randomness import stream
from advss.runs.classifier import load_classifier
from advss.runs.folder import classifier_of, find_run
from advss.runs.lock import writing
from advss.runs.opened import Result, close, reopened
from advss.runs.session import Session, tracked
from advss.training.reporting import Reporter
from advss.training.signals import StopRequest

STAGE = "evaluate"


def evaluate(run: Path, evaluation: EvalSettings, *, device: str = "auto", reporter: Reporter) -> Result:
    """TA and RA of a run's best classifier on its test images; result.json then holds this evaluation."""
    folder = find_run(run)
    classifier_of(folder)
    with reopened(folder, device=device, reporter=reporter, evaluation=evaluation) as session:
        session.record(name=folder.name, folder=str(folder.path))  # the run may have been moved since
        return evaluated(session, status=folder.read_result().get("status", "running"))


def evaluated(session: Session, *, status: str = "finished") -> Result:
    """TA and RA of the best classifier of an opened run, written down; ``status`` is how the run then stands."""
    began = time.monotonic()
    config, folder = session.config, session.folder
    model = load_classifier(folder.best("finetune"))
    with tracked(session.tracker, "evaluate"):
        measured = evaluate_model(
            model,
            session.splits.test,
            config.evaluation,
            device=session.device,
            seed=config.seed,
            reporter=session.reporter,
            stop=session.stop,
        )
        accuracies = {"test/ta": measured["ta"], "test/ra": measured["ra"]}
        session.tracker.metrics("evaluate", 0, accuracies)
        session.tracker.metrics("", 0, accuracies)
    with writing(folder.path):
        seconds = folder.read_result().get("seconds", {}) | {"evaluate": round(time.monotonic() - began, 2)}
        session.record(**measured, seconds=seconds)
    return close(session, status=status)


def evaluate_model(
    model: nn.Module,
    test: Part,
    settings: EvalSettings,
    *,
    device: torch.device,
    seed: int,
    reporter: Reporter,
    stop: StopRequest,
    title: str = STAGE,
) -> dict[str, Any]:
    """TA on the test part and RA on it, or on ``settings.limit`` of its images, the same for every seed.

    Returns:
        ta, ra, ra_images and ra_attack as they stand in result.json.

    Raises:
        Interrupted: a signal came; nothing of the measurement is kept.
    """
    model = model.to(device)
    chosen = test.subset(settings.limit)
    attack = partial(right_clean_and_attacked, model)
    with stop.asked_by(model):
        ta = _clean_accuracy(model, test, settings.batch_size, device)
        _, robust = attack_images(
            attack, chosen, settings, device=device, seed=seed, reporter=reporter, stop=stop, title=title
        )
    ra = float(robust.double().mean())
    return {"ta": ta, "ra": ra, "ra_images": len(chosen), "ra_attack": attack_of(settings)}


def attack_images(
    attack: Callable[..., tuple[torch.Tensor, ...]],
    images: Part,
    settings: EvalSettings,
    *,
    device: torch.device,
    seed: int,
    reporter: Reporter,
    stop: StopRequest,
    title: str,
) -> tuple[torch.Tensor, ...]:
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

    def part(start: int, end: int) -> tuple[torch.Tensor, ...]:
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


def _clean_accuracy(model: nn.Module, test: Part, chunk: int, device: torch.device) -> float:
    answer_N = answered(model, lambda start, end: _read(test, start, end, device)[0], len(test), chunk)
    return float((answer_N == test.labels).double().mean())


def _read(part: Part, start: int, end: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels at the places from ``start`` to before ``end``: only these are decoded and held."""
    x, label = part_tensors(part.select(torch.arange(start, end)))
    return x.to(device), label.to(device)
