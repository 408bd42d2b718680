"""Evaluations that break the contract, each caught by a check that says what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from advss.hookspecs import Evaluation
from advss.measuring import Answers, Measured, Victim
from advss.testing.checks import evaluations, options
from advss.testing.subject import Subject
from advss.testing.suite import OF_KIND
from advss.testing.verdicts import Check, Verdict, judge

Ask = Callable[..., Verdict]
rows = evaluations.answers_have_a_row_an_image
drawn = evaluations.answers_follow_from_the_generator_alone
alone = evaluations.model_and_images_are_left_alone
parts = evaluations.every_part_goes_on_from_what_the_one_before_gave
stateless = evaluations.it_keeps_nothing_from_chunk_to_chunk
passes = evaluations.smaller_passes_change_no_answer
others = evaluations.an_image_does_not_hang_on_how_the_others_fare
classes = evaluations.models_of_few_and_many_classes_are_measured_or_refused
answerless = evaluations.images_without_a_right_answer_are_measured
under = evaluations.nothing_is_right_under_attack_alone
device = evaluations.it_works_on_another_device


def right(model: Any, x_BCHW: Tensor, label_B: Tensor) -> Tensor:
    with torch.no_grad():
        logits_BK = model(x_BCHW)
    found: Tensor = (logits_BK.argmax(1) == label_B) & logits_BK.isfinite().all(1)
    return found


class Sound(Evaluation):
    """Right as it is, and then within noise drawn for the whole chunk, tried where it is right still."""

    name = "sound"

    def parts(self, classes: int) -> Sequence[str]:
        return ("clean", "noisy")

    def measure_part(
        self, part: str, before: Answers, model: Victim, x_BCHW: Tensor, label_B: Tensor, generator: Generator
    ) -> Answers:
        if part == "clean":
            return {"ta": right(model, x_BCHW, label_B)}
        noise_BCHW = torch.empty_like(x_BCHW).normal_(0, 1, generator=generator)
        left, ra_B = before["ta"].nonzero()[:, 0], torch.zeros_like(before["ta"])
        if len(left):
            ra_B[left] = right(model, (x_BCHW + noise_BCHW)[left], label_B[left])
        return {**before, "ra": ra_B, "noise": noise_BCHW.square().mean((1, 2, 3))}


class Clean(Evaluation):
    """In one part, by :meth:`answers`."""

    def measure(self, model: Victim, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        return {"ta": right(model, x_BCHW, label_B), **self.more(model, x_BCHW, label_B, generator)}

    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        return {}


class OneForAll(Clean):
    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        return {"brightness": x_BCHW.mean()}


class NameOfTheLast(Clean):
    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        return {"odd": label_B} if len(label_B) % 2 else {}


class TypeOfOne(Clean):
    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        return {"logits": model(x_BCHW)[:, : len(label_B)]}


class GlobalDraw(Clean):
    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        return {"noise": torch.rand(len(x_BCHW))}


class NumpyDraw(Clean):
    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        return {"noise": torch.from_numpy(np.random.rand(len(x_BCHW)))}


class OwnGenerator(Clean):
    own = torch.Generator()

    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        return {"noise": torch.rand(len(x_BCHW), generator=self.own)}


class Thaws(Clean):
    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        model.requires_grad_(True)
        return {}


class Backward(Clean):
    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        model.requires_grad_(True)
        model(x_BCHW).sum().backward()
        model.requires_grad_(False)
        return {}


class TrainMode(Clean):
    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        model.train()
        return {}


class MovesStatistics(Clean):
    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        model.train()
        model(x_BCHW)
        model.eval()
        return {}


class InPlace(Clean):
    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        return {"inverted": right(model, x_BCHW.neg_().add_(1), label_B)}


class AsksOfTheImages(Clean):
    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        (g,) = torch.autograd.grad(model(x_BCHW.requires_grad_()).sum(), x_BCHW)
        return {"slope": g.abs().sum((1, 2, 3))}


class Remembers(Sound):
    """Has on self what the second part needs."""

    def measure_part(self, part: str, before: Answers, *given: Any) -> Answers:
        if part == "clean":
            self.clean = super().measure_part(part, before, *given)
            return {"done": self.clean["ta"]}
        return super().measure_part(part, getattr(self, "clean", {"ta": torch.zeros(6, dtype=torch.bool)}), *given)


class ChangesBefore(Sound):
    def measure_part(self, part: str, before: Answers, *given: Any) -> Answers:
        found = super().measure_part(part, before, *given)
        if part == "noisy":
            before["ta"].logical_and_(found["ra"])
        return found


class TwiceTheSame(Sound):
    def parts(self, classes: int) -> Sequence[str]:
        return ("clean", "noisy", "noisy")


class NoParts(Sound):
    def parts(self, classes: int) -> Sequence[str]:
        return ()


class Counts(Clean):
    def __init__(self) -> None:
        self.images = [0]

    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        self.images[0] += len(x_BCHW)
        return {}


class Sets(Clean):
    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        self.last = x_BCHW
        return {}


class ForAllChunks(Clean):
    """One perturbation, from the first chunk, kept where no object is."""

    found: ClassVar[dict[int, Tensor]] = {}

    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        noise_CHW = self.found.setdefault(id(self), x_BCHW.mean(0))
        return {"moved": (x_BCHW + noise_CHW).mean((1, 2, 3))}


class PastTheVictim(Clean):
    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        return {"again": right(model.model, x_BCHW, label_B)}


class OfAPass(Clean):
    """Compares images with the others of a pass."""

    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        parts = model(x_BCHW).split(min(model.at_once, len(x_BCHW)))
        return {"apart": torch.cat([part - part.mean(0) for part in parts])}


class DrawsForThoseLeft(Clean):
    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        clean_B, noise_B = right(model, x_BCHW, label_B), torch.zeros(len(x_BCHW))
        noise_B[clean_B] = torch.rand(int(clean_B.sum()), generator=generator)
        return {"noise": noise_B}


class ThirdLogit(Clean):
    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        return {"third": model(x_BCHW).sort(1).values[:, -3]}


class RefusesAtLength(ThirdLogit):
    def check(self, model: Victim) -> None:
        if len(model.classes) < 3:
            raise ValueError("there are too few classes:\nit needs 3")


class RefusesTwo(ThirdLogit):
    """As it should be."""

    def check(self, model: Victim) -> None:
        if len(model.classes) < 3:
            raise ValueError("it needs 3 classes")


class OfTheRight(Clean):
    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        largest = x_BCHW[right(model, x_BCHW, label_B)].amax()
        return {"share": x_BCHW.amax((1, 2, 3)) / largest}


class NumbersOnly(Clean):
    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        model(x_BCHW).long().clamp(0).softmax(1)
        return {}


class ArgmaxAlone(Evaluation):
    def measure(self, model: Victim, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        return {"ta": model(x_BCHW).detach().argmax(1) == label_B}


class WrongIsRobust(Clean):
    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        return {"ra": torch.ones_like(label_B, dtype=torch.bool)}


class CpuNoise(Clean):
    def more(self, model: Any, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        return {"noisy": right(model, x_BCHW + torch.zeros(x_BCHW.shape), label_B)}


class NothingMeasured(Evaluation):
    name = "nothing"


class Mesure(Sound):
    def figure(self, measured: Measured) -> dict[str, Any]:
        return {}


BROKEN = [
    (OneForAll, rows, r"the answer 'brightness' must have a row for each of the 6 images, got shape \(\)"),
    (NameOfTheLast, rows, r"the answers of 5 images are \['ta', 'odd'\], of 6 \['ta'\]"),
    (
        TypeOfOne,
        rows,
        r"the answer 'logits' of 1 images is \(torch.float32, 1\) an image, of 6 images \(tor",
    ),
    (GlobalDraw, drawn, "it draws from torch's global generator; draw from the generator that is given"),
    (NumpyDraw, drawn, "it draws from NumPy's random state"),
    (OwnGenerator, drawn, "'noise' differs between two calls with the same generator; draw from it alone"),
    (Thaws, alone, "it changes requires_grad of 'cells.2.weight'; leave the model in eval mode"),
    (Backward, alone, "it changes the gradient of 'cells.2.weight'"),
    (TrainMode, alone, "it changes the mode of"),
    (MovesStatistics, alone, "it changes 'head.0.running_mean'"),
    (InPlace, alone, "it changes x_BCHW in place; clone it first"),
    (AsksOfTheImages, alone, r"it asks for a gradient of x_BCHW itself; work on x_BCHW.clone\(\)"),
    (Remembers, parts, "'ta' is another when each part is measured by a new object from what the part before gave"),
    (ChangesBefore, parts, "part 'noisy' changes 'ta' of before in place; clone it first"),
    (TwiceTheSame, parts, r"parts\(\) names one twice: \['clean', 'noisy', 'noisy'\]"),
    (NoParts, parts, r"parts\(\) names none; without parts leave it out"),
    (Counts, stateless, "measuring changes self.images; keep nothing on self"),
    (Sets, stateless, "measuring changes self.last; keep nothing on self"),
    (ForAllChunks, stateless, "'moved' of a chunk is another where a chunk was measured before"),
    (PastTheVictim, passes, "it passes 6 images where memory holds 2; call the model that is given"),
    (OfAPass, passes, "'apart' is another where the model splits its passes"),
    (ThirdLogit, classes, "it raised IndexError: .*test_evaluations.py, line"),
    (RefusesAtLength, classes, r"check\(\) refuses 2 classes by 'there are too few classes:\\nit needs 3'"),
    (OfTheRight, answerless, "it raised "),
    (NumbersOnly, answerless, "it raised "),
    (CpuNoise, device, r"mixes a tensor on the run's device"),
    (NothingMeasured, options.its_methods_are_named_as_in_the_contract, r"has no measure\(\), for which there is no"),
    (Mesure, options.its_methods_are_named_as_in_the_contract, r"has figure\(\); did you mean figures\(\)\?"),
]
DOUBTFUL = [
    (DrawsForThoseLeft, others, "'noise' of an image changes with the labels of others; draw for the whole chunk"),
    (
        ArgmaxAlone,
        answerless,
        r"'ta' counts images as right whose logits are nan; .*answers\(\) gives such an",
    ),
    (WrongIsRobust, under, "'ra' has images right that are wrong unperturbed"),
]


def named(offered: type) -> type:
    return type(offered.__name__, (offered,), {"name": "mine", "__module__": __name__})


@pytest.mark.parametrize("fact", OF_KIND["evaluation"])
@pytest.mark.parametrize("offered", [Sound, Clean, RefusesTwo])
def test_a_sound_evaluation_passes(ask: Ask, offered: type, fact: Callable[[Subject], None]) -> None:
    assert ask(named(offered), fact).message == ""


@pytest.mark.parametrize(("offered", "fact", "message"), BROKEN, ids=[case[0].__name__ for case in BROKEN])
def test_it_is_caught(ask: Ask, offered: type, fact: Callable[[Subject], None], message: str) -> None:
    verdict = ask(named(offered), fact)
    assert verdict.outcome == "failed"
    assert re.search(message, verdict.message), verdict.message


@pytest.mark.parametrize(("offered", "fact", "message"), DOUBTFUL, ids=[case[0].__name__ for case in DOUBTFUL])
def test_it_is_doubted(ask: Ask, offered: type, fact: Callable[[Subject], None], message: str) -> None:
    verdict = ask(named(offered), fact)
    assert verdict.outcome == "warned", verdict.message
    assert re.search(message, verdict.message), verdict.message


class Refuses(Clean):
    def check(self, model: Victim) -> None:
        raise ValueError("it is Sunday")


def test_what_refuses_every_model_cannot_be_asked(ask: Ask) -> None:
    verdict = ask(named(Refuses), rows)
    assert verdict.outcome == "unchecked"
    assert verdict.message == "its check() refuses every model that is tried: it is Sunday"


class NeedsNoise(Clean):
    def check(self, model: Victim) -> None:
        if not model.noise:
            raise ValueError("it was fine-tuned on no noise")


def test_one_that_needs_noise_is_tried_on_a_classifier_of_it(offer: Callable[..., Subject]) -> None:
    subject = offer(named(NeedsNoise))
    verdicts = [judge(Check(fact.__name__, fact), subject) for fact in OF_KIND["evaluation"]]
    assert [(verdict.outcome, verdict.message) for verdict in verdicts] == [("passed", "")] * len(verdicts)
