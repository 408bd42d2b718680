"""Grids of patches: order, places and the way back."""

from __future__ import annotations

import pytest
import torch

from advss_pretext.patches import from_patches, to_patches


@pytest.mark.parametrize("grid", [2, 4])
def test_patches_lie_row_by_row(grid: int) -> None:
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    patches, side = to_patches(x, grid), 16 // grid
    assert patches.shape == (2, grid * grid, 3, side, side)
    for row in range(grid):
        for column in range(grid):
            expected = x[:, :, row * side : (row + 1) * side, column * side : (column + 1) * side]
            assert torch.equal(patches[:, row * grid + column], expected)


@pytest.mark.parametrize("grid", [2, 4, 8])
def test_putting_patches_together_restores_the_image(grid: int) -> None:
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(from_patches(to_patches(x, grid), grid), x)
