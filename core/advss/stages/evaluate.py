"""Stage 3: TA and RA of a fine-tuned model on the test part."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from advss.attacks.evaluation import in_chunks, right_clean_and_attacked
from advss.config import EvalSettings
from advss.data.splits import Part, part_tensors
from advss.errors import UsageError
from advss.models.spec import ModelSpec
from advss.models.weights import load_strict
from advss.randomness import stream
from advss.stages.finetune import new_classifier
from advss.training.checkpoints import load_checkpoint
from advss.training.reporting import Reporter
from advss.training.signals import StopRequest

STAGE = "evaluate"


def load_classifier(path: Path) -> nn.Module:
    """The classifier of a fine-tuning checkpoint, in eval mode, on the CPU: images in [0, 1] -> logits.

    Raises:
        UsageError: the file is not whole, or not of fine-tuning.
    """
    checkpoint = load_checkpoint(path)
    manifest = checkpoint.manifest
    if manifest.get("kind") != "finetune":
        raise UsageError(f"{path} is a checkpoint of '{manifest.get('kind')}'; a classifier comes from fine-tuning")
    model = new_classifier(ModelSpec.from_json(manifest["model"]), len(manifest["classes"]), seed=0)
    own = ("scheme.", "optimizer.", "average.", "average_count")
    load_strict(model, {n: t for n, t in checkpoint.tensors.items() if not n.startswith(own)}, what=str(path))
    return model.eval()


def evaluate_model(
    model: nn.Module,
    test: Part,
    settings: EvalSettings,
    *,
    device: torch.device,
    seed: int,
    reporter: Reporter,
    stop: StopRequest,
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
    reporter.start(STAGE, steps=len(chosen), done=0, epochs=1)
    done = 0

    def tick(images: int) -> None:
        nonlocal done
        done += images
        reporter.step(step=done, images=images, metrics={})
        stop.check()

    def part(start: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        return right_clean_and_attacked(
            model,
            *_read(chosen, start, end, device),
            stream(device, seed, STAGE, start),
            norm=settings.norm,
            eps=settings.eps,
            step_size=settings.step_size,
            steps=settings.steps,
            restarts=settings.restarts,
        )

    _, robust = in_chunks(part, len(chosen), settings.batch_size, tick)
    reporter.finish()
    described = {k: v for k, v in asdict(settings).items() if k in ("norm", "eps", "step_size", "steps", "restarts")}
    return {"ta": ta, "ra": float(robust.double().mean()), "ra_images": len(chosen), "ra_attack": described}


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
