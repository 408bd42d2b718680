"""What a checkpoint's manifest says of its encoder, so that every stage builds the same one from it.

This module does not import torch until an encoder is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from advss.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from advss.hookspecs import DataFacts
    from advss.models.encoder import TimmEncoder


@dataclass(frozen=True)
class ModelSpec:
    """What an encoder is built from, the same wherever it is."""

    backbone: str  # timm's name
    options: dict[str, Any]  # for timm
    data: DataFacts
    mean: tuple[float, ...]  # of the training images in [0, 1], one a channel
    std: tuple[float, ...]
    branches: tuple[str, ...] = ("main",)  # BatchNorm branches
    stem: int = 0  # side in pixels of the images that its stem is made for; 0: that of the data

    def to_json(self) -> dict[str, Any]:
        """As values that JSON has; :meth:`from_json` restores an equal spec."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std), "branches": list(self.branches)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ModelSpec:
        """From what :meth:`to_json` gave.

        Raises:
            UsageError: fields are missing, unknown or of another type.
        """
        from advss.hookspecs import DataFacts

        known = {field.name for field in fields(cls)}
        if set(values) != known:
            wrong = ", ".join(sorted(known ^ set(values)))
            raise UsageError(
                f"model description: missing or unknown fields {wrong}; expected {', '.join(sorted(known))}"
            )
        try:
            return cls(
                backbone=str(values["backbone"]),
                options=dict(values["options"]),
                data=DataFacts(**values["data"]),
                mean=tuple(map(float, values["mean"])),
                std=tuple(map(float, values["std"])),
                branches=tuple(map(str, values["branches"])),
                stem=int(values["stem"]),
            )
        except (TypeError, ValueError) as error:
            raise UsageError(f"model description: {error}") from error


def build_encoder_from(spec: ModelSpec, weights: Mapping[str, Tensor] | None = None) -> TimmEncoder:
    """An encoder as ``spec`` says, newly initialised or at ``weights`` to start from.

    Raises:
        UsageError: see :func:`advss.models.encoder.build_encoder`.
    """
    from advss.models.encoder import TimmEncoder, backbone_of

    backbone = backbone_of(spec.backbone, spec.options, spec.data, weights, stem=spec.stem)
    return TimmEncoder(backbone, mean=spec.mean, std=spec.std, branches=spec.branches)
