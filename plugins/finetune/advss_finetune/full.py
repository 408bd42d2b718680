"""Full fine-tuning, F3 (standard) and F4 (adversarial) of the paper's Table 2: θ_p and θ_f both train."""

from __future__ import annotations

from advss.hookspecs import Classifier, FinetuneScheme, Phase


class Full(FinetuneScheme):
    """Every parameter trains."""

    name = "full"

    def phases(self, classifier: Classifier) -> list[Phase]:
        """One phase with all parameters."""
        return [Phase(1.0, [{"params": list(classifier.parameters())}])]
