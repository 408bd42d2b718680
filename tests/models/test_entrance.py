"""What a loaded classifier refuses to look at, and that nothing which takes a module is disturbed by it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advss.errors import UsageError
from advss.models.averaged import AveragedClassifier
from advss.models.classifier import ImageClassifier
from advss.models.encoder import TimmEncoder
from advss.models.entrance import guarded


def images(*shape: int) -> Tensor:
    return torch.rand(shape or (2, 3, 32, 32), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def bare(encoder: TimmEncoder) -> ImageClassifier:
    return ImageClassifier(encoder, encoder.tail(), 4).eval()


@pytest.fixture
def model(bare: ImageClassifier) -> nn.Module:
    return guarded(copy.deepcopy(bare))


TAKEN = "the model takes float32 images (B, 3, 32, 32) in [0, 1], got "
FORMS = [
    (images().mul(255).byte(), "uint8; say x.float() / 255"),
    (images().double(), "float64; say x.to(torch.float32)"),
    (images(3, 32, 32), "float32 (3, 32, 32); say x[None]"),
    (images(2, 32, 32, 3), "float32 (2, 32, 32, 3); say x.permute(0, 3, 1, 2)"),
    (images(2, 1, 32, 32), "float32 (2, 1, 32, 32)"),
    (images(2, 3, 28, 28), "float32 (2, 3, 28, 28); resize to 32 x 32"),
    (images(2, 3, 32, 40), "float32 (2, 3, 32, 40); resize to 32 x 32"),
    (images().numpy(), "ndarray"),
]


@pytest.mark.parametrize(("x", "got"), FORMS, ids=[got for _, got in FORMS])
def test_another_form_is_always_refused(model: nn.Module, x: Any, got: str) -> None:
    model(images())
    for called in (model, torch.compile(model, backend="eager")):
        with pytest.raises(UsageError) as error:
            called(x)
        assert str(error.value) == TAKEN + got


def test_values_up_to_255_are_refused_until_a_call_was_good(model: nn.Module) -> None:
    wide = images() * 255
    for _ in range(2):
        with pytest.raises(UsageError, match=r"got values up to 25\d\S*; say x / 255"):
            model(wide)
    model(images())
    model(wide)


def test_noise_that_leaves_the_unit_interval_is_taken(bare: nn.Module, model: nn.Module) -> None:
    noisy = images() + torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert noisy.min() < -1
    assert torch.equal(model(noisy), bare(noisy))


def test_the_average_of_models_is_guarded_as_one(bare: ImageClassifier) -> None:
    average = guarded(AveragedClassifier([bare, bare]))
    with pytest.raises(UsageError, match="resize to 32 x 32"):
        average(images(2, 3, 64, 64))


def test_a_model_in_bfloat16_takes_bfloat16(model: nn.Module) -> None:
    assert model.to(torch.bfloat16)(images().to(torch.bfloat16)).dtype == torch.bfloat16
    with pytest.raises(UsageError, match=r"takes bfloat16 .* got float32; say x\.to\(torch\.bfloat16\)"):
        model(images())


def traced(model: nn.Module, x: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, that tracing is deprecated, and of what was there before
        made: Tensor = torch.jit.trace(model, x)(x)  # type: ignore[no-untyped-call]
    return made


def exported(model: nn.Module, x: Tensor) -> Tensor:
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("images")},))
    made: Tensor = program.module()(x)
    return made


WAYS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "export": exported,
    "trace": traced,
    "compile": lambda model, x: torch.compile(model, backend="eager", fullgraph=True)(x),
    "vmap": lambda model, x: torch.vmap(lambda one: model(one[None])[0])(x),
    "jacrev": lambda model, x: torch.func.jacrev(lambda shift: model(x + shift))(torch.zeros(())),
    "vmap of grad": lambda model, x: torch.vmap(torch.func.grad(lambda one: model(one[None]).sum()))(x),
    "functional call": lambda model, x: torch.func.functional_call(model, dict(model.named_parameters()), (x,)),
    "autocast": lambda model, x: torch.autocast("cpu", torch.bfloat16)(model)(x),
    "meta": lambda model, x: copy.deepcopy(model).to("meta")(x.to("meta")).new_zeros((), device="cpu"),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_takes_a_module_takes_it_guarded_before_any_call(way: str, bare: nn.Module, model: nn.Module) -> None:
    torch.testing.assert_close(WAYS[way](model, images()), WAYS[way](bare, images()))


def test_a_transform_does_not_count_as_the_first_call(model: nn.Module) -> None:
    WAYS["vmap"](model, images())
    WAYS["compile"](model, images())
    with pytest.raises(UsageError, match="say x / 255"):
        model(images() * 255)
