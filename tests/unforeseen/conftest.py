"""Digits of 32 pixels in colour, a small network trained on them in seconds, and attacks on them."""

from __future__ import annotations

from collections.abc import Callable, Collection

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from advss.unforeseen import FAMILIES, FOLLOWED, Attack

Trained = tuple[nn.Module, Tensor, Tensor]
Make = Callable[..., Attack]
NAMES = [f"{family} {name}" for family, own in FAMILIES.items() for name in own.attacks]


def make_attack(
    which: str, x: Tensor, *, eps: float | None = None, steps: int = 0, seed: int = 0, slips: Collection[str] = FOLLOWED
) -> Attack:
    """An attack by ``FAMILY NAME``, at its middle radius where none is said, for images of 32 or 224 pixels."""
    family, name = which.split()
    own = FAMILIES[family].attacks[name][x.shape[-1]]
    said = own.eps[len(own.eps) // 2] if eps is None else eps
    return own.on(x, said, Generator().manual_seed(seed), steps=steps or own.steps, slips=slips)


@pytest.fixture(scope="session")
def make() -> Make:
    """Makes an attack."""
    return make_attack


@pytest.fixture(scope="session", params=NAMES)
def which(request: pytest.FixtureRequest) -> str:
    """Every attack of both families."""
    return str(request.param)


@pytest.fixture(scope="session")
def colours() -> Tensor:
    """Five images (B, 3, 32, 32) of smooth colours, away from 0 and 1."""
    coarse = torch.rand(5, 3, 8, 8, generator=Generator().manual_seed(7))
    return 0.1 + 0.8 * F.interpolate(coarse, (32, 32), mode="bilinear", align_corners=False)


@pytest.fixture(scope="session")
def trained() -> Trained:
    """The network, 40 digits that it did not see and has right, and their classes."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    x = F.interpolate(grey, (32, 32), mode="bilinear", align_corners=False).expand(-1, 3, -1, -1).contiguous()
    label = torch.tensor(digits.target, dtype=torch.int64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 16, 4, stride=4), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1152, 10)
        )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for step in range(150):
        some = torch.arange(100 * step, 100 * step + 100) % 1500
        optimizer.zero_grad()
        F.cross_entropy(model(x[some]), label[some]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.eval().requires_grad_(False)
    right = 1500 + (model(x[1500:]).argmax(1) == label[1500:]).nonzero()[:40, 0]
    return model, x[right], label[right]
