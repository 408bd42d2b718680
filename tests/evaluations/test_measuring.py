"""A classifier is measured: what is counted, and that it can be stopped."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from advss.config import EvalSettings
from advss.data.images import InMemory
from advss.data.splits import Part
from advss.evaluations.evaluate import evaluate_model
from advss.training.reporting import Silent
from advss.training.signals import Interrupted, StopRequest


class Constant(nn.Module):
    """Says class 1 of any image, whatever is done to it."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.tensor([0.0, 1.0]).expand(len(x_BCHW), 2) + 0 * x_BCHW.sum((1, 2, 3))[:, None]


def test_constant_classifier_has_equal_ta_and_ra() -> None:
    part = Part(
        InMemory(torch.zeros(10, 3, 4, 4, dtype=torch.uint8)), torch.arange(10), torch.tensor([1] * 7 + [0] * 3)
    )
    cpu = torch.device("cpu")
    settings = EvalSettings(steps=1, batch_size=4)
    found = evaluate_model(
        Constant(), part, settings, device=cpu, seed=0, reporter=Silent(), stop=StopRequest(), classes="ab"
    )
    assert (found["ta"], found["ra"], found["ra_images"]) == (0.7, 0.7, 10)
    assert found["doubt"] == "the model answers 'b' for 100 % of the 10 test images, of which 70 % are"


class Counting(Constant):
    """Asks for an end in its third forward pass."""

    def __init__(self, stop: StopRequest) -> None:
        super().__init__()
        self.stop, self.passes = stop, 0

    def forward(self, x_BCHW: Tensor) -> Tensor:
        self.passes += 1
        if self.passes == 3:
            self.stop.number = 15
        return super().forward(x_BCHW)


def test_measuring_stops_within_an_attack() -> None:
    part = Part(InMemory(torch.zeros(4, 3, 4, 4, dtype=torch.uint8)), torch.arange(4), torch.tensor([1] * 4))
    stop = StopRequest()
    model, settings = Counting(stop), EvalSettings(steps=20, batch_size=4)
    with pytest.raises(Interrupted):
        evaluate_model(
            model, part, settings, device=torch.device("cpu"), seed=0, reporter=Silent(), stop=stop, classes="ab"
        )
    assert model.passes == 3
