"""The timm families that can be split: which options they take, their stem for small images, where they are cut.

A network is cut into a trunk, the timm model itself without its last stage, and a tail: last stage, norm and pooling.
The parameters keep timm's names in both.
"""

from __future__ import annotations

import difflib
import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from timm.models.convnext import ConvNeXt
from timm.models.resnet import ResNet
from timm.models.resnetv2 import ResNetV2
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from advss.errors import UsageError, did_you_mean
from advss.plugins.registry import UnknownPluginError, registry

# What the data and the run say is not an option of the backbone.
NEVER_OPTIONS = {"num_classes", "in_chans", "global_pool", "img_size", "device", "dtype"}


@dataclass(frozen=True, kw_only=True)
class Family:
    """What differs between architectures."""

    label: str
    kind: type[nn.Module]
    modules: tuple[str, ...]  # of timm.models, whose names build this kind
    cut: Callable[[Any], nn.Sequential]  # takes the tail out of a network, in place
    levels: int = 0  # entries of feature_info; 0: any number above 1
    small_stem: Callable[[Any, int], None] | None = None  # replaces the stem in place, given the image's channels
    stem: tuple[str, ...] = ()  # the modules that replacing it leaves without weights of timm's
    stem_options: frozenset[str] = frozenset()  # have no effect once the stem is replaced
    fixed: Mapping[str, Any] = field(default_factory=dict)  # options that the split asks for
    patches: bool = False  # is built for one side of images, cut in patches
    unpadded: bool = False  # halves maps without padding, so images have a smallest side

    def options(self) -> set[str]:
        """Names of timm's options that a user may set."""
        return set(inspect.signature(self.kind).parameters) - NEVER_OPTIONS - set(self.fixed)

    def can_cut(self, net: Any) -> bool:
        """Whether ``net`` is of this kind, with the stages that the cut counts on: options may have changed both."""
        found = len(net.feature_info)
        return type(net) is self.kind and (found == self.levels if self.levels else found > 1)


def family_of(name: str) -> Family:
    """The family of the model ``name`` that timm has, or that a plugin's module has registered with it.

    Raises:
        UsageError: timm does not know the name, it names pretrained weights, or its family cannot be split.
    """
    architecture, _, tag = name.partition(".")
    if not _is_listed(architecture):
        registry()  # imports the plugins, which may register it
    if not _is_listed(architecture):
        line = f"--backbone {name}: timm has no such model, nor has a plugin{_nearest(architecture)}"
        raise UnknownPluginError(line, kind="backbone", name=name, switched_off=False)
    if tag:
        fix = f"'.{tag}' names pretrained weights; say --backbone.pretrained true to start from them, or {architecture}"
        raise UsageError(f"--backbone {name}: {fix}")
    if _is_of_a_plugin(name):
        return _family_of_plugins(name)
    module = timm.model_entrypoint(architecture).__module__.rpartition(".")[2]
    for family in FAMILIES:
        if module in family.modules:
            return family
    raise UsageError(f"--backbone {name}: of another family than {labels()}, which are those that can be split")


def _is_listed(name: str) -> bool:
    """Whether timm lists a model of that name, found without sorting all of them, which takes 50 ms."""
    return name in timm.list_models(name)


def _is_of_a_plugin(name: str) -> bool:
    return not timm.model_entrypoint(name).__module__.startswith("timm.")


def _family_of_plugins(name: str) -> Family:
    """The family of what a plugin's function builds, found by building it without memory or draws."""
    place = timm.model_entrypoint(name).__module__
    if hasattr(timm.models, name):  # a model is loaded without plugins, where this would be timm's
        raise UsageError(f"--backbone {name}: module {place} registers it over timm's own; it needs another name")
    try:
        with torch.device("meta"):
            built = type(timm.create_model(name, num_classes=0))
    except Exception as error:  # a plugin's, so anything goes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"--backbone {name}: module {place} cannot build it: {reason}") from error
    for family in FAMILIES:
        if built is family.kind:
            return family
    raise UsageError(f"--backbone {name}: module {place} builds {built.__name__}; timm's {labels()} can be split")


def labels() -> str:
    """The families by name, for messages."""
    return ", ".join(family.label for family in FAMILIES)


def _nearest(name: str) -> str:
    known = [model for family in FAMILIES for module in family.modules for model in timm.list_models(module=module)]
    known += filter(_is_of_a_plugin, timm.list_models())
    close = difflib.get_close_matches(name, known, n=1)
    examples = "; for example resnet18, resnetv2_50, convnext_atto or vit_tiny_patch16_224"
    return did_you_mean(name, close) if close else examples


# ---------------------------------------------------------------- the stem for small images
def _to_image_conv(conv: nn.Conv2d, channels: int) -> nn.Conv2d:
    """Make ``conv`` in place a 3x3 stride-1 convolution of images; its class, width, bias and options stay."""
    conv.in_channels, conv.kernel_size, conv.stride, conv.padding = channels, (3, 3), (1, 1), (1, 1)
    conv.weight = nn.Parameter(torch.empty(conv.out_channels, channels, 3, 3))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _he(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def _resnet_stem(net: Any, channels: int) -> None:
    deep = isinstance(net.conv1, nn.Sequential)
    net.conv1 = _he(_to_image_conv(net.conv1[-1] if deep else net.conv1, channels))
    net.maxpool = nn.Identity()


def _resnetv2_stem(net: Any, channels: int) -> None:
    layers = dict(net.stem.named_children())
    last = [key for key, layer in layers.items() if isinstance(layer, nn.Conv2d)][-1]
    norm = last.replace("conv", "norm")  # there is one where the blocks do not begin with theirs
    _he(_to_image_conv(layers[last], channels))
    net.stem = nn.Sequential(OrderedDict((key, layer) for key, layer in layers.items() if key in (last, norm)))


def _convnext_stem(net: Any, channels: int) -> None:
    net.stem = net.stem[-2:]  # a convolution and its norm
    nn.init.trunc_normal_(_to_image_conv(net.stem[0], channels).weight, std=0.02)


# ---------------------------------------------------------------- where they are cut
def _cut_resnet(net: Any) -> nn.Sequential:
    drop = nn.Dropout(net.drop_rate)
    tail = nn.Sequential(OrderedDict(stage=net.layer4, pool=net.global_pool, drop=drop))
    net.layer4 = net.global_pool = nn.Identity()
    return tail


def _cut_resnetv2(net: Any) -> nn.Sequential:
    tail = nn.Sequential(OrderedDict(stage=net.stages[-1], norm=net.norm, head=net.head))
    net.stages, net.norm, net.head = net.stages[:-1], nn.Identity(), nn.Identity()
    return tail


def _cut_convnext(net: Any) -> nn.Sequential:
    tail = nn.Sequential(OrderedDict(stage=net.stages[-1], norm=net.norm_pre, head=net.head))
    net.stages, net.norm_pre, net.head = net.stages[:-1], nn.Identity(), nn.Identity()
    return tail


class MapToTokens(nn.Module):
    """A feature map (B, D, h, w) as tokens (B, h·w, D)."""

    def forward(self, map_BDhw: Tensor) -> Tensor:
        """Row by row, as timm orders patches."""
        return map_BDhw.flatten(2).transpose(1, 2)


class TokenMean(nn.Module):
    """The mean of tokens (B, N, D) over N."""

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Average pooling; there are no prefix tokens to leave out."""
        return tokens_BND.mean(1)


def _cut_vit(net: Any) -> nn.Sequential:
    kept = len(net.blocks) * 3 // 4
    layers = {"tokens": MapToTokens(), "blocks": net.blocks[kept:], "norm": net.norm, "pool": TokenMean()}
    tail = nn.Sequential(OrderedDict(layers, fc_norm=net.fc_norm, drop=net.head_drop))
    net.blocks, net.norm, net.fc_norm, net.head_drop = net.blocks[:kept], nn.Identity(), nn.Identity(), nn.Identity()
    return tail


FAMILIES = (
    Family(
        label="ResNet",
        kind=ResNet,
        modules=("resnet", "sknet", "resnest", "res2net"),
        cut=_cut_resnet,
        levels=5,
        small_stem=_resnet_stem,
        stem=("conv1", "bn1"),
        stem_options=frozenset({"stem_type", "replace_stem_pool"}),
    ),
    Family(
        label="ResNetV2",
        kind=ResNetV2,
        modules=("resnetv2",),
        cut=_cut_resnetv2,
        levels=5,
        small_stem=_resnetv2_stem,
        stem=("stem",),
        stem_options=frozenset({"stem_type"}),
    ),
    Family(
        label="ConvNeXt",
        kind=ConvNeXt,
        modules=("convnext",),
        cut=_cut_convnext,
        levels=4,
        unpadded=True,
        small_stem=_convnext_stem,
        stem=("stem",),
        stem_options=frozenset({"stem_type", "patch_size"}),
    ),
    Family(
        label="ViT",
        kind=VisionTransformer,
        modules=("vision_transformer", "deit"),
        cut=_cut_vit,
        patches=True,
        # Tokens other than patches do not fit in a map, nor does a map whose patches were dropped.
        fixed={
            "class_token": False,
            "reg_tokens": 0,
            "patch_drop_rate": 0.0,
            "dynamic_img_size": True,
            "dynamic_img_pad": False,
        },
    ),
)
