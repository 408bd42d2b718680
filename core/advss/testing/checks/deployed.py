"""What a fine-tuning scheme leaves: a plain classifier that answers as the one that trained."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from advss.models.weights import load_strict
from advss.randomness import global_stream, stream
from advss.testing.ready import classifier
from advss.testing.stand_ins import one_batch
from advss.testing.subject import Subject
from advss.testing.verdicts import as_in_training, expect
from advss.training.form import check_deployed
from advss.training.work import Modules

CLOSE = 1e-5  # logits in float64


def it_leaves_a_plain_classifier_that_answers_alike(subject: Subject) -> None:
    """Asked of a copy with other weights, as the moving average is one; what trains is left as it was."""
    for loaded in ("nothing", "encoder", "tail"):
        plain = classifier(loaded=loaded)
        as_in_training(check_deployed, _built(subject, loaded).deployed(), plain.state_dict())
        it = _altered(copy.deepcopy(_built(subject, loaded))).double()
        _expect_own_weights(it, _built(subject, loaded).double())
        before = {name: t.clone() for name, t in it.named_state().items()}
        load_strict(plain.double(), it.deployed(), what="deployed()")
        now = it.named_state()
        moved = [name for name, t in before.items() if name not in now or not torch.equal(t, now[name])]
        expect(not moved, f"deployed() changes '{''.join(moved[:1])}', which goes on training; merge into new tensors")
        far = float((_answers(plain) - _answers(it.trunk)).abs().max())
        expect(
            far <= CLOSE,
            f"the classifier that deployed() leaves does not answer as the one that trains: logits are {far:.2g} "
            "apart; merge into its weights what build() adds to its answers",
        )


def _built(subject: Subject, loaded: str) -> Modules:
    scheme, network = subject.new(), classifier(loaded=loaded)
    with global_stream("cpu", "init"):
        scheme.build(network)
    return Modules(network, {"it": scheme}, "finetune")


@torch.no_grad()
def _altered(modules: Modules) -> Modules:
    """With every weight and statistic moved: what begins at 0 counts, too."""
    draws = stream("cpu", "altered")
    for t in (*modules.parameters(), *modules.buffers()):
        if t.is_floating_point():
            t.add_(torch.rand(t.shape, generator=draws), alpha=0.1)
    return modules


def _expect_own_weights(altered: Modules, other: Modules) -> None:
    """A copy answers by its own weights: as one that was built anew and has loaded them."""
    other.load_named_state(altered.named_state(), what="a checkpoint")
    expect(
        torch.allclose(_answers(altered.trunk), _answers(other.trunk), atol=CLOSE, rtol=CLOSE),
        "a deep copy of the classifier does not answer by its own weights, as the moving average has to; let what "
        "build() adds find its tensors by attributes, not by a closure",
    )


@torch.no_grad()
def _answers(network: nn.Module) -> Tensor:
    logits: Tensor = network.eval()(one_batch().x.double())
    return logits
