"""APGD fells what the released code fells, whatever else is in the chunk, however large the logits are."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from pyautoattack import autopgd_base
from torch import Tensor, nn

from advss.attacks import Norm, Threat
from advss.attacks.apgd import APGD, Aim
from advss.attacks.climb import Smooth

Trained = tuple[nn.Module, Tensor, Tensor]
THREATS: list[tuple[Norm, float]] = [("linf", 0.15), ("l2", 0.8), ("l1", 1.5)]
STEPS = 40


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def wrong(model: nn.Module, x: Tensor, label: Tensor) -> Tensor:
    with torch.no_grad():
        answer: Tensor = model(x).argmax(1) != label
    return answer


def oracle(model: nn.Module, norm: Norm, eps: float, loss: Aim, targets: int) -> autopgd_base.APGDAttack:
    kind = partial(autopgd_base.APGDAttack, loss=loss)
    if loss == "targeted":
        kind = partial(autopgd_base.APGDAttack_targeted, n_target_classes=targets)
    name = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    return kind(model, n_iter=STEPS, norm=name, eps=eps, seed=3, use_largereps=norm == "l1")


@pytest.mark.filterwarnings("ignore:there are .* points with zero gradient")
@pytest.mark.parametrize("loss", ["ce", "dlr", "targeted"])
@pytest.mark.parametrize(("norm", "eps"), THREATS)
def test_the_images_that_fall_are_the_released_codes(sturdy: Trained, norm: Norm, eps: float, loss: Aim) -> None:
    model, x, label = sturdy
    attack = APGD(loss=loss, steps=STEPS, targets=(1,))
    ours = wrong(model, attack(model, x, label, Threat(norm=norm, eps=eps), generator()), label)
    theirs = wrong(model, oracle(model, norm, eps, loss, 1).perturb(x, label), label)
    assert torch.equal(ours, theirs)
    assert 20 < ours.sum() < 80


@pytest.mark.filterwarnings("ignore:there are .* points with zero gradient")
def test_the_images_that_fall_to_several_targets_are_the_released_codes(
    sturdy: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, label = sturdy
    attack = APGD(loss="targeted", steps=STEPS, targets=(1, 2, 3))
    ours = wrong(model, attack(model, x, label, Threat(eps=0.15), generator()), label)

    other = oracle(model, "linf", 0.15, "targeted", 3)
    run, draws, rand = other.attack_single_run, generator(), torch.rand

    def with_our_draws(left: Tensor, left_label: Tensor) -> object:
        place = torch.cdist(left.flatten(1), x.flatten(1)).argmin(1)
        whole = rand(x.shape, generator=draws)
        monkeypatch.setattr(torch, "rand", lambda shape: whole[place])
        return run(left, left_label)

    monkeypatch.setattr(other, "attack_single_run", with_our_draws)
    assert torch.equal(ours, wrong(model, other.perturb(x, label), label))
    one = APGD(loss="targeted", steps=STEPS, targets=(1,))(model, x, label, Threat(eps=0.15), generator())
    assert wrong(model, one, label).sum() < ours.sum()


class Flickering(nn.Module):
    """Sees images darker and brighter in turn."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.passes = model, 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        logits: Tensor = self.model(x + 0.1 * (-1) ** self.passes)
        return logits


def test_averaged_gradients_fell_what_the_released_codes_do(sturdy: Trained) -> None:
    model, x, label = sturdy

    def fell(made: Tensor) -> Tensor:
        return (made != x).flatten(1).any(1)

    ours, alone = (
        APGD(steps=10, averaged=averaged)(Flickering(model), x, label, Threat(eps=0.15), generator())
        for averaged in (2, 1)
    )
    other = autopgd_base.APGDAttack(Flickering(model), n_iter=10, eps=0.15, seed=3, eot_iter=2).perturb(x, label)
    assert torch.equal(fell(ours), fell(other))
    assert not torch.equal(fell(alone), fell(ours))
    torch.testing.assert_close(ours, other, atol=1e-5, rtol=0)  # the last wrong points, not the first


def test_steps_are_judged_where_the_paper_judges_them() -> None:
    lengths = itertools.islice(Smooth.periods(100), 8)
    assert list(itertools.accumulate(lengths)) == [22, 41, 57, 70, 80, 87, 93, 99]


class Scaled(nn.Module):
    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.factor * self.model(x)
        return logits


@pytest.mark.parametrize(
    ("norm", "eps", "losses"),
    [
        ("linf", 0.15, ["ce"]),
        ("linf", 0.15, ["targeted"]),
        ("l2", 0.8, ["ce"]),
        ("l2", 0.8, ["dlr"]),
        ("l1", 1.5, ["ce", "targeted"]),
    ],
)
@pytest.mark.parametrize("factor", [100, 1e30])
def test_logits_a_hundred_times_as_large_help_no_more_than_one_image(
    sturdy: Trained, norm: Norm, eps: float, losses: list[Aim], factor: float
) -> None:
    model, x, label = sturdy
    stands = torch.ones(2, len(x), dtype=torch.bool)
    for loss in losses:
        attack, threat = APGD(loss=loss, targets=(1, 2)), Threat(norm=norm, eps=eps)
        for victim, standing in zip((model, Scaled(model, factor)), stands, strict=True):
            made = attack(victim, x, label, threat, generator(), standing_B=standing)
            standing &= ~wrong(victim, made, label)
    assert stands[1].sum() <= stands[0].sum() + 1
    assert stands[0].sum() < 80


class First(nn.Module):
    """The first logits of another model."""

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model, self.classes = model, classes

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)[:, : self.classes]
        return logits


@pytest.mark.parametrize(("loss", "least"), [("ce", 2), ("dlr", 3), ("targeted", 4)])
def test_as_few_classes_as_the_loss_needs_are_attacked_and_fewer_are_an_error(
    sturdy: Trained, loss: Aim, least: int
) -> None:
    model, x, label = sturdy
    attack, few = APGD(loss=loss, steps=5), First(model, least)
    own = label < least
    made = attack(few, x[own], label[own], Threat(eps=0.3), generator())
    assert wrong(few, made, label[own]).any()
    assert attack.least_classes == least
    if least > 2:
        with pytest.raises(ValueError, match=f"loss {loss} needs at least {least} classes, the model has {least - 1}"):
            attack(First(model, least - 1), x[label < 2], label[label < 2], Threat(eps=0.3), generator())


@pytest.mark.parametrize("option", [{"loss": "cw"}, {"steps": 0}, {"restarts": 0}, {"averaged": 0}, {"targets": (0,)}])
def test_an_option_that_makes_no_attack_is_named(option: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        APGD(**option)  # type: ignore[arg-type]
