"""The auxiliary rotation loss: five inputs, one pass, and the loss written down in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Batch
from advss.models.classifier import ImageClassifier
from advss.models.encoder import TimmEncoder
from advss.randomness import global_stream
from advss.training.work import Modules
from advss_defenses.pgd import PGD
from advss_defenses.trades import Trades
from advss_finetune.full import Full
from advss_finetune.rotation_aux import RotationAux

Built = tuple[RotationAux, ImageClassifier]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def built(encoder: TimmEncoder, *, weight: float = 0.5) -> Built:
    scheme = RotationAux(weight=weight)
    with global_stream("cpu", "init"):
        classifier = ImageClassifier(encoder, encoder.tail(), 4)
        scheme.build(classifier)
    return scheme, classifier


def objective_of(parts: Built, batch: Batch) -> TaskObjective:
    scheme, classifier = parts
    views = (scheme.views(batch, generator()),)
    return TaskObjective(classifier, {"rotation-aux": scheme}, views, stage="finetune", key=(0,))


# ---------------------------------------------------------------- the inputs
def test_inputs_are_the_images_and_then_their_four_turns(encoder: TimmEncoder, batch: Batch) -> None:
    """Anticlockwise: turned by 90°, the last column becomes the first row."""
    scheme, _ = built(encoder)
    image, upright, once, twice, thrice = scheme.views(batch, generator()).inputs
    x = batch.x
    assert torch.equal(image, x)
    assert torch.equal(upright, x)
    for i in range(32):
        assert torch.equal(once[:, :, i, :], x[:, :, :, 31 - i])
        assert torch.equal(thrice[:, :, i, :], x[:, :, :, i].flip(2))
    assert torch.equal(twice, x.flip(2, 3))


def test_the_image_and_its_copy_turned_by_0_are_attacked_apart(encoder: TimmEncoder, batch: Batch) -> None:
    objective = objective_of(built(encoder), batch)
    found = PGD(eps=0.1, step_size=0.03).attack(objective, generator())
    deltas = [x - clean for x, clean in zip(found, objective.inputs, strict=True)]
    assert len(deltas) == 5
    assert all(0.05 < float(delta.abs().max()) <= 0.1 + 1e-6 for delta in deltas)
    pairs = [(i, j) for i in range(5) for j in range(i)]
    assert all(not torch.equal(deltas[i], deltas[j]) for i, j in pairs)


def test_without_a_random_start_the_two_copies_go_after_different_losses(encoder: TimmEncoder, batch: Batch) -> None:
    """What sets them apart is the loss that each is for, not the draw of their starts."""
    objective = objective_of(built(encoder), batch)
    objective.root.eval()
    image, upright, *_ = PGD(eps=0.1, step_size=0.1, steps=1, random_start=False).attack(objective, generator())
    alone = batch.x.clone().requires_grad_()
    trunk = objective.root.trunk
    value = nn.functional.cross_entropy(trunk(alone), batch.label)
    gradient = torch.autograd.grad(value, alone)[0]
    reached = gradient != 0  # not where every path ends in a dead ReLU
    expected = (batch.x + 0.1 * gradient.sign()).clamp(0, 1)[reached]
    torch.testing.assert_close(image[reached], expected)
    assert ((upright[reached] - expected).abs() < 1e-6).double().mean() < 0.9


# ---------------------------------------------------------------- the loss
@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_logits_weigh_as_much_as_in_the_loss(encoder: TimmEncoder, batch: Batch, weight: float) -> None:
    """Cross-entropy to the labels, mean over images and summed over turns, weighted, is the loss itself."""
    objective = objective_of(built(encoder, weight=weight), batch)
    loss = objective(objective.inputs)
    parts = [
        w * nn.functional.cross_entropy(z.flatten(0, -2), label.flatten(), reduction="sum") / len(batch.x)
        for z, label, w in zip(loss.logits, loss.labels, loss.weights, strict=True)
    ]
    torch.testing.assert_close(torch.stack(parts).sum(), loss.value)


def test_trades_weighs_the_turns_as_the_loss_does(encoder: TimmEncoder, batch: Batch) -> None:
    objective = objective_of(built(encoder, weight=0.5), batch)
    inputs = tuple((x + 0.05).clamp(0, 1) for x in objective.inputs)
    clean, attacked = objective(objective.inputs), objective(inputs)
    kls = [
        (p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).sum() / len(batch.x)
        for p, q in zip(clean.logits, attacked.logits, strict=True)
    ]
    found = Trades(beta=3.0).loss(objective, inputs, generator()).value
    torch.testing.assert_close(found, clean.value + 3 * (kls[0] + 0.5 / 4 * kls[1]), rtol=1e-4, atol=1e-5)


def cross_entropy(logits: Tensor, own: list[int]) -> Tensor:
    values = [z.exp().sum().log() - z[k] for z, k in zip(logits, own, strict=True)]
    return torch.stack(values).sum() / len(own)


@pytest.mark.parametrize("weight", [0.5, 2.0])
@pytest.mark.parametrize("training", [True, False])
def test_the_loss_is_cross_entropy_plus_a_quarter_of_the_weight_a_turn(
    encoder: TimmEncoder, batch: Batch, weight: float, training: bool
) -> None:
    """One pass over the five inputs in order, in float64; in train mode BatchNorm sees all of them."""
    scheme, classifier = (part.double().train(training) for part in built(encoder, weight=weight))
    assert isinstance(scheme, RotationAux)
    assert isinstance(classifier, ImageClassifier)
    inputs = tuple(x.double() for x in scheme.views(batch, generator()).inputs)
    inputs = tuple(x + 0.01 * i for i, x in enumerate(inputs))  # as if attacked: no two are equal
    together = torch.cat(inputs)
    features = classifier.tail(classifier.encoder(together)).detach().clone()
    classes = features @ classifier.head.weight.T + classifier.head.bias
    turns = features @ scheme.head.weight.T + scheme.head.bias
    expected = cross_entropy(classes[:4].detach(), batch.label.tolist())
    for turn in range(4):
        own = turns[4 + 4 * turn : 8 + 4 * turn].detach()
        expected = expected + weight / 4 * cross_entropy(own, [turn] * 4)
    loss = scheme.loss(classifier, inputs, {"label": batch.label})
    assert float(loss.value.detach()) == pytest.approx(float(expected), rel=1e-5)  # logits are float32
    right = sum(int(turns[4 + 4 * turn + i].argmax() == turn) for turn in range(4) for i in range(4))
    assert float(loss.metrics["rotation_accuracy"]) == pytest.approx(right / 16)
    assert float(loss.metrics["accuracy"]) == pytest.approx(
        float((classes[:4].argmax(1) == batch.label).double().mean())
    )


def test_logits_are_the_classes_of_the_images_and_the_turns_of_each(encoder: TimmEncoder, batch: Batch) -> None:
    scheme, classifier = built(encoder)
    classifier.eval()
    views = scheme.views(batch, generator())
    classes, turns = scheme.loss(classifier, views.inputs, views.targets).logits
    torch.testing.assert_close(classes, classifier(batch.x))
    assert turns.shape == (4, 4, 4)
    for turn in range(4):
        features = classifier.tail(classifier.encoder(views.inputs[1 + turn]))
        torch.testing.assert_close(turns[:, turn], scheme.head(features))


def test_with_weight_0_it_is_cross_entropy_of_the_images(encoder: TimmEncoder, batch: Batch) -> None:
    """In eval mode: BatchNorm in train mode sees the turns too."""
    scheme, classifier = built(encoder, weight=0.0)
    classifier.eval()
    views, plain = scheme.views(batch, generator()), Full().views(batch, generator())
    found = scheme.loss(classifier, views.inputs, views.targets).value
    expected = Full().loss(classifier, plain.inputs, plain.targets).value
    torch.testing.assert_close(found, expected)
    learning = list(classifier.parameters())
    gradients = [torch.autograd.grad(value, learning) for value in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_the_weight_is_a_half_by_default(encoder: TimmEncoder, batch: Batch) -> None:
    said, classifier = built(encoder, weight=0.5)
    by_default = RotationAux()
    by_default.head = said.head
    views = said.views(batch, generator())
    values = [scheme.loss(classifier, views.inputs, views.targets).value for scheme in (said, by_default)]
    assert torch.equal(*values)


def test_batch_norm_sees_the_five_inputs_in_one_pass(encoder: TimmEncoder, batch: Batch) -> None:
    parts = built(encoder)
    sizes: list[int] = []
    encoder.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    objective = objective_of(parts, batch)
    objective(objective.inputs)
    assert sizes == [5 * len(batch.x)]


# ---------------------------------------------------------------- what trains
def test_classifier_and_rotation_head_train_in_one_phase(encoder: TimmEncoder, batch: Batch) -> None:
    scheme, classifier = parts = built(encoder)
    (phase,) = scheme.phases(classifier)
    assert phase.share == 1.0
    modules = Modules(classifier, {"rotation-aux": scheme}, "finetune")
    optimizer = torch.optim.SGD(phase.groups, lr=0.1, weight_decay=0.1)
    before = {name: t.clone() for name, t in modules.named_state().items()}
    for _ in range(2):  # a residual branch begins at 0, and lets no gradient through at the first step
        optimizer.zero_grad()
        objective = objective_of(parts, batch)
        objective(objective.inputs).total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    still = {name for name, t in modules.named_state().items() if torch.equal(t, before[name])}
    assert still == {"encoder.mean", "encoder.std"}


def test_a_checkpoint_has_the_rotation_head_apart_from_the_classifier(encoder: TimmEncoder) -> None:
    scheme, classifier = built(encoder)
    state = Modules(classifier, {"rotation-aux": scheme}, "finetune").named_state()
    own = {name: tuple(t.shape) for name, t in state.items() if name.startswith("scheme.")}
    assert own == {"scheme.head.weight": (4, encoder.features), "scheme.head.bias": (4,)}


@pytest.mark.parametrize("weight", [-0.5, math.nan, math.inf])
def test_a_weight_out_of_range_is_an_error(weight: float) -> None:
    with pytest.raises(ValueError, match="weight must be at least 0 and finite, got"):
        RotationAux(weight=weight)
