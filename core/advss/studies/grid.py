"""The cells of a study: rows x what varies x seeds, each resolved as a run of its own would be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from advss.config import RunConfig
from advss.configuration.layers import Layer, read_layer
from advss.configuration.resolve import resolve, to_mapping
from advss.configuration.settings import COMPONENTS, SETTINGS, SEVERAL
from advss.errors import UsageError, did_you_mean
from advss.studies.definition import Definition, configs_of

OF_STUDIES = ("name", "runs-dir")  # what a study says itself of each run
ROW = "row"


@dataclass(frozen=True)
class Cell:
    """One setting under one seed.

    Attributes:
        label: the row and what varies, in a few words; cells that differ in the seed alone share it.
        values: what is written in the columns of a table: the row, and what varies by flag.
        seed: of all that is random.
        config: the run, resolved.
    """

    label: str
    values: Mapping[str, str]
    seed: int
    config: RunConfig


def cells_of(study: Definition) -> list[Cell]:
    """All cells in the order of their rows; those of one label stand together.

    Raises:
        UsageError: a setting that a study does not take, a cell that is no run, or none that is left.
    """
    _check_settings(study)
    _check_skip(study)
    said = {key: value for key, value in study.fixed.items() if key != "config"}
    found = [cell for cell in _cells(study, [read_layer(said, where="fixed")]) if not _skipped(cell, study)]
    if not found:
        raise UsageError("skip: it leaves no cell of the study")
    for name, rows in (*study.ensembles.items(), *study.transfers.items()):
        for row in rows:
            if row not in (labels := [cell.label for cell in found]):
                raise UsageError(f"'{name}' is of '{row}', and no cell is called so{did_you_mean(row, labels)}")
        if len(set(rows)) < 2:
            raise UsageError(f"'{name}' needs two or more rows, each once, got {', '.join(rows)}")
    return found


def _cells(study: Definition, fixed: list[Layer]) -> Iterator[Cell]:
    first = True
    for row, settings in (study.rows or {"": {}}).items():
        for chosen in product(*study.vary.values()):
            varied = dict(zip(study.vary, chosen, strict=True))
            values = ({ROW: row} if row else {}) | {flag: written(value) for flag, value in varied.items()}
            label = _label(values, study)
            joined = {flag: _joined(flag, value) for flag, value in varied.items()}
            for seed in study.seeds:
                try:
                    layers = [*fixed, read_layer(settings, where=f"rows: {row}"), read_layer(joined, where="vary")]
                    config = resolve({"seed": seed}, configs=configs_of(study.fixed), under=layers, say=first)
                except UsageError as error:
                    raise UsageError(f"cell '{label}': {error}") from error
                first = False
                yield Cell(label, values, seed, config)


def written(value: Any) -> str:
    """A value of what varies, as a table has it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}{f' ({_inner(options)})' if options else ''}" for name, options in value.items())
    if isinstance(value, list | tuple):
        return "+".join(written(one) for one in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _inner(options: Any) -> str:
    said = options if isinstance(options, Mapping) else {}
    return ", ".join(f"{name} {written(value)}" for name, value in said.items())


def _label(values: Mapping[str, str], study: Definition) -> str:
    """Row and values; a setting that is no component is named, where the row does not say what it is."""
    named = [value if flag in (ROW, *COMPONENTS) else f"{flag} {value}" for flag, value in values.items()]
    return ", ".join(named) or "all"


def _joined(flag: str, value: Any) -> Any:
    """A value of what varies: ``selfie+rotation`` is several tasks."""
    several = flag in SEVERAL and isinstance(value, str) and "+" in value
    return value.split("+") if several else value


def _check_settings(study: Definition) -> None:
    """Raise UsageError where a study says what it cannot, or the same twice."""
    for flag in {**study.fixed, **study.vary, **{f: 0 for row in study.rows.values() for f in row}}:
        if flag in OF_STUDIES:
            raise UsageError(f"{flag}: a study names its runs itself; leave it out")
    for part in (study.fixed, study.vary, *study.rows.values()):
        if "seed" in part:
            raise UsageError("seed: a study has seeds; write seeds: [0, 1, 2], or --seeds 3")
    for flag, values in study.vary.items():
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise UsageError(f"vary: {flag} is a list of values, got {values!r:.80}")
        names = [written(value) for value in values]
        if same := next((name for name in names if names.count(name) > 1), None):
            raise UsageError(f"vary: {flag} has '{same}' twice; leave one out")
        if twice := [name for name, row in study.rows.items() if flag in row]:
            raise UsageError(f"vary: {flag} varies, and row '{twice[0]}' says it; leave one of both out")


def _check_skip(study: Definition) -> None:
    """Raise UsageError where a row is skipped that there is not."""
    for row in (str(one[ROW]) for one in study.skip if ROW in one and not isinstance(one[ROW], list)):
        if row not in study.rows:
            raise UsageError(f"skip: there is no row '{row}'{did_you_mean(row, study.rows)}")


def _skipped(cell: Cell, study: Definition) -> bool:
    return any(all(_is(cell, flag, wanted) for flag, wanted in one.items()) for one in study.skip)


def _is(cell: Cell, flag: str, wanted: Any) -> bool:
    """Whether a cell has one of the wanted values of a flag."""
    values = [written(one) for one in (wanted if isinstance(wanted, list) else [wanted])]
    if flag in cell.values:
        return cell.values[flag] in values
    if flag in COMPONENTS:
        chosen = getattr(cell.config, flag.replace("-", "_")) or ()
        names = [one.name for one in (chosen if isinstance(chosen, tuple) else (chosen,))]
        return ("+".join(names) or "none") in values
    if flag not in SETTINGS:
        raise UsageError(f"skip: unknown setting '{flag}'{did_you_mean(flag, [ROW, *cell.values, *SETTINGS])}")
    return written(to_mapping(cell.config)[flag]) in values
