"""Partial fine-tuning, F1 (standard) and F2 (adversarial) of the paper's Table 2: θ_f trains on a fixed θ_p."""

from __future__ import annotations

from advss.hookspecs import Classifier, FinetuneScheme, Phase
from advss_finetune.smoothing import check_label_smoothing


class Partial(FinetuneScheme):
    """What was loaded stands still, BatchNorm statistics too; the head and any fresh last stage or stem train.

    Without pretraining (P1) the encoder stands at its random initialisation.

    Args:
        label_smoothing: share of each label that is spread over all classes.
    """

    name = "partial"

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = check_label_smoothing(label_smoothing)

    def phases(self, classifier: Classifier) -> list[Phase]:
        """One phase with θ_f alone."""
        return [Phase(1.0, [{"params": classifier.fresh()}])]
