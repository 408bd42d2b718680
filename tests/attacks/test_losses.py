"""The losses against definitions in float64 and the released code; the temperature against the margin it makes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pyautoattack.autopgd_base import APGDAttack
from torch import Tensor

from advss.attacks import losses


def logits_and_labels() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(200, 5, generator=generator), torch.randint(5, (200,), generator=generator)


def test_odds_are_the_logarithm_of_one_over_p_minus_1() -> None:
    logits, label = logits_and_labels()
    p = logits.double().softmax(1).gather(1, label[:, None])[:, 0]
    torch.testing.assert_close(losses.odds(logits, label).double(), (1 / p - 1).log(), atol=1e-5, rtol=1e-5)


def test_the_gradient_of_the_odds_has_cross_entropys_direction_even_where_that_has_none() -> None:
    logits, label = logits_and_labels()
    logits = logits.double().requires_grad_()
    (ours,) = torch.autograd.grad(losses.odds(logits, label).sum(), logits)
    (theirs,) = torch.autograd.grad(F.cross_entropy(logits, label, reduction="sum"), logits)
    torch.testing.assert_close(F.normalize(ours), F.normalize(theirs))
    large = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    (ours,) = torch.autograd.grad(losses.odds(large, torch.tensor([0])).sum(), large)
    torch.testing.assert_close(ours, torch.tensor([[-1.0, 0.5, 0.5]]))


def test_the_margin_is_above_0_just_where_another_class_is_answered() -> None:
    logits, label = logits_and_labels()
    assert torch.equal(losses.margin(logits, label) > 0, logits.argmax(1) != label)
    assert losses.margin(torch.tensor([[1.0, 4.0, 2.5]]), torch.tensor([1])).tolist() == [-1.5]


def test_dlr_is_the_released_codes() -> None:
    logits, label = logits_and_labels()
    theirs = APGDAttack(torch.nn.Identity(), eps=0.1, loss="dlr").dlr_loss(logits, label)
    torch.testing.assert_close(losses.dlr(logits, label), theirs)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_logits_over_the_temperature_have_a_margin_of_8_at_most(scale: float) -> None:
    logits, label = logits_and_labels()
    margin = losses.margin(scale * logits, label)
    divided = scale * logits / losses.temperature(margin)[:, None]
    torch.testing.assert_close(losses.margin(divided, label), margin.clamp(-8, 8))
