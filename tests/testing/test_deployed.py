"""Schemes that leave no plain classifier, or another one than they trained."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from advss.hookspecs import Classifier, FinetuneScheme, Phase
from advss.testing.checks import deployed
from advss.testing.verdicts import Verdict

Ask = Callable[..., Verdict]


class Gate(nn.Module):
    """w ↦ (1 + gate)·w."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, weight: Tensor) -> Tensor:
        return (1 + self.gate) * weight


class Gated(FinetuneScheme):
    """A gate on the head's weights, merged."""

    name = "gated"

    def build(self, classifier: Classifier) -> None:
        parametrize.register_parametrization(classifier.head, "weight", Gate())

    def phases(self, classifier: Classifier) -> list[Phase]:
        return [Phase(1.0, [{"params": classifier.fresh()}])]

    def deployed(self, classifier: Classifier) -> dict[str, Tensor]:
        own = {name: t for name, t in classifier.state_dict().items() if ".parametrizations." not in name}
        return {**own, "head.weight": classifier.head.weight}


class Unmerged(Gated):
    def deployed(self, classifier: Classifier) -> dict[str, Tensor]:
        return FinetuneScheme.deployed(self, classifier)


class More(Gated):
    def deployed(self, classifier: Classifier) -> dict[str, Tensor]:
        return {**super().deployed(classifier), "gate": torch.zeros(1)}


class Halved(Gated):
    def deployed(self, classifier: Classifier) -> dict[str, Tensor]:
        return {name: t.half() for name, t in super().deployed(classifier).items()}


class Whole(Gated):
    def deployed(self, classifier: Classifier) -> Any:
        return copy.deepcopy(classifier)


class Ungated(Gated):
    """Leaves the weight without its gate, which is 0 until it trains."""

    def deployed(self, classifier: Classifier) -> dict[str, Tensor]:
        return {**super().deployed(classifier), "head.weight": classifier.head.parametrizations.weight.original}  # type: ignore


class InPlace(Gated):
    def deployed(self, classifier: Classifier) -> dict[str, Tensor]:
        state = super().deployed(classifier)
        classifier.head.bias.add_(1)
        return state


class Hooked(Gated):
    """A gate that a state dict does not know of, in the answers alone."""

    def build(self, classifier: Classifier) -> None:
        classifier.register_parameter("gate", nn.Parameter(torch.zeros(1)))
        classifier.head.register_forward_hook(lambda head, given, out: out * (1 + self.shift()))

    def shift(self) -> Tensor:
        return torch.ones(1)

    def deployed(self, classifier: Classifier) -> dict[str, Tensor]:
        return {name: t for name, t in classifier.state_dict().items() if name != "gate"}


class Closed(Hooked):
    """Its hook finds the gate of the classifier that it was built on, whatever copy asks."""

    def build(self, classifier: Classifier) -> None:
        super().build(classifier)
        self.shift = lambda: classifier.gate  # type: ignore


def test_a_merged_gate_passes(ask: Ask) -> None:
    assert ask(Gated, deployed.it_leaves_a_plain_classifier_that_answers_alike).message == ""


BROKEN = [
    (
        Unmerged,
        r"deployed\(\) gives no 'head.weight' but 'head.parametrizations.weight.original'; return the state dict",
    ),
    (More, r"deployed\(\) gives 'gate', which a plain classifier does not have"),
    (Halved, r"gives 'encoder\.\S+' as \(16, 3, 3, 3\) torch.float16 instead of \(16, 3, 3, 3\) torch.float32"),
    (Whole, r"deployed\(\) returns ImageClassifier; return the state dict of a plain classifier"),
    (Ungated, r"does not answer as the one that trains: logits are \S+ apart; merge into its weights"),
    (Hooked, r"does not answer as the one that trains: logits are \S+ apart"),
    (InPlace, r"deployed\(\) changes 'head.bias', which goes on training; merge into new tensors"),
    (Closed, r"a deep copy of the classifier does not answer by its own weights, as the moving average has to"),
]


@pytest.mark.parametrize(("offered", "message"), BROKEN, ids=[case[0].__name__ for case in BROKEN])
def test_it_is_caught(ask: Ask, offered: type, message: str) -> None:
    verdict = ask(offered, deployed.it_leaves_a_plain_classifier_that_answers_alike)
    assert verdict.outcome == "failed"
    assert re.search(message, verdict.message), verdict.message
