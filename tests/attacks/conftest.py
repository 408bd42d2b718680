"""A small network, trained in a second or two to withstand attacks on digits a little: there attacks differ."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advss.attacks import Threat, maximise

Trained = tuple[nn.Module, Tensor, Tensor]


@pytest.fixture(scope="session")
def sturdy() -> Trained:
    """The network, 100 digits that it did not see and has right, and their classes."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    label = torch.tensor(digits.target, dtype=torch.int64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(16, 16, 3, stride=2),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(144, 10),
        )
    optimizer, generator = torch.optim.Adam(model.parameters(), lr=0.008), torch.Generator().manual_seed(0)
    threat = Threat(eps=0.15, step_size=0.15, steps=1)
    for step in range(120):
        some, own = x[:1200].roll(-100 * step, 0)[:100], label[:1200].roll(-100 * step)[:100]
        (attacked,) = maximise(partial(_loss, model, own), (some,), generator, threat)
        optimizer.zero_grad()
        _loss(model, own, (attacked,)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.eval()
    right = (model(x[1200:]).argmax(1) == label[1200:]).nonzero()[:100, 0]
    return model, x[1200:][right], label[1200:][right]


def _loss(model: nn.Module, label: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    return F.cross_entropy(model(inputs[0]), label)


class Narrow(nn.Module):
    """Has memory for 7 images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 7:
            raise torch.OutOfMemoryError("no memory")
        logits: Tensor = self.model(x)
        return logits


@pytest.fixture
def narrow() -> type[Narrow]:
    """A model as one of little memory."""
    return Narrow
