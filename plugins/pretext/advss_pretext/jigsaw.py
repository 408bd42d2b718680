"""Jigsaw (Noroozi & Favaro 2016; Carlucci et al. 2019; the paper's section 3.1): in which order are the patches?

B batch, C channels, H W the image's sides, P patches, N permutations beside the identity.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from advss.hookspecs import Batch, Encoder, Loss, PretextTask, Views, accuracy
from advss_pretext.patches import check_grid, from_patches, to_patches

CANDIDATES = 2000  # random permutations among which far-apart ones are sought


class Jigsaw(PretextTask):
    """Classify which of the known permutations reordered the image's patches, class 0 being none.

    Args:
        grid: patches along each side.
        permutations: number of permutations beside the identity.
        unchanged: share of the images forced into class 0, on top of its even share, as released.
        choice: permutations far apart in Hamming distance, or plainly random ones.
    """

    name = "jigsaw"

    def __init__(
        self,
        *,
        grid: int = 4,
        permutations: int = 30,
        unchanged: float = 0.1,
        choice: Literal["hamming", "random"] = "hamming",
    ) -> None:
        super().__init__()
        if permutations < 1:
            raise ValueError(f"permutations must be at least 1, got {permutations}")
        if not 0 <= unchanged < 1:
            raise ValueError(f"unchanged must be in [0, 1), got {unchanged}")
        self.grid, self.permutations, self.unchanged, self.choice = grid, permutations, unchanged, choice

    def build(self, encoder: Encoder) -> None:
        """A last stage of its own, a linear layer to N + 1 classes, and the permutations, kept with the weights."""
        check_grid(self.name, self.grid, encoder, encoded_alone=False)
        most = math.factorial(self.grid**2) - 1
        if self.permutations > most:
            raise ValueError(
                f"jigsaw: permutations must be at most {most} for grid {self.grid}, got {self.permutations}"
            )
        self.tail = encoder.tail()
        self.head = nn.Linear(encoder.features, self.permutations + 1)
        self.orders: Tensor
        self.register_buffer("orders", choose_orders(self.grid**2, self.permutations, far=self.choice == "hamming"))

    def views(self, batch: Batch, generator: Generator) -> Views:
        """Each image with its patches in the order of its class: place p shows patch orders[class, p]."""
        B, device = len(batch.x), batch.x.device
        drawn_B = torch.randint(len(self.orders), (B,), generator=generator, device=device)
        kept_B = torch.rand(B, generator=generator, device=device) < self.unchanged
        order_B = drawn_B.masked_fill(kept_B, 0)
        patches = to_patches(batch.x, self.grid)
        shuffled = patches[torch.arange(B, device=device)[:, None], self.orders[order_B]]
        return Views((from_patches(shuffled, self.grid),), {"order": order_B})

    def loss(self, encoder: Encoder, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        """Cross-entropy over the N + 1 orders."""
        assert self.tail is not None
        logits_BK = self.head(self.tail(encoder(inputs[0]))).float()
        order_B = targets["order"]
        return Loss(
            F.cross_entropy(logits_BK, order_B),
            (logits_BK,),
            {"accuracy": accuracy(logits_BK, order_B)},
            labels=(order_B,),
        )


def choose_orders(patches: int, count: int, *, far: bool) -> Tensor:
    """The identity and ``count`` different permutations, int64 (count + 1, P), from torch's global generator.

    With ``far``, each next one is the candidate whose least Hamming distance to those chosen is greatest.
    """
    identity = torch.arange(patches)
    candidates = torch.stack([torch.randperm(patches) for _ in range(max(CANDIDATES, 20 * count))])
    candidates = candidates[(candidates != identity).any(1)]
    chosen = [identity]
    nearest = (candidates != identity).sum(1)
    for _ in range(count):
        new = candidates[int(nearest.argmax() if far else (nearest > 0).nonzero()[0, 0])]
        chosen.append(new)
        nearest = torch.minimum(nearest, (candidates != new).sum(1))
        if not nearest.any() and len(chosen) <= count:
            raise ValueError(f"jigsaw: {patches} patches have fewer than {count} other orders; lower permutations")
    return torch.stack(chosen)
