from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advss.hookspecs import Classifier, FinetuneScheme, Loss, Phase
from advss.testing.checks import schemes
from advss.testing.checks.options import its_methods_are_named_as_in_the_contract
from advss.testing.subject import Subject
from advss.testing.verdicts import Check, Verdict, judge

Ask = Callable[..., Verdict]
Offer = Callable[..., Subject]
FACTS = [
    schemes.phases_have_shares_and_known_parameters,
    schemes.the_head_trains,
    schemes.what_it_brings_trains,
    schemes.gradient_reaches_all_that_a_phase_trains,
]
known, head, brings, reached = FACTS


class Sound(FinetuneScheme):
    """First the head, then everything, with a head of its own beside."""

    name = "sound"

    def build(self, classifier: Classifier) -> None:
        self.more = nn.Linear(classifier.encoder.channels, 2)

    def phases(self, classifier: Classifier) -> list[Phase]:
        everything = [*classifier.parameters(), *self.parameters()]
        return [
            Phase(0.25, [{"params": [*classifier.fresh(), *self.parameters()]}]),
            Phase(0.75, [{"params": everything, "lr_scale": 0.1}]),
        ]

    def loss(self, encoder: Classifier, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        loss = super().loss(encoder, inputs, targets)
        told = F.cross_entropy(self.more(encoder.encoder(inputs[0]).mean((2, 3))), targets["label"] % 2)
        return Loss(loss.value + told, loss.logits, loss.metrics)


class Plain(FinetuneScheme):
    """Cross-entropy; one phase, of what :meth:`chosen` says."""

    name = "plain"
    share = 1.0

    def phases(self, classifier: Classifier) -> list[Phase]:
        return [Phase(self.share, [{"params": self.chosen(classifier)}])]

    def chosen(self, classifier: Classifier) -> list[nn.Parameter]:
        return list(classifier.parameters())


class NoPhases(Plain):
    def phases(self, classifier: Classifier) -> list[Phase]:
        return []


class NoShare(Plain):
    share = 0.0


class Nothing(Plain):
    def chosen(self, classifier: Classifier) -> list[nn.Parameter]:
        return []


class FreshTail(Plain):
    """Trains only a last stage that no task had."""

    def chosen(self, classifier: Classifier) -> list[nn.Parameter]:
        fresh = {id(p) for p in classifier.fresh()}
        return [p for p in classifier.tail.parameters() if id(p) in fresh]


class Stranger(Plain):
    def build(self, classifier: Classifier) -> None:
        self.strangers = [nn.Parameter(torch.zeros(2))]

    def chosen(self, classifier: Classifier) -> list[nn.Parameter]:
        return [*classifier.parameters(), *self.strangers]


class Twice(Plain):
    def chosen(self, classifier: Classifier) -> list[nn.Parameter]:
        return [*classifier.parameters(), *classifier.head.parameters()]


class NoHead(Plain):
    def chosen(self, classifier: Classifier) -> list[nn.Parameter]:
        return list(classifier.encoder.parameters())


class NoBias(Plain):
    def chosen(self, classifier: Classifier) -> list[nn.Parameter]:
        return list(classifier.head.parameters())[:1]


class Forgotten(Plain):
    def build(self, classifier: Classifier) -> None:
        self.more = nn.Linear(2, 2)


class Unused(Forgotten):
    def chosen(self, classifier: Classifier) -> list[nn.Parameter]:
        return [*classifier.parameters(), *self.parameters()]


class Zero(Plain):
    def loss(self, encoder: Classifier, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        loss = super().loss(encoder, inputs, targets)
        return Loss(loss.value * 0, loss.logits)


class NothingReturned(Plain):
    name = "nothing-returned"

    def phases(self, classifier: Classifier) -> list[Phase]:  # type: ignore[return]
        super().phases(classifier)


class Exhausted(Plain):
    """Names its parameters by a generator, which the first that looks at it empties."""

    name = "exhausted"

    def phases(self, classifier: Classifier) -> list[Phase]:
        return [Phase(1.0, [{"params": classifier.parameters()}])]


class WithoutPhases(FinetuneScheme):
    name = "without-phases"


BROKEN = [
    (NothingReturned, known, r"phases\(\) returns NoneType; return \[Phase\("),
    (Exhausted, known, r"phases\(\) gives a group that is dict .* list 'params'; return \[Phase\("),
    (WithoutPhases, known, r"class WithoutPhases has no phases\(\), for which there is no default"),
    (NoPhases, known, r"phases\(\) returns empty list; return \[Phase\("),
    (NoShare, known, "gives a phase the share 0.0; give a number above 0"),
    (Nothing, known, "phase 0 without pretraining has no parameters to train"),
    (FreshTail, known, "phase 0 with all but the head has no parameters"),
    (Stranger, known, "holds a parameter that is neither the classifier's nor the scheme's"),
    (Twice, known, "names a parameter twice"),
    (NoHead, head, "'head.weight' trains in no phase without pretraining"),
    (NoBias, head, "'head.bias' trains in no phase"),
    (Forgotten, brings, r"its own parameter 'more.weight' trains in no phase; name it in phases\(\)"),
    (Zero, reached, "the gradient of all of phase 0 without pretraining is 0"),
    (Unused, reached, "phase 0 without pretraining trains 'more.weight', which no gradient of the loss reaches"),
]


@pytest.mark.parametrize("fact", FACTS)
@pytest.mark.parametrize("offered", [Sound, Plain])
def test_a_sound_scheme_passes(ask: Ask, offered: type, fact: Callable[[Subject], None]) -> None:
    assert ask(offered, fact).message == ""


@pytest.mark.parametrize(("offered", "fact", "message"), BROKEN, ids=[case[0].__name__ for case in BROKEN])
def test_it_is_caught(ask: Ask, offered: type, fact: Callable[[Subject], None], message: str) -> None:
    verdict = ask(offered, fact)
    assert verdict.outcome == "failed"
    assert re.search(message, verdict.message), verdict.message


@pytest.mark.parametrize("offered", [NothingReturned, Exhausted, WithoutPhases])
def test_what_is_wrong_with_phases_is_told_in_the_same_words_by_all(offer: Offer, offered: type) -> None:
    subject = offer(offered)
    assert len({judge(Check("asked", fact), subject).message for fact in FACTS}) == 1


def test_that_phases_is_missing_is_told_as_of_every_method(offer: Offer) -> None:
    subject = offer(WithoutPhases)
    one, other = (judge(Check("asked", fact), subject) for fact in (known, its_methods_are_named_as_in_the_contract))
    assert (one.outcome, one.message) == ("failed", other.message)
