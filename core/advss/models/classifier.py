"""Encoder, last stage and linear head, with a record of what was loaded."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from advss.hookspecs import Classifier, Encoder
from advss.models.weights import check_fits, load_strict


class ImageClassifier(Classifier):
    """Images in [0, 1] (B, C, H, W) -> logits (B, K); normalisation is the encoder's."""

    loaded: set[str]  # names of the parameters and buffers that pretraining gave, or weights to start from

    def __init__(self, encoder: Encoder, tail: nn.Module, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.tail = tail
        self.head = nn.Linear(encoder.features, classes)
        self.loaded = set()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, K)."""
        logits_BK: Tensor = self.head(self.tail(self.encoder(x_BCHW)))
        return logits_BK

    def fresh(self) -> list[nn.Parameter]:
        """The parameters that were not loaded, those of an encoder that is random as a whole left out."""
        fresh = [(name, parameter) for name, parameter in self.named_parameters() if name not in self.loaded]
        stands = not any(name.startswith("encoder.") for name in self.loaded)
        return [parameter for name, parameter in fresh if not (stands and name.startswith("encoder."))]

    def load_pretrained(self, encoder_state: Mapping[str, Tensor], tail_state: Mapping[str, Tensor] | None) -> None:
        """Load the encoder, and the last stage when there is one; all or nothing.

        Raises:
            UsageError: a key is missing, unexpected or of another shape.
        """
        parts: dict[str, tuple[nn.Module, Mapping[str, Tensor]]] = {"encoder": (self.encoder, encoder_state)}
        if tail_state is not None:
            parts["tail"] = (self.tail, tail_state)
        for name, (module, state) in parts.items():
            check_fits(module, state, what=f"the pretrained {name}")
        for name, (module, state) in parts.items():
            load_strict(module, state, what=f"the pretrained {name}")
        self.loaded |= {f"{name}.{key}" for name, (_, state) in parts.items() for key in state}
