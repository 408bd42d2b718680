"""Images as grids of patches, shared by jigsaw and Selfie.

B batch, C channels, H W the image's sides, P patches (row by row), h w a patch's sides.
"""

from __future__ import annotations

from torch import Tensor

from advss.hookspecs import Encoder


def to_patches(x_BCHW: Tensor, grid: int) -> Tensor:
    """Patches (B, P = grid², C, H/grid, W/grid) of images."""
    B, C, H, W = x_BCHW.shape
    cells = x_BCHW.reshape(B, C, grid, H // grid, grid, W // grid)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(B, grid * grid, C, H // grid, W // grid)


def from_patches(patches_BPChw: Tensor, grid: int) -> Tensor:
    """Images of patches: the inverse of :func:`to_patches`."""
    B, _, C, h, w = patches_BPChw.shape
    cells = patches_BPChw.reshape(B, grid, grid, C, h, w)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(B, C, grid * h, grid * w)


def check_grid(task: str, grid: int, encoder: Encoder, *, encoded_alone: bool) -> None:
    """Raise ValueError unless the grid divides the image, and the encoder takes a patch where it is fed one."""
    side = encoder.data.side
    if grid < 2 or side % grid:
        divisors = [n for n in range(2, side // 2 + 1) if side % n == 0]
        raise ValueError(f"{task}: grid {grid} does not divide images of side {side}; use one of {divisors}")
    if encoded_alone and (side // grid) % encoder.multiple:
        raise ValueError(
            f"{task}: patches of {side // grid}×{side // grid} pixels do not suit a backbone whose inputs must be "
            f"multiples of {encoder.multiple}; use another grid, a convolutional backbone or a smaller "
            f"--backbone.patch_size"
        )
