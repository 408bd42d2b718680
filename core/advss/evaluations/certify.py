"""``advss certify``: ℓ2 radii within which nothing changes the smoothed classifier's answer, for a run's test images.

What is measured of an image hangs on the model, the data, the seed, σ, n0, n and α alone: its noise is a stream of its
own. So images are kept by these in RUN/certify/, whatever stops the command and whatever is certified in between.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from advss.attacks.threat import LARGEST, in_pixels
from advss.config import CertifySettings
from advss.data.splits import Part, part_tensors
from advss.errors import UsageError
from advss.evaluations.certified import Certified, draw_certified, shown, summary
from advss.evaluations.measurement import Measurement, digest_of
from advss.files import write_json
from advss.models.smoothed import SmoothedClassifier, fewest_copies, largest_radius
from advss.naming import as_typed
from advss.randomness import stream
from advss.runs.classifier import load_classifier
from advss.runs.folder import RunFolder, classifier_of, find_run
from advss.runs.lock import writing
from advss.runs.opened import reopened
from advss.runs.session import Session, choose_device, tracked
from advss.training.checkpoints import load_checkpoint
from advss.training.reporting import Reporter

STAGE: Final = "certify"
SAVE_EVERY_S = 10.0


def certify(
    run: Path,
    settings: CertifySettings,
    *,
    device: str = "auto",
    where: Mapping[str, str] | None = None,
    reporter: Reporter,
) -> dict[str, Any]:
    """Certify test images of a run's best classifier; leaves evaluations/certify-DIGEST.json and its figure.

    Another σ, limit or number of copies has a file of its own; nothing that was certified before is replaced.

    Images that were certified before by the same settings and model are not measured again.

    Args:
        run: its folder.
        settings: σ, the numbers of copies, α, and how many images.
        device: to measure on.
        where: where its data are now, by option of their source.
        reporter: told of every image.

    Returns:
        The content of the file: what identifies the measurement; ``images``, their number; ``clean_accuracy`` of
        the smoothed classifier, where abstaining is wrong; ``abstained``, a share; ``acr``; the curve ``radius`` and
        ``accuracy``; ``seconds``; ``chance``, ``largest_class``, ``most_answered`` and ``doubt``, of the smoothed
        classifier, too; and ``results``, an entry an image with ``predicted`` -1 where it abstains. Beside it ``file``
        and ``figure``, their places in the run's folder.

    Raises:
        UsageError: bad input, before anything is measured.
        Interrupted: a signal came; every image that was done is kept.
    """
    _check(settings)
    folder = find_run(run)
    best = classifier_of(folder)
    manifest = load_checkpoint(best, warn=False).manifest
    sigma = _sigma(settings, float(manifest.get("noise", 0.0)), folder)
    model = load_classifier(best)
    choose_device(device)
    with reopened(folder, device=device, reporter=reporter, where=where) as session:
        identity = _identity(settings, sigma, manifest["sha256"], session)
        smoothed = _smoothed(model, session, classes=len(manifest["classes"]), sigma=sigma)
        chosen = session.splits.test.subset(settings.limit)
        this = Measurement(folder, STAGE, {**identity, "images": len(chosen)})
        kept = Kept(folder, identity)
        with tracked(session.tracker, f"{STAGE}/{this.key}"):
            images = _measure(session, smoothed, chosen, settings, kept)
            return _close(session, images, this)


def _identity(settings: CertifySettings, sigma: float, model_sha256: str, session: Session) -> dict[str, Any]:
    """All that a certificate hangs on."""
    return {
        "sigma": sigma,
        "n0": settings.n0,
        "n": settings.n,
        "alpha": settings.alpha,
        "seed": session.config.seed,
        "model_sha256": model_sha256,
        "data_sha256": session.splits.fingerprint.of("test").sha256,
    }


class Kept:
    """The images certified by one identity, in a file of their own that a kill leaves at most ``SAVE_EVERY_S`` old."""

    def __init__(self, folder: RunFolder, identity: Mapping[str, Any]) -> None:
        self.identity = identity
        self.path = folder.path / STAGE / f"sigma{identity['sigma']:g}-n{identity['n']}-{digest_of(identity)}.json"
        self.images = {image.index: image for image in self._read()}
        self.saved_at = time.monotonic()

    def add(self, image: Certified) -> None:
        """Keep one more."""
        self.images[image.index] = image
        if time.monotonic() - self.saved_at > SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write all of them, and what another process has certified meanwhile, atomically."""
        with writing(self.path.parent.parent):
            self.images = {image.index: image for image in self._read()} | self.images
            write_json(self.path, {**self.identity, "results": [asdict(image) for image in self.images.values()]})
        self.saved_at = time.monotonic()

    def _read(self) -> list[Certified]:
        if not self.path.is_file():
            return []
        try:
            return [Certified(**row) for row in json.loads(self.path.read_text("utf-8"))["results"]]
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{self.path} is damaged ({error}); remove it to measure its images again") from error


def _check(settings: CertifySettings) -> None:
    """Raise UsageError for what cannot be measured."""
    for flag, value in (("n0", settings.n0), ("n", settings.n), ("batch-size", settings.batch_size)):
        if value < 1:
            raise UsageError(f"--{flag}: must be at least 1, got {value}")
    if settings.limit < 0:
        raise UsageError(f"--limit: expected a number of test images, or 0 for all, got {settings.limit}")
    if settings.sigma is not None:
        try:
            in_pixels("--sigma:", settings.sigma, most=LARGEST["noise"])
        except ValueError as error:
            raise UsageError(str(error)) from error
    if not 0 < settings.alpha < 0.5:
        raise UsageError(f"--alpha: must be above 0 and below 0.5, got {settings.alpha:g}")
    if settings.n < (fewest := fewest_copies(settings.alpha)):
        raise UsageError(
            f"--n: {settings.n} copies can certify nothing at --alpha {settings.alpha:g}, though all agree; "
            f"use --n {fewest} or more"
        )


def _sigma(settings: CertifySettings, trained: float, folder: RunFolder) -> float:
    """σ of the certificate: what the model was fine-tuned on, or what was asked for and meant."""
    asked, run = settings.sigma, folder.path
    if asked is None and not trained:
        raise UsageError(
            f"the model of {run} was fine-tuned without noise, so no --sigma follows from it; certify it all the same "
            f"by `advss certify {as_typed(run)} --sigma 0.25 --other-sigma`, or fine-tune with a defense that trains "
            "on noise"
        )
    if asked is None or math.isclose(asked, trained):
        return trained
    if not settings.other_sigma:
        was = f"on noise of sigma {trained:g}; leave --sigma out, or" if trained else "without noise (sigma 0);"
        raise UsageError(f"--sigma {asked:g}: the model of {run} was fine-tuned {was} add --other-sigma to mean it")
    return asked


def _smoothed(model: nn.Module, session: Session, *, classes: int, sigma: float) -> SmoothedClassifier:
    # on a CPU channels_last answers 4 to 17 % more copies a second (ResNet-18 and 50, 32 pixels, one thread)
    layout = torch.channels_last if session.device.type == "cpu" else torch.contiguous_format
    model = model.to(session.device, memory_format=layout)  # type: ignore[call-overload]
    return SmoothedClassifier(model, classes=classes, sigma=sigma, between=session.stop.check)


def _measure(
    session: Session, smoothed: SmoothedClassifier, chosen: Part, settings: CertifySettings, kept: Kept
) -> list[Certified]:
    """The certificates of the chosen images, those that are not kept yet measured now."""
    indices = chosen.index.tolist()
    todo = [place for place, index in enumerate(indices) if index not in kept.images]
    done = len(indices) - len(todo)
    if done:
        session.reporter.say(f"{done} of {len(indices)} images were certified before, by the same settings and model")
    session.reporter.start(STAGE, steps=len(indices), done=done, epochs=1)
    try:
        for place in todo:
            kept.add(_certified(session, smoothed, chosen.select(torch.tensor([place])), settings))
            done += 1
            session.reporter.step(step=done, images=settings.n0 + settings.n, metrics={})
    finally:
        session.reporter.finish()
        if todo:
            kept.save()
    return [kept.images[index] for index in indices]


def _certified(session: Session, smoothed: SmoothedClassifier, one: Part, settings: CertifySettings) -> Certified:
    """The certificate of a part of one image."""
    began, index = time.monotonic(), int(one.index)
    x_1CHW, label_1 = part_tensors(one)
    predicted, radius = smoothed.certify(
        x_1CHW[0].to(session.device),
        n0=settings.n0,
        n=settings.n,
        alpha=settings.alpha,
        generator=stream(session.device, session.config.seed, STAGE, index),
        batch_size=settings.batch_size,
    )
    return Certified(index, int(label_1), predicted, radius, seconds=round(time.monotonic() - began, 3))


def _close(session: Session, images: list[Certified], this: Measurement) -> dict[str, Any]:
    """Write and track what the images come to."""
    known, folder = this.known_by, session.folder
    largest = largest_radius(known["sigma"], known["n"], known["alpha"])
    found = summary(images, largest=largest, classes=session.splits.classes)
    content = {**known, **found, "results": [asdict(image) for image in images]}
    this.keep(content)
    figure = folder.path / "figures" / f"{this.key}.png"
    title = f"{folder.name}: σ {known['sigma']:g}, n {known['n']:,}, α {known['alpha']:g}, {len(images)} images"
    drawn = draw_certified(images, figure, largest=largest, title=title)
    metrics = {f"certify/{name}": content[name] for name in ("sigma", "acr", "abstained")}
    metrics |= {f"certify/accuracy_{radius:g}": accuracy for radius, accuracy in shown(content)}
    session.tracker.metrics(f"{STAGE}/{this.key}", 0, metrics)
    for path in (this.path, *drawn):
        session.tracker.artifact(path, stage=f"{STAGE}/{this.key}")
    return content | {"file": this.reference["file"], "figure": str(figure.relative_to(folder.path))}
