"""What a report is of, read from the folders of runs: results, measurements with their answers by image, and journals.

No model is loaded, and torch is not needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from advss.errors import UsageError
from advss.files import read_json
from advss.reports.measured import Column, Figure, contents, figures_of, flat, measured_by
from advss.runs.folder import RunFolder
from advss.runs.listing import printable

OF_A_RUN = ("seed", "name", "runs-dir", "device", "tracking", "checkpoint-minutes", "log-every")


@dataclass(frozen=True)
class Cell:
    """A run of a report: one seed of a setting.

    Attributes:
        label: the setting's.
        seed: its own.
        state: how it stands, and ``why`` where it failed.
        run: the folder of its classifier; None where it has none.
        pretraining: the folder of the run that it goes on from, where that is another.
        values: what varies, by column.
        kind: "cell", or "ensemble" of an average of others.
        digest: of what the study measures of it; its files stand first.
        passes: that its training takes, by what was counted beforehand.
    """

    label: str
    seed: int
    state: str
    why: str = ""
    run: RunFolder | None = None
    pretraining: RunFolder | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "cell"
    digest: str = ""
    passes: int | None = None

    @cached_property
    def result(self) -> dict[str, Any]:
        """What result.json says; empty where it cannot be read."""
        return read_result(self.run)

    @cached_property
    def started_from(self) -> dict[str, Any]:
        """The same of the run that pretrained."""
        return read_result(self.pretraining)

    @cached_property
    def contents(self) -> list[dict[str, Any]]:
        """The measurements of its classifier, the study's or the run's own first."""
        return list(contents(self.run, self.result, self.digest)) if self.run else []

    @cached_property
    def figures(self) -> dict[Column, Figure]:
        """All that was measured of it; of several numbers of images the first measurement's."""
        found: dict[Column, Figure] = {}
        for content in self.contents:
            for column, figure in figures_of(content):
                found.setdefault(column, figure)
        return found

    @cached_property
    def headline(self) -> tuple[str, str, str] | None:
        """What TA and RA of its result were measured by."""
        asked = (self.result.get("evaluation") or {}).get("file")
        return next((measured_by(content) for content in self.contents if content["file"] == asked), None)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Its resolved settings, flat, without what differs from run to run alone."""
        return {key: value for key, value in _chosen(self.config).items() if key not in OF_A_RUN}

    @property
    def config(self) -> Mapping[str, Any]:
        """Its resolved configuration; empty where it has none that can be read."""
        with suppress(OSError, ValueError, yaml.YAMLError):
            content = yaml.safe_load(self.run.config.read_text("utf-8")) if self.run else {}
            return content if isinstance(content, dict) else {}
        return {}


@dataclass(frozen=True)
class Comparison:
    """A comparison of models by each other's examples, as ``advss transfer`` makes it."""

    name: str
    seed: int
    state: str
    folder: Path
    labels: tuple[str, ...]  # in the order of its models

    @cached_property
    def outcome(self) -> dict[str, Any]:
        """The content of transfer.json; empty where it cannot be read."""
        return read_json(self.folder / "transfer.json")


@dataclass(frozen=True)
class Subject:
    """What a report is of.

    Attributes:
        name: of the study, or of the report.
        cells: one a seed, those of one label beside each other, averages last.
        comparisons: by each other's examples.
        published: what a paper has in these rows, in percent.
        description: in a line or more.
        commands: that make it again.
        definition: the study's file.
        logs: what jobs printed, by run.
    """

    name: str
    cells: Sequence[Cell]
    comparisons: Sequence[Comparison] = ()
    published: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    commands: Sequence[str] = ()
    definition: str = ""
    logs: Mapping[str, Path] = field(default_factory=dict)

    @cached_property
    def settings(self) -> dict[str, list[Cell]]:
        """Its cells by label."""
        found: dict[str, list[Cell]] = {}
        for cell in self.cells:
            found.setdefault(cell.label, []).append(cell)
        return found

    @cached_property
    def columns(self) -> list[Column]:
        """All figures that there are, of what heads the runs first, TA and RA before all others."""
        found = dict.fromkeys(column for cell in self.cells for column in cell.figures)
        return sorted(found, key=lambda one: (one.measured_by not in self.headlines, _place(one.figure)))

    @cached_property
    def titles(self) -> dict[tuple[str, str, str], str]:
        """What measurements are called: several of one title with the options in which they differ."""
        found = dict.fromkeys(column.measured_by for column in self.columns)
        options = {by: flat(json.loads(by[2]) or {}) for by in found}
        called: dict[tuple[str, str, str], str] = {}
        for by in found:
            alike = [options[other] for other in found if other[1] == by[1]]
            apart = [key for key in options[by] if len({str(one.get(key)) for one in alike}) > 1]
            called[by] = ", ".join([by[1], *(f"{key} {printable(options[by][key])}" for key in apart)])
        return called

    @cached_property
    def headlines(self) -> list[tuple[str, str, str]]:
        """What the results' TA and RA were measured by; one, where all were measured alike."""
        return list(dict.fromkeys(cell.headline for cell in self.cells if cell.headline))


def _place(figure: str) -> int:
    return {"ta": 0, "ra": 1}.get(figure, 2)


def read_result(folder: RunFolder | None) -> dict[str, Any]:
    """What a run's result.json says; empty where it cannot be read."""
    try:
        return folder.read_result() if folder else {}
    except (UsageError, OSError):
        return {}


def _chosen(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by key: what is chosen by its name, its options behind it."""
    found: dict[str, Any] = {}
    for key, said in config.items():
        several = isinstance(said, list) and all(isinstance(one, Mapping) for one in said)
        value = {name: options for one in said for name, options in one.items()} if said and several else said
        found[key] = "+".join(value) if isinstance(value, Mapping) else value
        found |= flat(value, f"{key}.") if isinstance(value, Mapping) else {}
    return found
