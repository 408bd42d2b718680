from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from advss.hookspecs import Batch, Encoder, Loss, Views
from advss.testing.checks import losses
from advss.testing.stand_ins import Mirror, TwoSizes
from advss.testing.subject import Subject
from advss.testing.verdicts import Verdict

Ask = Callable[..., Verdict]
Targets = dict[str, Tensor]
FACTS = [
    losses.the_loss_is_a_finite_float32_scalar,
    losses.logits_and_metrics_are_of_their_form,
    losses.the_loss_repeats_at_a_seed,
    losses.an_attack_moves_no_state,
    losses.gradient_reaches_every_input,
    losses.gradient_reaches_the_encoder,
    losses.gradient_reaches_every_parameter_of_its_own,
    losses.freezing_changes_neither_loss_nor_gradient,
    losses.what_is_attacked_has_logits_too,
]
scalar, form, repeats, still, inputs_reached, encoder_reached, own_reached, frozen, ascended = FACTS


class Told(Mirror):
    """Hands on what :meth:`changed` makes of the loss."""

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        return self.changed(super().loss(encoder, inputs, targets))

    def changed(self, loss: Loss) -> Loss:
        raise NotImplementedError


class PerImage(Told):
    def changed(self, loss: Loss) -> Loss:
        return Loss(loss.logits[0].logsumexp(1), loss.logits)


class Infinite(Told):
    def changed(self, loss: Loss) -> Loss:
        return Loss(loss.value / 0, loss.logits)


class Half(Told):
    def changed(self, loss: Loss) -> Loss:
        return Loss(loss.value.bfloat16(), loss.logits)


class Number(Told):
    def changed(self, loss: Loss) -> Loss:
        return Loss(float(loss.value.detach()))  # type: ignore[arg-type]


class Bare(Told):
    def changed(self, loss: Loss) -> Loss:
        return loss.value  # type: ignore[return-value]


class FlatLogits(Told):
    def changed(self, loss: Loss) -> Loss:
        return Loss(loss.value, (loss.logits[0].flatten(),))


class HalfLogits(Told):
    def changed(self, loss: Loss) -> Loss:
        return Loss(loss.value, (loss.logits[0].bfloat16(),))


class OneLogits(Told):
    def changed(self, loss: Loss) -> Loss:
        return Loss(loss.value, loss.logits[0])  # type: ignore[arg-type]


class FloatLabels(Told):
    def changed(self, loss: Loss) -> Loss:
        return Loss(loss.value, loss.logits, labels=(torch.zeros(6),))


class FewLabels(Told):
    def changed(self, loss: Loss) -> Loss:
        return Loss(loss.value, loss.logits, labels=(torch.zeros(1, dtype=torch.int64),))


class HighLabels(Told):
    def changed(self, loss: Loss) -> Loss:
        return Loss(loss.value, loss.logits, labels=(torch.full((6,), 2),))


class TwoWeights(Told):
    def changed(self, loss: Loss) -> Loss:
        return Loss(loss.value, loss.logits, weights=(1.0, 0.5))


class NoMetrics(Told):
    def changed(self, loss: Loss) -> Loss:
        return Loss(loss.value, loss.logits, None)  # type: ignore[arg-type]


class NumberMetric(Told):
    def changed(self, loss: Loss) -> Loss:
        return Loss(loss.value, metrics={"norm": 0.5})  # type: ignore[dict-item]


class GraphMetric(Told):
    def changed(self, loss: Loss) -> Loss:
        return Loss(loss.value, metrics={"norm": loss.value * 2})


class OwnPenalty(Told):
    def changed(self, loss: Loss) -> Loss:
        return Loss(loss.value, penalty=loss.value)


class OwnGenerator(Mirror):
    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.own = torch.Generator()

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        noise = torch.rand(inputs[0].shape, generator=self.own)
        return super().loss(encoder, (inputs[0] + noise,), targets)


class Queue(Mirror):
    """Moves its buffer in loss()."""

    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(()))

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        self.seen += 1
        return super().loss(encoder, inputs, targets)


class InstanceStatistics(Mirror):
    """A norm with running statistics that is no BatchNorm."""

    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.norm = nn.InstanceNorm2d(3, track_running_stats=True)

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        return super().loss(encoder, (self.norm(inputs[0]),), targets)


class ThawsInFreeze(Mirror):
    """Lets statistics of its own move where it is attacked in eval mode."""

    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.norm = nn.BatchNorm2d(3)

    def freeze(self, encoder: Any, views: Views) -> Views:
        self.norm.train()
        return Views(views.inputs, views.targets | {"x": self.norm(views.inputs[0])})


class Detached(Mirror):
    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        return super().loss(encoder, (inputs[0].detach(),), targets)


class Rounded(Mirror):
    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        return super().loss(encoder, (inputs[0].mul(255).round() / 255,), targets)


class NoGraph(Mirror):
    @torch.no_grad()
    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        return super().loss(encoder, inputs, targets)


class SecondForgotten(TwoSizes):
    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        return Mirror.loss(self, encoder, inputs[:1], targets)


class FromTargets(Mirror):
    """Looks at a copy of the images that is not attacked."""

    def views(self, batch: Batch, generator: Generator) -> Views:
        found = super().views(batch, generator)
        return Views(found.inputs, found.targets | {"x": found.inputs[0]})

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        return super().loss(encoder, (targets["x"],), targets)


class UnusedBranch(Mirror):
    branches = ("main", "clean")


class EncoderFixed(Mirror):
    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        with torch.no_grad():
            features = encoder(inputs[0])
        loss = Mirror.loss(self, lambda x: features, inputs, targets)  # type: ignore[arg-type]
        return Loss(loss.value + inputs[0].mean(), loss.logits)


class UnusedHead(Mirror):
    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.spare = nn.Linear(2, 2)


class Teacher(Mirror):
    """A teacher that build() freezes, through which the inputs have a gradient."""

    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.teacher = nn.Linear(encoder.channels, 2).requires_grad_(False)

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        loss = super().loss(encoder, inputs, targets)
        return Loss(loss.value + self.teacher(encoder(inputs[0]).mean((2, 3))).mean(), loss.logits)


class AttackedWithoutLogits(Mirror):
    def attacked(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        return Loss(self.loss(encoder, inputs, targets).value)


class FreezesInputs(Mirror):
    """Takes for fixed what depends on the input."""

    def freeze(self, encoder: Any, views: Views) -> Views:
        return Views(views.inputs, views.targets | {"z": encoder(views.inputs[0])})

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        features = targets["z"] + 0 * inputs[0].mean() if "z" in targets else encoder(inputs[0])
        return super().loss(lambda x: features, inputs, targets)  # type: ignore[arg-type]


class FreezesOtherInputs(Mirror):
    def freeze(self, encoder: Any, views: Views) -> Views:
        return Views((views.inputs[0] * 0.5,), views.targets)


BROKEN = [
    (PerImage, scalar, r"Loss.value has shape \(6,\); give a scalar, the mean over the batch"),
    (Infinite, scalar, "Loss.value is inf"),
    (Half, scalar, r"Loss.value is torch.bfloat16; give float32: .float\(\)"),
    (Number, scalar, "Loss.value is float; give a tensor"),
    (Bare, scalar, r"loss\(\) returns Tensor of shape \(\); return Loss\("),
    (FlatLogits, form, r"Loss.logits has shape \(12,\); the first dimension is B = 6"),
    (HalfLogits, form, "Loss.logits is torch.bfloat16; give finite float32"),
    (OneLogits, form, r"Loss.logits is Tensor of shape \(6, 2\); give a tuple"),
    (FloatLabels, form, "Loss.labels holds torch.float32; give int64"),
    (FewLabels, form, r"Loss.labels has shapes \[\(1,\)\] for logits that ask for \[\(6,\)\]"),
    (HighLabels, form, "Loss.labels reaches 2 where logits are of 2 classes; give 0 to 1, or -1 for none"),
    (TwoWeights, form, "Loss.weights has 2 entries for 1 logits"),
    (NoMetrics, form, r"Loss.metrics is NoneType; give \{name: scalar tensor\}"),
    (NumberMetric, form, "metric 'norm' is float; give a scalar tensor"),
    (GraphMetric, form, "metric 'norm' has a gradient; give"),
    (OwnPenalty, form, r"loss\(\) sets Loss.penalty"),
    (OwnGenerator, repeats, "under the same seed; .*not from NumPy, Python's random or a generator of its own"),
    (Queue, still, r"'seen' moved while the inputs were attacked; .*move other state in after_step"),
    (InstanceStatistics, still, "'norm.running_mean' moved while the inputs were attacked; BatchNorm's"),
    (ThawsInFreeze, still, r"'norm.running_mean' moved while the inputs were attacked; .*set no mode in freeze\(\)"),
    (Detached, inputs_reached, "no gradient reaches input 0, so no attack moves it"),
    (Rounded, inputs_reached, "no gradient reaches input 0"),
    (NoGraph, inputs_reached, r"the loss has no gradient at all; was it computed under no_grad\(\)"),
    (SecondForgotten, inputs_reached, "no gradient reaches input 1"),
    (FromTargets, inputs_reached, "no gradient reaches input 0.*not from targets"),
    (
        UnusedBranch,
        encoder_reached,
        r"no gradient reaches the encoder's '.*branches\.@clean.*'; it names that BatchNorm",
    ),
    (EncoderFixed, encoder_reached, r"no gradient reaches the encoder's 'stages.0.weight'$"),
    (UnusedHead, own_reached, "parameter 'spare.weight' gets no gradient from the loss; leave it out"),
    (AttackedWithoutLogits, ascended, r"attacked\(\) gives 0 logits where loss\(\) gives 1; give as many"),
    (FreezesInputs, frozen, r"loss or gradient is another with what freeze\(\) computed"),
    (FreezesOtherInputs, frozen, r"freeze\(\) changes the inputs"),
]


@pytest.mark.parametrize("fact", FACTS)
@pytest.mark.parametrize("offered", [Mirror, TwoSizes, Teacher])
def test_a_sound_task_passes(ask: Ask, offered: type, fact: Callable[[Subject], None]) -> None:
    assert ask(offered, fact).message == ""


@pytest.mark.parametrize(
    ("offered", "fact", "message"), BROKEN, ids=[f"{case[0].__name__}-{case[1].__name__}" for case in BROKEN]
)
def test_it_is_caught(ask: Ask, offered: type, fact: Callable[[Subject], None], message: str) -> None:
    verdict = ask(offered, fact)
    assert verdict.outcome == "failed"
    assert re.search(message, verdict.message), verdict.message
