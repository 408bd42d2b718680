"""Encoder, last stage and linear head, with a record of what was loaded."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from advss.hookspecs import Classifier, Encoder
from advss.models.positions import at_positions_of
from advss.models.weights import check_fits, load_strict


class ImageClassifier(Classifier):
    """Images in [0, 1] (B, C, H, W) -> logits (B, K); normalisation is the encoder's."""

    loaded: set[str]  # what pretraining or weights to start from gave, by its names when this was made

    def __init__(self, encoder: Encoder, tail: nn.Module, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.tail = tail
        self.head = nn.Linear(encoder.features, classes)
        self.loaded = set()
        self._made = dict(self.named_parameters())  # a scheme may rename them, by a parametrisation, and add others

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, K)."""
        logits_BK: Tensor = self.head(self.tail(self.encoder(x_BCHW)))
        return logits_BK

    def fresh(self) -> list[nn.Parameter]:
        """The parameters that were not loaded; of an encoder that is random as a whole none that it was made with."""
        random = not any(name.startswith("encoder.") for name in self.loaded)
        standing = {
            id(p) for name, p in self._made.items() if name in self.loaded or (random and name.startswith("encoder."))
        }
        return [p for p in self.parameters() if id(p) not in standing]

    def load_pretrained(self, encoder_state: Mapping[str, Tensor], tail_state: Mapping[str, Tensor] | None) -> None:
        """Load the encoder, and the last stage when there is one; all or nothing.

        A ViT's position embeddings are resampled where they are for images of another side.

        Raises:
            UsageError: a key is missing, unexpected or of another shape.
        """
        fitted = at_positions_of(self.encoder.state_dict(), encoder_state)
        parts: dict[str, tuple[nn.Module, Mapping[str, Tensor]]] = {"encoder": (self.encoder, fitted)}
        if tail_state is not None:
            parts["tail"] = (self.tail, tail_state)
        for name, (module, state) in parts.items():
            check_fits(module, state, what=f"the pretrained {name}")
        for name, (module, state) in parts.items():
            load_strict(module, state, what=f"the pretrained {name}")
        self.loaded |= {f"{name}.{key}" for name, (_, state) in parts.items() for key in state}
