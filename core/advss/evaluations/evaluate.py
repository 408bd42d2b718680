"""Stage 3: what is measured of a run's classifier on its test part, by evaluations, each kept in files of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advss.attacks.evaluation import answered
from advss.config import Choice, EvalSettings
from advss.data.splits import Part, part_tensors
from advss.errors import UsageError
from advss.evaluations.chance import against_chance
from advss.evaluations.chunks import STAGE, Kept, Measuring
from advss.evaluations.intervals import numbers
from advss.evaluations.made import make
from advss.evaluations.measurement import Measurement
from advss.evaluations.planned import Planned, planned
from advss.figures import save_figure
from advss.measuring import Measured, Victim
from advss.plugins import registry
from advss.runs.classifier import restored
from advss.runs.folder import RunFolder, classifier_of, find_run
from advss.runs.lock import check_free, writing
from advss.runs.opened import Result, close, reopened
from advss.runs.session import Session, tracked
from advss.runs.stored import stored_config
from advss.training.checkpoints import load_checkpoint
from advss.training.reporting import Reporter

Headline = dict[str, Any]
LEARNT = (
    "ta_all",
    "test_images",
    "chance",
    "largest_class",
    "most_answered",
    "doubt",
)  # of all test images, unattacked


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
    check(folder, settings, chosen)
    with reopened(folder, device=device, reporter=reporter, where=where) as session:
        session.record(name=folder.name, folder=str(folder.path))  # the run may have been moved since
        status = folder.read_result().get("status", "running")
        result, measured = evaluated(session, settings, chosen, status=status)
        return result | {"measured": measured}


def check(folder: RunFolder, settings: EvalSettings, chosen: Sequence[Choice] | None = None) -> None:
    """Raise UsageError where a run's classifier cannot be measured so, before anything is."""
    check_free(folder.path)
    checkpoint = load_checkpoint(classifier_of(folder))
    model = restored(checkpoint, what=str(checkpoint.path))
    chosen = stored_config(folder.path, measured=True).evaluate if chosen is None else chosen
    if not chosen:
        known = ", ".join(registry().names("evaluation"))
        raise UsageError(f"run {folder.path}: --evaluate is none, so nothing is to be measured; choose from {known}")
    for choice in chosen:
        plan = planned(choice, settings)
        plan.check(victim_of(plan, model, checkpoint.manifest))


def evaluated(
    session: Session,
    settings: EvalSettings | None = None,
    chosen: Sequence[Choice] | None = None,
    *,
    status: str = "finished",
) -> tuple[Result, list[dict[str, Any]]]:
    """Measure the best classifier of an opened run, as its settings say where no more is said.

    Returns:
        As :func:`evaluate`, and apart what stands in the files of the measurements.
    """
    config = session.config
    plans = [planned(c, settings or config.evaluation) for c in (config.evaluate if chosen is None else chosen)]
    work, found, content = Measurer(session), list[Found](), Headline()
    with tracked(session.tracker, STAGE):
        for plan in plans:
            found.append(work.measure(plan))
            if "ra" in found[-1][1]["figures"] and not content:
                content = work.told(found)  # at once: whatever comes of the others, it stands
        if found and not content:
            content = work.told(found)
        work.took(found)
    heads, result = work.heads(found), close(session, status=status)
    if not heads and "ra" in content:
        result |= content | {"headline": {key: result.get(key) for key in content}}
    return result, [one | {"file": this.reference["file"]} for this, one in found]


Found = tuple[Measurement, dict[str, Any]]  # a measurement, and what stands in the file of its figures


class Measurer:
    """Measures the best classifier of an opened run."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.checkpoint = load_checkpoint(session.folder.best("finetune"))
        self.model = restored(self.checkpoint, what=str(self.checkpoint.path))
        self.own = {
            choice.key or choice.name.rpartition(":")[2]: self._measurement(planned(choice, session.config.evaluation))
            for choice in session.config.evaluate
        }

    def measure(self, plan: Planned) -> Found:
        """One evaluation, or what the same measured before."""
        session, this = self.session, self._measurement(plan)
        victim = victim_of(plan, self.model, self.checkpoint.manifest)
        plan.check(victim)
        stage, known = f"{STAGE}/{this.key}", this.kept()
        if known:
            Kept(this.unfinished, {}).remove(known[1]["index"].tolist())  # where it was killed before it could
            content = known[0] | {"measured_before": True}
        else:
            if this.path.exists():
                session.reporter.say(f"{this.path} or the answers beside it are damaged: measured again")
            with tracked(session.tracker, stage):
                content = self._measured(plan, this, victim, stage)
        self._record(this, content)
        return this, content

    def _measured(self, plan: Planned, this: Measurement, victim: Victim, stage: str) -> dict[str, Any]:
        session = self.session
        how = Measuring(
            session.device,
            session.config.seed,
            plan.settings.batch_size,
            session.reporter,
            session.stop,
        )
        test, title = session.splits.test, f"{STAGE} {plan.name}"
        content, _ = make(plan, this, victim, test, how, title, draw=partial(self._draw, plan, this, stage=stage))
        found = {f"test/{name}": value for name, value in numbers(content["figures"]).items()}
        session.tracker.metrics(stage, 0, found)
        session.tracker.artifact(this.path, stage=stage)
        return content

    def _draw(self, plan: Planned, this: Measurement, measured: Measured, *, stage: str) -> list[str]:
        """The pictures: of what the run's own settings measure, plainly named and tracked as the run's own."""
        own, drawn = self.own.get(this.name) == this, list[str]()
        for name, figure in plan.drawn(measured).items():
            drawn.append(f"figures/{this.name if own else this.key}-{name}.png")
            for path in save_figure(figure, self.session.folder.path / drawn[-1]):
                self.session.tracker.artifact(path, stage="" if own else stage)
        return drawn

    def _record(self, this: Measurement, content: Mapping[str, Any]) -> None:
        """Name it in result.json, where it is the run's one of its name."""
        name = next((key for key, own in self.own.items() if own == this), this.name)  # pgd#2, where the run has two
        with writing(self.session.folder.path):
            if not this.heads(self.own.get(name), name):
                return
            known = self.session.folder.read_result().get("evaluations", {})
            entry = {
                **this.reference,
                **{key: content[key] for key in ("title", "titles", "figures") if key in content},
            }
            self.session.record(evaluations={**known, name: entry})
        found = {f"test/{name}/{figure}": value for figure, value in numbers(content["figures"]).items()}
        self.session.tracker.metrics("", 0, found)

    def told(self, found: Sequence[Found]) -> Headline:
        """The headline of measurements, which stands in result.json where it is the run's."""
        content = self.headline(found)
        if self.heads(found):
            self.session.record(**content)
            known = {f"test/{name}": content[name] for name in ("ta", "ra") if content.get(name) is not None}
            self.session.tracker.metrics("", 0, known)
        return content

    def took(self, found: Sequence[Found]) -> None:
        """Put the seconds of the run's own measurements into result.json."""
        seconds = sum(one["seconds"] for this, one in found if this in self.own.values())
        if seconds:
            with writing(self.session.folder.path):
                known = self.session.folder.read_result().get("seconds", {})
                self.session.record(seconds=known | {STAGE: round(seconds, 2)})

    def headline(self, found: Sequence[Found]) -> Headline:
        """TA, RA and what they are of, as they stand in result.json, by the first measurement that has an RA."""
        content = self._learnt()
        for this, one in found:
            if "ra" in one["figures"]:
                return content | headline_of(this.known_by, one) | {"evaluation": this.reference}
        return content

    def heads(self, found: Sequence[Found]) -> bool:
        """Whether result.json's headline is of these measurements."""
        now = self.session.folder.read_result().get("evaluation")
        names = [this for this, one in found if "ra" in one["figures"]]
        if not now or not names:
            return not now
        first = next(iter(self.own), None)
        same = now["evaluation"] == names[0].name or names[0].name == first
        other = now["checkpoint"] != names[0].known_by["checkpoint"]
        return other or (same and names[0].heads(self.own.get(names[0].name), names[0].name))

    def _learnt(self) -> Headline:
        """As :func:`learnt`, of this checkpoint once."""
        known = self.session.folder.read_result()
        of = (known.get("evaluation") or {}).get("checkpoint")
        if of == self.checkpoint.manifest["sha256"] and all(key in known for key in LEARNT):
            return {"ta": known["ta_all"], **{key: known[key] for key in LEARNT}}
        return learnt(self.model, self.session)

    def _measurement(self, plan: Planned) -> Measurement:
        session = self.session
        known_by = plan.known_by(
            victim_of(plan, self.model, self.checkpoint.manifest),
            data=session.splits.fingerprint.of("test").sha256,
            count=len(plan.images(session.splits.test)),
            seed=session.config.seed,
            checkpoint=self.checkpoint.manifest["sha256"],
        )
        return Measurement(session.folder, plan.name, known_by)


def learnt(model: nn.Module, session: Session) -> Headline:
    """TA over all test images of a session, and what :mod:`advss.evaluations.chance` says of it."""
    test, size = session.splits.test, session.config.evaluation.batch_size
    model = model.to(session.device)
    with session.stop.asked_by(model):
        answer_N = answered(model, partial(read_images, test, session.device), len(test), size)
    ta = share(answer_N == test.labels)
    return {"ta": ta, "ta_all": ta, "test_images": len(test)} | against_chance(
        answer_N, test.labels, session.splits.classes
    )


def headline_of(known_by: Mapping[str, Any], content: Mapping[str, Any]) -> Headline:
    """TA and RA of the same images, from a measurement with an RA: what it is known by, its ``title`` and figures."""
    ra, ta = content["figures"]["ra"], content["figures"].get("ta")
    return {
        "ra": ra["accuracy"],
        "ra_interval": ra["interval"],
        "ra_images": ra["images"],
        "ra_attack": {"evaluation": known_by["evaluation"], "title": content["title"], **known_by["options"]},
        **({"ta": ta["accuracy"]} if ta else {}),
    }


def victim_of(plan: Planned, model: nn.Module, manifest: Mapping[str, Any]) -> Victim:
    """In the memory layout in which it trained, which was found to be the faster."""
    layout = manifest.get("memory_format", "contiguous")
    return plan.victim(model, classes=manifest["classes"], noise=float(manifest.get("noise", 0.0)), layout=layout)


def share(chosen_N: Tensor) -> float:
    """Of the images, those chosen: (N,) bool to a number from 0 to 1."""
    return float(chosen_N.double().mean())


def read_images(part: Part, device: torch.device, start: int, end: int) -> Tensor:
    """The images at the places from ``start`` to before ``end``; only these are decoded and held."""
    x, _ = part_tensors(part.select(torch.arange(start, end)))
    return x.to(device)
