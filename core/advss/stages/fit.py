"""Whole runs: pretrain, fine-tune, and fit = both and an evaluation; what the command line and Python call."""

from __future__ import annotations

from pathlib import Path

from advss.config import RunConfig
from advss.errors import UsageError
from advss.evaluations.evaluate import check_measurable, evaluated
from advss.evaluations.planned import planned
from advss.naming import as_typed
from advss.runs.folder import begun_by, find_run
from advss.runs.opened import Result, close, finished_result, opened
from advss.runs.session import Session
from advss.stages.finetune import check_finetuning, finetune_stage, untrained
from advss.stages.pretrain import pretrain_stage
from advss.stages.source import record_source
from advss.training.checkpoints import has_checkpoint, missing_part
from advss.training.progress import Progress
from advss.training.reporting import Reporter


def fit(config: RunConfig, *, resume: bool = False, reporter: Reporter) -> Result:
    """Pretrain, fine-tune and evaluate one run; a stage of no epochs is skipped, and evaluation where none is tuned.

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
    pretrains, finetunes = bool(config.pretext and config.pretraining.epochs), config.finetuning.epochs > 0
    if not pretrains and not finetunes:
        raise UsageError("advss fit: nothing to train; give --pretext and --pretrain-epochs, or --finetune-epochs")
    plans = [planned(choice, config.evaluation) for choice in config.evaluate]  # what is wrong is told before training
    with opened(config, "fit", resume=resume, reporter=reporter) as session:
        if session is None:
            return finished_result(config, reporter)
        if pretrains and finetunes:
            check_finetuning(session)
        if finetunes and plans:
            check_measurable(*untrained(session), plans)
        if pretrains:
            _pretrain(session)
        if not finetunes:
            reporter.say("--finetune-epochs 0: there is no classifier, so TA and RA are not measured")
            session.record(epochs=session.folder.read_result()["epochs"] | {"finetune": 0})
            return close(session)
        _finetune(session, session.folder.best("pretrain") if pretrains else None)
        return evaluated(session)[0]


def pretrain(config: RunConfig, *, resume: bool = False, reporter: Reporter) -> Result:
    """The pretraining stage alone; ``ta`` and ``ra`` stay null. Arguments and errors as :func:`fit`."""
    if not config.pretext or not config.pretraining.epochs:
        raise UsageError("advss pretrain: nothing to train; give --pretext and at least 1 --pretrain-epochs")
    with opened(config, "pretrain", resume=resume, reporter=reporter) as session:
        if session is None:
            return finished_result(config, reporter)
        _pretrain(session)
        return close(session)


def finetune(config: RunConfig, *, source: Path | None, resume: bool = False, reporter: Reporter) -> Result:
    """The fine-tuning stage alone, as a run of its own; ``ta`` and ``ra`` stay null until it is evaluated.

    Args:
        config: the new run.
        source: run folder, or pretraining checkpoint, to start from; None is random initialisation (P1), or, with
            ``resume``, what the run started from.
        resume: as in :func:`fit`.
        reporter: told of every step.
    """
    if not config.finetuning.epochs:
        raise UsageError("advss finetune: nothing to train; give at least 1 --finetune-epochs")
    checkpoint = _pretrained(source) if source is not None else None
    with opened(config, "finetune", resume=resume, reporter=reporter, source=checkpoint) as session:
        if session is None:
            return finished_result(config, reporter)
        if checkpoint is None and (kept := session.folder.read_result().get("source")):
            checkpoint = _kept_start(session, Path(kept))
        record_source(session, checkpoint)
        _finetune(session, checkpoint)
        return close(session)


def _pretrain(session: Session) -> None:
    _note(session, "pretrain", pretrain_stage(session))


def _finetune(session: Session, source: Path | None) -> None:
    progress = finetune_stage(session, source)
    _note(session, "finetune", progress)
    session.record(best_epoch=progress.best_epoch)
    best = session.folder.best("finetune")
    session.tracker.model(best, best.with_suffix(".json"))


def _note(session: Session, stage: str, progress: Progress) -> None:
    before = session.folder.read_result()
    session.record(
        epochs=before.get("epochs", {}) | {stage: progress.epoch},
        best_epochs=before.get("best_epochs", {}) | {stage: progress.best_epoch},
        seconds=before.get("seconds", {}) | {stage: round(progress.seconds, 2)},
        best_metrics=before.get("best_metrics", {}) | {stage: progress.best_metrics},
        skipped_steps=before.get("skipped_steps", {}) | {stage: progress.skipped},
    )


def _kept_start(session: Session, kept: Path) -> Path:
    """What a run started from; before its first checkpoint, which needs it no more, only from beside the run."""
    folder = session.folder
    if has_checkpoint(folder.last("finetune")) or kept.resolve().is_relative_to(folder.path.resolve().parent):
        return kept
    raise UsageError(
        f"--resume: {folder.path} has no checkpoint yet, and its start {kept}, outside the folder of runs, is not "
        f"followed; begin again by `advss finetune --from {as_typed(kept)}`"
    )


def _pretrained(source: Path) -> Path:
    """The checkpoint that ``--from`` means: a file, or a run's best pretraining epoch."""
    if source.is_file():
        return source
    folder = find_run(source)
    best = folder.best("pretrain")
    if gone := missing_part(best):
        raise UsageError(f"--from: {gone}")
    if not has_checkpoint(best):
        result = folder.read_result()
        begun = begun_by(result)
        pretraining = result.get("pretext") and result.get("status") != "finished" and begun != "finetune"
        todo = f"run `advss {begun} --resume {as_typed(folder.path)}` first" if pretraining else "name a run that has"
        raise UsageError(f"--from: run {source} has no pretrained encoder; {todo}")
    return best
