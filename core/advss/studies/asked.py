"""The study that is asked for: by a file, by the name of one that was planned or that comes with advss, or as said."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from advss.errors import UsageError, did_you_mean
from advss.naming import check_name
from advss.studies.definition import Definition, configs_of, packaged, parse_definition, read_definition
from advss.studies.folder import STUDY, StudyFolder, find_study
from advss.studies.run import Laid, lay_out
from advss.training.reporting import Reporter

KEEP, NEW = "keep", "new"


def asked_for(
    study: str | Path | Mapping[str, Any] | None,
    fixed: Mapping[str, Any],
    vary: Mapping[str, Sequence[Any]],
    seeds: tuple[int, ...] | None,
    *,
    name: str | None,
    studies_dir: Path,
) -> tuple[Definition, StudyFolder]:
    """A study with what is said over it, and its folder.

    Args:
        study: a file, a name, the parts of one, or None, which is what is said alone.
        fixed: settings over its own; ``config`` are further ones.
        vary: over what varies in it.
        seeds: in place of its own.
        name: of its folder; None is the study's own.
        studies_dir: where studies lie.

    Raises:
        UsageError: there is no such study, or nothing is said.
    """
    found, own = _found(study, name, studies_dir)
    if fixed.get("config"):
        fixed = {**fixed, "config": [*configs_of(found.fixed), *configs_of(fixed)]}
    whole = found.over(fixed, vary, seeds)
    if whole == Definition():
        raise UsageError("a study is needed: a file, a name, or what varies, as --vary KEY=A,B; see --help")
    return whole, StudyFolder(studies_dir / check_name(name or own))


def _found(study: str | Path | Mapping[str, Any] | None, name: str | None, studies_dir: Path) -> tuple[Definition, str]:
    if study is None or isinstance(study, Mapping):
        own = time.strftime("study-%Y%m%d-%H%M%S")
        found = Definition.read(study or {}, where="study")
        return _as_decided(found, find_study(name, studies_dir) if name else None), own
    own, known = Path(study).stem, packaged()
    before = find_study(name or own, studies_dir)
    if Path(study).is_file():
        return _as_decided(read_definition(Path(study)), before), own
    if planned := find_study(study, studies_dir):
        return read_definition(planned.definition), planned.name
    if str(study) not in known:
        names = [path.parent.name for path in studies_dir.glob(f"*/{STUDY}")]
        raise UsageError(f"there is no study '{study}'{did_you_mean(str(study), [*known, *names])}")
    return _as_decided(parse_definition(known[str(study)], where=str(study)), before), own


def _as_decided(study: Definition, before: StudyFolder | None) -> Definition:
    """A study with what was decided when it was planned first."""
    return replace(study, decided=read_definition(before.definition).decided) if before else study


def made_by_others(laid: Laid) -> str:
    """A line on stages that other versions of plugins have made; empty where there are none."""
    if not laid.others:
        return ""
    here, other = next(iter(laid.others.items()))
    return f"{len(laid.others)} stages were made by other versions of plugins, such as {other} in place of {here}"


def keeping(laid: Laid, runs_dir: Path, reporter: Reporter) -> Laid:
    """The study laid out anew, with the stages that other versions have made kept."""
    kept = [*laid.definition.decided.get("kept", ()), *laid.others.values()]
    study = replace(laid.definition, decided={**laid.definition.decided, "kept": kept})
    return lay_out(study, runs_dir, reporter, laid.timed)
