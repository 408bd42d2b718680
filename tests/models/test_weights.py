"""Strict loading: everything or nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from advss.errors import UsageError
from advss.models.weights import check_fits, load_strict


def kernel(module: nn.Module) -> Tensor:
    """Its first parameter."""
    return next(module.parameters())


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def other_state() -> dict[str, Tensor]:
    return {key: torch.full_like(tensor, 7) for key, tensor in net().state_dict().items()}


def rename(state: dict[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {new if key == old else key: tensor for key, tensor in state.items()}


def test_all_parameters_and_buffers_are_loaded() -> None:
    module = net()
    load_strict(module, other_state(), what="best.safetensors")
    assert all(bool((tensor == 7).all()) for tensor in module.state_dict().values())


def test_a_renamed_key_is_named_with_its_nearest() -> None:
    state = rename(other_state(), "1.running_mean", "1.running_means")
    with pytest.raises(
        UsageError, match=r"missing 1\.running_mean \(nearest: 1\.running_means\); unexpected 1\.running_means"
    ):
        load_strict(net(), state, what="best.safetensors")


def test_a_shape_that_differs_is_named() -> None:
    state = other_state() | {"0.weight": torch.zeros(8, 3, 3, 3)}
    with pytest.raises(UsageError, match=r"0\.weight \(8, 3, 3, 3\) instead of \(4, 3, 3, 3\)"):
        load_strict(net(), state, what="best.safetensors")


def test_the_message_is_one_line_that_names_the_source() -> None:
    with pytest.raises(UsageError, match=r"^best\.safetensors .*another backbone or task\?$") as caught:
        load_strict(net(), rename(other_state(), "0.bias", "x"), what="best.safetensors")
    assert "\n" not in str(caught.value)


def test_only_the_first_keys_are_named() -> None:
    state = {key: tensor for key, tensor in other_state().items() if not key.startswith("1.")}
    with pytest.raises(UsageError, match=r"missing 1\.weight, 1\.bias, 1\.running_mean and 2 more"):
        load_strict(net(), state, what="best.safetensors")


def test_nothing_in_common_is_said() -> None:
    with pytest.raises(UsageError, match=r"none of the model's 9 tensors is in it \(it has w\)"):
        load_strict(net(), {"w": torch.zeros(1)}, what="best.safetensors")


def test_an_empty_checkpoint_fails() -> None:
    with pytest.raises(UsageError, match="it has nothing"):
        load_strict(net(), {}, what="best.safetensors")


def test_a_module_without_tensors_takes_an_empty_state() -> None:
    load_strict(nn.ReLU(), {}, what="best.safetensors")


@pytest.mark.parametrize("broken", ["missing", "unexpected", "shape"])
def test_nothing_is_loaded_after_a_failure(broken: str) -> None:
    module, state = net(), other_state()
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    if broken == "missing":
        del state["2.bias"]
    else:
        state["2.bias" if broken == "shape" else "more"] = torch.zeros(9)
    with pytest.raises(UsageError):
        load_strict(module, state, what="best.safetensors")
    assert all(torch.equal(before[key], tensor) for key, tensor in module.state_dict().items())


def test_checking_loads_nothing() -> None:
    module = net()
    before = kernel(module).clone()
    check_fits(module, other_state(), what="best.safetensors")
    assert torch.equal(kernel(module), before)


def test_memory_format_and_identity_of_parameters_stay() -> None:
    module = net()
    weight = kernel(module)
    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    load_strict(module, other_state(), what="best.safetensors")
    assert kernel(module) is weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
