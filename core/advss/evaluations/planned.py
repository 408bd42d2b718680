"""An evaluation as it was chosen: made, with all its options, and what a measurement by it is known by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from advss.arithmetic import Arithmetic, Computed
from advss.config import Choice, EvalSettings
from advss.configuration.resolve import plain
from advss.data.splits import Part
from advss.errors import UsageError
from advss.evaluations.chunks import Kept, Measuring
from advss.evaluations.form import accuracies, checked_figures, checked_words
from advss.evaluations.intervals import accuracy_with_interval, numbers
from advss.hookspecs import Evaluation
from advss.measuring import Measured, Victim
from advss.plugins import build, complete
from advss.plugins.measured import filled
from advss.plugins.provenance import Record, used
from advss.training.blame import blaming, fitting
from advss.training.layout import FORMATS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THREAT = ("norm", "eps")


@dataclass(frozen=True)
class Planned:
    """An evaluation that is to be made of some classifier."""

    choice: Choice
    evaluation: Evaluation
    options: Mapping[str, Any]  # all of them, in plain values
    settings: EvalSettings
    records: list[Record]  # of its plugin

    @property
    def name(self) -> str:
        """The evaluation's."""
        return self.evaluation.name

    @property
    def title(self) -> str:
        """What it measures, in a few words."""
        return self.evaluation.title() + (
            f", {self.settings.precision}" if self.settings.precision != "float32" else ""
        )

    def images(self, test: Part) -> Part:
        """Those of the test images that it is made of."""
        limits = [count for count in (self.settings.limit, self.evaluation.most) if count]
        return test.subset(min(limits, default=0))

    def known_by(self, victim: Victim, *, data: str, count: int, seed: int, checkpoint: str) -> dict[str, Any]:
        """All that its answers hang on, but the machine's arithmetic.

        Args:
            victim: the classifier.
            data: sha256 of the test images.
            count: how many of them.
            seed: of the draws.
            checkpoint: sha256 of the classifier's.
        """
        record = self.records[0]
        with self._called():
            options = plain(self.evaluation.known_by(dict(self.options), victim))
        return {
            "evaluation": self.name,
            "plugin": f"{record['distribution']} {record['version']}",
            "options": options,
            "images": {"data": data, "count": count, "chunk": self.evaluation.chunk or self.settings.batch_size},
            "precision": self.settings.precision,
            "seed": seed,
            "checkpoint": checkpoint,
        }

    def victim(
        self, model: nn.Module, *, classes: Sequence[str], noise: float = 0.0, side: int = 0, layout: str = "contiguous"
    ) -> Victim:
        """A model as it is measured, by a name of :data:`advss.training.layout.FORMATS` in that memory layout."""
        arithmetic = Arithmetic(bf16=self.settings.precision == "bf16", memory_format=FORMATS[layout])
        model.eval().to(memory_format=arithmetic.memory_format)
        return Victim(Computed(model, arithmetic), classes=classes, noise=noise, side=side)

    def check(self, victim: Victim) -> None:
        """Raise UsageError where a model cannot be measured so, before it is."""
        with self._called():
            try:
                self.evaluation.check(victim)
            except UsageError:
                raise
            except ValueError as error:
                raise UsageError(f"--evaluate {self.name}: {error}") from error

    def measured(self, victim: Victim, test: Part, how: Measuring, kept: Kept, title: str) -> Measured:
        """The answers about its images.

        Raises:
            UsageError: a third party's evaluation raised, or gave what is not of the contract's form.
            Interrupted: a signal came; the parts of chunks that were done are kept.
        """
        images = self.images(test)
        with self._called():
            answers = how.answers(self.evaluation, victim, images, kept, title)
        return Measured(answers, images.labels, images.index, victim.classes)

    def figures(self, measured: Measured) -> dict[str, Any]:
        """An accuracy with its 95 % interval for each bool answer, and what the evaluation adds."""
        found = {name: accuracy_with_interval(answer) for name, answer in accuracies(measured.answers).items()}
        with self._called():
            more: dict[str, Any] = plain(checked_figures(self.evaluation.figures(measured), found))
        return found | more

    def titles(self, figures: Mapping[str, Any]) -> dict[str, str]:
        """What tables call each figure that is one number, by its name."""
        with self._called():
            return {name: checked_words(self.evaluation.in_words(name), name) for name in numbers(figures)}

    def drawn(self, measured: Measured) -> Mapping[str, Figure]:
        """The evaluation's pictures, by name."""
        with self._called():
            return self.evaluation.draw(measured)

    @contextmanager
    def _called(self) -> Iterator[None]:
        """While the evaluation is called: what is wrong with it becomes one line that names it."""
        stage = f"--evaluate {self.name}"
        with blaming(stage, self.records), fitting(stage, self.evaluation, self.records):
            yield


def usual(plan: Planned, settings: EvalSettings, attack: Mapping[str, Any]) -> Planned | None:
    """The same evaluation by its defaults and a run's settings, at the threat of the run's headline.

    Args:
        plan: the evaluation.
        settings: the run's.
        attack: the headline's options.

    Returns:
        None where it is not made so: it has an option that must be said, or refuses that threat.
    """
    threat = {key: attack[key] for key in THREAT if key in attack and key in plan.options}
    try:
        return planned(Choice(plan.choice.name, threat), settings)
    except UsageError:
        return None


def planned(choice: Choice, settings: EvalSettings) -> Planned:
    """An evaluation, made as it was chosen.

    Raises:
        UsageError: there is none of that name, or it refuses its options.
    """
    options = filled(complete("evaluation", choice), settings)
    with blaming(f"--evaluate {choice.name}", records := used("evaluation", choice)):
        evaluation: Evaluation = build("evaluation", Choice(choice.name, options))
        evaluation.title()  # what is wrong with it is told before anything is measured
    return Planned(choice, evaluation, plain(options), settings, records)
