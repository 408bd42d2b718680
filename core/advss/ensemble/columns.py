"""The columns of G: each member's input gradient, in its own pixels or in those of the images that all were given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from advss.errors import UsageError
from advss.hookspecs import Views


class ImagePixels:
    """Leads gradients back from the pixels of views to the images', by the transpose of what the views did to them.

    A rotated image's gradient is turned back, a permuted one's patches go back to their places.

    Args:
        x_BCHW: the images the views were made of, before any augmentation, requiring a gradient.
        views: of each member by key, with their graph back to ``x_BCHW``.

    Raises:
        UsageError: a member's inputs do not depend on the images differentiably.
    """

    def __init__(self, x_BCHW: Tensor, views: dict[str, Views]) -> None:
        self.x = x_BCHW
        self.inputs = {key: v.inputs for key, v in views.items()}
        for key, inputs in self.inputs.items():
            if not all(x.requires_grad for x in inputs):
                raise UsageError(
                    f"--diversity-pixels image: the views of {key} have no derivative by the images; use task"
                )

    def column(self, key: str, gradients: Sequence[Tensor]) -> Tensor:
        """A member's column (B, C, H, W) from the gradients by its inputs; differentiable in them."""
        (column,) = torch.autograd.grad(
            self.inputs[key], self.x, list(gradients), create_graph=True, retain_graph=True, materialize_grads=True
        )
        return column


def own_pixels(key: str, gradients: Sequence[Tensor]) -> Tensor:
    """A member's column: the sum of its inputs' gradients.

    Raises:
        UsageError: they differ in shape.
    """
    if len(gradients) == 1:
        return gradients[0]
    check_same_shape({f"{key}, input {place}": g for place, g in enumerate(gradients)})
    return torch.stack(list(gradients)).sum(0)


def check_same_shape(gradients: dict[str, Tensor]) -> None:
    """Gradients must be of one shape to be compared.

    Raises:
        UsageError: naming two that are not.
    """
    (first, shape), *others = [(name, tuple(g.shape)) for name, g in gradients.items()]
    for name, other in others:
        if other != shape:
            raise UsageError(
                f"--diversity: gradients of {first} {shape} and {name} {other} differ in shape; "
                "say --diversity-pixels image"
            )


def input_gradients(value: Tensor, inputs: tuple[Tensor, ...], *, differentiable: bool) -> tuple[Tensor, ...]:
    """Gradients of a member's loss by its inputs; zeros by one without influence."""
    return torch.autograd.grad(value, inputs, create_graph=differentiable, materialize_grads=True)
