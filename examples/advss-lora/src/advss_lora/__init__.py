"""LoRA (Hu et al. 2022): what was loaded stands, and a product of two thin matrices is added to each of its weights.

Section 4.1: W + (α/r)·B·A, A random, B 0, so that training begins at what was loaded. A convolution's weight counts as
the matrix of its output channels by all else. Afterwards the product is added to W for good ("no additional latency"),
and what is left is a plain classifier.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn.utils import parametrize

from advss.hookspecs import Classifier, FinetuneScheme, Phase, hookimpl

advss_api = (1, 0)
WEIGHT = "weight"


class LowRank(nn.Module):
    """W ↦ W + scale·B·A, as a parametrisation of a layer's weight (out, ...)."""

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        rows, columns = weight.flatten(1).shape
        rank, self.scale = min(rank, rows, columns), scale
        self.down = nn.Parameter(weight.new_empty(rank, columns))
        self.up = nn.Parameter(weight.new_zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that the layer computes with."""
        return weight + self.scale * (self.up @ self.down).view_as(weight)


class LoRA(FinetuneScheme):
    """What was loaded stands still, its convolutions and linear layers with adapters; what is fresh trains whole.

    Args:
        rank: r, of each adapter; no more than the weight itself has.
        alpha: α; an adapter counts α/r.
        lr_scale: learning rate of the adapters in multiples of that of the head and all else that is fresh; at 1
            and the digits' rate of 0.3 the model collapses to one class.
    """

    name = "lora"

    def __init__(self, *, rank: int = 8, alpha: float = 16.0, lr_scale: float = 0.1) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank must be at least 1, got {rank}")
        for option, value in (("alpha", alpha), ("lr_scale", lr_scale)):
            if not 0 < value < math.inf:  # nan too
                raise ValueError(f"{option} must be above 0 and finite, got {value}")
        self.rank, self.scale, self.lr_scale = rank, alpha / rank, lr_scale

    def build(self, classifier: Classifier) -> None:
        """Put an adapter on every layer of encoder and last stage whose weight is not fresh."""
        fresh = {id(p) for p in classifier.fresh()}
        for layer in list(classifier.modules()):
            if isinstance(layer, nn.Conv2d | nn.Linear) and id(layer.weight) not in fresh:
                parametrize.register_parametrization(layer, WEIGHT, LowRank(layer.weight, self.rank, self.scale))

    def phases(self, classifier: Classifier) -> list[Phase]:
        """One phase: the adapters, which are fresh as all that was not loaded, and the rest of it."""
        adapters = [p for m in classifier.modules() if isinstance(m, LowRank) for p in m.parameters()]
        known = {id(p) for p in adapters}
        rest = [p for p in classifier.fresh() if id(p) not in known]
        return [Phase(1.0, [{"params": rest}, {"params": adapters, "lr_scale": self.lr_scale}])]

    def deployed(self, classifier: Classifier) -> dict[str, Tensor]:
        """The plain classifier: each adapter in its layer's weight."""
        layers = dict(classifier.named_modules())
        merged = {f"{name}.{WEIGHT}": m.weight for name, m in layers.items() if parametrize.is_parametrized(m, WEIGHT)}
        own = {name: t for name, t in classifier.state_dict().items() if ".parametrizations." not in name}
        return own | merged


@hookimpl
def advss_finetune_schemes() -> list[type[FinetuneScheme]]:
    """Low-rank adapters."""
    return [LoRA]
