"""Stage 2, F1 to F4 of the paper's Table 2: train a classifier on a pretrained encoder, partly or fully."""

from __future__ import annotations

import copy
import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, Final

from advss.config import RunConfig
from advss.errors import UsageError
from advss.hookspecs import FinetuneScheme
from advss.models.classifier import ImageClassifier
from advss.models.families import family_of
from advss.models.spec import ModelSpec
from advss.plugins.provenance import Record, choices_of, used_by
from advss.plugins.registry import build
from advss.randomness import global_stream
from advss.runs.classifier import new_classifier
from advss.runs.session import Session, build_defense, described
from advss.runs.start import read_start
from advss.stages.source import started_from
from advss.stages.validation import classifier_score, classifier_validation, validation_images
from advss.training.blame import blaming, fitting
from advss.training.checkpoints import has_checkpoint, load_checkpoint
from advss.training.first_batch import check_runs
from advss.training.form import check_deployed, check_made, check_not_frozen, check_phases
from advss.training.progress import Progress
from advss.training.work import Modules, Validate, Work

STAGE: Final = "finetune"


def finetune_stage(session: Session, source: Path | None) -> Progress:
    """Train, or go on training, the classifier of a run; leaves finetune/{last,best}.safetensors.

    Args:
        session: the opened run.
        source: the pretraining checkpoint to start from; None is random initialisation (P1).
    """
    work = finetune_work(session, source)
    for line in _at_another_side(ModelSpec.from_json(work.manifest["model"])):
        session.reporter.say(line)
    valid, some = len(session.seen_by(STAGE).valid), session.config.evaluation.valid_limit
    if work.defense.adversarial and 0 < some < valid:
        session.reporter.say(f"--eval-valid-limit {some}: after each epoch RA is of {some} images, TA of all {valid}")
    for phase in work.idle_phases():
        of = f"phase {phase + 1} of {len(work.phases)} of --finetune {session.config.finetune.name}"
        say = f"its share of --finetune-epochs {work.settings.epochs} is rounded to none; give more epochs"
        session.reporter.say(f"advss: warning: {of} does not take place: {say}")
    return session.train(work)


def _at_another_side(spec: ModelSpec) -> list[str]:
    """What it costs that images are of another side than those pretrained on."""
    now = spec.data.side
    was = spec.stem or now
    if was == now:
        return []
    kept = "its position embeddings are resampled" if family_of(spec.backbone).patches else "its stem stays as it is"
    cost = f"an image costs about {(now / was) ** 2:.2g} times as much"
    return [f"pretrained on images of {was} pixels, fine-tuned on images of {now}: {kept}, and {cost}"]


def check_finetuning(session: Session) -> None:
    """Try fine-tuning from random initialisation, so that what cannot work fails before pretraining.

    Raises:
        UsageError: as :func:`finetune_stage`.
    """
    if not has_checkpoint(session.folder.last(STAGE)):
        check_runs(finetune_work(session, None))


def untrained(session: Session) -> tuple[ImageClassifier, dict[str, Any]]:
    """The classifier that fine-tuning will leave, its weights still random, and of its manifest what measuring asks."""
    config, classes = session.config, session.splits.classes
    with blaming(STAGE, used_by(choices_of(config, STAGE))):
        spec = session.spec(("main",), STAGE)
        classifier = new_classifier(spec, len(classes), seed=config.seed)
        noise = build_defense(config.finetune_defense, flag="--finetune-defense.").noise
    return classifier, {"classes": list(classes), "noise": noise, "model": spec.to_json()}


def finetune_work(session: Session, source: Path | None) -> Work:
    """The fine-tuning stage of a run, built and not yet trained."""
    plugins = used_by(choices_of(session.config, STAGE))
    with blaming(STAGE, plugins):
        return _work(session, source, plugins)


def _work(session: Session, source: Path | None, plugins: list[Record]) -> Work:
    config, settings = session.config, session.config.finetuning
    classifier, spec = _classifier(session, source)
    scheme = _scheme(config, plugins)
    plain = copy.deepcopy(classifier)
    with global_stream("cpu", config.seed, "init", "scheme"):
        scheme.build(classifier)
    modules = Modules(classifier, {config.finetune.name: scheme}, STAGE).to(session.device)
    phases, deployed = scheme.phases(classifier), modules.deployed()
    with fitting(STAGE, scheme, plugins):
        check_phases(phases)
        check_not_frozen(phases, modules)
        check_deployed(deployed, plain.state_dict())
    if not any(group["params"] for phase in phases for group in phase.groups):
        raise UsageError(f"--finetune {config.finetune.name}: nothing is left to train; use another scheme")
    defense = build_defense(config.finetune_defense, flag="--finetune-defense.")
    return Work(
        modules=modules,
        defense=defense,
        loader=session.loader(session.seen_by(STAGE).train, settings, STAGE),
        phases=phases,
        settings=settings,
        validate=_validation(session, scheme, plain, adversarial=defense.adversarial),
        score=classifier_score(adversarial=defense.adversarial),
        seed=config.seed,
        device=session.device,
        bf16=session.bf16,
        everything=session.everything(settings, STAGE),
        manifest=_manifest(session, classifier, spec, noise=defense.noise)
        | {"source_sha256": started_from(session, source)},
        plugins=plugins,
        stop=session.stop,
    )


def _validation(session: Session, scheme: FinetuneScheme, plain: ImageClassifier, *, adversarial: bool) -> Validate:
    """Of what the scheme deploys: into ``plain`` where it may be another than the classifier that trains."""
    config, own = session.config, type(scheme).deployed is not FinetuneScheme.deployed
    return classifier_validation(
        validation_images(session, config.finetuning, STAGE),
        config.evaluation,
        seed=config.seed,
        adversarial=adversarial,
        stop=session.stop,
        plain=plain.to(session.device) if own else None,
    )


def _manifest(session: Session, classifier: ImageClassifier, spec: ModelSpec, *, noise: float) -> dict[str, Any]:
    """What rebuilds the classifier, and what it was trained by."""
    return {
        "kind": STAGE,
        "model": spec.to_json(),
        "classes": list(session.splits.classes),
        "finetune": described(session.config.finetune),
        "defense": described(session.config.finetune_defense),
        "noise": noise,
        "loaded": sorted(classifier.loaded),
    }


def _scheme(config: RunConfig, plugins: list[Record]) -> FinetuneScheme:
    scheme = build("finetune", config.finetune)
    assert isinstance(scheme, FinetuneScheme)
    with fitting(STAGE, scheme, plugins):
        check_made(scheme)
    return scheme


def _classifier(session: Session, source: Path | None) -> tuple[ImageClassifier, ModelSpec]:
    """A classifier with what pretraining gave; on resuming only the record of it, the weights follow."""
    config, classes, wanted = session.config, len(session.splits.classes), session.spec(("main",), STAGE)
    last = session.folder.last(STAGE)
    if has_checkpoint(last):
        manifest = load_checkpoint(last, warn=False).manifest
        classifier = new_classifier(ModelSpec.from_json(manifest["model"]), classes, seed=config.seed)
        classifier.loaded = set(manifest["loaded"])
        return classifier, ModelSpec.from_json(manifest["model"])
    new = partial(
        new_classifier,
        classes=classes,
        seed=config.seed,
        weights=session.first_tensors,
        random_tail=config.finetune_tail == "fresh",
    )
    if source is None:
        return new(wanted), wanted
    start = read_start(source, config.finetune_tail)
    _check_same_backbone(start.spec, wanted, source)
    # the mean and standard deviation that the encoder was trained with stay, in spec and weights alike, and its stem
    spec = dataclasses.replace(wanted, mean=start.spec.mean, std=start.spec.std, stem=start.spec.stem)
    classifier = new(spec)
    classifier.load_pretrained(start.encoder, start.tail)
    return classifier, spec


def _check_same_backbone(found: ModelSpec, wanted: ModelSpec, source: Path) -> None:
    if (found.backbone, found.options) != (wanted.backbone, wanted.options):
        raise UsageError(
            f"{source} is of backbone {found.backbone} {found.options}, not of {wanted.backbone} {wanted.options}; "
            f"say --backbone {found.backbone} with the same options"
        )
