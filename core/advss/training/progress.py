"""How far the training of a stage has come."""

from __future__ import annotations

from dataclasses import dataclass, field

from advss.training.work import Metrics


@dataclass
class Progress:
    """Where training stands; kept in every checkpoint."""

    epoch: int = 0
    batch: int = 0  # steps done of the epoch
    sums: Metrics = field(default_factory=dict)  # of the training metrics over the epoch's counted steps
    counted: int = 0  # steps of the epoch whose loss was finite
    best_epoch: int = 0  # counted from 1; 0 before the first validation
    best_score: list[float] = field(default_factory=list)
    best_metrics: Metrics = field(default_factory=dict)
    skipped: int = 0  # steps left out for a non-finite loss
    seconds: float = 0.0
