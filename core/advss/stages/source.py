"""What fine-tuning starts from: a pretraining checkpoint, recorded by its sha256, and the data it was trained on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from advss.data.fingerprint import Fingerprint
from advss.errors import UsageError
from advss.runs.session import Session, open_data
from advss.runs.start import check_kind
from advss.runs.stored import stored_config
from advss.training.checkpoints import has_checkpoint, load_checkpoint


def record_source(session: Session, checkpoint: Path | None) -> None:
    """Write down the checkpoint that a run starts from, or compare it with the one that it started from.

    Raises:
        UsageError: it is another; or the run is of the same data source and its images or classes are others by now.
    """
    if checkpoint is None:
        session.record(source=None, source_sha256=None)
        return
    before = session.folder.read_result().get("source_sha256")
    if before and not has_checkpoint(checkpoint) and has_checkpoint(session.folder.last("finetune")):
        return  # gone, but its weights have served
    manifest = load_checkpoint(checkpoint, warn=False).manifest
    check_kind(manifest, checkpoint)
    now = manifest["sha256"]
    if before and before != now:
        raise UsageError(
            f"--resume: run {session.folder.path} started from a checkpoint {checkpoint} of sha256 {before[:8]}, which "
            f"is now of {now[:8]}; put it back, or start a new run"
        )
    if not before:
        _check_data(session, checkpoint, Fingerprint.from_json(manifest["data"]))
    session.record(source=str(checkpoint.resolve()), source_sha256=now)


def _check_data(session: Session, checkpoint: Path, then: Fingerprint) -> None:
    """Refuse data that changed since pretraining; say so where others of the same kind were chosen."""
    run, config = checkpoint.resolve().parent.parent, session.config
    if not (run / "config.yaml").is_file():
        return
    was = stored_config(run)
    if was.data.name != config.data.name:
        return
    alike = (was.limit, was.dividing_seed) == (config.limit, config.dividing_seed)
    divided = dataclasses.replace(config, limit=was.limit, split_seed=was.dividing_seed)
    differing = (session.splits if alike else open_data(divided)).fingerprint.unlike(then)
    if differing and was.data == config.data:
        raise UsageError(
            f"--from: run {run} was pretrained on other data than there are now: {differing}; put them back as they "
            "were, or choose others by --data"
        )
    if differing:
        session.reporter.say(f"these are other data than {run} was pretrained on: {differing}")
