"""What holds of each part of AutoAttack: ball, range, what stands, memory, and the model as found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from advss.attacks import Norm, Threat
from advss.attacks.apgd import APGD
from advss.attacks.fab import FAB
from advss.attacks.square import Square

Trained = tuple[nn.Module, Tensor, Tensor]
Narrowing = Callable[[nn.Module], nn.Module]
THREATS: list[tuple[Norm, float]] = [("linf", 0.15), ("l2", 0.8), ("l1", 2.0)]
PARTS: dict[str, Callable[..., Tensor]] = {
    "apgd-ce": APGD(steps=10, restarts=2),
    "apgd-t": APGD(loss="targeted", steps=10, targets=(1, 2)),
    "square": Square(queries=40, restarts=2),
    "fab-t": FAB(steps=5, targets=(1, 2)),
    "fab": FAB(steps=5, targeted=False, restarts=2),
}
each = pytest.mark.parametrize("attack", PARTS.values(), ids=PARTS)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def wrong(model: nn.Module, x: Tensor, label: Tensor) -> Tensor:
    with torch.no_grad():
        answer: Tensor = model(x).argmax(1) != label
    return answer


@each
@pytest.mark.parametrize(("norm", "eps"), THREATS)
def test_examples_are_within_the_ball_and_the_range_and_what_did_not_fall_is_itself(
    sturdy: Trained, attack: Callable[..., Tensor], norm: Norm, eps: float
) -> None:
    model, x, label = sturdy
    made = attack(model, x, label, Threat(norm=norm, eps=eps), generator())
    order = {"linf": torch.inf, "l2": 2, "l1": 1}[norm]
    length = (made - x).flatten(1).norm(p=order, dim=1)
    fell = wrong(model, made, label)
    assert length.max() <= eps * (1 + 1e-5)
    assert 0 <= made.min() <= made.max() <= 1
    assert torch.equal(length > 0, fell)
    assert fell.any()


@each
@pytest.mark.parametrize(("norm", "eps"), THREATS)
def test_what_befalls_an_image_does_not_depend_on_what_else_stands_nor_on_memory(
    sturdy: Trained, attack: Callable[..., Tensor], norm: Norm, eps: float, narrow: Narrowing
) -> None:
    model, x, label = sturdy[0], sturdy[1][:40], sturdy[2][:40]
    threat = Threat(norm=norm, eps=eps)
    draws = generator(), generator(), generator()
    whole = wrong(model, attack(model, x, label, threat, draws[0]), label)
    standing = torch.arange(len(x)) % 3 == 0
    third = wrong(model, attack(model, x, label, threat, draws[1], standing_B=standing), label)
    assert torch.equal(third, whole & standing)
    short = wrong(model, attack(narrow(model), x, label, threat, draws[2]), label)
    assert torch.equal(short, whole)
    assert torch.equal(draws[0].get_state(), draws[1].get_state())
    assert torch.equal(draws[0].get_state(), draws[2].get_state())


@each
def test_what_is_wrong_unperturbed_is_not_attacked(sturdy: Trained, attack: Callable[..., Tensor]) -> None:
    model, x, label = sturdy
    made = attack(model, x, (label + 1) % 10, Threat(eps=0.15), generator())
    assert torch.equal(made, x)


@each
def test_the_model_is_left_as_found(sturdy: Trained, attack: Callable[..., Tensor]) -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), sturdy[0]).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attack(model, *sturdy[1:], Threat(eps=0.15), generator())
    sturdy[0].eval()
    assert model[0].training
    assert all(p.requires_grad and p.grad is None for p in model[0].parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Scaled(nn.Module):
    """Logits so much larger, of the first classes only."""

    def __init__(self, model: nn.Module, factor: float, classes: int) -> None:
        super().__init__()
        self.model, self.factor, self.classes = model, factor, classes

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.factor * self.model(x)[:, : self.classes]
        return logits


@pytest.mark.parametrize("attack", [PARTS[name] for name in ("square", "fab-t", "fab")], ids=["square", "fab-t", "fab"])
@pytest.mark.parametrize(("norm", "eps"), THREATS)
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_any_two_classes_and_logits_of_any_size_will_do(
    sturdy: Trained, attack: Callable[..., Tensor], norm: Norm, eps: float, classes: int
) -> None:
    model, x, label = sturdy
    x, label = x[label < classes], label[label < classes]
    models = [Scaled(model, factor, classes) for factor in (1, 100, 1e30, 1e-12)]
    threat = Threat(norm=norm, eps=(2 if classes == 10 else 4) * eps)  # few classes are far apart
    fell = [wrong(one, attack(one, x, label, threat, generator()), label) for one in models]
    assert all((one != fell[0]).sum() <= 1 for one in fell)
    assert fell[0].any()


@each
def test_where_nothing_stands_and_where_there_is_nothing_nothing_is_done(
    sturdy: Trained, attack: Callable[..., Tensor]
) -> None:
    model, x, label = sturdy
    none = torch.zeros(len(x), dtype=torch.bool)
    assert torch.equal(attack(model, x, label, Threat(eps=0.15), generator(), standing_B=none), x)
    assert attack(model, x[:0], label[:0], Threat(eps=0.15), generator()).shape == (0, 1, 8, 8)


class Odd(nn.Module):
    """Logits without gradients, with none by the image, or nan where a pixel is bright."""

    def __init__(self, model: nn.Module, kind: str) -> None:
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        if self.kind == "step":
            return logits.detach()
        if self.kind == "flat":
            return torch.eye(10)[torch.full((len(x),), 3)] + 0 * x.flatten(1).sum(1)[:, None]
        return torch.where((x > 0.95).flatten(1).any(1)[:, None], torch.nan, logits)


@each
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("kind", ["step", "flat", "nan"])
def test_examples_are_finite_whatever_the_gradients_and_logits_are(
    sturdy: Trained, attack: Callable[..., Tensor], norm: Norm, kind: str
) -> None:
    model, x, label = Odd(sturdy[0], kind), sturdy[1][:30], sturdy[2][:30]
    made = attack(
        model, x, torch.full_like(label, 3) if kind == "flat" else label, Threat(norm=norm, eps=0.1), generator()
    )
    assert made.isfinite().all()
    assert kind != "flat" or torch.equal(made, x)
