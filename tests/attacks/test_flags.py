"""What AutoAttack warns of is seen in a model that has the fault, and in no other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from advss.attacks import Norm, Threat
from advss.attacks.flags import FLAGS, flags

Trained = tuple[nn.Module, Tensor, Tensor]
Fault = Callable[[nn.Module, Tensor], Tensor]


class Faulty(nn.Module):
    def __init__(self, model: nn.Module, fault: Fault) -> None:
        super().__init__()
        self.model, self.fault = model, fault

    def forward(self, x: Tensor) -> Tensor:
        return self.fault(self.model, x)


def raised(model: nn.Module, sturdy: Trained, norm: Norm = "linf") -> dict[str, int]:
    """How many of the 100 images raise a flag, for each that is raised."""
    _, flags_B4 = flags(model, *sturdy[1:], Threat(norm=norm), torch.Generator().manual_seed(0))
    return {flag: count for flag, count in zip(FLAGS, flags_B4.sum(0).tolist(), strict=True) if count}


def by_grad(model: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model(leaf).amax(1).sum(), leaf)
    logits: Tensor = model(x - 1e-3 * gradient.sign())
    return logits


def by_backward(model: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        model(leaf).amax(1).sum().backward()
    logits: Tensor = model(x - 1e-3 * leaf.grad.sign())  # type: ignore[union-attr]
    return logits


def stepped(model: nn.Module, x: Tensor) -> Tensor:
    logits: Tensor = model((64 * x).round() / 64)
    return logits


def bright_alone(model: nn.Module, x: Tensor) -> Tensor:
    """Of which no gradient is seen where the first pixel is above a half."""
    logits: Tensor = model(x)
    return torch.where(x[:, 0, 3, 3, None] > 0.5, logits.detach(), logits)


@pytest.mark.parametrize(
    ("fault", "flag"),
    [
        (lambda model, x: model(x + 0.01 * torch.randn_like(x)), "randomness"),
        (lambda model, x: model(x).softmax(1), "softmax"),
        (by_grad, "gradients-inside"),
        (by_backward, "gradients-inside"),
        (stepped, "zero-gradients"),
        (lambda model, x: model(x) * torch.where(x[:1, :1, :1, :1] >= 0, 1, torch.nan).view(1, 1), "none"),
    ],
)
def test_each_fault_raises_its_flag_for_every_image_and_no_other(sturdy: Trained, fault: Fault, flag: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = raised(Faulty(sturdy[0], fault), sturdy)
    assert found == ({} if flag == "none" else {flag: 100})


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_sound_model_raises_none(sturdy: Trained, norm: Norm) -> None:
    assert raised(sturdy[0], sturdy, norm) == {}


def test_flags_are_of_the_images_that_raise_them(sturdy: Trained) -> None:
    found = raised(Faulty(sturdy[0], bright_alone), sturdy)
    bright = int((sturdy[1][:, 0, 3, 3] > 0.5).sum())
    assert abs(found["zero-gradients"] - bright) <= 5  # where the point lies, not the image
    assert 20 < bright < 80


def test_an_answer_that_changes_is_random_however_small_the_change(sturdy: Trained) -> None:
    """Two logits that differ by less than what is looked for."""
    passes = iter(range(99))

    def tied(model: nn.Module, x: Tensor) -> Tensor:
        logits: Tensor = model(x)
        own = logits.argmax(1, keepdim=True)
        other = (own + 1) % 10
        level = logits.gather(1, own) + 1e-6 * (-1) ** next(passes)
        return logits.scatter(1, other, level)

    assert raised(Faulty(sturdy[0], tied), sturdy)["randomness"] == 100


def test_what_is_wrong_unperturbed_raises_no_zero_gradient(sturdy: Trained) -> None:
    model, x, label = sturdy
    right, flags_B4 = flags(Faulty(model, stepped), x, (label + 1) % 10, Threat(), torch.Generator())
    assert not right.any()
    assert not flags_B4.any()


def test_the_model_is_left_as_found(sturdy: Trained) -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), sturdy[0]).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    raised(model, sturdy)
    sturdy[0].eval()
    assert model[0].training
    assert all(p.requires_grad for p in model.parameters())
    assert all(p.grad is None for p in model[0].parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
