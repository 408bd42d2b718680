"""Stage 3: TA and RA of a model on the test part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from advss.attacks.evaluation import in_chunks, right_clean_and_attacked
from advss.config import EvalSettings
from advss.data.splits import Part, part_tensors
from advss.errors import UsageError
from advss.models.averaged import AveragedClassifier
from advss.models.spec import ModelSpec
from advss.models.weights import load_strict
from advss.plugins.provenance import saying_what_is_needed
from advss.randomness import stream
from advss.stages.finetune import new_classifier
from advss.training.checkpoints import Checkpoint, load_checkpoint
from advss.training.reporting import Reporter
from advss.training.signals import StopRequest

STAGE = "evaluate"


def load_classifier(path: Path) -> nn.Module:
    """The classifier of a checkpoint, in eval mode, on the CPU: images in [0, 1] -> logits.

    Raises:
        UsageError: the file is not whole, or neither of fine-tuning nor of an ensemble.
    """
    return restored(load_checkpoint(path), what=str(path))


def restored(checkpoint: Checkpoint, *, what: str) -> nn.Module:
    """The classifier that a checkpoint holds, in eval mode; ``what`` names the checkpoint in errors.

    Raises:
        UsageError: it is neither of fine-tuning nor of an ensemble, or its tensors are not those of its model.
    """
    model = _unfilled(checkpoint.manifest, what)
    own = ("scheme.", "optimizer.", "average.", "average_count")
    load_strict(model, {n: t for n, t in checkpoint.tensors.items() if not n.startswith(own)}, what=what)
    return model.eval()


def _unfilled(manifest: Mapping[str, Any], what: str) -> nn.Module:
    """The model that a manifest describes, its weights still to be loaded."""
    kind = manifest.get("kind")
    if kind == "ensemble":
        return AveragedClassifier([_unfilled(member, what) for member in manifest["members"]])
    if kind != "finetune":
        raise UsageError(f"{what} is a checkpoint of '{kind}'; a classifier comes from fine-tuning")
    with saying_what_is_needed(lambda: manifest.get("plugins"), run=what):
        return new_classifier(ModelSpec.from_json(manifest["model"]), len(manifest["classes"]), seed=0)


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
    """TA on the test part and RA on it, or on a seeded subset of ``settings.limit`` images.

    Returns:
        ta, ra, ra_images and ra_attack as they stand in result.json.

    Raises:
        Interrupted: a signal came; nothing of the measurement is kept.
    """
    model = model.to(device)
    chosen = test.subset(settings.limit, seed=seed)
    ta = _clean_accuracy(model, test, settings.batch_size, device)
    attack = partial(right_clean_and_attacked, model)
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
        return attack(x, label, stream(device, seed, STAGE, start), **attack_of(settings))

    reporter.start(title, steps=len(images), done=0, epochs=1)
    try:
        return in_chunks(part, len(images), settings.batch_size, tick)
    finally:
        reporter.finish()


def attack_of(settings: EvalSettings) -> dict[str, Any]:
    """The attack alone, as it stands in result.json."""
    return {name: getattr(settings, name) for name in ("norm", "eps", "step_size", "steps", "restarts")}


def _clean_accuracy(model: nn.Module, test: Part, chunk: int, device: torch.device) -> float:
    def part(start: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, label = _read(test, start, end, device)
        with torch.no_grad():
            right = model(x).argmax(1) == label
        return right, right

    right, _ = in_chunks(part, len(test), chunk, lambda images: None)
    return float(right.double().mean())


def _read(part: Part, start: int, end: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels at the places from ``start`` to before ``end``: only these are decoded and held."""
    x, label = part_tensors(part.select(torch.arange(start, end)))
    return x.to(device), label.to(device)
