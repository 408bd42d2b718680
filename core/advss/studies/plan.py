"""A study laid out: stages that cells share, each a run's folder, what each needs, and what is measured of it.

The plan is kept as ``studies/NAME/cells.json``, so that jobs and reports need not resolve it again:

- ``study``, ``runs_dir``: its name, and the folder of its runs, from the study's folder;
- ``cells``: ``label``, ``values`` (by column: the row, and what varies), ``seed``, ``run`` (its fine-tuned run, None
  where nothing is fine-tuned), ``pretraining`` (its pretrained run or None), ``measures`` (digest of its evaluations);
- ``stages``: by run, ``kind`` (pretrain, finetune, ensemble, transfer), ``label``, ``seed``, ``after`` (runs),
  ``measures`` (digest -> settings of evaluations), ``cost`` (passes and seconds, see :mod:`advss.studies.cost`);
- ``ensembles``, ``transfers``: ``name``, ``seed``, ``run``, ``members`` (labels) and ``runs``;
- ``timed``: what the costs are made of, by kind of stage.

Each stage's configuration lies beside it, in ``jobs/RUN/config.yaml``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from advss.config import RunConfig
from advss.configuration.resolve import to_mapping
from advss.configuration.settings import MEASURING
from advss.errors import UsageError
from advss.studies.definition import Definition
from advss.studies.grid import Cell
from advss.studies.identity import LETTERS, Datasets, Identity, digest_of, finetuning, pretraining, pretraining_config

Kind = Literal["pretrain", "finetune", "ensemble", "transfer"]
SHORT = 60  # letters of the choices in a run's name


@dataclass
class Stage:
    """A run's folder that is to be finished.

    Attributes:
        run: its name.
        kind: what is done there.
        label: of the first cell that it is of, or the name of the average or comparison.
        seed: of its cells.
        config: what it is trained or measured with.
        after: the runs that it needs.
        identity: all that its weights hang on; None of what trains nothing.
        measures: settings of evaluations by their digest.
    """

    run: str
    kind: Kind
    label: str
    seed: int
    config: RunConfig
    after: tuple[str, ...] = ()
    identity: Identity | None = None
    measures: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Of:
    """What a cell came to."""

    cell: Cell
    pretraining: Stage | None
    run: Stage | None  # its fine-tuned one
    measures: str  # digest of its evaluations; empty where nothing is measured


@dataclass(frozen=True)
class Joint:
    """An average or a comparison of cells of one seed."""

    name: str
    members: tuple[str, ...]  # labels
    stage: Stage


@dataclass(frozen=True)
class Plan:
    """All of a study: stages in an order in which each stands behind those it needs."""

    cells: Sequence[Of]
    ensembles: Sequence[Joint]
    transfers: Sequence[Joint]
    stages: Mapping[str, Stage]


class Runs:
    """Names of runs: what ends in a stage's digest is that stage, whoever has made it."""

    def __init__(self, runs_dir: Path, kept: Sequence[str] = ()) -> None:
        self.runs_dir, self.kept = runs_dir, set(kept)
        self.others: dict[str, str] = {}  # name -> the run that another version of a plugin has made of the same

    def name(self, kind: str, identity: Identity) -> str:
        """The run of a stage: one that is there, by the versions that are here, or that was kept; else a new one."""
        named = f"{kind.replace(':', '-')[:SHORT]}-{identity.named}"
        if (self.runs_dir / named).exists():
            return named
        others = sorted(path.name for path in self.runs_dir.glob(f"*-{identity.digest}-*") if path.is_dir())
        if kept := [name for name in others if name in self.kept]:
            return kept[0]
        if others:
            self.others[named] = others[-1]
        return named


def plan_of(study: Definition, cells: Sequence[Cell], data: Datasets, runs: Runs) -> Plan:
    """Lay the cells of a study out.

    Raises:
        UsageError: their data cannot be read, or an average is of what is not fine-tuned.
    """
    stages: dict[str, Stage] = {}
    found = [_cell(cell, data, runs, stages) for cell in cells]
    ensembles = [_joint("ensemble", *one, stages) for one in _members(study.ensembles, found)]
    transfers = [_joint("transfer", *one, stages) for one in _members(study.transfers, found)]
    return Plan(found, ensembles, transfers, stages)


def measured_by(config: RunConfig) -> dict[str, Any]:
    """By what a classifier is measured: evaluations, and the settings that they share."""
    said = to_mapping(config)
    return {flag: said[flag] for flag in ("evaluate", *MEASURING)}


def _cell(cell: Cell, data: Datasets, runs: Runs, stages: dict[str, Stage]) -> Of:
    config, first, last, start = cell.config, None, None, None
    if config.pretext and config.pretraining.epochs:
        start = pretraining(config, data)
        own = pretraining_config(config)
        run = runs.name(f"{_tasks(config)}-{config.defense.name}-s{cell.seed}", start)
        first = stages.setdefault(run, Stage(run, "pretrain", cell.label, cell.seed, own, identity=start))
    measures = {digest_of(by)[:12]: by for by in ([measured_by(config)] if config.evaluate else [])}
    if config.finetuning.epochs:
        tuned, after = finetuning(config, data, start), (first.run,) if first else ()
        choices = (f"{_tasks(config)}-{config.defense.name}" if first else "scratch", config.finetune.name)
        run = runs.name(f"{'-'.join(choices)}-{config.finetune_defense.name}-s{cell.seed}", tuned)
        last = stages.setdefault(run, Stage(run, "finetune", cell.label, cell.seed, config, after, tuned))
        last.measures |= measures
    if not first and not last:
        raise UsageError(f"cell '{cell.label}': nothing to train; give it a pretext task, or --finetune-epochs")
    return Of(cell, first, last, next(iter(measures), "") if last else "")


def _tasks(config: RunConfig) -> str:
    return "+".join(member.name for member in config.pretext) or "scratch"


def _members(joints: Mapping[str, Sequence[str]], found: Sequence[Of]) -> Iterator[tuple[str, list[Of]]]:
    """Averages or comparisons, each once for each seed."""
    for name, labels in joints.items():
        for seed in dict.fromkeys(of.cell.seed for of in found):
            here = {of.cell.label: of for of in found if of.cell.seed == seed}
            if all(label in here for label in labels):  # skipped under this seed alone
                yield name, [here[label] for label in labels]


def _joint(kind: Literal["ensemble", "transfer"], name: str, members: list[Of], stages: dict[str, Stage]) -> Joint:
    labels, seed = tuple(of.cell.label for of in members), members[0].cell.seed
    untuned = [of.cell.label for of in members if of.run is None]
    if untuned:
        raise UsageError(f"{kind}s: '{name}' is of '{untuned[0]}', which is not fine-tuned")
    after = tuple(dict.fromkeys(of.run.run for of in members if of.run))
    if len(after) < len(labels):
        raise UsageError(f"{kind}s: two of '{name}' are one run; name cells that differ in training")
    by, config = members[0].measures, members[0].cell.config
    digest = digest_of([kind, after] if kind == "ensemble" else [kind, after, measured_by(config)])[:LETTERS]
    plain = re.sub(r"[^A-Za-z0-9._+#-]+", "-", name).strip("-")[:SHORT] or kind
    stage = Stage(f"{kind}-{plain}-s{seed}-{digest}", kind, name, seed, config, after)
    if kind == "ensemble" and by:
        stage.measures[by] = measured_by(config)
    return Joint(name, labels, stages.setdefault(stage.run, stage))


def to_json(study: str, runs_dir: str, plan: Plan, costs: Mapping[str, Any]) -> dict[str, Any]:
    """The content of cells.json."""
    return {
        "study": study,
        "runs_dir": runs_dir,
        "cells": [
            {
                "label": of.cell.label,
                "values": dict(of.cell.values),
                "seed": of.cell.seed,
                "pretraining": of.pretraining.run if of.pretraining else None,
                "run": of.run.run if of.run else None,
                "measures": of.measures,
            }
            for of in plan.cells
        ],
        "stages": {
            stage.run: {
                "kind": stage.kind,
                "label": stage.label,
                "seed": stage.seed,
                "after": list(stage.after),
                "measures": stage.measures,
                "cost": costs.get(stage.run),
            }
            for stage in plan.stages.values()
        },
        "ensembles": [_joint_json(joint) for joint in plan.ensembles],
        "transfers": [_joint_json(joint) for joint in plan.transfers],
    }


def _joint_json(joint: Joint) -> dict[str, Any]:
    return {
        "name": joint.name,
        "seed": joint.stage.seed,
        "run": joint.stage.run,
        "members": list(joint.members),
        "runs": list(joint.stage.after),
    }
