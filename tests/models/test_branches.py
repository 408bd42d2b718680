"""BatchNorm branches of an encoder and its tails."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from advss.errors import UsageError
from advss.hookspecs import BranchNorm, DataFacts, branch
from advss.models.encoder import TimmEncoder, build_encoder, keep_branch


def make(*, branches: Sequence[str] = ("main",)) -> TimmEncoder:
    options = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
    return build_encoder("resnet18", options, DataFacts(10, 32), mean=[0.5] * 3, std=[0.25] * 3, branches=branches)


def images() -> Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def statistics(module: nn.Module, name: str) -> list[Tensor]:
    norms = [layer.branches[name] for layer in module.modules() if isinstance(layer, BranchNorm)]
    return [norm.get_buffer("running_mean").clone() for norm in norms]


@pytest.mark.parametrize("part", ["encoder", "tail"])
def test_every_batchnorm_has_the_branches(part: str) -> None:
    encoder = make(branches=("a", "b"))
    module = encoder if part == "encoder" else encoder.tail()
    norms = [layer for layer in module.modules() if isinstance(layer, BranchNorm)]
    inside = {id(layer) for norm in norms for layer in norm.modules()}
    assert norms
    assert all(set(norm.branches) == {"a", "b"} for norm in norms)
    assert not [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and id(layer) not in inside]


def test_branches_keep_statistics_of_their_own() -> None:
    encoder = make(branches=("a", "b"))
    before_a, before_b = statistics(encoder, "a"), statistics(encoder, "b")
    with branch("b", encoder), torch.no_grad():
        encoder(images())
    assert all(torch.equal(x, y) for x, y in zip(before_a, statistics(encoder, "a"), strict=True))
    assert not any(torch.equal(x, y) for x, y in zip(before_b, statistics(encoder, "b"), strict=True))


def test_one_branch_leaves_the_names_as_they_are() -> None:
    assert make(branches=("only",)).state_dict().keys() == make().state_dict().keys()


def test_a_kept_branch_computes_what_it_computed() -> None:
    several = make(branches=("a", "b"))
    with branch("b", several), torch.no_grad():
        several(images())
    one = make()
    one.load_state_dict(keep_branch(several.state_dict(), "b"))
    with branch("b", several), torch.no_grad():
        torch.testing.assert_close(one.eval()(images()), several.eval()(images()), rtol=0, atol=0)


def test_keeping_a_branch_of_a_state_without_branches_changes_nothing() -> None:
    state = make().state_dict()
    assert keep_branch(state, "main") == dict(state)


def test_a_branch_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"no BatchNorm branch 'clear'; did you mean 'clean'\?"):
        keep_branch(make(branches=("clean", "x_cl")).state_dict(), "clear")
