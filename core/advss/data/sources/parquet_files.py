"""Which parquet files below a folder are read, for which split, and whether they are one set of images."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from advss.data.sources.divided import HOW
from advss.data.sources.walking import files_below, kind_of
from advss.errors import UsageError
from advss.hookspecs import Split

HIDDEN = (".", "_")  # Spark's `_SUCCESS` and `_temporary`
WORDS: dict[Split, str] = {"train": "train|training", "valid": "valid|validation|val", "test": "test|testing"}
SHOWN = 3  # sets that a message names

# `train`, `train.parquet`, `split=train`, `train=true`
_FOLDER = {split: re.compile(rf"(?:\w+=)?(?:{words})(?:\.parquet|=true|=1)?") for split, words in WORDS.items()}
_FILE = {split: re.compile(rf"(?:{words})(?![A-Za-z])") for split, words in WORDS.items()}
_PARTITION = re.compile(r"[^=]+=.*")
_ENDING = re.compile(r"(?:\.(?:snappy|gz|gzip|zstd|zst|lz4|br|brotli))?\.parquet$")
_WRITTEN = re.compile(r"part-\d+.*|[0-9a-f]{32}-\d+")  # by Spark, pyarrow and pandas, of one table whatever the numbers
_SHARD = re.compile(r"(?P<stem>.*?)[-_.]?(?P<number>\d+)(?:-of-(?P<of>\d+)(?:-[0-9a-f]{16})?)?")


@dataclass(frozen=True)
class _Name:
    """What a file's name says: shards of one set differ in their number alone."""

    stem: str
    number: int | None = None
    of: int | None = None


def files_by_split(
    root: Path, patterns: Mapping[Split, str], *, whole: bool, passed_over: Counter[str]
) -> dict[Split, list[Path]]:
    """The files of each split that has any.

    A file is of the split that its name begins with, else of that which a folder above it is called.

    Args:
        root: a folder that is searched at any depth, or one file.
        patterns: of the files of a split, in place of that; they may name several sets.
        whole: where nothing is called train, all files are.
        passed_over: is told of files that are of no split.

    Raises:
        UsageError: the files of a split are several sets or some of one, or a file is of two splits.
    """
    if not root.exists():
        raise UsageError(f"no '{root}'; `--data.root FOLDER` says where the parquet files are")
    named = {split: _matching(root, split, pattern) for split, pattern in patterns.items() if pattern}
    _check_apart(named)
    taken = {path for files in named.values() for path in files}
    found: dict[Split | None, list[Path]] = defaultdict(list)
    for path in [root] if root.is_file() else files_below(root, passed_over, hidden=HIDDEN):
        split = _split_of(path.relative_to(root))
        if path.suffix != ".parquet":
            passed_over[kind_of(path)] += 1
        elif path not in taken:
            found[None if split in named else split].append(path)
    others = found.pop(None, [])
    if others and not ("train" in named or "train" in found) and (whole or not (named or found)):
        found["train"], others = others, []
    passed_over[".parquet of other names"] += len(others)
    return named | {split: _one_set(root, split, found[split]) for split in WORDS if split in found}


def missing(root: Path, split: Split) -> UsageError:
    """What is said where there are no files of a split."""
    if root.is_file():
        return UsageError(f"'{root}' is one file, without a test split; {HOW}")
    known = (
        f"named {split}*.parquet, nor in a folder {split}, in '{root}'; `--data.{split} PATTERN` says which they are"
    )
    return UsageError(f"no files {known}" + (f", {HOW}" if split == "test" else ""))


def partitions(path: Path) -> dict[str, str]:
    """What the folders above a file say of all its rows, as in ``label=cat/part-0.parquet``."""
    return dict(part.split("=", 1) for part in path.parent.parts if _PARTITION.fullmatch(part))


def _matching(root: Path, split: Split, pattern: str) -> list[Path]:
    try:
        paths = sorted(root.glob(pattern))
    except (NotImplementedError, ValueError) as error:
        raise UsageError(f"--data.{split} {pattern}: expected a pattern below `--data.root`") from error
    files = [file for path in paths for file in (_below(path) if path.is_dir() else [path])]
    if not files:
        raise UsageError(f"--data.{split} {pattern}: no such file in '{root}'")
    return list(dict.fromkeys(files))


def _below(folder: Path) -> list[Path]:
    return [path for path in files_below(folder, Counter(), hidden=HIDDEN) if path.suffix == ".parquet"]


def _check_apart(named: Mapping[Split, Sequence[Path]]) -> None:
    of: dict[Path, Split] = {}
    for split, files in named.items():
        for path in files:
            if path in of:
                raise UsageError(f"{path} is both of `--data.{of[path]}` and of `--data.{split}`; let the two differ")
            of[path] = split


def _split_of(below: Path) -> Split | None:
    for split, begins in _FILE.items():
        if begins.match(below.name):
            return split
    for folder in reversed(below.parent.parts):
        for split, name in _FOLDER.items():
            if name.fullmatch(folder):
                return split
    return None


def _one_set(root: Path, split: Split, files: Sequence[Path]) -> list[Path]:
    sets: dict[object, list[Path]] = defaultdict(list)
    for path in files:
        name = _name(path)
        folder = tuple(part for part in path.parent.parts if not _PARTITION.fullmatch(part))
        sets[folder, name.stem, name.of, name.number is None].append(path)
    if len(sets) == 1:
        sets = _by_number(split, files)
    if len(sets) > 1:
        shown = [f"'{one[0].relative_to(root)}'{_and_more(one)}" for one in list(sets.values())[:SHOWN]]
        raise UsageError(
            f"'{root}' holds {len(sets)} sets of {split} files: {', '.join(shown)}{', ...' * (len(sets) > SHOWN)}; "
            f"`--data.{split} PATTERN` or `--data.root FOLDER` chooses one"
        )
    return list(files)


def _by_number(split: Split, files: Sequence[Path]) -> dict[object, list[Path]]:
    """The files as one set where their numbers are those of shards, else each as a set of its own."""
    folders: dict[Path, list[_Name]] = defaultdict(list)
    for path in files:
        folders[path.parent].append(_name(path))
    for folder, names in folders.items():
        numbers = sorted(name.number for name in names if name.number is not None)
        of = names[0].of
        if of is not None and len(set(numbers)) == len(numbers) < of:
            raise UsageError(
                f"'{folder}' holds {len(numbers)} of {of} shards of the {split} files, number "
                f"{_first_missing(numbers)} is not there; fetch it, or name those to read by `--data.{split} PATTERN`"
            )
        if len(numbers) > 1 and numbers not in [list(range(first, first + len(numbers))) for first in (0, 1)]:
            return {path: [path] for path in files}
    return {None: list(files)}


def _first_missing(numbers: Iterable[int]) -> int:
    there = set(numbers)
    return next(number for number in range(len(there) + 1) if number not in there)


def _name(path: Path) -> _Name:
    base = _ENDING.sub("", path.name)
    if _WRITTEN.fullmatch(base):
        return _Name("part")
    if not (shard := _SHARD.fullmatch(base)):
        return _Name(base)
    return _Name(shard["stem"], int(shard["number"]), int(shard["of"]) if shard["of"] else None)


def _and_more(files: Sequence[Path]) -> str:
    return f" and {len(files) - 1} more" if len(files) > 1 else ""
