"""Adversarial examples of a run's test images, made once and kept in ``RUN/examples``."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from advss.attacks.evaluation import in_chunks
from advss.attacks.pgd import PGD
from advss.attacks.threat import Threat
from advss.config import EvalSettings
from advss.data.splits import Part, part_tensors
from advss.errors import UsageError
from advss.evaluations.measurement import digest_of
from advss.files import saving
from advss.randomness import stream
from advss.runs.finished import Finished
from advss.runs.lock import check_free, writing
from advss.training.checkpoints import has_checkpoint, load_checkpoint, save_checkpoint
from advss.training.reporting import Reporter
from advss.training.signals import StopRequest

FOLDER = "examples"
STAGE = "evaluate"


@dataclass(frozen=True)
class Examples:
    """What an attack made of N images."""

    x: Tensor  # (N, C, H, W) float32 in [0, 1], on the CPU
    clean: Tensor  # (N,) bool: the model is right about the unperturbed image
    robust: Tensor  # (N,) bool: and about all that was tried
    path: Path  # where they are kept

    def without_images(self) -> Examples:
        """The answers alone, for when the images have served."""
        return replace(self, x=self.x[:0].clone())


@dataclass(frozen=True)
class Making:
    """How examples are made: the same for every model."""

    images: Part
    fingerprint: str  # sha256 of the images
    settings: EvalSettings
    device: torch.device
    reporter: Reporter
    stop: StopRequest

    def examples(self, member: Finished) -> Examples:
        """The examples of a run's model: those kept from an earlier call, else made now and kept.

        Raises:
            UsageError: they cannot be saved.
            Interrupted: a signal came; nothing of this model's is kept.
        """
        key = self._key(member)
        path = _path(member, key)
        kept = _kept(path, key)
        if kept is not None:
            self.reporter.say(f"examples of {member.label}: those kept in {path}")
            return kept
        model = member.model.to(self.device)
        with self.stop.asked_by(model):
            clean, robust, x_NCHW = attack_images(
                partial(adversarial_examples, model),
                self.images,
                self.settings,
                device=self.device,
                seed=member.config.seed,
                reporter=self.reporter,
                stop=self.stop,
                title=f"examples {member.label}",
            )
        answers = {"clean": clean, "robust": robust}
        tensors = {"x": x_NCHW, "label": self.images.labels, "index": self.images.index, **answers}
        with writing(member.folder.path):
            save_checkpoint(path, tensors, {"kind": FOLDER, "key": key})
        return Examples(x_NCHW, clean, robust, path)

    def _key(self, member: Finished) -> dict[str, Any]:
        """All that decides what the examples are."""
        return {
            "checkpoint": member.manifest["sha256"],
            "attack": attack_of(self.settings),
            "batch_size": self.settings.batch_size,  # a batch shares its draws
            "images": self.fingerprint,
            "seed": member.config.seed,
            "device": self.device.type,
            "advss": version("advss"),
        }


def adversarial_examples(
    model: nn.Module, x_BCHW: Tensor, label_B: Tensor, draws: Generator, threat: Threat, *, restarts: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Which images are right unperturbed, which of them under attack, too, and an example of each."""
    found = PGD(restarts=restarts)(model, x_BCHW, label_B, threat, draws, every=True)
    return found.clean_B == label_B, found.robust_B, found.examples_BCHW


def check_writable(member: Finished) -> None:
    """Make the folder of a run's examples, so that hours are not spent on what cannot be kept.

    Raises:
        UsageError: it cannot be made or written to, or another process trains in the run's folder.
    """
    check_free(member.folder.path)
    folder = member.folder.path / FOLDER
    with saving(folder):
        folder.mkdir(exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "permission denied")


def _path(member: Finished, key: dict[str, Any]) -> Path:
    return member.folder.path / FOLDER / f"{digest_of(key)}.safetensors"


def _kept(path: Path, key: dict[str, Any]) -> Examples | None:
    """What an earlier call kept; None where there is nothing, or where its bytes are not those saved."""
    if not has_checkpoint(path):
        return None
    try:
        checkpoint = load_checkpoint(path, warn=False)
    except UsageError:
        return None
    if checkpoint.manifest.get("key") != key:
        return None
    tensors = checkpoint.tensors
    return Examples(tensors["x"], tensors["clean"], tensors["robust"], path)


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


def _read(part: Part, start: int, end: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images and labels at the places from ``start`` to before ``end``: only these are decoded and held."""
    x, label = part_tensors(part.select(torch.arange(start, end)))
    return x.to(device), label.to(device)
