"""The run folder: runs/NAME with config.yaml, result.json, metrics.jsonl, pretrain/, finetune/ and figures/."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from advss.config import RunConfig
from advss.errors import UsageError, did_you_mean
from advss.naming import LONGEST, as_typed, check_name
from advss.runs.form import misfit
from advss.runs.lock import in_use
from advss.training.reporting import Reporter

Command = Literal["fit", "pretrain", "finetune"]
COMMANDS: tuple[Command, ...] = get_args(Command)


@dataclass(frozen=True)
class RunFolder:
    """Paths within one run."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def config(self) -> Path:
        """The resolved, re-runnable configuration."""
        return self.path / "config.yaml"

    @property
    def result(self) -> Path:
        """What the run came to, as far as it is known."""
        return self.path / "result.json"

    @property
    def journal(self) -> Path:
        """Every metric, one record a line."""
        return self.path / "metrics.jsonl"

    @property
    def initial(self) -> Path:
        """The weights that the backbone starts from, where they are not random."""
        return self.path / "initial.safetensors"

    def best(self, stage: str) -> Path:
        """The checkpoint of the stage's best epoch."""
        return self.path / stage / "best.safetensors"

    def last(self, stage: str) -> Path:
        """The checkpoint that resuming goes on from."""
        return self.path / stage / "last.safetensors"

    def read_result(self) -> dict[str, Any]:
        """The content of result.json, its ``folder`` where it lies now; empty before there is one.

        Raises:
            UsageError: it is not JSON, or not of a result's form.
        """
        if not self.result.is_file():
            return {}
        again = f"move it away; `advss evaluate {as_typed(self.path)}`, or --resume, writes it anew"
        try:
            content: dict[str, Any] = json.loads(self.result.read_text("utf-8"))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{self.result} is not JSON ({error}); {again}") from error
        if wrong := misfit(content):
            raise UsageError(f"{self.result} is no result of a run: {wrong}; {again}")
        return content | {"folder": str(self.path)}

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end."""
        return self.read_result().get("status") == "finished"


def told_finished(folder: RunFolder, reporter: Reporter) -> dict[str, Any]:
    """What a finished run came to, which the user is told."""
    reporter.say(f"run {folder.path} is finished; nothing to do")
    return folder.read_result() | {"name": folder.name, "folder": str(folder.path)}  # it may have been moved


def plan_run(config: RunConfig, *, resume: bool) -> RunFolder:
    """The folder of a run that is to be started or resumed; nothing is made yet; errors as :func:`plan_folder`."""
    pretext = "+".join(member.name.split(":")[-1] for member in config.pretext) or "scratch"
    kind = f"{pretext}-{config.defense.name}-{config.finetune.name}".replace(":", "-")
    return plan_folder(config.runs_dir, config.name, kind=kind, resume=resume, resumable=True)


def plan_folder(
    runs_dir: Path, name: str | None, *, kind: str, resume: bool = False, resumable: bool = False
) -> RunFolder:
    """The folder that something is to have among the runs; nothing is made yet.

    Args:
        runs_dir: the folder of runs.
        name: that the user chose; None makes one of ``kind`` and the time.
        kind: what it is, such as ``transfer``.
        resume: it may be there.
        resumable: a run that is there can be gone on with.

    Raises:
        UsageError: the name is bad, a link's, or taken.
    """
    now = time.strftime("-%Y%m%d-%H%M%S")
    path = runs_dir / check_name(name or kind[: LONGEST - len(now)] + now)
    if path.is_symlink():
        raise UsageError(f"--name: {path} is a link; give the run a folder of its own")
    if name and path.exists() and not resume:
        if used := in_use(path):
            raise UsageError(f"--name: {used}, or choose another --name")
        begun = resumable and RunFolder(path).config.is_file()
        go_on = f"continue it by --resume {as_typed(path)} or " if begun else ""
        raise UsageError(f"--name: run folder {path} exists; {go_on}choose another --name")
    return RunFolder(path)


def make_folder(folder: RunFolder, *, resume: bool, named: bool) -> RunFolder:
    """Make the run's folder, one that no other run has.

    Args:
        folder: the folder that was planned.
        resume: it may be there.
        named: the user chose its name; else, when another run was quicker, the next free name is taken.

    Raises:
        UsageError: it cannot be made.
    """
    path = folder.path
    for count in itertools.count(2):
        try:
            path.mkdir(parents=True, exist_ok=resume)
        except FileExistsError as error:
            if named:
                used = in_use(path)
                taken = f"{used}, or" if used else f"run folder {path} exists;"
                raise UsageError(f"--name: {taken} choose another --name") from error
            path = folder.path.with_name(f"{folder.name}-{count}")
        except OSError as error:
            raise UsageError(f"--runs-dir: cannot make {path}: {error.strerror}") from error
        else:
            break
    return RunFolder(path)


def classifier_of(folder: RunFolder) -> Path:
    """The checkpoint of a run's best fine-tuned epoch.

    Raises:
        UsageError: it has none yet; what to type is said.
    """
    if best := _best(folder, "finetune"):
        return best
    result = folder.read_result()
    if told := result.get("diverged"):
        raise UsageError(f"run {folder.path} has no fine-tuned model: {told}")
    resumed = f"advss {begun_by(result)} --resume {as_typed(folder.path)}"
    todo = to_finetune(folder.path, result) if result.get("status") == "finished" else resumed
    raise UsageError(f"run {folder.path} has no fine-tuned model; run `{todo}` first")


def _best(folder: RunFolder, stage: str) -> Path | None:
    """The checkpoint of a stage's best epoch; None where there is none of it.

    Raises:
        UsageError: a part of it is gone.
    """
    from advss.training.checkpoints import has_checkpoint, missing_part  # torch, not needed for names and folders

    best = folder.best(stage)
    if has_checkpoint(best):
        return best
    if gone := missing_part(best):
        raise UsageError(f"run {folder.path}: {gone}")
    return None


def to_finetune(folder: Path, result: Mapping[str, Any]) -> str:
    """The command that fine-tunes what a finished run pretrained; where it was told to tune none, how many is asked."""
    more = " --finetune-epochs N" if (result.get("epochs") or {}).get("finetune") == 0 else ""
    return f"advss finetune --from {as_typed(folder)}{more}"


def to_evaluate(folder: Path) -> str:
    """The command that measures a run's classifier; where its own settings measure nothing, what by is asked."""
    lines: list[str] = []
    with suppress(OSError, UnicodeDecodeError):
        lines = (folder / "config.yaml").read_text("utf-8").splitlines()
    return f"advss evaluate {as_typed(folder)}" + (" --evaluate NAME" if "evaluate: none" in lines else "")


def encoder_of(folder: RunFolder) -> Path:
    """The checkpoint of a run's best pretraining epoch; of a run that did not pretrain, of its best fine-tuned one.

    Raises:
        UsageError: it has none yet; what to type is said.
    """
    if best := _best(folder, "pretrain"):
        return best
    result, place = folder.read_result(), folder.best("pretrain")
    if "pretrain" in result.get("best_epochs", {}):
        from advss.training.checkpoints import has_checkpoint

        tuned = f"; its classifier's is in {folder.best('finetune')}" if has_checkpoint(folder.best("finetune")) else ""
        raise UsageError(f"run {folder.path} has pretrained, but {place} is gone; put it back{tuned}")
    if place.parent.is_dir():
        todo = f"run `advss {begun_by(result)} --resume {as_typed(folder.path)}` first"
        raise UsageError(f"run {folder.path} has no epoch of pretraining yet; {todo}")
    return classifier_of(folder)


def begun_by(result: Mapping[str, Any]) -> str:
    """The command that a run, by its result, was begun by; ``fit`` where that is not known."""
    return result["command"] if result.get("command") in COMMANDS else "fit"


def check_command(folder: RunFolder, command: Command) -> None:
    """Raise UsageError where a run was begun by another command: this one would do other stages in it."""
    result = folder.read_result()
    if result and (begun := begun_by(result)) != command:
        raise UsageError(
            f"--resume: run {folder.path} was begun by `advss {begun}`; go on with: advss {begun} --resume "
            f"{as_typed(folder.path)}"
        )


def find_run(run: str | Path, runs_dir: Path = Path("runs")) -> RunFolder:
    """A run by its folder or its name.

    Raises:
        UsageError: there is no such run; the nearest name is given.
    """
    for path in (Path(run), runs_dir / run):
        if (path / "config.yaml").is_file():
            return RunFolder(check_links(_with_its_name(path)))
    names = [p.parent.name for p in runs_dir.glob("*/config.yaml")] if runs_dir.is_dir() else []
    raise UsageError(f"there is no run '{run}' in {runs_dir}{did_you_mean(str(run), names)}")


def labelled(folders: Sequence[RunFolder]) -> list[str]:
    """What the runs are called beside each other: their names, a second run of the same name "name#2"."""
    names = [folder.path.resolve().name for folder in folders]
    counts = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return [name if count == 1 else f"{name}#{count}" for name, count in zip(names, counts, strict=True)]


def check_distinct(folders: Sequence[RunFolder]) -> None:
    """Raise UsageError where a run is named twice."""
    places = [folder.path.resolve() for folder in folders]
    for place, folder in enumerate(folders):
        if places[place] in places[:place]:
            raise UsageError(f"run {folder.path} is named twice; name each run once")


def check_links(path: Path) -> Path:
    """The folder; refused with links in it: who made it would choose what is read and written elsewhere."""
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            if (Path(folder) / name).is_symlink():
                raise UsageError(f"{Path(folder) / name} is a link, and a run's folder holds none; put a copy there")
    return path


def _with_its_name(path: Path) -> Path:
    """A run's folder with the run's name at its end, where it was called by a link, or by a dot."""
    whole = path.resolve()
    return whole if path.is_symlink() or path.name != whole.name else path
