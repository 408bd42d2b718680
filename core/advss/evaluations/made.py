"""One measurement of a run's classifier, made: measured chunk by chunk, counted, and kept in its files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import torch

from advss.data.splits import Part
from advss.evaluations.chunks import Kept, Measuring
from advss.evaluations.measurement import Measurement
from advss.evaluations.planned import Planned
from advss.measuring import Measured, Victim


def make(
    plan: Planned,
    this: Measurement,
    victim: Victim,
    test: Part,
    how: Measuring,
    title: str,
    draw: Callable[[Measured], Sequence[str]] | None = None,
) -> tuple[dict[str, Any], Measured]:
    """Measure, and keep what was measured.

    Args:
        plan: what is measured.
        this: where it is kept.
        victim: the classifier.
        test: all test images.
        how: they are measured.
        title: what the reporter calls it.
        draw: draws it, before it is kept, and returns its pictures' files in the run; without, ``pictures`` are null.

    Returns:
        What stands in the file of the figures, and the answers.

    Raises:
        UsageError: it cannot be kept, or a third party's evaluation is at fault.
        Interrupted: a signal came; the same again goes on from the parts of chunks that were done.
    """
    kept = Kept(this.unfinished, {**this.of_chunks, "device": how.device.type, "torch": torch.__version__}, this.rows())
    measured = plan.measured(victim, test, how, kept, title)
    figures = plan.figures(measured)
    content = {
        "title": plan.title,
        "figures": figures,
        "titles": plan.titles(figures),
        "pictures": list(draw(measured)) if draw else None,
        "seconds": round(sum(kept.seconds.values()), 2),
        "device": str(how.device),
        "advss": version("advss"),
    }
    whole = this.keep(content, measured)
    kept.remove(measured.index.tolist())
    return whole, measured
