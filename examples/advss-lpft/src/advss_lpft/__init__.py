"""LP-FT (Kumar, Raghunathan, Jones, Ma and Liang 2022): linear probing, then fine-tuning all of it.

Fine-tuning from a random head distorts pretrained features before the head fits them; a head that was trained on the
standing features first leaves them less to change.
"""

from __future__ import annotations

import math

from advss.hookspecs import Classifier, FinetuneScheme, Phase, hookimpl

advss_api = (1, 0)


class LPFT(FinetuneScheme):
    """First the head alone trains, on what pretraining loaded, then everything, at a lower learning rate.

    A last stage that pretraining did not load trains with the head. Each phase has the whole learning-rate schedule.

    Args:
        share: of the epochs that go to the head, rounded to whole epochs.
        lr_scale: learning rate of the second phase in multiples of the first's.
    """

    name = "lp-ft"

    def __init__(self, *, share: float = 0.5, lr_scale: float = 0.1) -> None:
        super().__init__()
        if not 0 < share < 1:  # nan too
            raise ValueError(f"share must be in (0, 1), got {share}; the phases alone are 'full' and 'partial'")
        if not 0 < lr_scale < math.inf:
            raise ValueError(f"lr_scale must be above 0 and finite, got {lr_scale}")
        self.share, self.lr_scale = share, lr_scale

    def phases(self, classifier: Classifier) -> list[Phase]:
        """The probe, whose features stand in eval mode, and fine-tuning."""
        return [
            Phase(self.share, [{"params": classifier.fresh()}]),
            Phase(1 - self.share, [{"params": list(classifier.parameters()), "lr_scale": self.lr_scale}]),
        ]


@hookimpl
def advss_finetune_schemes() -> list[type[FinetuneScheme]]:
    """Linear probing, then fine-tuning."""
    return [LPFT]
