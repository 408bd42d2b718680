"""Rotation (Gidaris et al. 2018; the paper's section 3.1): by which multiple of 90° has the image been turned?

B batch, C channels, H W the image's sides.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from advss.hookspecs import Batch, Encoder, Loss, PretextTask, Views, accuracy


class Rotation(PretextTask):
    """Classify the turn of each image among 0°, 90°, 180° and 270°."""

    name = "rotation"

    def build(self, encoder: Encoder) -> None:
        """A last stage of its own and a linear layer to 4 classes."""
        self.tail = encoder.tail()
        self.head = nn.Linear(encoder.features, 4)

    def views(self, batch: Batch, generator: Generator) -> Views:
        """Each image turned by its own k·90°, the four turns equally often in the batch."""
        turned_BCHW, turn_B = rotate(batch.x, generator)
        return Views((turned_BCHW,), {"turn": turn_B})

    def loss(self, encoder: Encoder, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        """Cross-entropy over the four turns."""
        assert self.tail is not None
        logits_B4 = self.head(self.tail(encoder(inputs[0]))).float()
        turn_B = targets["turn"]
        return Loss(
            F.cross_entropy(logits_B4, turn_B),
            (logits_B4,),
            {"accuracy": accuracy(logits_B4, turn_B)},
            labels=(turn_B,),
        )


def rotate(x_BCHW: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Images turned anticlockwise by turn_B·90° (as torch.rot90), and turn_B, balanced over the batch."""
    order_B = torch.randperm(len(x_BCHW), generator=generator, device=x_BCHW.device)
    turn_B = torch.empty_like(order_B)
    turned_BCHW = torch.empty_like(x_BCHW)
    for turn in range(4):
        members = order_B[turn::4]
        turn_B[members] = turn
        turned_BCHW[members] = x_BCHW[members].rot90(turn, (2, 3))
    return turned_BCHW, turn_B
