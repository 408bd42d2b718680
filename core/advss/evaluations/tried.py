"""Adversarial examples of a run's model, made once and kept in its folder, and tried on other models.

Letters: N images, C channels, H W their sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from advss.attacks.evaluation import answered
from advss.data.splits import Part, Splits
from advss.evaluations.chunks import Measuring
from advss.evaluations.made import make
from advss.evaluations.measurement import Measurement, check_writable
from advss.evaluations.measurer import victim_of
from advss.evaluations.planned import Planned
from advss.measuring import Victim
from advss.runs.finished import Finished


@dataclass(frozen=True)
class Model:
    """A run's model as it stands here, and where its examples are kept."""

    run: Finished
    victim: Victim
    this: Measurement

    @property
    def label(self) -> str:
        """The run's."""
        return self.run.label


def attackable(member: Finished, plan: Planned, splits: Splits) -> Model:
    """A run's model, which can be attacked, and whose examples can be kept."""
    victim = victim_of(plan, member.model, member.manifest)
    plan.check(victim)
    check_writable(member.folder)
    known_by = plan.known_by(
        victim,
        data=splits.fingerprint.of("test").sha256,
        count=len(plan.images(splits.test)),
        seed=member.config.seed,
        checkpoint=member.manifest["sha256"],
    )
    return Model(member, victim, Measurement(member.folder, plan.name, known_by))


@dataclass(frozen=True)
class Trying:
    """How examples are made and tried: the same for every model."""

    plan: Planned
    splits: Splits
    how: Measuring

    @property
    def images(self) -> Part:
        """All that are attacked."""
        return self.plan.images(self.splits.test)

    def examples(self, model: Model) -> Mapping[str, Tensor]:
        """What attacking a model gave, the examples ``x`` (N, C, H, W) among it: kept from an earlier call, or now."""
        if known := model.this.kept():
            self.how.reporter.say(f"examples of {model.label}: those kept in {model.this.answers}")
            return known[1]
        how, title = replace(self.how, seed=model.run.config.seed), f"examples {model.label}"
        return make(self.plan, model.this, model.victim, self.splits.test, how, title)[1].answers

    def right(self, model: Model, x_NCHW: Tensor) -> Tensor:
        """Which of another model's examples this one classifies right: (N,) bool."""
        victim, how = model.victim.to(self.how.device), self.how

        def read(start: int, end: int) -> Tensor:
            return x_NCHW[start:end].to(how.device)

        with how.stop.asked_by(victim):
            answer_N = answered(victim, read, len(x_NCHW), how.chunk)
        return answer_N == self.images.labels
