"""Fine-tuned classifiers averaged as probabilities, as a run of its own (the paper's section 4.5, Table 6)."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import nn

from advss.config import Choice, RunConfig
from advss.configuration.resolve import to_yaml
from advss.data.fingerprint import Fingerprint
from advss.errors import UsageError
from advss.evaluations.chunks import STAGE, Kept, Measuring
from advss.evaluations.evaluate import evaluated
from advss.evaluations.headline import headline_of, learnt
from advss.evaluations.planned import planned
from advss.files import write_text
from advss.models.averaged import AveragedClassifier
from advss.runs.finished import Asked, Finished, open_finished
from advss.runs.folder import RunFolder, make_folder, plan_folder
from advss.runs.opened import Result, blank_result, open_session
from advss.runs.own_data import own_data
from advss.runs.reading import watched
from advss.runs.session import Session, choose_device, tracked
from advss.training.checkpoints import save_checkpoint
from advss.training.reporting import Reporter

KIND = "ensemble"
MIXED = "mixed"  # what result.json says where members differ


def ensemble(runs: Sequence[str | Path], asked: Asked, *, subsets: bool = False, reporter: Reporter) -> Result:
    """Average the runs' classifiers, keep the average as a run, and measure it on the first run's test images.

    The model is kept before it is measured, so a measurement that was broken off can be made by ``advss evaluate``.

    Args:
        runs: names or folders, at least two, of the same test images and classes; backbones may differ.
        asked: how it is measured, and where it is kept.
        subsets: measure every subset of the members too, single ones included.
        reporter: told of the progress.

    Returns:
        The content of result.json: that of any run, ``members`` and, with ``subsets``, ``subsets``: a list of
        ``members`` with what was measured of their average, small subsets first.

    Raises:
        UsageError: bad input, before anything is made.
        Interrupted: a signal came; the model and the subsets that were measured are kept.
    """
    members = open_finished(runs, asked.where)
    place, device = plan_folder(asked.runs_dir, asked.name, kind=KIND), choose_device(asked.device)
    first = members[0].config
    with watched(reporter) as watch:
        splits = own_data(first, members[0].folder, ("test",), watch)
    folder = make_folder(place, resume=False, named=asked.name is not None)
    config = dataclasses.replace(
        first,
        name=folder.name,
        runs_dir=asked.runs_dir,
        evaluation=asked.evaluation,
        device=str(device),
        tracking=asked.tracking,
    )
    _keep(folder, members, dataclasses.replace(config, name=None, device=asked.device))
    unmeasured = _unmeasured(config, folder, members)
    with open_session(config, folder, splits, reporter, params=_as_params(unmeasured)) as session:
        reporter.say(f"run {folder.path}")
        session.record(**unmeasured)
        session.tracker.artifact(folder.config)
        session.tracker.model(folder.best("finetune"), folder.best("finetune").with_suffix(".json"))
        return _measure(session, members, subsets=subsets)


def _keep(folder: RunFolder, members: Sequence[Finished], config: RunConfig) -> None:
    """Write the configuration and the checkpoint; where they cannot be written, no folder is left."""
    names = " ".join(str(member.folder.path) for member in members)
    comment = (
        f"# The average of the classifiers of {names}, made by `advss ensemble`.\n"
        f"# Below: what {members[0].label} was trained with, its data and seed, and how the average is measured.\n"
    )
    noises = {float(member.manifest.get("noise", 0.0)) for member in members}
    manifest = {
        "kind": KIND,
        "step": 0,
        "advss": version("advss"),
        "torch": torch.__version__,
        "members": [_described(member.manifest) | {"run": member.label} for member in members],
        "classes": members[0].manifest["classes"],
        "data": Fingerprint.from_json(members[0].manifest["data"]).of("test").to_json(),
        "noise": noises.pop() if len(noises) == 1 else 0.0,  # certificates need one that all were trained on
    }
    try:
        write_text(folder.config, comment + to_yaml(config))
        average = AveragedClassifier([member.model for member in members])
        save_checkpoint(folder.best("finetune"), average.state_dict(), manifest)
    except UsageError:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise


def _described(manifest: dict[str, Any]) -> dict[str, Any]:
    """What rebuilds a member, and which file it came from."""
    known = ("kind", "model", "members", "classes", "noise", "sha256")
    return {key: manifest[key] for key in known if key in manifest}


def _unmeasured(config: RunConfig, folder: RunFolder, members: Sequence[Finished]) -> Result:
    """What result.json holds before TA and RA; the members' own results know what plugins that are gone were called."""
    # where a member trained is not said, and that device may not be here
    configured = [blank_result(dataclasses.replace(member.config, device="cpu"), member.folder) for member in members]
    found = [blank | m.folder.read_result() for blank, m in zip(configured, members, strict=True)]
    schemes = {key: _common(result["finetune"][key] for result in found) for key in ("scheme", "defense")}
    ran = [
        {"run": m.label, "folder": str(m.folder.path), "ta": result["ta"], "sha256": m.manifest["sha256"]}
        for m, result in zip(members, found, strict=True)
    ]
    return blank_result(config, folder) | {
        "pretext": [task for result in found for task in result["pretext"]],
        "defense": _common(result["defense"] for result in found),
        "finetune": schemes,
        "backbone": _common(result["backbone"] for result in found),
        "members": ran,
        "epochs": {},
        "seconds": {},
        "status": "finished",
    }


def _as_params(unmeasured: Result) -> dict[str, Any]:
    """What a tracked ensemble is of, in place of what its first member is of."""
    return {
        "pretext": ",".join(unmeasured["pretext"]) or "none",
        "defense": unmeasured["defense"],
        "finetune": unmeasured["finetune"]["scheme"],
        "finetune_defense": unmeasured["finetune"]["defense"],
        "backbone": unmeasured["backbone"],
        "command": KIND,
        "members": [member["run"] for member in unmeasured["members"]],
    }


def _common(values: Iterable[str]) -> str:
    """What all agree on."""
    found = list(dict.fromkeys(values))
    return found[0] if len(found) == 1 else MIXED


def _measure(session: Session, members: Sequence[Finished], *, subsets: bool) -> Result:
    """The whole first, as any run is measured, then the smaller averages; each is written down when it is measured."""
    result, _ = evaluated(session)
    if not subsets:
        return result
    chosen = [some for size in range(1, len(members)) for some in combinations(members, size)]
    rows = [{"members": [member.label for member in members], **{key: result.get(key) for key in _MEASURED}}]
    name = (result.get("evaluation") or {}).get("evaluation")  # the headline's
    by = next((choice for choice in session.config.evaluate if choice.name.rpartition(":")[2] == name), None)
    with tracked(session.tracker, STAGE):
        for place, some in enumerate(chosen, 2):
            measured = _of_some(session, some, by, f"{STAGE} {place}/{len(chosen) + 1}")
            rows.append({"members": [member.label for member in some], **measured})
            session.record(subsets=sorted(rows, key=lambda row: len(row["members"])))
    session.tracker.artifact(session.folder.result)
    return session.folder.read_result()


_MEASURED = (
    *("ta", "ra", "ra_interval", "ra_images", "ra_attack", "ta_all", "test_images"),
    *("chance", "largest_class", "most_answered", "doubt"),
)


def _of_some(session: Session, some: Sequence[Finished], by: Choice | None, title: str) -> Result:
    """What stands in result.json of a smaller average, RA ``by`` an evaluation; one member alone is that member."""
    model: nn.Module = AveragedClassifier([m.model for m in some]) if len(some) > 1 else some[0].model
    config, test, found = session.config, session.splits.test, learnt(model.eval(), session)
    if by:
        plan = planned(by, config.evaluation)
        victim = plan.victim(model, classes=session.splits.classes, side=session.splits.side)
        plan.check(victim)
        how = Measuring(session.device, config.seed, config.evaluation.batch_size, session.reporter, session.stop)
        measured = plan.measured(victim, test, how, Kept(None, {}), title)
        known_by = {"evaluation": plan.name, "options": plan.options}
        found |= headline_of(known_by, {"title": plan.title, "figures": plan.figures(measured)})
    names = "+".join(member.label for member in some)
    session.tracker.metrics(STAGE, 0, {f"test/{name}/{names}": found[name] for name in ("ta", "ra") if name in found})
    return {key: found.get(key) for key in _MEASURED}
