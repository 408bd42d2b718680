"""Standard training: the images as they are, and the objective at them."""

from __future__ import annotations

import torch

from advss.ensemble.objective import TaskObjective
from advss_defenses.none import NoDefense


def test_it_trains_on_the_clean_images(regression: TaskObjective) -> None:
    inputs = NoDefense().attack(regression, torch.Generator())
    assert all(torch.equal(x, clean) for x, clean in zip(inputs, regression.inputs, strict=True))


def test_its_loss_is_the_objective(regression: TaskObjective) -> None:
    loss = NoDefense().loss(regression, regression.inputs, torch.Generator())
    assert torch.equal(loss.total, regression(regression.inputs).total)


def test_its_stages_are_judged_by_clean_accuracy() -> None:
    assert not NoDefense.adversarial
