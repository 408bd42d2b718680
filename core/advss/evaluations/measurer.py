"""Measures a run's classifier: what is measured before is found, the rest made, drawn, and put into result.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from advss.evaluations.chunks import STAGE, Kept, Measuring
from advss.evaluations.headline import LEARNT, Headline, headline_of, learnt
from advss.evaluations.intervals import numbers
from advss.evaluations.made import make
from advss.evaluations.measurement import Measurement
from advss.evaluations.planned import Planned, planned, usual
from advss.figures import save_figure
from advss.files import write_json
from advss.measuring import Measured, Victim
from advss.runs.lock import writing
from advss.runs.session import Session, tracked

Found = tuple[Measurement, dict[str, Any]]  # a measurement, and what stands in the file of its figures


class Measurer:
    """Measures the best classifier of an opened run: restored, and with its manifest."""

    def __init__(self, session: Session, model: nn.Module, manifest: Mapping[str, Any]) -> None:
        self.session, self.model, self.manifest = session, model, manifest
        self.own = {
            choice.key or choice.name.rpartition(":")[2]: self._measurement(planned(choice, session.config.evaluation))
            for choice in session.config.evaluate
        }

    def measure(self, plan: Planned) -> Found:
        """One evaluation, or what the same measured before."""
        session, this = self.session, self._measurement(plan)
        plan.check(self._victim(plan))
        stage, known = f"{STAGE}/{this.key}", this.kept()
        if known:
            Kept(this.unfinished, {}).remove(known[1]["index"].tolist())  # where it was killed before it could
            content = self._drawn_again(plan, this, *known, stage=stage) | {"measured_before": True}
        else:
            if this.path.exists():
                session.reporter.say(f"{this.path} or the answers beside it are damaged: measured again")
            with tracked(session.tracker, stage):
                content = self._measured(plan, this, stage)
        self._record(plan, this, content)
        return this, content

    def _measured(self, plan: Planned, this: Measurement, stage: str) -> dict[str, Any]:
        session = self.session
        how = Measuring(
            session.device,
            session.config.seed,
            plan.settings.batch_size,
            session.reporter,
            session.stop,
        )
        victim, test, title = self._victim(plan), session.splits.test, f"{STAGE} {plan.name}"
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

    def _drawn_again(
        self, plan: Planned, this: Measurement, content: dict[str, Any], answers: dict[str, Tensor], *, stage: str
    ) -> dict[str, Any]:
        """What stands in the file of its figures; pictures that are not there are drawn from the answers."""
        drawn = content.get("pictures")  # null of what was measured to be tried on others, never drawn
        files = [self.session.folder.path / name for name in drawn or ()]
        if drawn is not None and all(file.is_file() and file.with_suffix(".svg").is_file() for file in files):
            return content
        label, index = answers.pop("label"), answers.pop("index")
        with tracked(self.session.tracker, stage):
            measured = Measured(answers, label, index, self._victim(plan).classes)
            content = content | {"pictures": self._draw(plan, this, measured, stage=stage)}
        write_json(this.path, content)
        return content

    def _record(self, plan: Planned, this: Measurement, content: Mapping[str, Any]) -> None:
        """Name it in result.json, where it is the run's one of its name."""
        name = next((key for key, own in self.own.items() if own == this), this.name)  # pgd#2, where the run has two
        with writing(self.session.folder.path):
            before = self.session.folder.read_result()
            if not this.heads(self.own.get(name), self._usual(plan, before.get("ra_attack") or {}), name):
                return
            told = {key: content[key] for key in ("title", "titles", "figures") if key in content}
            entry = {**this.reference, **told}
            self.session.record(evaluations={**before.get("evaluations", {}), name: entry})
        found = {f"test/{name}/{figure}": value for figure, value in numbers(content["figures"]).items()}
        self.session.tracker.metrics("", 0, found)

    def _usual(self, plan: Planned, attack: Mapping[str, Any]) -> Measurement | None:
        found = usual(plan, self.session.config.evaluation, attack)
        return self._measurement(found) if found else None

    def told(self, found: Sequence[Found]) -> Headline:
        """The headline of measurements, which stands in result.json where it is the run's, and how long it took."""
        head, content = _head(found), self._learnt()
        if head:
            content |= headline_of(head[0].known_by, head[1]) | {"evaluation": head[0].reference}
        if self.heads(found):
            with writing(self.session.folder.path):
                seconds = self.session.folder.read_result().get("seconds", {})
                self.session.record(**content, seconds=seconds | ({STAGE: head[1]["seconds"]} if head else {}))
            known = {f"test/{name}": content[name] for name in ("ta", "ra") if content.get(name) is not None}
            self.session.tracker.metrics("", 0, known)
        return content

    def heads(self, found: Sequence[Found]) -> bool:
        """Whether result.json's headline is of these measurements."""
        result, head = self.session.folder.read_result(), _head(found)
        now = result.get("evaluation")
        if not now or not head:
            return not now
        this = head[0]
        same = this.name in (now["evaluation"], next(iter(self.own), None))
        of_name = result.get("evaluations", {}).get(this.name, this.reference)
        other = now["checkpoint"] != this.known_by["checkpoint"]
        return other or (same and of_name["file"] == this.reference["file"])

    def _learnt(self) -> Headline:
        """As :func:`learnt`, of this checkpoint once."""
        known = self.session.folder.read_result()
        of = (known.get("evaluation") or {}).get("checkpoint")
        if of == self.manifest["sha256"] and all(key in known for key in LEARNT):
            return {"ta": known["ta_all"], **{key: known[key] for key in LEARNT}}
        return learnt(self.model, self.session)

    def _victim(self, plan: Planned) -> Victim:
        return victim_of(plan, self.model, self.manifest)

    def _measurement(self, plan: Planned) -> Measurement:
        session = self.session
        known_by = plan.known_by(
            self._victim(plan),
            data=session.splits.fingerprint.of("test").sha256,
            count=len(plan.images(session.splits.test)),
            seed=session.config.seed,
            checkpoint=self.manifest["sha256"],
        )
        return Measurement(session.folder, plan.name, known_by)


def _head(found: Sequence[Found]) -> Found | None:
    """The first measurement that has an RA."""
    return next((one for one in found if "ra" in one[1]["figures"]), None)


def victim_of(plan: Planned, model: nn.Module, manifest: Mapping[str, Any]) -> Victim:
    """In the memory layout in which it trained, which was found to be the faster."""
    layout = manifest.get("memory_format", "contiguous")
    noise = float(manifest.get("noise", 0.0))
    return plan.victim(model, classes=manifest["classes"], noise=noise, side=_side(manifest), layout=layout)


def _side(manifest: Mapping[str, Any]) -> int:
    """Of the images; an ensemble's members are of the same."""
    while "members" in manifest:
        manifest = manifest["members"][0]
    return int(manifest["model"]["data"]["side"])
