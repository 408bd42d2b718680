"""What an evaluation measures hangs on the chunk, the classifier and the generator alone, and leaves them as found."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from advss.hookspecs import Evaluation
from advss.testing.asked import UNSEEDED, as_it_was, changed, snapshot, unseeded
from advss.testing.checks.device import Place, everywhere
from advss.testing.measured import (
    B,
    Chunk,
    SmallClassifier,
    answers_of,
    chunk_for,
    evaluation_of,
    new_draws,
    part_of,
    parts_of,
    refusal,
    unlike,
)
from advss.testing.subject import Subject
from advss.testing.verdicts import DoubtError, expect

AT_ONCE = 2  # images of a pass, where memory holds no more
RIGHT = ("ta", "ra")  # what the contract calls accuracies, clean and under attack


def answers_have_a_row_an_image(subject: Subject) -> None:
    """By the same names, in the same types and shapes, for chunks of any size: the last one of a set is smaller."""
    whole: dict[str, Tensor] = {}
    for count in (B, B - 1, 1):
        found = answers_of(evaluation_of(subject), chunk_for(subject, count=count))
        whole = whole or found
        expect(set(found) == set(whole), f"the answers of {count} images are {list(found)}, of {B} {list(whole)}")
        for name, answer in found.items():
            form, wanted = ((a.dtype, *a.shape[1:]) for a in (answer, whole[name]))
            expect(form == wanted, f"the answer '{name}' of {count} images is {form} an image, of {B} images {wanted}")


def answers_follow_from_the_generator_alone(subject: Subject) -> None:
    """Whatever the global generator's state, which is left alone; a run is measured again to the bit."""
    results = []
    for seed in (1, 2):
        chunk, evaluation = chunk_for(subject), evaluation_of(subject)
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        with unseeded() as drawn:
            results.append(answers_of(evaluation, chunk))
        expect(not drawn, f"it draws from {''.join(drawn[:1])}{UNSEEDED}")
        expect(
            torch.equal(torch.get_rng_state(), state),
            "it draws from torch's global generator; draw from the generator that is given",
        )
    name = unlike(*results)
    expect(
        not name,
        f"'{name}' differs between two calls with the same generator; draw from it alone: "
        "torch.empty_like(x).normal_(generator=generator)",
    )


def model_and_images_are_left_alone(subject: Subject) -> None:
    """Weights, statistics, modes, requires_grad flags and gradients; images and labels are measured again."""
    chunk = chunk_for(subject)
    for p in chunk.network.parameters():
        p.grad = torch.ones_like(p)  # so that a gradient that is added, or set to None, shows
        p.requires_grad_(False)
    given = {"x_BCHW": chunk.x_BCHW, "label_B": chunk.label_B}
    before, kept = snapshot(chunk.network), [t.clone() for t in given.values()]
    answers: Mapping[str, Tensor] = {}
    for part in parts_of(evaluation := evaluation_of(subject), chunk):
        answers = evaluation.measure_part(part, answers, chunk.victim, chunk.x_BCHW, chunk.label_B, new_draws(part))
    for what, value in snapshot(chunk.network).items():
        expect(
            as_it_was(value, before[what]),
            f"it changes {what}; leave the model in eval mode and differentiate by torch.autograd.grad with respect to "
            "the images, not by backward()",
        )
    for name in changed(given, kept):
        expect(not name, f"it changes {name} in place; clone it first")
    expect(not chunk.x_BCHW.requires_grad, "it asks for a gradient of x_BCHW itself; work on x_BCHW.clone()")


def every_part_goes_on_from_what_the_one_before_gave(subject: Subject) -> None:
    """In another process, where only that is left: a kill loses no more than a part and changes no answer."""
    chunk, evaluation = chunk_for(subject), evaluation_of(subject)
    parts = parts_of(evaluation, chunk)
    expect(parts, "parts() names none; without parts leave it out")
    expect(len(set(parts)) == len(parts), f"parts() names one twice: {list(parts)}")
    whole, found = answers_of(evaluation, chunk), dict[str, Tensor]()
    for part in parts:
        before = load(save({name: t.contiguous() for name, t in found.items()}))
        kept = [t.clone() for t in before.values()]
        found = part_of(evaluation_of(subject), chunk, part, before)
        for name in changed(before, kept):
            expect(not name, f"part '{part}' changes '{name}' of before in place; clone it first")
    name = unlike(found, whole)
    expect(
        not name,
        f"'{name}' is another when each part is measured by a new object from what the part before gave; return all "
        "that the next part needs, and take it from before",
    )


def it_keeps_nothing_from_chunk_to_chunk(subject: Subject) -> None:
    """What is left on self would make answers hang on the chunks before, which a resumed run does not measure again."""
    evaluation, first, second = evaluation_of(subject), chunk_for(subject), chunk_for(subject, seed=1)
    had = _own(evaluation)
    answers_of(evaluation, first)
    for name, value in _own(evaluation).items():
        same = name in had and _same(had[name], value)
        expect(same, f"measuring changes self.{name}; keep nothing on self, and return what is needed as an answer")
    name = unlike(answers_of(evaluation, second), answers_of(evaluation_of(subject), second))
    expect(not name, f"'{name}' of a chunk is another where a chunk was measured before; keep nothing on self")


def smaller_passes_change_no_answer(subject: Subject) -> None:
    """Where memory holds few images, the model that is given splits its passes; a chunk stays what it is."""
    whole, split = chunk_for(subject), chunk_for(subject)
    split.victim.at_once = AT_ONCE
    assert isinstance(split.network, SmallClassifier)
    split.network.passes.clear()
    found = answers_of(evaluation_of(subject), split)
    most = max(split.network.passes, default=0)
    expect(most <= AT_ONCE, f"it passes {most} images where memory holds {AT_ONCE}; call the model that is given")
    name = unlike(found, answers_of(evaluation_of(subject), whole), near=True)
    expect(not name, f"'{name}' is another where the model splits its passes; let answers hang on no pass's size")


def an_image_does_not_hang_on_how_the_others_fare(subject: Subject) -> None:
    """What is drawn for the whole chunk is the same for an image whichever of the others still need it."""
    one, other = chunk_for(subject), chunk_for(subject)
    others = torch.arange(B) % 2 == 0
    other.label_B[others] = (other.label_B[others] + 1) % len(other.victim.classes)
    found, again = (
        {name: a[~others] for name, a in answers_of(evaluation_of(subject), chunk).items()} for chunk in (one, other)
    )
    if name := unlike(found, again, near=True):
        raise DoubtError(
            f"'{name}' of an image changes with the labels of others; draw for the whole chunk, and take of it what is "
            "of the images that are left: torch.empty_like(x_BCHW).uniform_(generator=generator)[left]"
        )


def models_of_few_and_many_classes_are_measured_or_refused(subject: Subject) -> None:
    """In check(), before anything is measured, by a ValueError of one line."""
    usual = chunk_for(subject)
    for classes in (2, 3, 10):
        chunk, evaluation = Chunk(classes, noise=usual.victim.noise), evaluation_of(subject)
        said = refusal(evaluation, chunk.victim)
        if said is None:
            answers_of(evaluation, chunk)
            continue
        expect(said.strip() and "\n" not in said, f"check() refuses {classes} classes by {said!r}; say why in one line")


class Unsure(SmallClassifier):
    """Logits that are no numbers, or infinite, whatever the image."""

    def __init__(self, classes: int, value: float) -> None:
        super().__init__(classes)
        self.value = value

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, K)."""
        return super().forward(x_BCHW) * 0 + self.value


def images_without_a_right_answer_are_measured(subject: Subject) -> None:
    """All wrong unperturbed, or with logits that are not finite, which is a wrong answer."""
    usual = chunk_for(subject)
    classes = len(usual.victim.classes)
    usual.label_B[:] = (SmallClassifier(classes)(usual.x_BCHW).argmax(1) + 1) % classes
    answers_of(evaluation_of(subject), usual)
    for value in (float("nan"), float("inf")):
        chunk = chunk_for(subject, model=Unsure(classes, value))
        chunk.label_B[:] = 0
        found = answers_of(evaluation_of(subject), chunk)
        for name in [name for name in RIGHT if name in found and found[name].dtype == torch.bool]:
            if found[name].any():
                raise DoubtError(
                    f"'{name}' counts images as right whose logits are {value}; advss.attacks.evaluation.answers() "
                    "gives such an image no class"
                )


def nothing_is_right_under_attack_alone(subject: Subject) -> None:
    """An image that is wrong as it is, is wrong in any ball around it."""
    found = answers_of(evaluation_of(subject), chunk_for(subject))
    if all(name in found and found[name].dtype == torch.bool for name in RIGHT) and (found["ra"] & ~found["ta"]).any():
        raise DoubtError("'ra' has images right that are wrong unperturbed, which lie in their own ball; is it an RA?")


def it_works_on_another_device(subject: Subject) -> None:
    """All parts, with model and chunk moved as core moves them."""
    everywhere(partial(evaluation_works, subject))


def evaluation_works(subject: Subject, place: Place) -> None:
    """All that core calls of an evaluation on the device, at a place."""
    chunk, evaluation = chunk_for(subject), evaluation_of(subject)
    place.move_module(chunk.victim)
    x_BCHW, label_B = place.tensor(chunk.x_BCHW), place.tensor(chunk.label_B)
    answers: Mapping[str, Tensor] = {}
    for part in parts_of(evaluation, chunk):
        with place.within():
            found = evaluation.measure_part(part, answers, chunk.victim, x_BCHW, label_B, place.generator())
        answers = {name: place.tensor(answer.detach().cpu()) for name, answer in found.items()}


def _own(evaluation: Evaluation) -> dict[str, Any]:
    """Copies of what stands on self, as far as it can be copied."""
    found = {}
    for name, value in vars(evaluation).items():
        with suppress(Exception):
            found[name] = deepcopy(value)
    return found


def _same(one: Any, other: Any) -> bool:
    """Whether two copies of what stands on self are alike, part by part."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return not unlike({"": one}, {"": other})
    if type(one) is not type(other):
        return False
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, nn.Module):
        return all(map(as_it_was, snapshot(one).values(), snapshot(other).values()))
    return bool(one == other) or (hasattr(one, "__dict__") and _same(vars(one), vars(other)))
