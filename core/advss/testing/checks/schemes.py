"""What of a classifier a fine-tuning scheme trains, and when."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from advss.hookspecs import FinetuneScheme, Phase
from advss.models.classifier import ImageClassifier
from advss.randomness import global_stream, stream
from advss.testing.ready import classifier, phases_of, ready
from advss.testing.stand_ins import one_batch
from advss.testing.subject import Subject
from advss.testing.verdicts import expect
from advss.training.work import set_trainable

LOADED = {"nothing": "without pretraining", "encoder": "with a pretrained encoder", "tail": "with all but the head"}


def phases_have_shares_and_known_parameters(subject: Subject) -> None:
    """Each trains something, once, of the classifier or of the scheme's own."""
    for scheme, network, when in _starts(subject):
        known = {id(p) for p in [*network.parameters(), *scheme.parameters()]}
        for place, phase in enumerate(phases_of(scheme, network)):
            what = f"phase {place} {when}"
            chosen = _parameters(phase)
            expect(chosen, f"{what} has no parameters to train")
            expect(
                all(id(p) in known for p in chosen),
                f"{what} holds a parameter that is neither the classifier's nor the scheme's; it would train and not "
                "be saved: make it a submodule of the scheme in build()",
            )
            torch.optim.SGD([dict(group) for group in phase.groups], lr=0.1)


def the_head_trains(subject: Subject) -> None:
    """It is always fresh."""
    for scheme, network, when in _starts(subject):
        chosen = {id(p) for phase in phases_of(scheme, network) for p in _parameters(phase)}
        for name, p in network.head.named_parameters():
            expect(id(p) in chosen, f"'head.{name}' trains in no phase {when}; it is random, put it into a group")


def what_it_brings_trains(subject: Subject) -> None:
    """Every parameter of the scheme's own is in some phase, or made with requires_grad=False."""
    it = ready(subject)
    chosen = {id(p) for phase in it.phases() for p in _parameters(phase)}
    for name, p in it.task.named_parameters():
        expect(
            id(p) in chosen or not p.requires_grad,
            f"its own parameter '{name}' trains in no phase; name it in phases(), or say requires_grad_(False)",
        )


def gradient_reaches_all_that_a_phase_trains(subject: Subject) -> None:
    """With all else standing, as in training."""
    for scheme, network, when in _starts(subject):
        modules = nn.ModuleList([network, scheme])
        names = {id(p): name for root in (network, scheme) for name, p in root.named_parameters()}
        for place, phase in enumerate(phases_of(scheme, network)):
            set_trainable(modules, phase)
            views = scheme.views(one_batch(), stream("cpu", "views"))
            chosen = _parameters(phase)
            value = scheme.loss(network, views.inputs, views.targets).value
            gradients = torch.autograd.grad(value, chosen, allow_unused=True)
            for p, g in zip(chosen, gradients, strict=True):
                expect(
                    g is not None,
                    f"phase {place} {when} trains '{names.get(id(p))}', which no gradient of the loss reaches",
                )
            expect(any(g.abs().sum() > 0 for g in gradients), f"the gradient of all of phase {place} {when} is 0")


def _starts(subject: Subject) -> Iterator[tuple[FinetuneScheme, ImageClassifier, str]]:
    """The scheme on classifiers of which pretraining gave nothing, the encoder, and all but the head."""
    for loaded, when in LOADED.items():
        scheme, network = subject.new(), classifier(loaded=loaded)
        with global_stream("cpu", "init"):
            scheme.build(network)
        yield scheme, network, when


def _parameters(phase: Phase) -> list[nn.Parameter]:
    return [p for group in phase.groups for p in group["params"]]
