"""What fine-tuning starts from: a pretraining checkpoint, recorded by its sha256, and the data it was trained on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from advss.errors import UsageError
from advss.runs.own_data import recorded_in
from advss.runs.session import Session, open_data
from advss.runs.start import check_kind
from advss.runs.stored import stored_config
from advss.training.checkpoints import has_checkpoint, load_checkpoint


def record_source(session: Session, checkpoint: Path | None) -> None:
    """Write down the checkpoint that a run starts from.

    Raises:
        UsageError: as :func:`started_from`; or the run is of the same data source and its images or classes are others
            by now.
    """
    sha256 = started_from(session, checkpoint)
    if checkpoint and not has_checkpoint(session.folder.last("finetune")):
        _check_data(session, checkpoint)
    session.record(source=str(checkpoint.resolve()) if checkpoint else None, source_sha256=sha256)


def started_from(session: Session, checkpoint: Path | None) -> str | None:
    """The sha256 of the checkpoint that fine-tuning starts from; None is random initialisation.

    Once fine-tuning has begun, its own checkpoint says it, and the one that it started from may be gone: its weights
    have served.

    Raises:
        UsageError: it is another than fine-tuning has started from.
    """
    begun, before = has_checkpoint(session.folder.last("finetune")), _begun_from(session)
    if checkpoint is None or (begun and not has_checkpoint(checkpoint)):
        return before
    manifest = load_checkpoint(checkpoint, warn=False).manifest
    check_kind(manifest, checkpoint)
    now: str = manifest["sha256"]
    if before != now and (begun or before):
        was = f"a checkpoint of sha256 {before[:8]}" if before else "random weights"
        raise UsageError(
            f"--resume: run {session.folder.path} started from {was}, and {checkpoint} is of {now[:8]}; put back what "
            "it started from, or start a new run"
        )
    return now


def _begun_from(session: Session) -> str | None:
    """What a run has started from, as far as it has; before its first checkpoint only its result knows."""
    last = session.folder.last("finetune")
    known = load_checkpoint(last, warn=False).manifest if has_checkpoint(last) else session.folder.read_result()
    return known.get("source_sha256")


def _check_data(session: Session, checkpoint: Path) -> None:
    """Refuse data that changed since pretraining; say so where others of the same kind were chosen."""
    run, config = checkpoint.resolve().parent.parent, session.config
    if not (run / "config.yaml").is_file():
        return
    was = stored_config(run)
    then = recorded_in(load_checkpoint(checkpoint, warn=False).manifest, was)
    if then is None or was.data.name != config.data.name:
        return
    divided = dataclasses.replace(
        config, limit=was.limit, size=was.size, resize=was.resize, split_seed=was.dividing_seed
    )
    alike = divided == dataclasses.replace(config, split_seed=config.dividing_seed)
    differing = (session.splits if alike else open_data(divided)).fingerprint.unlike(then)
    if differing and was.data == config.data:
        raise UsageError(
            f"--from: run {run} was pretrained on other data than there are now: {differing}; put them back as they "
            "were, or choose others by --data"
        )
    if differing:
        session.reporter.say(f"these are other data than {run} was pretrained on: {differing}")
