"""What loss() says, and what its gradient reaches."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from advss.hookspecs import Loss, Views
from advss.randomness import stream
from advss.testing.ready import Ready, expect_finite, own_parameters, ready, short
from advss.testing.slopes import Slopes, slopes
from advss.testing.subject import Subject
from advss.testing.verdicts import DoubtError, as_in_training, expect
from advss.training.form import check_metrics, check_precision

GROWS = 1e-3  # share of a loss by which it is another
GROWTH = 1.5  # of a loss from two to four times the images as a multiple of that from one to two: of a sum 2
APART = 0.05  # share by which gradient and differences may differ along its signs
ACROSS = 0.5  # and along random ones, where rounding and kinks are as large
EXACT = 0.01, 0.2  # the same two of a gradient that is of another length and no more


def the_loss_is_a_finite_float32_scalar(subject: Subject) -> None:
    """The trainer adds it up and differentiates it."""
    it = ready(subject)
    value = it.loss(it.views()).value
    as_in_training(check_precision, value)
    expect(value.isfinite(), f"Loss.value is {float(value.detach())} at random images and fresh heads")


def logits_and_metrics_are_of_their_form(subject: Subject) -> None:
    """Divergences take logits (B, ..., K) in float32; what is logged are scalars without gradient."""
    it = ready(subject)
    views = it.views()
    loss, size = it.loss(views), len(it.batch.x)
    for z in loss.logits:
        shape = tuple(z.shape)
        expect(len(shape) > 1 and shape[0] == size, f"Loss.logits has shape {shape}; the first dimension is B = {size}")
        expect(z.dtype == torch.float32 and z.isfinite().all(), f"Loss.logits is {z.dtype}; give finite float32")
    as_in_training(check_metrics, loss.metrics)
    expect(
        not isinstance(loss.penalty, Tensor) and loss.penalty == 0,
        "loss() sets Loss.penalty, which is core's diversity term; add it to value",
    )


def the_loss_repeats_at_a_seed(subject: Subject) -> None:
    """Twice under the same seed of the global generator, which core sets around each call."""
    it = ready(subject)
    views = it.views()
    first = it.loss(views).value
    second = it.loss(views).value
    expect_finite(first, second)
    expect(
        torch.equal(first, second),
        f"the loss is {float(first.detach()):.7g}, then {float(second.detach()):.7g} under the same seed; draw from "
        "torch's global generator, which core seeds around each call, or better in views() from the generator given: "
        "not from NumPy, Python's random or a generator of its own; and let loss() change no state",
    )


def the_loss_is_a_mean_over_the_batch(subject: Subject) -> None:
    """The same images twice and four times over: a sum grows as they do, a contrast with others by less each time."""
    it = ready(subject)
    views = it.views()
    once, twice, fourfold = (float(it.sure_loss(_times(views, number))) for number in (1, 2, 4))
    more, still_more = twice - once, fourfold - twice
    expect(
        abs(more) <= GROWS * (1 + abs(once)) or still_more / more < GROWTH,
        f"the loss of the same images once, twice and four times over is {once:.4g}, {twice:.4g} and {fourfold:.4g}, "
        "so that it grows as a sum; give the mean over the batch",
    )


def its_gradient_is_that_of_its_value(subject: Subject) -> None:
    """What is attacked, in eval mode along each input, against differences of its values in several directions."""
    it = ready(subject)
    it.modules.eval()
    views = it.views()
    expect_finite(it.loss(views).value)
    for place, x in enumerate(views.inputs):
        taken = partial(slopes, partial(_attacked_at, it, views, place), x)
        along, across = taken(stream("cpu", "slopes", place))
        if _agree(along, across):
            continue
        off = max(along.apart, across.apart)
        said = f"the gradient by input {place} is {100 * off:.0f} % off differences of the loss's values"
        longer = along.scaled().apart <= EXACT[0] and across.scaled().apart <= EXACT[1]
        expect(
            not longer and _agree(*taken(stream("cpu", "slopes", place), stopped=True)),
            f"{said}{f', which are {along.scale:.2g} times it' * longer}, so attacks go astray; mend the "
            "backward pass, or give in attacked() the loss that is to be ascended",
        )
        raise DoubtError(
            f"{said}, since detach() or no_grad() stops a part of it, which attacks do not see; is that the method's?"
        )


def _agree(along: Slopes, across: Slopes) -> bool:
    return along.apart <= APART and across.apart <= ACROSS


def _attacked_at(it: Ready, views: Views, place: int, x: Tensor) -> Tensor:
    inputs = (*views.inputs[:place], x, *views.inputs[place + 1 :])
    return it.loss(Views(inputs, views.targets), asked="attacked").value


def _times(views: Views, number: int) -> Views:
    """The same images ``number`` times over."""
    targets = {name: torch.cat([t] * number) if t.ndim else t for name, t in views.targets.items()}
    return Views(tuple(torch.cat([x] * number) for x in views.inputs), targets)


def an_attack_moves_no_state(subject: Subject) -> None:
    """As core attacks: BatchNorm's statistics are held, and nothing else may move in loss() or freeze()."""
    it = ready(subject)
    objective = it.objective()
    before = {name: t.clone() for name, t in it.modules.named_state().items()}
    modes: tuple[Literal["train", "eval"], ...] = ("train", "eval")
    for mode in modes:
        with objective.attacking(mode):
            inputs = tuple(x.clone().requires_grad_() for x in objective.inputs)
            _input_gradients(objective(inputs), inputs)
    for name, t in it.modules.named_state().items():
        expect(
            torch.equal(t, before[name]),
            f"'{short(name)}' moved while the inputs were attacked; BatchNorm's statistics (of torch.nn.BatchNorm*d, "
            "SyncBatchNorm) are held in the mode that core sets, and nothing else: set no mode in freeze() or loss(), "
            "and move other state in after_step()",
        )


def gradient_reaches_every_input(subject: Subject) -> None:
    """What does not depend on an input cannot be attacked through it."""
    it = ready(subject)
    views = it.views()
    inputs = tuple(x.clone().requires_grad_() for x in views.inputs)
    value = it.loss(Views(inputs, views.targets)).value
    expect(value.requires_grad, "the loss has no gradient at all; was it computed under no_grad(), or detached?")
    expect_finite(value)
    for place, g in enumerate(torch.autograd.grad(value, inputs, allow_unused=True)):
        expect(
            g is not None and g.isfinite().all() and g.abs().sum() > 0,
            f"no gradient reaches input {place}, so no attack moves it: compute the loss from `inputs` (not from "
            "targets or the batch), without detach(), rounding or no_grad(); what is not attacked belongs into targets",
        )


def gradient_reaches_the_encoder(subject: Subject) -> None:
    """Every parameter of the encoder, in the BatchNorm branches that the task names."""
    it = ready(subject)
    _backward(it)
    for name, p in it.network.named_parameters():
        unused = "; it names that BatchNorm branch in `branches` and never uses it" if ".branches." in name else ""
        expect(p.grad is not None, f"no gradient reaches the encoder's '{name}'{unused}")
    expect(any(p.grad.abs().sum() > 0 for p in it.network.parameters()), "the gradient is 0 in all of the encoder")


def gradient_reaches_every_parameter_of_its_own(subject: Subject) -> None:
    """One that must not train is frozen in build(), by requires_grad_(False), or is a buffer."""
    it = ready(subject)
    _backward(it)
    for name, p in own_parameters(it).items():
        expect(
            p.grad is not None,
            f"parameter '{name}' gets no gradient from the loss; leave it out, freeze it in build() by "
            "requires_grad_(False), or make it a buffer if it is filled otherwise, as a moving-average teacher is",
        )


def what_is_attacked_has_logits_too(subject: Subject) -> None:
    """attacked() is ascended in the place of loss(), by defenses that compare logits and labels, too."""
    it = ready(subject)
    views = it.views()
    loss = it.loss(views)
    ascended = it.loss(views, asked="attacked")
    for what in ("logits", "labels"):
        of_loss, of_attack = len(getattr(loss, what)), len(getattr(ascended, what))
        expect(of_attack == of_loss, f"attacked() gives {of_attack} {what} where loss() gives {of_loss}; give as many")


def freezing_changes_neither_loss_nor_gradient(subject: Subject) -> None:
    """freeze() computes once what no perturbation changes; with it or without, an attack is the same."""
    it = ready(subject)
    views = it.views()
    it.sure_loss(views)
    frozen = it.frozen(views)
    same = len(frozen.inputs) == len(views.inputs) and all(map(torch.equal, frozen.inputs, views.inputs))
    expect(same, "freeze() changes the inputs; it may add to targets alone")
    results = []
    for targets in (views.targets, frozen.targets):
        inputs = tuple(x.clone().requires_grad_() for x in views.inputs)
        loss = it.loss(Views(inputs, targets))
        results.append([loss.value.detach(), *_input_gradients(loss, inputs)])
    for plain, after in zip(*results, strict=True):
        expect(
            torch.allclose(plain, after, atol=1e-6, rtol=1e-4),
            "loss or gradient is another with what freeze() computed; keep there only what depends on no input",
        )


def _input_gradients(loss: Loss, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss.value, inputs, materialize_grads=True)


def _backward(it: Ready) -> None:
    value = it.loss(it.views()).value
    expect_finite(value)
    value.backward()  # type: ignore[no-untyped-call]
