"""Accuracy under common corruptions, made as they are measured (Hendrycks and Dietterich 2019).

Made here are the fifteen kinds that their definition gives exactly. Letters: B images of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from advss.attacks.evaluation import answers
from advss.corruptions import KINDS, SEVERITIES, corrupt
from advss.errors import did_you_mean
from advss.evaluations.pictures import draw_corruptions
from advss.hookspecs import Evaluation
from advss.measuring import Answers, Measured, Victim

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLEAN = "ta"


class Corruptions(Evaluation):
    """Accuracy under fifteen common corruptions at five severities, made from the images: not the published files.

    Args:
        kinds: that are measured; none is all fifteen.
        severities: of 1 to 5.
    """

    name = "corruptions"

    def __init__(self, *, kinds: tuple[str, ...] = (), severities: tuple[int, ...] = SEVERITIES) -> None:
        self.kinds, self.severities = tuple(kinds) or tuple(KINDS), tuple(severities)
        for kind in self.kinds:
            if kind not in KINDS:
                raise ValueError(f"kinds has none called '{kind}'{did_you_mean(kind, KINDS)}")
        for severity in self.severities:
            if severity not in SEVERITIES:
                raise ValueError(f"severities must be of 1 to 5, got {severity}")
        for name, values in (("kinds", self.kinds), ("severities", self.severities)):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must each be named once, got {','.join(map(str, values)) or 'none'}")

    def title(self) -> str:
        """``15 corruptions at severities 1 to 5``."""
        kinds = f"{len(self.kinds)} corruptions" if len(self.kinds) > 1 else self.kinds[0].replace("_", " ")
        if self.severities == SEVERITIES:
            return f"{kinds} at severities 1 to 5"
        return f"{kinds} at severity {', '.join(map(str, self.severities))}"

    def parts(self, classes: int) -> Sequence[str]:
        """No corruption, and each kind at each severity: ``fog_3``."""
        return (CLEAN, *(_name(kind, severity) for kind in self.kinds for severity in self.severities))

    def measure_part(
        self, part: str, before: Answers, model: Victim, x_BCHW: Tensor, label_B: Tensor, generator: Generator
    ) -> Answers:
        """Which images are right under one corruption more."""
        kind, _, severity = part.rpartition("_")
        made = x_BCHW if part == CLEAN else corrupt(kind, int(severity), x_BCHW, generator)
        with torch.no_grad():
            return {**before, part: answers(model(made)) == label_B}

    def figures(self, measured: Measured) -> dict[str, Any]:
        """``mean`` over all that is measured, ``by_kind`` and ``by_severity``."""
        table = self._table(measured)
        mean = sum(map(sum, table)) / (len(self.kinds) * len(self.severities))
        clean = 100 * float(measured.answers[CLEAN].double().mean())
        by_severity = [sum(row[place] for row in table) / len(table) for place in range(len(self.severities))]
        return {
            "mean": mean,
            "by_kind": {kind: sum(row) / len(row) for kind, row in zip(self.kinds, table, strict=True)},
            "by_severity": dict(zip(map(str, self.severities), by_severity, strict=True)),
            "summary": f"TA {clean:.2f} %, mean {100 * mean:.2f} % over {self.title()}, made here: no CIFAR-10-C",
        }

    def in_words(self, name: str) -> str:
        """``fog 3``."""
        return super().in_words(name) if name == CLEAN else name.replace("_", " ")

    def draw(self, measured: Measured) -> dict[str, Figure]:
        """Accuracy by kind and severity."""
        return {"table": draw_corruptions(self._table(measured), self.kinds, self.severities)}

    def _table(self, measured: Measured) -> list[list[float]]:
        """Accuracy by kind, by severity."""
        found = measured.answers
        return [[float(found[_name(kind, s)].double().mean()) for s in self.severities] for kind in self.kinds]


def _name(kind: str, severity: int) -> str:
    return f"{kind}_{severity}"
