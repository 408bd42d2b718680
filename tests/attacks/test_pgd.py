"""PGD: what counts as robust, restarts, examples, and the model left as found."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from advss.attacks import Threat
from advss.attacks.evaluation import in_chunks
from advss.attacks.pgd import PGD
from advss.attacks.victim import as_victim

STAYING = 1e-30  # a step too short to move a pixel: an attack is then its random start


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_classes(weight: Tensor, bias: float) -> nn.Module:
    """Class 1 where weight·x + bias > 0, else class 0."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(weight.numel(), 2))
    linear = model[1]
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        linear.weight.copy_(torch.stack([torch.zeros_like(weight), weight]))
        linear.bias.copy_(torch.tensor([0.0, bias]))
    return model


def margins_and_model(count: int = 64) -> tuple[Tensor, Tensor, nn.Module]:
    weight = torch.randn(12, generator=generator(2))
    x = torch.empty(count, 3, 2, 2).uniform_(0.3, 0.7, generator=generator(3))
    bias = -float((x.flatten(1) @ weight).median())
    return x, x.flatten(1) @ weight + bias, two_classes(weight, bias)


def attacked(
    model: nn.Module, x: Tensor, label: Tensor, *, step_size: float = 0.02, steps: int = 10, restarts: int = 1
) -> tuple[Tensor, Tensor]:
    threat = Threat(eps=0.05, step_size=step_size, steps=steps)
    found = PGD(restarts=restarts)(model, x, label, threat, generator())
    return found.clean_B == label, found.robust_B


def test_a_linear_models_robust_images_are_those_whose_margin_exceeds_eps_times_the_l1_norm() -> None:
    x, margin, model = margins_and_model()
    weight = torch.randn(12, generator=generator(2))
    clean, robust = attacked(model, x, (margin > 0).long())
    assert clean.all()
    assert torch.equal(robust, margin.abs() > 0.05 * weight.abs().sum())
    assert 0 < robust.sum() < len(x)


def test_what_is_wrong_when_clean_is_never_robust() -> None:
    x, margin, model = margins_and_model()
    clean, robust = attacked(model, x, (margin <= 0).long())
    assert not clean.any()
    assert not robust.any()


class Broken(nn.Module):
    """Logits (1, 0), class 0, but for a value of its own in the place of one logit of every second image."""

    def __init__(self, value: float, place: int) -> None:
        super().__init__()
        self.value, self.place = value, place

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.tensor([1.0, 0.0]).repeat(len(x), 1) + 0 * x.sum((1, 2, 3))[:, None]
        broken = x[:, 0, 0, 0] > 0.5
        logits[broken, self.place] = self.value
        return logits


@pytest.mark.parametrize(("value", "place"), [(math.nan, 0), (math.nan, 1), (math.inf, 0), (-math.inf, 1)])
def test_an_image_with_logits_that_are_not_finite_is_wrong_clean_and_attacked(value: float, place: int) -> None:
    x = torch.tensor([0.0, 1.0] * 3).view(6, 1, 1, 1)
    label = torch.zeros(6, dtype=torch.int64)  # the class that an argmax gives of nan
    clean, robust = attacked(Broken(value, place), x, label, steps=1)
    assert clean.tolist() == robust.tolist() == [True, False] * 3


class Kinked(nn.Module):
    """A sum of pixels above 6, of 12, whose gradient is nan: a square root at 0."""

    def forward(self, x: Tensor) -> Tensor:
        total = x.flatten(1).sum(1) - 6
        return torch.stack([torch.zeros_like(total), total + (0 * total).sqrt()], 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_image_whose_gradient_is_nan_counts_by_what_is_answered_at_the_start(norm: Literal["linf", "l2"]) -> None:
    x = torch.full((4, 3, 2, 2), 0.7)  # nothing within 0.05 of it is of the other class
    threat = Threat(norm=norm, eps=0.05, step_size=0.02, steps=3)
    found = PGD()(Kinked(), x, torch.tensor([1, 1, 0, 0]), threat, generator(), every=True)
    assert found.clean_B.tolist() == [1, 1, 1, 1]
    assert found.robust_B.tolist() == [True, True, False, False]
    assert found.examples_BCHW.isfinite().all()


class Bumpy(nn.Module):
    """A wave along the mean pixel, on which single random starts miss."""

    def forward(self, x: Tensor) -> Tensor:
        wave = torch.sin(90 * x.flatten(1)[:, 0]) + 0.7
        return torch.stack([wave, -wave], 1)


def test_restarts_never_raise_robust_accuracy() -> None:
    x = torch.empty(200, 1, 1, 1).uniform_(0, 1, generator=generator(1))
    label = Bumpy()(x).argmax(1)
    robust = [attacked(Bumpy(), x, label, restarts=n, steps=1)[1] for n in (1, 2, 4, 8)]
    for fewer, more in itertools.pairwise(robust):
        assert not (more & ~fewer).any()
    assert robust[-1].sum() < robust[0].sum()


def test_what_is_wrong_when_clean_stays_wrong_where_a_random_start_would_be_right() -> None:
    x = torch.empty(200, 1, 1, 1).uniform_(0, 1, generator=generator(1))
    clean, robust = attacked(Bumpy(), x, torch.zeros(200, dtype=torch.int64), steps=1, step_size=STAYING)
    assert not (robust & ~clean).any()
    assert 0 < robust.sum() < clean.sum() < 200


@pytest.mark.parametrize("chunk", [1, 7, 64, 100])
def test_the_result_does_not_depend_on_the_chunk(chunk: int) -> None:
    x, margin, model = margins_and_model()
    label = (margin > -0.05).long()
    whole = attacked(model, x, label)
    ticks: list[int] = []
    parts = in_chunks(lambda a, b: attacked(model, x[a:b], label[a:b]), len(x), chunk, ticks.append)
    assert torch.equal(parts[0], whole[0])
    assert torch.equal(parts[1], whole[1])
    assert sum(ticks) == len(x)
    assert max(ticks) <= chunk


def normed() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 2))
    model[0].bias.requires_grad_(False)
    model[2].eval()
    return model


def standing(model: nn.Module) -> tuple[list[bool], list[bool], list[Tensor]]:
    modes = [m.training for m in model.modules()]
    flags = [p.requires_grad for p in model.parameters()]
    return modes, flags, [t.clone() for t in model.state_dict().values()]


def test_the_model_is_left_as_found() -> None:
    model = normed()
    modes, flags, state = standing(model)
    attacked(model, torch.rand(6, 3, 2, 2, generator=generator()), torch.arange(6) % 2)
    after = standing(model)
    assert (after[0], after[1]) == (modes, flags)
    assert all(torch.equal(a, b) for a, b in zip(after[2], state, strict=True))
    assert all(p.grad is None for p in model.parameters())


class Failing(nn.Module):
    """Raises at its second call, the first of the attack, if it stands as a victim should."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.calls = normed(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 2:
            ready = not (any(m.training for m in self.modules()) or any(p.requires_grad for p in self.parameters()))
            raise RuntimeError(f"ready {ready}")
        logits: Tensor = self.net(x)
        return logits * torch.tensor([1.0, 0.0])


def test_the_model_is_left_as_found_when_something_raises() -> None:
    model = Failing()
    modes, flags, _ = standing(model)
    x = torch.rand(6, 3, 2, 2, generator=generator())
    with as_victim(model), torch.no_grad():
        right = model(x).argmax(1)
    model.calls = 0
    with pytest.raises(RuntimeError, match="ready True"):
        attacked(model, x, right)
    assert standing(model)[:2] == (modes, flags)


# ---------------------------------------------------------------- examples
def bumpy_images() -> tuple[Tensor, Tensor]:
    """Images, of which about a quarter is wrong unperturbed."""
    x = torch.empty(200, 1, 1, 1).uniform_(0, 1, generator=generator(1))
    return x, torch.zeros(200, dtype=torch.int64)


def examples(
    x: Tensor, label: Tensor, *, step_size: float = 0.02, steps: int = 1, restarts: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    threat = Threat(eps=0.05, step_size=step_size, steps=steps)
    found = PGD(restarts=restarts)(Bumpy(), x, label, threat, generator(), every=True)
    return found.clean_B == label, found.robust_B, found.examples_BCHW


@pytest.mark.parametrize("restarts", [1, 3])
def test_making_examples_measures_the_same(restarts: int) -> None:
    x, label = bumpy_images()
    clean, robust, _ = examples(x, label, restarts=restarts)
    measured = attacked(Bumpy(), x, label, steps=1, restarts=restarts)
    assert torch.equal(clean, measured[0])
    assert torch.equal(robust, measured[1])


@pytest.mark.parametrize(("step_size", "steps"), [(STAYING, 1), (0.02, 3)])
def test_the_model_is_wrong_about_the_examples_of_what_is_not_robust(step_size: float, steps: int) -> None:
    x, label = bumpy_images()
    clean, robust, made = examples(x, label, step_size=step_size, steps=steps, restarts=2)
    assert torch.equal(Bumpy()(made).argmax(1) == label, robust)
    assert 0 < robust.sum() < clean.sum() < 200


def test_examples_lie_in_the_ball_and_in_the_unit_interval() -> None:
    x, label = bumpy_images()
    made = examples(x, label, steps=3)[2]
    assert (made - x).abs().max() <= 0.05 + 1e-6
    assert made.min() >= 0
    assert made.max() <= 1


def test_what_is_wrong_when_clean_stands_for_itself_where_the_attack_would_make_it_right() -> None:
    x, label = bumpy_images()
    clean, _, made = examples(x, label, step_size=STAYING)
    wrong = ~clean.view(-1)
    kept = wrong & (made == x).flatten()
    assert 0 < kept.sum() < wrong.sum()
    assert not (clean & (made == x).flatten()).any()


def test_an_image_keeps_the_example_that_felled_it() -> None:
    x, label = bumpy_images()
    _, robust, once = examples(x, label, restarts=1)
    clean, _, often = examples(x, label, restarts=4)
    felled = clean & ~robust
    assert torch.equal(once[felled], often[felled])
    assert not torch.equal(once[robust], often[robust])
