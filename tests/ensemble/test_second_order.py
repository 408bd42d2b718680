"""The diversity term's own gradient, through the second-order pass, against finite differences in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Loss, Task, Views

LABEL = torch.tensor([0, 2])


class Softmax(Task):
    """Softmax regression on the pixels: its input gradient is Wᵀ(p - onehot) / B."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        weight = torch.randn(3, 6, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(weight)

    def loss(self, encoder: nn.Module, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        return Loss(F.cross_entropy(inputs[0].flatten(1) @ self.weight.T, targets["label"]))


def term_by_hand(weights: list[Tensor], inputs: list[Tensor]) -> float:
    """Batch mean of log det(GᵀG + 1e-5·I) from the closed form of the input gradients, in float64."""
    total = 0.0
    for image, own in enumerate(LABEL.tolist()):
        columns = []
        for weight, x in zip(weights, inputs, strict=True):
            probabilities = (weight @ x[image]).softmax(0)
            gradient = weight.T @ (probabilities - F.one_hot(torch.tensor(own), 3))
            columns.append(gradient / gradient.norm())
        G = torch.stack(columns, 1)
        total += float(torch.logdet(G.T @ G + 1e-5 * torch.eye(len(weights), dtype=torch.float64)))
    return total / len(LABEL)


def test_value_and_gradients_of_the_term_equal_float64() -> None:
    tasks = {f"softmax{i}": Softmax(i) for i in range(3)}
    clean = [torch.rand(2, 1, 2, 3, generator=torch.Generator().manual_seed(10 + i)) for i in range(3)]
    views = tuple(Views((x,), {"label": LABEL}) for x in clean)
    objective = TaskObjective(nn.Identity(), tasks, views, stage="pretrain", key=(0,), diversity=1.0)
    inputs = tuple(x.clone().requires_grad_() for x in clean)
    weights = [task.weight for task in tasks.values()]
    penalty = torch.as_tensor(objective(inputs).penalty)
    found = torch.autograd.grad(penalty, [*weights, *inputs])

    wide = [t.detach().double().clone() for t in [*weights, *(x.flatten(1) for x in inputs)]]
    assert float(penalty.detach()) == pytest.approx(term_by_hand(wide[:3], wide[3:]), rel=1e-4)
    for tensor, gradient in zip(wide, found, strict=True):
        flat, numeric = tensor.view(-1), []
        for place in range(flat.numel()):
            there = flat[place].clone()
            values = []
            for move in (1e-5, -1e-5):
                flat[place] = there + move
                values.append(term_by_hand(wide[:3], wide[3:]))
            flat[place] = there
            numeric.append((values[0] - values[1]) / 2e-5)
        expected = torch.tensor(numeric, dtype=torch.float64)
        torch.testing.assert_close(gradient.double().flatten(), expected, atol=2e-3, rtol=2e-3)
