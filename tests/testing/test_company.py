from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from advss.hookspecs import Batch, Loss, Views
from advss.testing.checks import company
from advss.testing.stand_ins import Mirror, TwoSizes
from advss.testing.subject import Subject
from advss.testing.verdicts import Verdict, judge

Ask = Callable[..., Verdict]
Offer = Callable[..., Subject]
Targets = dict[str, Tensor]


def verdict_of(subject: Subject, name: str) -> Verdict:
    checks = [*company.checks_in_company(), *company.checks_under_defenses("pretext")]
    return judge(next(check for check in checks if check.name == name), subject)


class HalfLoss(Mirror):
    """Forgets that autocast gives bfloat16."""

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        logits = self.head(encoder(inputs[0]).mean((2, 3)))
        return Loss(logits.logsumexp(1).mean().to(logits.dtype))


class Imprecise(Mirror):
    """Subtracts large numbers of which bfloat16 keeps three digits."""

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        logits = self.head(encoder(inputs[0]).mean((2, 3))).mean()
        return Loss((logits + 1.6 + 1000 - 1000).float().square() + super().loss(encoder, inputs, targets).value)


class ViewOfChannels(Mirror):
    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        loss = super().loss(encoder, inputs, targets)
        return Loss(loss.value + inputs[0].view(-1).mean(), loss.logits)


class MemoryOrder(Mirror):
    """Reads pixels in the order in which they lie."""

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        loss = super().loss(encoder, inputs, targets)
        stored = inputs[0].as_strided((inputs[0].numel(),), (1,))
        return Loss(loss.value + stored[:3].sum(), loss.logits)


class NoLogits(Mirror):
    """A loss without logits, which TRADES cannot take."""

    def __init__(self) -> None:
        super().__init__(logits=False)


class Once(torch.autograd.Function):
    """The identity, whose gradient is no function of the input to autograd."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 1


class OnceDifferentiable(Mirror):
    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        return super().loss(encoder, (Once.apply(inputs[0]),), targets)


class OwnBranch(Mirror):
    """Breaks where the encoder has branches of others beside its own."""

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        assert not any(".branches." in name for name, _ in encoder.named_parameters())
        return super().loss(encoder, inputs, targets)


class Fragile(Mirror):
    """Its loss is not finite where attacked."""

    def views(self, batch: Batch, generator: Generator) -> Views:
        found = super().views(batch, generator)
        return Views(found.inputs, found.targets | {"clean": found.inputs[0]})

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        loss = super().loss(encoder, inputs, targets)
        moved = (inputs[0] - targets["clean"]).abs().amax()
        return Loss(torch.where(moved > 0, loss.value / 0, loss.value), loss.logits)


class BadGradient(Mirror):
    """A finite loss whose gradient is nan at distance 0."""

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        loss = super().loss(encoder, inputs, targets)
        weight = self.head.weight
        return Loss(loss.value + (weight - weight).square().sum().sqrt(), loss.logits)


class DroppedMaps(Mirror):
    """Dropout of feature maps, which draws in memory's order."""

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        return super().loss(lambda x: self.drop(encoder(x)), inputs, targets)  # type: ignore[arg-type]


def test_a_loss_in_bfloat16_is_caught(ask: Ask) -> None:
    message = ask(HalfLoss, company.the_loss_under_bfloat16_autocast_is_close).message
    assert message.startswith("under bfloat16 autocast the loss is torch.bfloat16; say .float()")


def test_a_loss_that_bfloat16_ruins_is_caught(ask: Ask) -> None:
    message = ask(Imprecise, company.the_loss_under_bfloat16_autocast_is_close).message
    assert re.match(r"the loss is \S+, and \S+ under bfloat16 autocast; do sums", message)


def test_a_view_across_channels_is_caught(ask: Ask) -> None:
    assert "view size is not compatible" in ask(ViewOfChannels, company.the_loss_in_channels_last_is_the_same).message


def test_a_loss_that_reads_memory_in_order_is_caught(ask: Ask) -> None:
    message = ask(MemoryOrder, company.the_loss_in_channels_last_is_the_same).message
    assert re.match(r"the loss is \S+, and \S+ in channels_last; use .reshape\(\)", message)


@pytest.mark.parametrize(
    "fact", [company.the_loss_under_bfloat16_autocast_is_close, company.the_loss_in_channels_last_is_the_same]
)
@pytest.mark.parametrize("offered", [Mirror, DroppedMaps])
def test_a_sound_task_passes(ask: Ask, offered: type, fact: Callable[[Subject], None]) -> None:
    assert ask(offered, fact).message == ""


def test_there_is_a_check_beside_each_built_in_task_with_and_without_diversity() -> None:
    names = {check.name for check in company.checks_in_company()}
    tasks = ("selfie", "rotation", "jigsaw")
    assert names == {f"it trains beside {t}{d}" for t in tasks for d in ("", " with diversity")}


def test_there_is_a_check_under_each_defense_alone_and_in_company() -> None:
    names = {check.name for check in company.checks_under_defenses("pretext")}
    defenses = ("none", "pgd", "trades", "fgsm-rs", "smoothing")
    assert names >= {f"it trains under {d}{c}" for d in defenses for c in ("", " in company")}


def test_a_scheme_has_no_company() -> None:
    assert not [check for check in company.checks_under_defenses("finetune") if "company" in check.name]


@pytest.mark.parametrize(
    "name", ["it trains beside rotation with diversity", "it trains under pgd", "it trains under pgd in company"]
)
def test_a_sound_task_trains_in_company(offer: Offer, name: str) -> None:
    assert verdict_of(offer(Mirror), name).message == ""


def test_a_task_that_cannot_be_differentiated_twice_fails_beside_others_with_diversity(offer: Offer) -> None:
    subject = offer(OnceDifferentiable)
    assert verdict_of(subject, "it trains beside rotation").outcome == "passed"
    assert "once_differentiable" in verdict_of(subject, "it trains beside rotation with diversity").message


def test_a_task_that_fails_on_an_encoder_of_several_branches_is_caught(offer: Offer) -> None:
    class Branched(OwnBranch):
        branches = ("mine",)

    assert "AssertionError" in verdict_of(offer(Branched), "it trains beside rotation").message


def test_inputs_of_another_size_are_refused_by_diversity_and_no_fault(offer: Offer) -> None:
    subject = offer(TwoSizes)
    verdict = verdict_of(subject, "it trains beside rotation with diversity")
    assert verdict.outcome == "unchecked"
    assert verdict_of(subject, "it trains under pgd").outcome == "passed"
    assert re.match("refused: --diversity: gradients of .* differ in shape", verdict.message)


def test_a_task_without_logits_is_refused_by_trades_and_no_fault(offer: Offer) -> None:
    verdict = verdict_of(offer(NoLogits), "it trains under trades")
    assert verdict.outcome == "unchecked"
    assert verdict.message.startswith("it gives no Loss.logits, which this defense needs")


def test_a_loss_that_an_attack_makes_infinite_is_caught(offer: Offer) -> None:
    assert verdict_of(offer(Fragile), "it trains under pgd").message.startswith("the training loss is ")


def test_a_gradient_that_is_not_finite_is_caught(offer: Offer) -> None:
    message = verdict_of(offer(BadGradient), "it trains under none").message
    assert message.startswith("the gradient of 'members.it.head.weight' is not finite")
