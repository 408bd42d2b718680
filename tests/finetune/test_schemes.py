"""Partial and full fine-tuning: what trains, what stands still to the bit, and the loss."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Batch, FinetuneScheme
from advss.models.classifier import ImageClassifier
from advss.models.encoder import TimmEncoder
from advss.randomness import global_stream
from advss.training.work import set_trainable
from advss_defenses.pgd import PGD
from advss_finetune.full import Full
from advss_finetune.partial import Partial
from advss_finetune.rotation_aux import RotationAux


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def classifier(encoder: TimmEncoder, *, loaded: str) -> ImageClassifier:
    """A classifier whose encoder, or encoder and last stage, or nothing, pretraining gave."""
    model = ImageClassifier(encoder, encoder.tail(), 4)
    if loaded != "nothing":
        model.load_pretrained(encoder.state_dict(), model.tail.state_dict() if loaded == "tail" else None)
    return model


def training(scheme: FinetuneScheme, model: ImageClassifier) -> set[str]:
    """Names of the parameters in the scheme's phases."""
    (phase,) = scheme.phases(model)
    assert phase.share == 1.0
    chosen = [id(p) for group in phase.groups for p in group["params"]]
    assert len(chosen) == len(set(chosen))
    return {name for name, p in model.named_parameters() if id(p) in chosen}


def under(model: nn.Module, *places: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(places)}


def test_partial_trains_the_head_where_a_last_stage_was_loaded(encoder: TimmEncoder) -> None:
    model = classifier(encoder, loaded="tail")
    assert training(Partial(), model) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("loaded", ["encoder", "nothing"])
def test_partial_trains_a_fresh_last_stage_too(encoder: TimmEncoder, loaded: str) -> None:
    model = classifier(encoder, loaded=loaded)
    assert training(Partial(), model) == under(model, "head.", "tail.")


@pytest.mark.parametrize("loaded", ["tail", "encoder", "nothing"])
def test_full_trains_everything(encoder: TimmEncoder, loaded: str) -> None:
    model = classifier(encoder, loaded=loaded)
    assert training(Full(), model) == under(model, "")


def stepped(scheme: FinetuneScheme, model: ImageClassifier, batch: Batch) -> set[str]:
    """Names in the state dict that a few training steps changed."""
    (phase,) = scheme.phases(model)
    set_trainable(model, phase)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    optimizer = torch.optim.SGD(phase.groups, lr=0.1, momentum=0.9, weight_decay=0.1)
    for step in range(2):
        objective = TaskObjective(
            model, {scheme.name: scheme}, (scheme.views(batch, generator()),), stage="finetune", key=(0, step)
        )
        optimizer.zero_grad()
        objective(objective.inputs).total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {name for name, t in model.state_dict().items() if not torch.equal(t, before[name])}


def test_under_partial_the_encoder_stands_to_the_bit_statistics_too(encoder: TimmEncoder, batch: Batch) -> None:
    model = classifier(encoder, loaded="tail")
    assert stepped(Partial(), model, batch) == {"head.weight", "head.bias"}


def test_under_partial_a_fresh_last_stage_moves_its_statistics_too(encoder: TimmEncoder, batch: Batch) -> None:
    model = classifier(encoder, loaded="encoder")
    changed = stepped(Partial(), model, batch)
    assert changed == {name for name in model.state_dict() if name.startswith(("head.", "tail."))}


def test_under_full_everything_moves_but_the_normalisation(encoder: TimmEncoder, batch: Batch) -> None:
    model = classifier(encoder, loaded="tail")
    assert stepped(Full(), model, batch) == set(model.state_dict()) - {"encoder.mean", "encoder.std"}


@pytest.mark.parametrize("scheme", [Partial(), Full()])
def test_the_loss_is_cross_entropy_of_the_classifier(
    encoder: TimmEncoder, batch: Batch, scheme: FinetuneScheme
) -> None:
    model = classifier(encoder, loaded="nothing").eval()
    views = scheme.views(batch, generator())
    assert torch.equal(views.inputs[0], batch.x)
    loss = scheme.loss(model, views.inputs, views.targets)
    logits = model(batch.x).detach().double()
    expected = (logits.logsumexp(1) - logits[torch.arange(len(logits)), batch.label]).mean()
    assert float(loss.value.detach()) == pytest.approx(float(expected), rel=1e-6)
    right = (logits.argmax(1) == batch.label).double().mean()
    assert float(loss.metrics["accuracy"]) == pytest.approx(float(right))


# ---------------------------------------------------------------- label smoothing
@pytest.mark.parametrize("scheme", [Full, Partial, RotationAux])
def test_smoothed_labels_are_the_closed_form_and_accuracy_is_what_it_was(
    encoder: TimmEncoder, batch: Batch, scheme: type[FinetuneScheme]
) -> None:
    """(1 - s)·CE + s · mean over the classes of -log p; only the classes' part of the loss is smoothed."""
    model = classifier(encoder, loaded="nothing").eval()
    plain, smoothed = scheme(), scheme(label_smoothing=0.3)
    for made in (plain, smoothed):
        with global_stream("cpu", "init"):
            made.build(model)
    views = plain.views(batch, generator())
    with torch.no_grad():
        before, after = (made.loss(model, views.inputs, views.targets) for made in (plain, smoothed))
    logs_BK = before.logits[0].double().log_softmax(1)
    entropy = -logs_BK[torch.arange(len(logs_BK)), batch.label].mean()
    assert float(after.value - before.value) == pytest.approx(0.3 * float(-logs_BK.mean() - entropy), rel=1e-4)
    assert after.metrics["accuracy"] == before.metrics["accuracy"]


def test_an_attack_ascends_the_smoothed_loss(encoder: TimmEncoder, batch: Batch) -> None:
    """One step of sign ascent from the image itself goes by the gradient of the closed form."""
    model = classifier(encoder, loaded="nothing").eval()
    scheme = Full(label_smoothing=0.9)
    objective = TaskObjective(model, {"full": scheme}, (scheme.views(batch, generator()),), stage="finetune", key=(0,))
    pgd = PGD(eps=0.1, step_size=0.01, steps=1, random_start=False)
    (found,) = pgd.attack(objective, generator())
    x = batch.x.clone().requires_grad_()
    logs_BK = model(x).log_softmax(1)
    loss = -0.1 * logs_BK[torch.arange(len(x)), batch.label].mean() - 0.9 * logs_BK.mean()
    (gradient,) = torch.autograd.grad(loss, x)
    other = (found - (batch.x + 0.01 * gradient.sign()).clamp(0, 1)).abs() > 1e-6
    assert float(other.float().mean()) < 0.01  # where the gradient is next to nothing, its sign is rounding's


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_smoothing_that_leaves_no_label_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\), got"):
        Full(label_smoothing=share)
