"""PGD's losses: large logits do not hide from them; memory and what else stands change no answer; classes they need."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from advss.attacks import Threat
from advss.attacks.pgd import PGD, Loss

Trained = tuple[nn.Module, Tensor, Tensor]
Narrowing = Callable[[nn.Module], nn.Module]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


THREATS = [
    Threat(norm="linf", eps=0.15, step_size=0.03, steps=20),
    Threat(norm="l2", eps=0.8, step_size=0.16, steps=20),
    Threat(norm="l1", eps=1.5, step_size=0.3, steps=20, top_share=0.05),
]
threats = pytest.mark.parametrize("threat", THREATS, ids=["linf", "l2", "l1"])
losses = pytest.mark.parametrize("loss", ["ce", "margin", "dlr"])


class Scaled(nn.Module):
    """Logits so many times as large, of the first classes only."""

    def __init__(self, model: nn.Module, factor: float = 1, classes: int = 10) -> None:
        super().__init__()
        self.model, self.factor, self.classes = model, factor, classes

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.factor * self.model(x)[:, : self.classes]
        return logits


@threats
@losses
@pytest.mark.parametrize("factor", [100, 1e20])
def test_logits_a_hundred_times_as_large_help_no_more_than_one_image(
    sturdy: Trained, threat: Threat, loss: Loss, factor: float
) -> None:
    model, x, label = sturdy
    once = PGD(loss=loss)(model, x, label, threat, generator()).robust_B
    scaled = PGD(loss=loss)(Scaled(model, factor), x, label, threat, generator()).robust_B
    assert scaled.sum() <= once.sum() + 1
    assert 10 < once.sum() < 90


@threats
@pytest.mark.parametrize("loss", ["margin", "dlr"])
@pytest.mark.parametrize("factor", [0.01, 100])
def test_margin_and_dlr_have_no_scale(sturdy: Trained, threat: Threat, loss: Loss, factor: float) -> None:
    model, x, label = sturdy
    once = PGD(loss=loss)(model, x, label, threat, generator()).robust_B
    assert (once != PGD(loss=loss)(Scaled(model, factor), x, label, threat, generator()).robust_B).sum() <= 1


@threats
@pytest.mark.parametrize("every", [False, True])
def test_memory_changes_no_answer(sturdy: Trained, threat: Threat, every: bool, narrow: Narrowing) -> None:
    model, x, label = sturdy[0], sturdy[1][:40], sturdy[2][:40].clone()
    label[::4] = (label[::4] + 1) % 10  # wrong unperturbed
    draws = generator(), generator()
    ample, short = (
        PGD(restarts=3)(victim, x, label, threat, own, every=every)
        for victim, own in zip((model, narrow(model)), draws, strict=True)
    )
    for one, other in zip(ample[:3], short[:3], strict=True):
        assert torch.equal(one, other)
    torch.testing.assert_close(ample.examples_BCHW, short.examples_BCHW, atol=1e-5, rtol=0)
    assert torch.equal(draws[0].get_state(), draws[1].get_state())


@threats
def test_an_image_is_answered_alike_whichever_others_stand(sturdy: Trained, threat: Threat) -> None:
    model, x, label = sturdy
    some = torch.arange(len(x)) % 3 == 0
    everything = PGD(restarts=3)(model, x, label, threat, generator())
    few = PGD(restarts=3)(model, x, label.where(some, (label + 1) % 10), threat, generator())
    assert torch.equal(few.robust_B, everything.robust_B & some)
    assert torch.equal(few.attacked_B[some], everything.attacked_B[some])


@pytest.mark.parametrize("every", [False, True])
def test_what_is_answered_is_what_the_model_answers(sturdy: Trained, every: bool) -> None:
    model, x, label = sturdy[0], sturdy[1], sturdy[2].clone()
    label[::4] = (label[::4] + 1) % 10
    found = PGD(restarts=2)(model, x, label, THREATS[0], generator(), every=every)
    assert torch.equal(found.clean_B, model(x).argmax(1))
    assert torch.equal(found.attacked_B, model(found.examples_BCHW).argmax(1))
    assert torch.equal(found.attacked_B == label, found.robust_B)
    assert torch.equal((found.examples_BCHW == x).flatten(1).all(1), (found.clean_B != label) & (not every))


def test_every_second_restart_of_cross_entropy_is_on_the_margin(sturdy: Trained) -> None:
    model, x, label = sturdy

    def robust(loss: Loss, restarts: int, draws: torch.Generator) -> Tensor:
        return PGD(loss=loss, restarts=restarts)(model, x, label, THREATS[0], draws).robust_B

    draws = generator()
    apart = [robust(loss, 1, draws) for loss in ("ce", "margin", "ce")]
    assert torch.equal(robust("ce", 3, generator()), apart[0] & apart[1] & apart[2])
    assert not torch.equal(apart[1], apart[0])


@threats
@losses
def test_a_model_without_gradients_is_attacked_by_the_starts_alone(sturdy: Trained, threat: Threat, loss: Loss) -> None:
    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = sturdy[0](x).detach()
            return logits

    found = PGD(loss=loss, restarts=2)(Cut(), sturdy[1], sturdy[2], threat, generator())
    assert found.robust_B.any()
    assert found.examples_BCHW.isfinite().all()


@pytest.mark.parametrize(("loss", "least"), [("ce", 2), ("margin", 2), ("dlr", 3)])
def test_as_few_classes_as_the_loss_needs_will_do_and_fewer_are_an_error(
    sturdy: Trained, loss: Loss, least: int
) -> None:
    model, own = sturdy[0], sturdy[2] < 2
    x, label = sturdy[1][own], sturdy[2][own]
    threat = Threat(eps=0.4, step_size=0.08)
    found = PGD(loss=loss)(Scaled(model, classes=least), x, label, threat, generator())
    assert not found.robust_B.all()
    if loss == "dlr":
        with pytest.raises(ValueError, match="loss dlr needs at least 3 classes, the model has 2: choose ce or margin"):
            PGD(loss=loss)(Scaled(model, classes=2), x, label, threat, generator())


@pytest.mark.parametrize("option", [{"loss": "cw"}, {"restarts": 0}, {"restarts": 1.5}])
def test_an_option_that_makes_no_attack_is_named(option: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        PGD(**option)  # type: ignore[arg-type]


def test_no_images_are_no_answers(sturdy: Trained) -> None:
    found = PGD(restarts=2)(sturdy[0], sturdy[1][:0], sturdy[2][:0], THREATS[0], generator(), every=True)
    assert [len(part) for part in found] == [0, 0, 0, 0]
