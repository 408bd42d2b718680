"""What there is to know of many runs at once, from their small files alone: no torch, no plugin, no tensors.

A run is told by result.json, and before there is one by config.yaml; a comparison by transfer.json. A folder that
cannot be read is a row, too, which says why.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from advss.errors import UsageError, did_you_mean
from advss.runs.folder import RunFolder, begun_by
from advss.runs.lock import held
from advss.tracking.journal import NAME as JOURNAL

State = Literal["running", "finished", "interrupted", "diverged", "damaged"]
STATES: tuple[State, ...] = get_args(State)
COMPARISON = "transfer.json"
MARKS = ("config.yaml", "result.json", JOURNAL, COMPARISON)  # one of them makes a folder a run's
FIRST_LINE = 4096  # bytes within which a journal's first line ends

Files = dict[str, int]  # by path within the run's folder, bytes


@dataclass(frozen=True)
class Row:
    """A run, an average of runs, or a comparison of runs.

    Attributes:
        name: the folder's.
        folder: where it lies.
        kind: the command that made it: fit, pretrain, finetune, ensemble or transfer.
        tasks: names of the pretext tasks.
        defense: of pretraining and of fine-tuning, as far as it has these stages; one where both are the same.
        scheme: of fine-tuning.
        data: as ``defense``.
        backbone: its name.
        members: names of the runs that are averaged or compared.
        ta: accuracy on the unperturbed test images, from 0 to 1.
        ra: accuracy under the headline's attack.
        aa: accuracy under AutoAttack.
        ra_images: how many images RA is of.
        aa_images: how many images AA is of.
        state: running only while a process works in it.
        problem: why it is damaged, or how it diverged.
        size: bytes of all its files.
        date: when it began, in seconds since 1970.
    """

    name: str
    folder: Path
    kind: str = ""
    tasks: tuple[str, ...] = ()
    defense: tuple[str, ...] = ()
    scheme: str | None = None
    data: tuple[str, ...] = ()
    backbone: str | None = None
    members: tuple[str, ...] = ()
    ta: float | None = None
    ra: float | None = None
    aa: float | None = None
    ra_images: int | None = None
    aa_images: int | None = None
    state: State = "damaged"
    problem: str = ""
    size: int | None = None
    date: float | None = None


def listed(runs_dir: Path) -> list[Row]:
    """A row for each run of a folder, by name."""
    return [row_of(folder) for folder in run_folders(runs_dir)]


def run_folders(runs_dir: Path) -> list[Path]:
    """The folders that are runs, or comparisons of runs, by name."""
    found = runs_dir.iterdir() if runs_dir.is_dir() else ()
    return sorted(path for path in found if not path.name.startswith(".") and is_run(path))


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's, or a comparison's, be it damaged."""
    return any((folder / name).is_file() for name in MARKS)


def find_listed(run: str, runs_dir: Path) -> Path:
    """The folder of what is listed by its name or folder, damaged or not.

    Raises:
        UsageError: there is none; the nearest name is given.
    """
    for path in (Path(run), runs_dir / run):
        if is_run(path):
            return path if path.name == path.resolve().name or path.is_symlink() else path.resolve()
    names = [folder.name for folder in run_folders(runs_dir)]
    raise UsageError(f"there is no run '{run}' in {runs_dir}{did_you_mean(run, names)}")


def files_of(folder: Path) -> Files:
    """The files of a run's folder with their sizes.

    Raises:
        UsageError: there is a link among them, or a folder that cannot be read.
    """
    found: Files = {}
    left = [folder]
    while left:
        inner = left.pop()
        try:
            entries = list(os.scandir(inner))
        except OSError as error:
            raise UsageError(f"{inner} cannot be read: {error.strerror}") from error
        for entry in entries:
            if entry.is_symlink():
                raise UsageError(f"{entry.path} is a link, and a run's folder holds none; put a copy there")
            if entry.is_dir():
                left.append(inner / entry.name)
                continue
            with suppress(FileNotFoundError):  # a run that is under way replaces its files
                found[str(Path(entry.path).relative_to(folder))] = entry.stat().st_size
    return found


def row_of(folder: Path) -> Row:
    """What there is to know of one folder."""
    try:
        files = files_of(folder)
    except UsageError as error:
        return Row(folder.name, folder, problem=str(error))
    known: dict[str, Any] = {"size": sum(files.values()), "date": _begun(folder)}
    try:
        told = _comparison(folder) if COMPARISON in files else _run(RunFolder(folder), files)
    except UsageError as error:
        with suppress(UsageError):
            known |= _choices(_configured(RunFolder(folder)))
        told = {"state": "running" if held(folder) else "damaged", "problem": str(error)}
    return Row(folder.name, folder, **{**known, **told})


def _begun(folder: Path) -> float:
    """When a run began: its journal says it, whatever became of the files' times."""
    try:
        with (folder / JOURNAL).open("rb") as file:
            began = float(json.loads(file.readline(FIRST_LINE))["time"])
            datetime.fromtimestamp(began, UTC)  # raises for a time that no calendar has
            return began
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        times = [path.stat().st_mtime for name in MARKS if (path := folder / name).is_file()]
        return min(times, default=0.0)


def _run(folder: RunFolder, files: Files) -> dict[str, Any]:
    if folder.config.name not in files:
        raise UsageError(f"{folder.config} is missing")
    try:
        result = folder.read_result()
    except OSError as error:
        raise UsageError(f"{folder.result} cannot be read: {error.strerror}") from error
    choices = _choices(result or _configured(folder))
    state, problem = state_of(folder, result, files)
    figures = {name: number(result.get(name)) for name in ("ta", "ra")}
    aa, aa_images = _autoattack(result)
    counts = {"ra_images": _count(result.get("ra_images")), "aa_images": aa_images}
    return {**choices, **figures, "aa": aa, **counts, "state": state, "problem": problem}


def state_of(folder: RunFolder, result: Mapping[str, Any], files: Files) -> tuple[State, str]:
    """How a run stands, and what is wrong with it."""
    if held(folder.path):
        return "running", ""
    if result.get("status") == "finished":
        best = folder.best("finetune" if tunes(result) else "pretrain").relative_to(folder.path)
        gone = [p for p in (best, best.with_suffix(".json")) if not {str(p), _previous(p)} & files.keys()]
        return ("damaged", f"{folder.path / gone[0]} is missing") if gone else ("finished", "")
    if said := result.get("diverged"):
        return "diverged", printable(said)
    return "interrupted", ""


def _previous(path: Path) -> str:
    return str(path.with_name(f"{path.stem}.previous{path.suffix}"))


def tunes(result: Mapping[str, Any]) -> bool:
    """Whether a run has, or is to have, a classifier."""
    return begun_by(result) != "pretrain" and (result.get("epochs") or {}).get("finetune") != 0


def _choices(result: Mapping[str, Any]) -> dict[str, Any]:
    """What was chosen, from a result."""
    tasks, tuned, scheme = texts(result.get("pretext")), tunes(result), result.get("finetune") or {}
    members = [one.get("run") for one in result.get("members") or () if isinstance(one, dict)]
    data, first = result.get("data"), result.get("pretrain_data")
    if not tuned:
        data, first = first or data, None
    return {
        "kind": "ensemble" if "members" in result else begun_by(result),
        "tasks": tasks,
        "defense": texts(result.get("defense") if tasks else None, scheme.get("defense") if tuned else None),
        "scheme": next(iter(texts(scheme.get("scheme") if tuned else None)), None),
        "data": texts(first if tasks else None, data),
        "backbone": next(iter(texts(result.get("backbone"))), None),
        "members": texts(members),
    }


def texts(*values: Any) -> tuple[str, ...]:
    """Values as texts that a terminal can show: a list is kept whole, single ones are named once."""
    if len(values) == 1 and isinstance(values[0], list | tuple):
        return tuple(printable(value) for value in values[0])
    return tuple(dict.fromkeys(printable(value) for value in values if value))


def printable(value: Any) -> str:
    """A value as text without what moves a terminal's cursor: whoever made a run's folder wrote it."""
    return "".join(x if x.isprintable() else "?" for x in str(value))


def number(value: Any) -> float | None:
    """A finite number; None for anything else."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _count(value: Any) -> int | None:
    """A whole number; None for anything else."""
    return value if type(value) is int else None


def _autoattack(result: Mapping[str, Any]) -> tuple[float | None, int | None]:
    """RA under the standard version, at the headline's threat, and of how many images.

    Under another threat it is no number to stand beside RA.
    """
    try:
        found, headline = result["evaluations"]["autoattack"], result["ra_attack"]
        threat = [(found["options"][key], headline[key]) for key in ("norm", "eps")]
        alike = found["options"]["version"] == "standard" and all(own == other for own, other in threat)
        aa = number(found["figures"]["ra"]["accuracy"]) if alike else None
        return aa, _count(found["figures"]["ra"].get("images")) if aa is not None else None
    except (KeyError, TypeError):
        return None, None


def _configured(folder: RunFolder) -> dict[str, Any]:
    """What result.json would say of the choices, from config.yaml."""
    from advss.configuration.recipes import read_config  # YAML, which takes its time

    try:
        parts = read_config(folder.config).parts
    except UsageError as error:
        raise UsageError(str(error).removeprefix("--config: ")) from error
    named = {key: [member.name for member in part.members or ()] for key, part in parts.items()}
    one = {key: next(iter(names), None) for key, names in named.items()}
    other = one.get("pretrain-data")
    return {
        **{key: one.get(key) for key in ("defense", "data", "backbone")},
        "pretext": [name for name in named.get("pretext", ()) if name != "none"],
        "finetune": {"scheme": one.get("finetune"), "defense": one.get("finetune-defense")},
        "pretrain_data": None if other == "none" else other,
    }


def _comparison(folder: Path) -> dict[str, Any]:
    path = folder / COMPARISON
    try:
        outcome = json.loads(path.read_text("utf-8"))
        data, models = outcome["images"]["data"], texts(list(outcome["models"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path} is no outcome of `advss transfer`") from error
    return {"kind": "transfer", "members": models, "data": texts(data), "state": "finished"}
