"""A run's own data, met again: they are read, and compared with what its checkpoints say it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from advss.config import DataFlag, RunConfig, paths_in
from advss.data.fingerprint import PARTS, Fingerprint, PartName
from advss.data.splits import UNWATCHED, Splits
from advss.data.watch import Watch
from advss.errors import UsageError
from advss.runs.folder import RunFolder
from advss.runs.session import open_data
from advss.training.checkpoints import has_checkpoint, load_checkpoint


def recorded(folder: RunFolder, config: RunConfig, flag: DataFlag = "data") -> Fingerprint | None:
    """The data that a run was trained on; None where nothing of its training is kept."""
    for stage in ("finetune", "pretrain"):
        for path in (folder.best(stage), folder.last(stage)):
            manifest = load_checkpoint(path, warn=False).manifest if has_checkpoint(path) else None
            if manifest and (found := recorded_in(manifest, config, flag)):
                return found
    return None


def recorded_in(manifest: Mapping[str, Any], config: RunConfig, flag: DataFlag = "data") -> Fingerprint | None:
    """What a run's checkpoint says of the data of a flag; None where it does not."""
    apart = manifest["kind"] == "pretrain" and config.pretrain_data is not None
    key = "finetune_data" if apart and flag == "data" else "data"
    own = flag == "data" or apart
    return Fingerprint.from_json(manifest[key]) if own and manifest.get(key) else None


def own_data(
    config: RunConfig,
    folder: RunFolder,
    parts: Sequence[PartName] = PARTS,
    watch: Watch = UNWATCHED,
    flag: DataFlag = "data",
) -> Splits:
    """Parts of a run's data, read again; what only the others need is not read.

    Args:
        config: of the run; ``data`` may say another place.
        folder: of the run.
        parts: which; they must be as they were, and the classes' names.
        watch: told of reading them.
        flag: whose they are, ``--data`` or ``--pretrain-data``.

    Raises:
        UsageError: they are gone, or no longer those that the run was trained on; what differs is named.
    """
    try:
        splits = open_data(config, parts, watch, flag)
    except UsageError as error:
        data = config.chosen(flag).data
        places = [(name, place) for name, value in data.options.items() for place in paths_in(value)]
        for name, place in places:
            if not place.exists():
                where = f"say where they are now by --{flag}.{name} {'FILE' if place.suffix else 'DIR'}"
                raise UsageError(f"run {folder.path}: its data were in {place}, which is not there; {where}") from error
        raise
    then = recorded(folder, config, flag)
    if then and (differing := splits.fingerprint.unlike(then)):
        trained = "pretrained" if flag == "pretrain-data" else "trained"
        raise UsageError(
            f"run {folder.path} was {trained} on other data than there are now: {differing}; put them back as they "
            "were, or start a new run"
        )
    return splits
