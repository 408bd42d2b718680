"""Full fine-tuning, F3 (standard) and F4 (adversarial) of the paper's Table 2: θ_p and θ_f both train."""

from __future__ import annotations

from advss.hookspecs import Classifier, FinetuneScheme, Phase
from advss_finetune.smoothing import check_label_smoothing


class Full(FinetuneScheme):
    """Every parameter trains.

    Args:
        label_smoothing: share of each label that is spread over all classes.
    """

    name = "full"

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = check_label_smoothing(label_smoothing)

    def phases(self, classifier: Classifier) -> list[Phase]:
        """One phase with all parameters."""
        return [Phase(1.0, [{"params": list(classifier.parameters())}])]
