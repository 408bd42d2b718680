"""The classifier: what it computes, and what it knows of its own pretraining."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn.utils import parametrize

from advss.errors import UsageError
from advss.hookspecs import DataFacts
from advss.models.classifier import ImageClassifier
from advss.models.encoder import TimmEncoder, build_encoder


def encoder() -> TimmEncoder:
    options = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
    return build_encoder("resnet18", options, DataFacts(10, 32, 3, 4), mean=[0.5] * 3, std=[0.25] * 3)


def classifier() -> ImageClassifier:
    shared = encoder()
    return ImageClassifier(shared, shared.tail(), 4)


def ids(parameters: list[torch.nn.Parameter]) -> set[int]:
    return {id(parameter) for parameter in parameters}


def test_logits_are_the_head_of_the_tail_of_the_encoder() -> None:
    model = classifier().eval()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features: Tensor = model.tail(model.encoder(x))
        torch.testing.assert_close(model(x), features @ model.head.weight.T + model.head.bias)
        assert model(x).shape == (2, 4)


def test_an_encoder_of_which_nothing_was_loaded_stands_at_random() -> None:
    model = classifier()
    assert ids(model.fresh()) == ids([*model.head.parameters(), *model.tail.parameters()])


def test_with_a_tail_only_the_head_is_fresh() -> None:
    model, source = classifier(), encoder()
    model.load_pretrained(source.state_dict(), source.tail().state_dict())
    assert ids(model.fresh()) == ids(list(model.head.parameters()))


def test_without_a_tail_the_last_stage_is_fresh_too() -> None:
    model = classifier()
    model.load_pretrained(encoder().state_dict(), None)
    assert ids(model.fresh()) == ids([*model.head.parameters(), *model.tail.parameters()])


def test_what_was_loaded_is_recorded_with_its_buffers() -> None:
    model = classifier()
    model.load_pretrained(encoder().state_dict(), None)
    assert model.loaded == {f"encoder.{key}" for key in model.encoder.state_dict()}


class Twice(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.added = torch.nn.Parameter(torch.ones(1))

    def forward(self, weight: Tensor) -> Tensor:
        return 2 * self.added * weight


@pytest.mark.parametrize("loaded", [True, False])
@pytest.mark.parametrize("copied", [True, False])
def test_a_parameter_under_another_name_stays_loaded_and_what_is_added_is_fresh(loaded: bool, copied: bool) -> None:
    model = classifier()
    if loaded:
        model.load_pretrained(encoder().state_dict(), model.encoder.tail().state_dict())
    fresh = len(model.fresh())
    parametrize.register_parametrization(model.get_submodule("encoder.net.conv1"), "weight", Twice())
    model = copy.deepcopy(model) if copied else model
    (adapter,) = (m for m in model.modules() if isinstance(m, Twice))
    assert ids(model.fresh()) == ids(
        [*model.head.parameters(), adapter.added, *(() if loaded else model.tail.parameters())]
    )
    assert len(model.fresh()) == fresh + 1


def test_pretrained_weights_arrive() -> None:
    model, source = classifier(), encoder()
    tail = source.tail()
    model.load_pretrained(source.state_dict(), tail.state_dict())
    for mine, theirs in ((model.encoder, source), (model.tail, tail)):
        state = theirs.state_dict()
        assert all(torch.equal(tensor, state[key]) for key, tensor in mine.state_dict().items())


def test_a_tail_that_does_not_fit_leaves_the_encoder_alone() -> None:
    model = classifier()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(UsageError, match="the pretrained tail"):
        model.load_pretrained(encoder().state_dict(), {"stage.0.conv1.weight": torch.zeros(1)})
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert model.loaded == set()


def test_an_encoder_of_another_backbone_is_refused() -> None:
    other = build_encoder("test_convnext", {}, DataFacts(10, 32), mean=[0.5] * 3, std=[0.25] * 3)
    with pytest.raises(UsageError, match=r"the pretrained encoder .*another backbone"):
        classifier().load_pretrained(other.state_dict(), None)
