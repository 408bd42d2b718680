"""What goes of a run's folder: all of it, or what neither measuring nor resuming needs.

Measuring, averaging, going on from a run and loading it read the best checkpoints; resuming reads the last ones, and a
finished run is never resumed. Examples, as large as the images, are made again where they are gone; of whatever else is
measured all is kept.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from advss.errors import UsageError
from advss.runs.folder import RunFolder, check_links
from advss.runs.listing import COMPARISON, Files, files_of, find_listed
from advss.runs.lock import held, in_use, locked
from advss.tracking.journal import NAME as JOURNAL

STAGES = ("pretrain", "finetune")
EXAMPLES = "evaluations/examples-*.safetensors"  # of unfinished ones, in folders, too
ENDED_S = 600.0  # a file half written that has not grown for so long is written by nobody
OWN = ("result.json", COMPARISON, JOURNAL)  # nobody else's folder has one of them


def to_remove(runs: Sequence[str], runs_dir: Path) -> list[Path]:
    """The folders of runs that may be removed, each once.

    Raises:
        UsageError: there is no such run, it is in use, it is a link or has links in it, or it is no run's folder alone.
    """
    found = [find_listed(run, runs_dir) for run in runs]
    for folder in found:
        if folder.is_symlink():
            raise UsageError(f"{folder} is a link; name the folder that it leads to, {folder.resolve()}")
        check_links(folder)
        whole = folder.resolve()
        if not any((folder / name).is_file() for name in OWN):
            raise UsageError(
                f"{folder} has no {', '.join(OWN[:-1])} or {OWN[-1]}, so it may be no run's; remove it yourself"
            )
        for inner, what in ((Path.cwd(), "the folder you are in"), (runs_dir.resolve(), "the folder of runs")):
            if inner.is_relative_to(whole):
                raise UsageError(f"{folder} is, or contains, {what}; go elsewhere first")
        check_unused(folder)
    return list({folder.resolve(): folder for folder in found}.values())


def check_unused(folder: Path) -> None:
    """Raise UsageError where a process works in a folder."""
    if held(folder) and (used := in_use(folder)):
        raise UsageError(used)


def remove(folder: Path) -> None:
    """Remove a run's folder: once it is under way the run is gone, even where it is broken off.

    Raises:
        UsageError: a process works in it, or it cannot be removed.
    """
    try:
        with locked(folder):
            aside = folder.with_name(f".{folder.name}.{os.getpid()}.removed")
            folder.rename(aside)
        shutil.rmtree(aside)
    except OSError as error:
        raise UsageError(f"cannot remove {error.filename or folder}: {error.strerror}") from error


def used_by(folder: Path, others: Iterable[Path]) -> list[str]:
    """What other runs have of this one, a line each: ``tuned starts from it``."""
    whole, digests = folder.resolve(), {_digest(folder, stage) for stage in STAGES} - {""}
    found = []
    for other in others:
        try:
            result = {} if other.resolve() == whole else RunFolder(other).read_result()
        except (UsageError, OSError):
            continue
        if result.get("source_sha256") in digests or whole in Path(result.get("source") or "").absolute().parents:
            found.append(f"{other.name} starts from it")
        members = [member for member in result.get("members") or () if isinstance(member, dict)]
        if any(member.get("sha256") in digests for member in members):
            found.append(f"{other.name} is an average of it and others")
    return found


def _digest(folder: Path, stage: str) -> str:
    """The sha256 of a stage's best checkpoint, as its manifest has it."""
    try:
        return str(json.loads((folder / stage / "best.json").read_bytes())["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def spare(folder: Path) -> Files:
    """The files of a run that neither measuring nor resuming needs, with their sizes, as far as names tell.

    Raises:
        UsageError: the folder has links in it, or cannot be read.
    """
    files = files_of(folder)
    try:
        served = set(_served(files)) if RunFolder(folder).finished else set()
    except (UsageError, OSError):
        served = set()
    return {name: size for name, size in files.items() if name in served or _left_over(folder / name)}


def _served(files: Files) -> Iterator[str]:
    """What has served in a finished run: checkpoints to resume from, those before the best ones, and examples."""
    for stage in STAGES:
        if {f"{stage}/best.safetensors", f"{stage}/best.json"} <= files.keys():
            patterns = (f"{stage}/last.*", f"{stage}/best.previous.*")
            yield from (name for name in files if any(fnmatchcase(name, pattern) for pattern in patterns))
    yield from (name for name in files if fnmatchcase(name, EXAMPLES))


def _left_over(path: Path) -> bool:
    """Whether a file is what a killed process had begun to write."""
    if not (path.name.startswith(".") and path.name.endswith(".new")):
        return False
    try:
        return time.time() - path.stat().st_mtime > ENDED_S
    except OSError:
        return False


def prune(folder: Path) -> tuple[int, list[str]]:
    """Remove what is spare.

    Returns:
        The bytes that were freed, and a line for each stage whose best checkpoint is damaged, and which keeps all.

    Raises:
        UsageError: a process works in it, or a file cannot be removed.
    """
    from advss.training.checkpoints import is_whole  # torch, which all before it does without

    with locked(folder):
        going, kept = spare(folder), []
        for stage in STAGES:
            beside = [name for name in going if name.startswith((f"{stage}/last.", f"{stage}/best."))]
            best = RunFolder(folder).best(stage)
            if beside and not is_whole(best):
                kept.append(f"{best} is damaged, so what stands beside it is kept")
                going = {name: size for name, size in going.items() if name not in beside}
        for name in going:
            _unlink(folder / name)
        for parent in {(folder / name).parent for name in going if fnmatchcase(name, EXAMPLES)}:
            with suppress(OSError):  # something is left in it
                parent.rmdir()
    return sum(going.values()), kept


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"cannot remove {path}: {error.strerror}") from error


def half_removed(runs_dir: Path) -> list[Path]:
    """Folders of runs whose removal was broken off."""
    return sorted(path for path in runs_dir.glob(".*.removed") if path.is_dir() and not path.is_symlink())
