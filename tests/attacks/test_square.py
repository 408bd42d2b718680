"""Square fells what the released code fells by the same squares."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from advss.attacks import Norm, Threat
from advss.attacks.square import Square

Trained = tuple[nn.Module, Tensor, Tensor]


class WholeChunk(SquareAttack):  # type: ignore[misc]
    """Theirs, but signs are drawn for the whole chunk, of which it takes those of what stands."""

    def over(self, x: Tensor) -> WholeChunk:
        self.all, self.place = x, torch.arange(len(x))
        return self

    def check_shape(self, x: Tensor) -> Tensor:
        same = (x.flatten(1)[:, None] == self.all.flatten(1)).all(2)
        if same.any(1).all():  # what it is called with first in each query
            self.place = same.float().argmax(1)
        return x

    def random_choice(self, shape: Sequence[int]) -> Tensor:
        of_images = len(shape) == 4
        number = torch.rand([len(self.all), *shape[1:]] if of_images else list(shape))
        return (2 * (number[self.place] if of_images else number) - 1).sign()


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.15), ("l2", 0.8), ("l1", 2.0)])
def test_the_images_that_fall_are_the_released_codes(sturdy: Trained, norm: Norm, eps: float) -> None:
    model, x, label = sturdy
    ours = Square(queries=80)(model, x, label, Threat(norm=norm, eps=eps), torch.Generator().manual_seed(3))
    name = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    theirs = WholeChunk(model, norm=name, eps=eps, seed=3, n_queries=80, resc_schedule=False).over(x).perturb(x, label)
    with torch.no_grad():
        fell, theirs_fell = model(ours).argmax(1) != label, model(theirs).argmax(1) != label
    assert torch.equal(fell, theirs_fell)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert 10 < fell.sum() < 80


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.15), ("l2", 0.8), ("l1", 2.0)])
def test_a_run_in_pieces_is_the_run(sturdy: Trained, norm: Norm, eps: float) -> None:
    (model, x, label), threat = sturdy, Threat(norm=norm, eps=eps)
    whole = Square(queries=60)(model, x, label, threat, torch.Generator().manual_seed(3))
    draws, best, pieces = torch.Generator().manual_seed(3), None, list[int]()
    examples, standing = x.clone(), torch.ones(len(x), dtype=torch.bool)
    for done in (0, 20, 40):
        made, best = Square(queries=20).piece(
            model, x, label, threat, draws, standing_B=standing, best_BCHW=best, done=done
        )
        fell = (made != x).flatten(1).any(1)
        examples[fell], standing = made[fell], standing & ~fell
        pieces.append(int(fell.sum()))
    assert torch.equal(examples, whole)
    assert sum(pieces[1:]) > 0


class Sum(nn.Module):
    """Class 1 as long as the pixels add up to no less than where all are a half."""

    def forward(self, x: Tensor) -> Tensor:
        total = (x - 0.5).flatten(1).sum(1) + 0.01
        return torch.stack([-total, total], 1)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 4), (1, 6, 14)])
def test_images_of_any_shape_are_searched(norm: Norm, shape: tuple[int, ...]) -> None:
    x, label = torch.full((3, *shape), 0.5), torch.ones(3, dtype=torch.int64)
    made = Square(queries=60)(Sum(), x, label, Threat(norm=norm, eps=0.3), torch.Generator().manual_seed(0))
    assert made.isfinite().all()
    assert not Sum()(made).argmax(1).any()


@pytest.mark.parametrize("option", [{"queries": 0}, {"restarts": 0}])
def test_an_option_that_makes_no_attack_is_named(option: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        Square(**option)
