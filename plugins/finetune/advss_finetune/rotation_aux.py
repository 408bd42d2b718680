"""Auxiliary rotation (Hendrycks et al. 2019; the baseline of the paper's section 4.4): AT that also learns rotation.

Cross-entropy on the images plus w times the mean cross-entropy of which turn each of their four rotations has had. Used
without pretraining: ``advss fit --pretext none --finetune rotation-aux --defense pgd``.

B batch, C channels, H W the image's sides, K classes, T the four turns, N = (1 + T)·B, D the
features' width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from advss.hookspecs import Batch, Classifier, FinetuneScheme, Loss, Phase, Views, accuracy
from advss_finetune.smoothing import check_label_smoothing

TURNS = 4


class RotationAux(FinetuneScheme):
    """Everything trains, on the classes and on telling 0°, 90°, 180° and 270° apart.

    Args:
        weight: of the rotation loss; each of the four rotated copies of a batch has a quarter of it.
        label_smoothing: share of each class label that is spread over all classes; turns are not smoothed.
    """

    name = "rotation-aux"

    def __init__(self, *, weight: float = 0.5, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= weight < math.inf:  # nan too
            raise ValueError(f"weight must be at least 0 and finite, got {weight}")
        self.weight = weight
        self.label_smoothing = check_label_smoothing(label_smoothing)

    def build(self, classifier: Classifier) -> None:
        """A linear layer from the classifier's features to the four turns."""
        self.head = nn.Linear(classifier.encoder.features, TURNS)

    def phases(self, classifier: Classifier) -> list[Phase]:
        """One phase with the classifier and the rotation head."""
        return [Phase(1.0, [{"params": [*classifier.parameters(), *self.parameters()]}])]

    def views(self, batch: Batch, generator: Generator) -> Views:
        """The images, then their turns by 0°, 90°, 180° and 270°: five inputs, each perturbed on its own."""
        turned = tuple(batch.x.rot90(turn, (2, 3)) for turn in range(TURNS))
        return Views((batch.x, *turned), {"label": batch.label})

    def loss(self, encoder: Classifier, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        """Cross-entropy of the images' classes + weight · that of the turns, in one pass that BatchNorm sees whole."""
        label_B = targets["label"]
        features_ND = encoder.tail(encoder.encoder(torch.cat(inputs)))
        images_BD, turned_TBD = features_ND[: len(label_B)], features_ND[len(label_B) :].unflatten(0, (TURNS, -1))
        logits_BK = encoder.head(images_BD).float()
        logits_BT4 = self.head(turned_TBD).float().transpose(0, 1)
        turn_BT = torch.arange(TURNS, device=label_B.device).expand(len(label_B), TURNS)
        rotation = F.cross_entropy(logits_BT4.flatten(0, 1), turn_BT.flatten())
        classes = F.cross_entropy(logits_BK, label_B, label_smoothing=self.label_smoothing)
        metrics = {"accuracy": accuracy(logits_BK, label_B), "rotation_accuracy": accuracy(logits_BT4, turn_BT)}
        value, weights = classes + self.weight * rotation, (1.0, self.weight / TURNS)
        return Loss(value, (logits_BK, logits_BT4), metrics, labels=(label_B, turn_BT), weights=weights)
