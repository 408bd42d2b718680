"""How far the training of a stage has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from advss.training.work import Metrics


@dataclass
class Progress:
    """Where training stands; kept in every checkpoint."""

    epoch: int = 0
    batch: int = 0  # batches done of the epoch
    replay: int = 0  # steps done on the next one, where the defense trains on each batch several times
    begun: int = 0  # epochs whose hooks have run, counted from 1; 0 before the tasks have looked at the data
    sums: Metrics = field(default_factory=dict)  # of the training metrics over the epoch's counted steps
    counted: int = 0  # steps of the epoch whose loss was finite
    best_epoch: int = 0  # counted from 1; 0 before the first validation
    best_score: list[float] = field(default_factory=list)
    best_metrics: Metrics = field(default_factory=dict)
    updates: int = 0  # of the weights
    skipped: int = 0  # steps left out for a non-finite loss
    seconds: float = 0.0

    def count(self, metrics: Metrics, *, last: bool) -> None:
        """One more step is done, on its batch the last or not; without metrics its loss was not finite.

        Then the batch is not tried again.
        """
        self.replay += 1
        if last or not metrics:
            self.batch, self.replay = self.batch + 1, 0
        self.counted += bool(metrics)
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def end_epoch(self, metrics: Metrics, score: list[float]) -> bool:
        """An epoch is validated: whether it is the best so far, which without a score it cannot be."""
        self.epoch, self.batch, self.sums, self.counted = self.epoch + 1, 0, {}, 0
        best = score > self.best_score
        if best:
            self.best_epoch, self.best_score, self.best_metrics = self.epoch, score, metrics
        return best

    def adopt(self, best: Mapping[str, Any]) -> None:
        """Keep to the best checkpoint where it is of a later epoch than the last one: the plug was pulled between."""
        if best["epoch"] > self.epoch and best["score"] > self.best_score:
            self.best_epoch, self.best_score, self.best_metrics = best["epoch"], best["score"], best["metrics"]
