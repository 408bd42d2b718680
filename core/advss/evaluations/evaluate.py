"""Stage 3: what is measured of a run's classifier on its test part, by evaluations, each kept in files of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from advss.config import Choice, EvalSettings
from advss.errors import UsageError
from advss.evaluations.chunks import STAGE
from advss.evaluations.headline import Headline
from advss.evaluations.measurer import Found, Measurer, victim_of
from advss.evaluations.planned import Planned, planned
from advss.plugins import registry
from advss.runs.classifier import restored
from advss.runs.folder import RunFolder, classifier_of, find_run
from advss.runs.lock import check_free
from advss.runs.opened import Result, close, reopened
from advss.runs.session import Session, tracked
from advss.runs.stored import stored_config
from advss.training.checkpoints import load_checkpoint
from advss.training.reporting import Reporter


@dataclass(frozen=True)
class ToMeasure:
    """A run's best classifier, restored, and what is to be measured of it."""

    model: nn.Module
    manifest: Mapping[str, Any]
    plans: Sequence[Planned]


def evaluate(
    run: Path,
    settings: EvalSettings,
    chosen: Sequence[Choice] | None = None,
    *,
    device: str = "auto",
    where: Mapping[str, str] | None = None,
    reporter: Reporter,
) -> Result:
    """Measure a run's best classifier on its test images; what was measured before stays beside it.

    Args:
        run: its folder, of an ensemble too.
        settings: the threat and how it is measured.
        chosen: the evaluations; None are those of the run's own settings.
        device: to measure on.
        where: where its data are now, by option of their source.
        reporter: told of the progress.

    Returns:
        The content of result.json, and ``measured``: what stands in the files of these measurements, in order, with
        ``file``, its place in the run's folder, and ``measured_before`` where that is what was measured before. Where
        the first of them with an RA is not the run's headline, its TA and RA stand in the headline's place, and the
        headline under ``headline``.

    Raises:
        UsageError: the run has no classifier or no data, or cannot be measured so.
        Interrupted: a signal came; the parts of chunks that were done are kept, the same again goes on from them.
    """
    folder = find_run(run)
    found = check(folder, settings, chosen)
    with reopened(folder, device=device, reporter=reporter, where=where) as session:
        session.record(name=folder.name, folder=str(folder.path))  # the run may have been moved since
        status = folder.read_result().get("status", "running")
        result, measured = evaluated(session, found, status=status)
        return result | {"measured": measured}


def check(folder: RunFolder, settings: EvalSettings, chosen: Sequence[Choice] | None = None) -> ToMeasure:
    """Raise UsageError where a run's classifier cannot be measured so, before anything is."""
    check_free(folder.path)
    chosen = stored_config(folder.path, measured=True).evaluate if chosen is None else chosen
    if not chosen:
        known = ", ".join(registry().names("evaluation"))
        raise UsageError(f"run {folder.path}: --evaluate is none, so nothing is to be measured; choose from {known}")
    found = _planned(folder, settings, chosen)
    check_measurable(found.model, found.manifest, found.plans)
    return found


def _planned(folder: RunFolder, settings: EvalSettings, chosen: Sequence[Choice]) -> ToMeasure:
    checkpoint = load_checkpoint(classifier_of(folder))
    model, plans = restored(checkpoint, what=str(checkpoint.path)), [planned(choice, settings) for choice in chosen]
    return ToMeasure(model, checkpoint.manifest, plans)


def check_measurable(model: nn.Module, manifest: Mapping[str, Any], plans: Sequence[Planned]) -> None:
    """Raise UsageError where one of some evaluations refuses a classifier; its weights may still be others."""
    for plan in plans:
        plan.check(victim_of(plan, model, manifest))


def evaluated(
    session: Session, found: ToMeasure | None = None, *, status: str = "finished"
) -> tuple[Result, list[dict[str, Any]]]:
    """Measure the best classifier of an opened run, as its settings say where ``found`` does not.

    Returns:
        As :func:`evaluate`, and apart what stands in the files of the measurements.
    """
    one = found or _planned(session.folder, session.config.evaluation, session.config.evaluate)
    work, made, content = Measurer(session, one.model, one.manifest), list[Found](), Headline()
    with tracked(session.tracker, STAGE):
        for plan in one.plans:
            made.append(work.measure(plan))
            if "ra" in made[-1][1]["figures"] and not content:
                content = work.told(made)  # at once: whatever comes of the others, it stands
        if made and not content:
            content = work.told(made)
    heads, result = work.heads(made), close(session, status=status)
    if not heads and "ra" in content:
        result |= content | {"headline": {key: result.get(key) for key in content}}
    return result, [one | {"file": this.reference["file"]} for this, one in made]
