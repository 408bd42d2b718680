"""The encoder: timm itself is the oracle for what it computes, closed forms for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.transforms.v2.functional import normalize

from advss.hookspecs import DataFacts
from advss.models.encoder import TimmEncoder, build_encoder

NARROW: dict[str, Any] = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def make(
    name: str = "resnet18",
    options: dict[str, Any] | None = None,
    *,
    side: int = 32,
    channels: int = 3,
    branches: Sequence[str] = ("main",),
) -> TimmEncoder:
    """An encoder that does not normalise; resnet18 is narrowed unless options are given."""
    chosen = (NARROW if name == "resnet18" else {}) if options is None else options
    data = DataFacts(images=10, side=side, channels=channels, classes=4)
    torch.manual_seed(0)
    return build_encoder(name, chosen, data, mean=[0.0] * channels, std=[1.0] * channels, branches=branches)


def timm_model(name: str, options: dict[str, Any]) -> Any:
    """The oracle: the whole network as timm builds and pools it."""
    create: Any = timm.create_model
    return create(name, num_classes=0, global_pool="avg", **options).eval()


def images(side: int = 32, batch: int = 2, channels: int = 3) -> Tensor:
    return torch.rand(batch, channels, side, side, generator=torch.Generator().manual_seed(1))


def scramble(module: nn.Module) -> None:
    """Weights and statistics away from their initial ones, zeros, and statistics of one, which hide mistakes."""
    generator = torch.Generator().manual_seed(2)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.2 + 0.05)


def fill_from_timm(module: nn.Module, net: Any, prefix: dict[str, str]) -> None:
    """Copy timm's weights by key, where the beginning of a key is renamed as ``prefix`` says."""
    theirs = net.state_dict()
    for key, tensor in module.state_dict().items():
        begin = next((p for p in prefix if key.startswith(p)), None)
        if begin is not None:
            tensor.copy_(theirs[prefix[begin] + key.removeprefix(begin)])


# Options of the encoder, what timm needs besides to build the same, and where a tail's keys lie in timm's model.
FAMILIES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, str]]] = [
    ("test_resnet", {}, {}, {"stage.": "layer4."}),
    ("resnet18", NARROW, {}, {"stage.": "layer4."}),
    ("resnetv2_18", {"channels": [8, 8, 16, 16]}, {}, {"stage.": "stages.3.", "norm.": "norm."}),
    ("test_convnext", {}, {}, {"stage.": "stages.3.", "head.": "head."}),
    ("test_vit", {}, {"class_token": False, "img_size": 96}, {"blocks.": "blocks.", "fc_norm.": "fc_norm."}),
    ("test_vit2", {}, {"reg_tokens": 0, "img_size": 96}, {"blocks.": "blocks.", "fc_norm.": "fc_norm."}),
]


@pytest.mark.parametrize(("name", "options", "besides", "prefix"), FAMILIES, ids=[row[0] for row in FAMILIES])
def test_encoder_and_tail_compute_what_timm_computes(
    name: str, options: dict[str, Any], besides: dict[str, Any], prefix: dict[str, str]
) -> None:
    net = timm_model(name, options | besides)
    scramble(net)
    encoder = make(name, options, side=96).eval()
    tail = encoder.tail().eval()
    fill_from_timm(encoder, net, {"net.": ""})
    fill_from_timm(tail, net, prefix)
    with torch.no_grad():
        expected = net.forward_head(net.forward_features(images(96)), pre_logits=True)
        torch.testing.assert_close(tail(encoder(images(96))), expected)


@pytest.mark.parametrize("name", ["test_resnet", "resnetv2_18", "test_convnext"])
def test_the_map_is_the_last_but_one_entry_of_feature_info(name: str) -> None:
    encoder = make(name, side=96).eval()
    net = timm_model(name, {})
    fill_from_timm(net, encoder.net, {key: key for key in encoder.net.state_dict()})
    with torch.no_grad():
        expected = net.forward_intermediates(images(96), intermediates_only=True)[-2]
        torch.testing.assert_close(encoder(images(96)), expected)
    assert encoder.channels == net.feature_info[-2]["num_chs"] == expected.shape[1]


def test_a_vit_is_cut_after_three_quarters_of_its_blocks() -> None:
    encoder = make("test_vit", side=96)
    rest = {key.split(".")[1] for key in encoder.tail().state_dict() if key.startswith("blocks.")}
    assert (len(encoder.net.blocks), rest) == (4, {"4", "5"})


def test_a_map_of_a_vit_lies_as_the_image_does() -> None:
    encoder = make("test_vit", side=96).eval()
    encoder.net.blocks, encoder.net.pos_embed = nn.Identity(), None
    left, top = images(96), images(96)
    left[..., 16:] = 0
    top[..., 16:, :] = 0
    with torch.no_grad():
        blank = encoder(torch.zeros(1, 3, 96, 96))
        assert (encoder(left) - blank)[..., 1:].abs().max() == 0
        assert (encoder(top) - blank)[..., 1:, :].abs().max() == 0
        assert (encoder(left) - blank)[..., 0].abs().min() > 0


def test_normalisation_is_the_first_layer_as_torchvision_has_it() -> None:
    encoder = build_encoder("resnet18", NARROW, DataFacts(10, 32), mean=MEAN, std=STD).eval()
    plain = build_encoder("resnet18", NARROW, DataFacts(10, 32), mean=[0.0] * 3, std=[1.0] * 3).eval()
    plain.net.load_state_dict(encoder.net.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(encoder(images()), plain(normalize(images(), list(MEAN), list(STD))))


def test_mean_and_std_are_saved_with_the_model() -> None:
    state = build_encoder("resnet18", NARROW, DataFacts(10, 32), mean=MEAN, std=STD).state_dict()
    torch.testing.assert_close(state["mean"].flatten(), torch.tensor(MEAN))
    torch.testing.assert_close(state["std"].flatten(), torch.tensor(STD))


# ---------------------------------------------------------------- small images
SMALL_MAPS = [
    ("resnet18", {}, 8),
    ("test_resnet", {}, 8),
    ("resnet18", {**NARROW, "avg_down": True, "stem_width": 4}, 8),
    ("resnetv2_50", {}, 8),
    ("resnetv2_18d", {}, 8),
    ("test_convnext", {}, 8),
    ("convnext_atto_ols", {}, 8),
    ("test_vit", {"patch_size": 4}, 8),
    ("test_vit", {"patch_size": 2}, 16),
]


@pytest.mark.parametrize(("name", "options", "side"), SMALL_MAPS)
def test_side_of_the_map_of_32_pixels(name: str, options: dict[str, Any], side: int) -> None:
    encoder = make(name, options).eval()
    with torch.no_grad():
        assert encoder(images()).shape == (2, encoder.channels, side, side)


@pytest.mark.parametrize(("name", "options", "side"), SMALL_MAPS)
def test_patches_of_8_pixels_are_taken(name: str, options: dict[str, Any], side: int) -> None:
    encoder = make(name, options).eval()
    tail = encoder.tail().eval()
    with torch.no_grad():
        assert encoder(images(8)).shape == (2, encoder.channels, side // 4, side // 4)
        assert tail(encoder(images())).shape == (2, encoder.features)


@pytest.mark.parametrize("name", ["resnet18", "test_resnet", "resnetv2_18", "resnetv2_18d", "test_convnext"])
def test_the_small_stem_is_one_3x3_convolution_without_pooling(name: str) -> None:
    net = make(name).net
    stem = nn.ModuleList([net.conv1, net.maxpool] if hasattr(net, "conv1") else [net.stem])
    convs = [layer for layer in stem.modules() if isinstance(layer, nn.Conv2d)]
    assert [(conv.in_channels, conv.kernel_size, conv.stride, conv.padding) for conv in convs] == [
        (3, (3, 3), (1, 1), (1, 1))
    ]
    assert not any(isinstance(layer, nn.MaxPool2d) for layer in stem.modules())


@pytest.mark.parametrize(("side", "small"), [(64, True), (65, False)])
def test_images_of_more_than_64_pixels_keep_timms_stem(side: int, small: bool) -> None:
    assert (make(side=side).net.conv1.kernel_size == (3, 3)) is small


def test_the_stem_of_a_resnet_keeps_its_norm_and_activation() -> None:
    net = make().net
    assert isinstance(net.bn1, nn.BatchNorm2d)
    assert isinstance(net.act1, nn.ReLU)


def test_the_stem_of_a_convnext_keeps_its_norm_and_bias() -> None:
    conv, norm = make("test_convnext").net.stem
    assert conv.bias is not None
    assert "LayerNorm" in type(norm).__name__


@pytest.mark.parametrize(
    ("name", "expected"),
    [("resnet50", (2 / (64 * 9)) ** 0.5), ("resnetv2_50", (2 / (64 * 9)) ** 0.5), ("convnext_tiny", 0.02)],
)
def test_the_small_stem_is_initialised_as_its_family_is(name: str, expected: float) -> None:
    weight = next(make(name).net.parameters())
    assert weight.shape[1:] == (3, 3, 3)
    assert weight.std().item() == pytest.approx(expected, rel=0.1)


def test_standardised_convolutions_stay_what_they_are() -> None:
    net = make("resnetv2_50x1_bit", channels=1).net
    assert type(net.stem.conv) is type(net.stages[0].blocks[0].conv1)
    assert net.stem.conv.eps == net.stages[0].blocks[0].conv1.eps
    assert net.stem.conv.weight.shape == (64, 1, 3, 3)


def test_resnetv2_50_normalises_by_batch() -> None:
    encoder = make("resnetv2_50")
    assert any(isinstance(layer, _BatchNorm) for layer in encoder.modules())
    assert not any(isinstance(layer, nn.GroupNorm) for layer in encoder.modules())
    assert (encoder.channels, encoder.features) == (1024, 2048)


def test_images_of_one_channel() -> None:
    with torch.no_grad():
        assert make(channels=1)(images(channels=1)).shape == (2, 16, 8, 8)


@pytest.mark.parametrize(("name", "options", "multiple"), [("resnet18", {}, 1), ("test_vit", {"patch_size": 4}, 4)])
def test_multiple(name: str, options: dict[str, Any], multiple: int) -> None:
    assert make(name, options).multiple == multiple


# ---------------------------------------------------------------- tails
@pytest.mark.parametrize("name", ["resnet18", "resnetv2_18", "test_convnext", "test_vit"])
def test_a_tail_is_fresh_at_each_call(name: str) -> None:
    encoder = make(name)
    first, second = encoder.tail().state_dict(), encoder.tail().state_dict()
    assert first.keys() == second.keys()
    drawn = [key for key, tensor in first.items() if tensor.ndim > 1]
    assert drawn
    assert all(not torch.equal(first[key], second[key]) for key in drawn)


def test_a_tail_follows_the_global_seed() -> None:
    encoder = make()
    torch.manual_seed(3)
    first = encoder.tail().state_dict()
    torch.manual_seed(3)
    second = encoder.tail().state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_tails_share_nothing() -> None:
    encoder = make()
    pointers = [
        {tensor.data_ptr() for tensor in part.parameters()} for part in (encoder, encoder.tail(), encoder.tail())
    ]
    assert len(set.union(*pointers)) == sum(map(len, pointers))


def test_the_encoder_does_not_hold_a_tail() -> None:
    encoder = make()
    encoder.tail()
    assert not any("layer4" in key for key in encoder.state_dict())


def test_a_tail_is_initialised_as_timm_does() -> None:
    tail = make("test_vit").tail()
    weight = tail.state_dict()["blocks.4.attn.qkv.weight"]
    assert weight.std().item() == pytest.approx(0.02, rel=0.05)  # torch's own would be 0.072


def test_dropout_of_the_options_is_in_the_tail_of_a_resnet() -> None:
    tail = make("resnet18", {"drop_rate": 0.3, **NARROW}).tail()
    assert [layer.p for layer in tail.modules() if isinstance(layer, nn.Dropout)] == [0.3]


def test_names_of_parameters_do_not_change_from_build_to_build() -> None:
    assert [name for name, _ in make().named_parameters()] == [name for name, _ in make().named_parameters()]
    assert "net.layer1.0.conv1.weight" in make().state_dict()


def test_building_follows_the_global_seed() -> None:
    first, second = make().state_dict(), make().state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


# ---------------------------------------------------------------- for adversarial training
@pytest.mark.parametrize("name", ["resnet18", "resnetv2_18", "test_convnext", "test_vit"])
def test_gradients_of_gradients_reach_the_images(name: str) -> None:
    encoder = make(name).double()
    tail = encoder.tail().double()
    x = images().double().requires_grad_()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        (first,) = torch.autograd.grad(tail(encoder(x)).square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
    assert second.abs().sum() > 0
