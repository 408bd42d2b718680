"""Selfie (Trinh et al. 2019; the paper's section 3.1): which patch belongs into the hole?

An image is cut into patches; some are masked, the others are the context. The patch network P, the encoder up to its
third stage with a mean over space, turns every patch into a vector. Attention pooling sums the context up; for each
masked place, summary plus that place's embedding must pick the right one among the masked patches.

B batch, C channels, H W the image's sides, P patches, M masked patches, N context patches, D width of a vector.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from advss.hookspecs import Batch, Encoder, Loss, PretextTask, Views, accuracy
from advss_pretext.patches import check_grid, to_patches


class Selfie(PretextTask):
    """Pick each masked patch among the masked ones from the summary of the context.

    Args:
        grid: patches along each side.
        masked: masked patches an image.
        layers: transformer layers of the attention pooling (released: 12 + 1).
        heads: attention heads; must divide the encoder's width.
        feedforward: width of the layers' feed-forward part; 0 is twice the encoder's width, as released.
        dropout: in the attention pooling.
        split: one random mask an image, or one a batch (released).
        scores: dot products divided by √D, or as they are (released, with a standard deviation near 38 at D = 1024).
        criterion: cross-entropy on the scores, or on their softmax once more (released).
    """

    name = "selfie"

    def __init__(  # noqa: PLR0913 - each is an option
        self,
        *,
        grid: int = 4,
        masked: int = 4,
        layers: int = 13,
        heads: int = 16,
        feedforward: int = 0,
        dropout: float = 0.1,
        split: Literal["image", "batch"] = "image",
        scores: Literal["scaled", "unscaled"] = "scaled",
        criterion: Literal["cross_entropy", "double_softmax"] = "cross_entropy",
    ) -> None:
        super().__init__()
        if not 2 <= masked < grid**2:
            raise ValueError(f"masked must be in 2..{grid**2 - 1} for a grid of {grid}, got {masked}")
        if layers < 1 or heads < 1:
            raise ValueError(f"layers and heads must be at least 1, got {layers} and {heads}")
        if feedforward < 0:
            raise ValueError(f"feedforward must be at least 0, got {feedforward}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.grid, self.masked, self.layers, self.heads = grid, masked, layers, heads
        self.feedforward, self.dropout = feedforward, dropout
        self.split, self.scores, self.criterion = split, scores, criterion

    def build(self, encoder: Encoder) -> None:
        """Attention pooling, its query u0 and the places' embeddings. Selfie has no last stage of its own."""
        check_grid(self.name, self.grid, encoder, encoded_alone=True)
        D = encoder.channels
        if D % self.heads:
            raise ValueError(f"selfie: heads {self.heads} must divide the encoder's width {D}; set --pretext.heads")
        layer = nn.TransformerEncoderLayer(
            D, self.heads, self.feedforward or 2 * D, self.dropout, "gelu", batch_first=True, norm_first=False
        )
        self.pool = nn.TransformerEncoder(layer, self.layers, enable_nested_tensor=False)
        for parameter in self.pool.parameters():  # the layers are copies of one; each begins at its own values
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        self.u0 = nn.Parameter(torch.randn(D))
        self.row, self.column = nn.Parameter(torch.randn(self.grid, D)), nn.Parameter(torch.randn(self.grid, D))

    def views(self, batch: Batch, generator: Generator) -> Views:
        """The images, and which of their patches are masked: a random split."""
        rows = len(batch.x) if self.split == "image" else 1
        draws = torch.rand(rows, self.grid**2, generator=generator, device=batch.x.device)
        order_BP = draws.argsort(1).expand(len(batch.x), -1)
        return Views((batch.x,), {"masked": order_BP[:, : self.masked], "context": order_BP[:, self.masked :]})

    def summary(self, vectors_BPD: Tensor, context_BN: Tensor) -> Tensor:
        """Output 0 of the attention pooling over u0 and the context's vectors: (B, 1, D)."""
        context_BND = _pick(vectors_BPD, context_BN)
        u0 = self.u0.to(context_BND.dtype).expand(len(context_BND), 1, -1)
        pooled: Tensor = self.pool(torch.cat([u0, context_BND], 1))
        return pooled[:, :1]

    def vectors(self, encoder: Encoder, x_BCHW: Tensor) -> Tensor:
        """Each patch through P alone: (B, P, D)."""
        patches = to_patches(x_BCHW, self.grid)
        vectors: Tensor = encoder(patches.flatten(0, 1)).mean((2, 3))
        return vectors.reshape(*patches.shape[:2], -1)

    def loss(self, encoder: Encoder, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        """M-way classification at each masked place, summed over the M places, averaged over the batch."""
        vectors_BPD, masked_BM = self.vectors(encoder, inputs[0]), targets["masked"]
        place_BMD = self.row[masked_BM // self.grid] + self.column[masked_BM % self.grid]
        query_BMD = self.summary(vectors_BPD, targets["context"]) + place_BMD
        with torch.autocast(query_BMD.device.type, enabled=False):  # else the product is bfloat16 however it is cast
            scores_BMM = query_BMD.float() @ _pick(vectors_BPD, masked_BM).mT.float()
        if self.scores == "scaled":
            scores_BMM = scores_BMM / vectors_BPD.shape[-1] ** 0.5
        own_BM = torch.arange(self.masked, device=masked_BM.device).expand(masked_BM.shape)
        logits = scores_BMM.softmax(-1) if self.criterion == "double_softmax" else scores_BMM
        value = F.cross_entropy(logits.flatten(0, 1), own_BM.flatten()) * self.masked
        return Loss(value, (scores_BMM,), {"accuracy": accuracy(scores_BMM, own_BM)}, labels=(own_BM,))


def _pick(vectors_BPD: Tensor, places_BN: Tensor) -> Tensor:
    return vectors_BPD.gather(1, places_BN[..., None].expand(-1, -1, vectors_BPD.shape[-1]))
