"""Validation: what counts as right, the loss, and which epoch is best."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from advss.arithmetic import Arithmetic
from advss.config import EvalSettings
from advss.hookspecs import Batch, Defense, accuracy
from advss.stages.validation import ValidationImages, classifier_score, classifier_validation, pretext_score
from advss.training.signals import StopRequest


class HalfNan(nn.Module):
    """Class 0, but no number at all for dark images."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        dark_B = x_BCHW.mean((1, 2, 3)) < 0.25
        return (torch.tensor([1.0, 0.0]) + 0 * x_BCHW.sum((1, 2, 3))[:, None]).masked_fill(dark_B[:, None], torch.nan)


class Batches:
    """Two batches, of 3 images and of 1; the last two of the first are dark."""

    def in_order(self, size: int) -> Iterator[Batch]:
        for levels in ([0.5, 0.0, 0.0], [0.5]):
            x = torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).clone()
            yield Batch(x, x, torch.arange(len(x)), torch.zeros(len(x), dtype=torch.int64))


@pytest.mark.parametrize(("adversarial", "metrics"), [(False, {"ta": 0.5}), (True, {"ta": 0.5, "ra": 0.5})])
def test_images_without_finite_logits_are_wrong(adversarial: bool, metrics: dict[str, float]) -> None:
    settings = EvalSettings(eps=0.01, step_size=0.01, valid_steps=1)
    images = ValidationImages(cast(Any, Batches()), cast(Any, Batches()))
    validate = classifier_validation(images, settings, seed=0, adversarial=adversarial, stop=StopRequest())
    assert metrics.items() <= validate(cast(Any, SimpleNamespace(trunk=HalfNan())), Arithmetic()).items()


@pytest.mark.parametrize("adversarial", [False, True])
def test_loss_is_the_cross_entropy_of_the_clean_images(adversarial: bool) -> None:
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    settings = EvalSettings(valid_steps=1)
    images = ValidationImages(cast(Any, Batches()), cast(Any, Batches()))
    validate = classifier_validation(images, settings, seed=0, adversarial=adversarial, stop=StopRequest())
    measured = validate(cast(Any, SimpleNamespace(trunk=trunk)), Arithmetic())
    logs_BK = torch.cat([trunk(batch.x) for batch in Batches().in_order(4)]).detach().double().log_softmax(1)
    assert measured["clean/loss"] == pytest.approx(float(-logs_BK[:, 0].mean()), rel=1e-5)


def test_a_tasks_accuracy_ranks_no_answer_first_where_the_largest_is_not_finite() -> None:
    nan, inf = torch.nan, torch.inf
    logits = torch.tensor([[1.0, 0.0], [1.0, -inf], [nan, nan], [1.0, nan], [inf, 0.0], [-inf, -inf], [0.0, 1.0]])
    assert accuracy(logits, torch.zeros(7, dtype=torch.int64)) == pytest.approx(2 / 7)


# ---------------------------------------------------------------- which epoch is best
def test_adversarial_classifiers_are_ranked_by_ra_then_ta() -> None:
    score = classifier_score(adversarial=True)
    epochs = [{"ra": 0.3, "ta": 0.9}, {"ra": 0.4, "ta": 0.5}, {"ra": 0.4, "ta": 0.6}]
    assert max(range(3), key=lambda i: score(epochs[i])) == 2


def test_standard_classifiers_are_ranked_by_ta() -> None:
    assert classifier_score(adversarial=False)({"ta": 0.6}) == (0.6,)


PRETEXT: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "adversarial accuracy": (
        {"adversarial/accuracy": 0.4, "adversarial/loss": 2.0, "clean/accuracy": 0.5, "clean/loss": 2.0},
        {"adversarial/accuracy": 0.3, "adversarial/loss": 1.0, "clean/accuracy": 0.9, "clean/loss": 1.0},
    ),
    "clean accuracy without an attack": (
        {"clean/accuracy": 0.5, "clean/loss": 2.0},
        {"clean/accuracy": 0.4, "clean/loss": 1.0},
    ),
    "loss without an accuracy": ({"clean/loss": 1.0}, {"clean/loss": 2.0}),
    "mean accuracy of an ensemble": (
        {"clean/loss": 9.0, "clean/a/loss": 1.0, "clean/b/loss": 8.0, "clean/a/accuracy": 0.8, "clean/b/accuracy": 0.6},
        {"clean/loss": 2.0, "clean/a/loss": 1.0, "clean/b/loss": 1.0, "clean/a/accuracy": 0.9, "clean/b/accuracy": 0.3},
    ),
    "loss where one member has no accuracy": (
        {"clean/loss": 2.0, "clean/a/loss": 1.0, "clean/b/loss": 1.0, "clean/a/accuracy": 0.3},
        {"clean/loss": 9.0, "clean/a/loss": 1.0, "clean/b/loss": 8.0, "clean/a/accuracy": 0.8},
    ),
    "accuracy beside a metric that is called a loss": (
        {"clean/loss": 9.0, "clean/a/loss": 1.0, "clean/b/loss": 8.0, "clean/a/accuracy": 0.8, "clean/b/accuracy": 0.6}
        | {"clean/a/kl_loss": 1.0},
        {"clean/loss": 2.0, "clean/a/loss": 1.0, "clean/b/loss": 1.0, "clean/a/accuracy": 0.9, "clean/b/accuracy": 0.3}
        | {"clean/a/kl_loss": 0.0},
    ),
}


@pytest.mark.parametrize("by", PRETEXT)
def test_pretext_epochs_are_ranked_by(by: str) -> None:
    better, worse = PRETEXT[by]
    assert pretext_score(better) > pretext_score(worse)


def test_a_defense_is_adversarial_unless_it_says_otherwise() -> None:
    assert Defense.adversarial
