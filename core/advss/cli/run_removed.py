"""``advss runs remove RUN...`` and ``advss runs prune [RUN...]``: what goes is shown, and nothing goes unasked."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from advss.cli.arguments import Arguments
from advss.cli.context import runs_dir_of
from advss.cli.run_rows import aligned, in_bytes
from advss.errors import UsageError
from advss.output import printed, tell
from advss.runs import removal
from advss.runs.folder import check_links
from advss.runs.listing import files_of, find_listed, run_folders
from advss.tracking.store import SENT, SentState

DECLINED = 1  # exit code where the answer is no


def remove(arguments: Arguments) -> int:
    """``advss runs remove RUN...``."""
    runs_dir = runs_dir_of(arguments)
    folders = removal.to_remove(arguments.positionals, runs_dir)
    going = {folder: files_of(folder) for folder in folders}
    sizes = {folder: sum(files.values()) for folder, files in going.items()}
    _print_going({folder: ("", sizes[folder]) for folder in folders})
    others = [folder for folder in run_folders(runs_dir) if folder.resolve() not in {f.resolve() for f in folders}]
    for folder in folders:
        for line in removal.used_by(folder, others):
            print(f"note: {folder.name}: {line}")
        if sent := _sent(folder):
            print(f"note: {folder.name}: MLflow keeps what it was sent, in {sent}")
    if not _agreed(arguments, f"remove {_runs(len(folders))}, {in_bytes(sum(sizes.values()))}"):
        return DECLINED
    for folder in folders:
        removal.remove(folder)
        print(f"removed {folder}")
    return printed()


def prune(arguments: Arguments) -> int:
    """``advss runs prune [RUN...]``."""
    runs_dir, names = runs_dir_of(arguments), arguments.positionals
    folders = [check_links(find_listed(name, runs_dir)) for name in names]
    for folder in folders:
        removal.check_unused(folder)
    every = [folder for folder in run_folders(runs_dir) if not folder.is_symlink()]  # its own name stands for it
    going = _spare(folders or every, named=bool(names))
    halves = [] if names else removal.half_removed(runs_dir)
    _print_going({folder: (", ".join(_kinds(files)), sum(files.values())) for folder, files in going.items()})
    for half in halves:
        print(f"{half}, what is left of a run whose removal was broken off")
    if not going and not halves:
        print("there is nothing that could be removed")
        return printed()
    freed = sum(sum(files.values()) for files in going.values())
    if not _agreed(arguments, f"remove these files of {_runs(len(going))}, {in_bytes(freed)}"):
        return DECLINED
    _prune(list(going))
    for half in halves:
        shutil.rmtree(half, ignore_errors=True)
    return printed()


def _spare(folders: list[Path], *, named: bool) -> dict[Path, Mapping[str, int]]:
    """What each run can do without; of all runs, those that are in use or cannot be read are passed over."""
    found: dict[Path, Mapping[str, int]] = {}
    for folder in folders:
        try:
            removal.check_unused(folder)
            if files := removal.spare(folder):
                found[folder] = files
        except UsageError as error:
            if named:
                raise
            tell(f"advss: {error}; left as it is")
    return found


def _prune(folders: list[Path]) -> None:
    for folder in folders:
        freed, kept = removal.prune(folder)
        print(f"pruned {folder}, {in_bytes(freed)}")
        for line in kept:
            tell(f"advss: warning: {line}")


def _kinds(files: Iterable[str]) -> list[str]:
    """What files are, in a few words, each once: ``pretrain/last``, ``examples``."""
    return sorted({"examples" if fnmatchcase(name, removal.EXAMPLES) else _stem(name) for name in files})


def _stem(name: str) -> str:
    hidden = PurePosixPath(name).name.startswith(".")
    return name if hidden else name.removesuffix(".json").removesuffix(".safetensors")


def _print_going(going: Mapping[Path, tuple[str, int]]) -> None:
    for line in aligned([(str(folder), in_bytes(size), what) for folder, (what, size) in going.items()], {1}):
        print(line)


def _runs(count: int) -> str:
    return f"{count} runs" if count > 1 else "1 run"


def _sent(folder: Path) -> str:
    """The store that a run was sent to; empty where nothing of it was."""
    try:
        state = SentState.load(folder)
    except UsageError:
        return str(folder / SENT)
    return state.uri if state else ""


def _agreed(arguments: Arguments, question: str) -> bool:
    """Whether the user agrees, by --yes or at the terminal.

    Raises:
        UsageError: there is no terminal to ask at.
    """
    if "yes" in arguments.switches:
        return True
    if not (sys.stdin and sys.stdin.isatty()):
        raise UsageError(f"nothing is removed: there is no terminal to ask at; --yes does without asking ({question})")
    print(f"{question}? [y/N] ", end="", flush=True)
    agreed = sys.stdin.readline().strip().lower() in ("y", "yes")
    if not agreed:
        print("nothing is removed")
    return agreed
