"""What the contract allows and is perhaps not meant: warnings, which fail nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch

from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Batch, Defense
from advss.randomness import stream
from advss.testing.defended import attacked, defense_of, objectives
from advss.testing.ready import expect_finite, ready
from advss.testing.stand_ins import FACTS, every_batch, one_batch
from advss.testing.subject import Subject
from advss.testing.verdicts import DoubtError

FALLS = 0.01  # share of the clean loss that an attack must take off to be said to descend


def gradient_reaches_every_image(subject: Subject) -> None:
    """An image without one is neither learned from nor attacked, as one that a hinge or a mask leaves out."""
    it = ready(subject)
    views = it.views()
    inputs = tuple(x.clone().requires_grad_() for x in views.inputs)
    value = it.loss(replace(views, inputs=inputs)).value
    expect_finite(value)
    for place, g in enumerate(torch.autograd.grad(value, inputs, materialize_grads=True)):
        still_B = g.flatten(1).abs().amax(1) == 0
        if still_B.any():
            images = ", ".join(map(str, still_B.nonzero()[:, 0].tolist()))
            raise DoubtError(
                f"no gradient reaches image {images} of input {place}, of {len(g)}; is the loss a mean over all images?"
            )


def its_loss_does_not_change_with_the_labels(subject: Subject) -> None:
    """A task that looks at them is supervised, and cannot be pretrained on images without."""
    values = []
    for shift in (0, 1):
        it = ready(subject, prepared=False)
        it.look_at_data(_relabelled(every_batch(), shift), stream("cpu", "look"))
        (batch,) = _relabelled([one_batch()], shift)
        values.append(it.sure_loss(it.views(batch=batch)))
    if not torch.allclose(values[0], values[1], rtol=1e-6, atol=1e-7):
        raise DoubtError(
            f"the loss is {float(values[0]):.6g}, and {float(values[1]):.6g} when the images have other labels; a "
            "pretext task does without, so that it trains on unlabelled images, whose label is -1"
        )


def an_attack_ascends(subject: Subject) -> None:
    """In eval mode, and where it is of its kind: not asked of noise, nor of what claims no robustness."""
    defense = defense_of(subject)
    if defense.noise > 0 or not defense.adversarial:
        return
    falls = [_fall(defense_of(subject), objective) for objective, _ in objectives()]
    if min(falls) > FALLS:
        raise DoubtError(
            f"attack() lowers the loss in all that was tried, by {100 * min(falls):.0f} % and more; is its step's sign "
            "the gradient's?"
        )


def _fall(defense: Defense, objective: TaskObjective) -> float:
    """By which share the attack lowers the loss."""
    inputs = attacked(defense, objective)
    with torch.no_grad(), objective.attacking("eval"):
        clean, after = (float(objective(x, penalty=False).value) for x in (objective.inputs, inputs))
    return (clean - after) / abs(clean)


def _relabelled(batches: Iterable[Batch], shift: int) -> Iterator[Batch]:
    return (replace(batch, label=(batch.label + shift) % FACTS.classes) for batch in batches)
