"""Whole runs: pretrain, fine-tune, evaluate, and fit = the three in a row; what the command line and Python call."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from advss.config import EvalSettings, RunConfig
from advss.data.splits import Splits
from advss.errors import UsageError
from advss.models.families import family_of
from advss.plugins.provenance import choices_of, saying_what_is_needed, used_by
from advss.reports.curves import draw_curves
from advss.reports.diversity import draw_diversity
from advss.stages.evaluate import evaluate_model, load_classifier
from advss.stages.finetune import check_finetuning, finetune_stage
from advss.stages.pretrain import pretrain_stage
from advss.stages.resolve import stored_config, to_yaml
from advss.stages.runs import RunFolder, classifier_of, find_run, make_folder, plan_run
from advss.stages.session import Session, choose_device, followed, open_data, tracked
from advss.tracking.tracker import Tracker
from advss.training.checkpoints import has_checkpoint, write_text
from advss.training.members import member_stage
from advss.training.memory import keep_freed_memory
from advss.training.progress import Progress
from advss.training.reporting import Reporter

Result = dict[str, Any]


def fit(config: RunConfig, *, resume: bool = False, reporter: Reporter) -> Result:
    """Pretrain, fine-tune and evaluate one run.

    Args:
        config: the run.
        resume: go on with the run of that name where it stopped; a finished one is left as it is.
        reporter: told of every step.

    Returns:
        The content of result.json.

    Raises:
        UsageError: bad input, before any training.
        Interrupted: a signal came; everything up to that step is saved.
    """
    with _opened(config, resume=resume, reporter=reporter) as session:
        if session is None:
            return _finished(config, reporter)
        source = None
        if config.pretext and config.pretraining.epochs:
            check_finetuning(session)
            _pretrain(session)
            source = session.folder.best("pretrain")
        _finetune(session, source)
        return _evaluate(session)


def pretrain(config: RunConfig, *, resume: bool = False, reporter: Reporter) -> Result:
    """The pretraining stage alone; ``ta`` and ``ra`` stay null. Arguments and errors as :func:`fit`."""
    if not config.pretext or not config.pretraining.epochs:
        raise UsageError("advss pretrain: nothing to train; give --pretext and at least 1 --pretrain-epochs")
    with _opened(config, resume=resume, reporter=reporter) as session:
        if session is None:
            return _finished(config, reporter)
        _pretrain(session)
        return _close(session)


def finetune(config: RunConfig, *, source: Path | None, resume: bool = False, reporter: Reporter) -> Result:
    """The fine-tuning stage alone, as a run of its own; ``ta`` and ``ra`` stay null until it is evaluated.

    Args:
        config: the new run.
        source: run folder, or pretraining checkpoint, to start from; None is random initialisation (P1), or, with
            ``resume``, what the run started from.
        resume: as in :func:`fit`.
        reporter: told of every step.
    """
    checkpoint = _pretrained(source) if source is not None else None
    with _opened(config, resume=resume, reporter=reporter) as session:
        if session is None:
            return _finished(config, reporter)
        if checkpoint is None and (kept := session.folder.read_result().get("source")):
            checkpoint = Path(kept)
        session.record(source=str(checkpoint.resolve()) if checkpoint else None)
        _finetune(session, checkpoint)
        return _close(session)


def evaluate(run: Path, evaluation: EvalSettings, *, device: str = "auto", reporter: Reporter) -> Result:
    """TA and RA of a run's best classifier on its test images; result.json then holds this evaluation."""
    folder = find_run(run)
    classifier_of(folder)
    with reopened(folder, device=device, reporter=reporter, evaluation=evaluation) as session:
        session.record(name=folder.name, folder=str(folder.path))  # the run may have been moved since
        return _evaluate(session, status=folder.read_result().get("status", "running"))


@contextmanager
def reopened(
    folder: RunFolder, *, device: str, reporter: Reporter, evaluation: EvalSettings | None = None
) -> Iterator[Session]:
    """A session in a run's folder, to measure its model on ``device``; plugins that trained it may be gone by now.

    ``evaluation`` stands in place of the run's own.
    """
    stored = stored_config(folder.path)
    config = dataclasses.replace(
        stored,
        name=folder.name,
        runs_dir=folder.path.parent,
        evaluation=evaluation or stored.evaluation,
        device=device,
    )
    with open_session(config, folder, open_data(config), reporter) as session:
        yield session


@contextmanager
def _opened(config: RunConfig, *, resume: bool, reporter: Reporter) -> Iterator[Session | None]:
    """A session in the run's folder, made or gone on with; None when the run is finished."""
    folder = plan_run(config, resume=resume)
    if resume and folder.read_result().get("status") == "finished":
        yield None
        return
    with saying_what_is_needed(lambda: folder.read_result().get("plugins"), run=folder.name):
        family_of(config.backbone.name)
    splits, device = open_data(config), choose_device(config.device)
    new = not (resume and folder.path.exists())
    folder = make_folder(folder, resume=resume, named=config.name is not None)
    with _no_folder_left(folder, new=new):
        if not folder.config.is_file():
            write_text(folder.config, to_yaml(dataclasses.replace(config, name=None)))
        config = dataclasses.replace(config, name=folder.name, device=str(device))
        with open_session(config, folder, splits, reporter) as session:
            plugins = used_by(choices_of(config, "pretrain", "finetune"))
            now = {"plugins": plugins, "status": "running"}
            session.record(**(blank_result(config, folder) | folder.read_result() | now))
            versions = {f"{p['kind']}.{p['name']}": f"{p['distribution']} {p['version']}" for p in plugins}
            session.tracker.params({"plugins": versions})
            session.tracker.artifact(folder.config)
            yield session


@contextmanager
def _no_folder_left(folder: RunFolder, *, new: bool) -> Iterator[None]:
    """Remove a new folder when bad input shows before there is anything to go on from."""
    try:
        yield
    except UsageError:
        if new and not any(has_checkpoint(folder.last(stage)) for stage in ("pretrain", "finetune")):
            shutil.rmtree(folder.path, ignore_errors=True)
        raise


@contextmanager
def open_session(config: RunConfig, folder: RunFolder, splits: Splits, reporter: Reporter) -> Iterator[Session]:
    """What every stage of one run shares, for as long as it is open; the configuration and the data are tracked."""
    keep_freed_memory()
    with followed(folder.path, tracking=config.tracking) as (tracker, stop):
        tracker.params(_as_params(config))
        log_data(tracker, splits, config)
        yield Session(config, folder, splits, choose_device(config.device), tracker, reporter, stop)


def _pretrain(session: Session) -> None:
    members = [member.key for member in session.config.pretext]
    stages = ["pretrain", *(member_stage("pretrain", key) for key in members if len(members) > 1)]
    with ExitStack() as stack:
        for stage in stages:
            stack.enter_context(tracked(session.tracker, stage))
        _note(session, "pretrain", pretrain_stage(session))


def _finetune(session: Session, source: Path | None) -> None:
    with tracked(session.tracker, "finetune"):
        progress = finetune_stage(session, source)
        _note(session, "finetune", progress)
    session.record(best_epoch=progress.best_epoch)
    best = session.folder.best("finetune")
    session.tracker.model(best, best.with_suffix(".json"))


def _evaluate(session: Session, *, status: str = "finished") -> Result:
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
    seconds = folder.read_result().get("seconds", {}) | {"evaluate": round(time.monotonic() - began, 2)}
    session.record(**measured, seconds=seconds)
    return _close(session, status=status)


def _close(session: Session, *, status: str = "finished") -> Result:
    """Draw the curves and write down how the run stands; one that was evaluated before its end can still be resumed."""
    drawn = session.folder.journal, session.folder.path / "figures"
    for figure in [*draw_curves(*drawn), *draw_diversity(*drawn)]:
        session.tracker.artifact(figure)
    result = session.record(status=status)
    session.tracker.artifact(session.folder.result)
    return result


def _note(session: Session, stage: str, progress: Progress) -> None:
    before = session.folder.read_result()
    session.record(
        epochs=before.get("epochs", {}) | {stage: progress.epoch},
        best_epochs=before.get("best_epochs", {}) | {stage: progress.best_epoch},
        seconds=before.get("seconds", {}) | {stage: round(progress.seconds, 2)},
        best_metrics=before.get("best_metrics", {}) | {stage: progress.best_metrics},
        skipped_steps=before.get("skipped_steps", {}) | {stage: progress.skipped},
    )


def _finished(config: RunConfig, reporter: Reporter) -> Result:
    folder = plan_run(config, resume=True)
    reporter.say(f"run {folder.path} is finished; nothing to do")
    return folder.read_result()


def blank_result(config: RunConfig, folder: RunFolder) -> Result:
    """What result.json holds of a run that has not been measured yet."""
    return {
        "name": folder.name,
        "pretext": [member.name for member in config.pretext],
        "defense": config.defense.name,
        "finetune": {"scheme": config.finetune.name, "defense": config.finetune_defense.name},
        "data": config.data.name,
        "backbone": config.backbone.name,
        "seed": config.seed,
        "device": _device_name(config.device),
        "ta": None,
        "ra": None,
        "ra_attack": None,
        "best_epoch": None,
        "folder": str(folder.path),
    }


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _pretrained(source: Path) -> Path:
    """The checkpoint that ``--from`` means: a file, or a run's best pretraining epoch."""
    if source.is_file():
        return source
    best = find_run(source).best("pretrain")
    if not has_checkpoint(best):
        raise UsageError(f"--from: run {source} has no pretrained encoder; run `advss pretrain` first")
    return best


def _as_params(config: RunConfig) -> dict[str, Any]:
    """The configuration as the parameters of a tracked run: members by name, options below them."""
    plain = dataclasses.asdict(config)
    for key in ("defense", "finetune", "finetune_defense", "data", "backbone"):
        choice = plain.pop(key)
        plain |= {key: choice["name"], f"{key}_options": choice["options"]}
    members = plain.pop("pretext")
    plain["pretext"] = ",".join(member["name"] for member in members) or "none"
    plain["pretext_options"] = {member["key"] or member["name"]: member["options"] for member in members}
    return plain | {"runs_dir": str(config.runs_dir)}


def log_data(tracker: Tracker, splits: Splits, config: RunConfig) -> None:
    """Tell the tracker which data a run sees."""
    profile = {
        "train": len(splits.train),
        "valid": len(splits.valid),
        "test": len(splits.test),
        "classes": len(splits.classes),
        "side": splits.facts.side,
    }
    source = str(config.data.options.get("root", "scikit-learn" if splits.name == "digits" else splits.name))
    tracker.dataset(name=splits.name, source=source, fingerprint=splits.fingerprint, profile=profile)
