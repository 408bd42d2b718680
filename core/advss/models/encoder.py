"""Any timm ResNet, ResNetV2, ConvNeXt or ViT as the shared encoder θ_p, with normalisation inside.

Letters: B batch, C channels, H W the image's sides, D the map's width, h w the map's sides.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from advss.errors import UsageError, did_you_mean
from advss.hookspecs import BranchNorm, DataFacts, Encoder
from advss.models.families import Family, family_of, labels
from advss.models.positions import at_positions_of
from advss.models.weights import load_strict
from advss.named import MARK

STEM_STRIDE = 4  # of the stems that timm builds
SMALL = 64  # pixels: images up to this side get a stem that keeps their resolution


@dataclass(frozen=True)
class Backbone:
    """What it takes to build a network again: each tail is the last stage of a newly initialised one."""

    name: str
    options: Mapping[str, Any]
    data: DataFacts
    family: Family
    weights: Mapping[str, Tensor] | None = None  # of the whole network, but for what is fresh, to start from
    stem: int = 0  # side in pixels of the images that the stem is made for; 0: that of the data

    def __deepcopy__(self, memo: dict[int, Any]) -> Backbone:
        """Itself, which never changes: a copied encoder needs no second copy of the weights to start from."""
        return self

    @property
    def replaces_stem(self) -> bool:
        """Whether images are so small that the stem is not timm's."""
        return self.family.small_stem is not None and (self.stem or self.data.side) <= SMALL

    @property
    def fresh(self) -> tuple[str, ...]:
        """Prefixes of the parameters that no weights of timm's are for: a stem's that is replaced."""
        return tuple(f"{name}." for name in self.family.stem) if self.replaces_stem else ()

    def build(self, *, random: bool = False) -> tuple[Any, nn.Sequential]:
        """A trunk and a tail, initialised by timm from torch's global generator; unless ``random``, at the weights."""
        net = self.create()
        if not self.family.can_cut(net):
            raise UsageError(f"--backbone {self._said()}: cannot be split before its last stage; families: {labels()}")
        if self.replaces_stem and self.family.small_stem is not None:
            self.family.small_stem(net, self.data.channels)
            for level in net.feature_info:
                level["reduction"] = max(1, level["reduction"] // STEM_STRIDE)
        if self.weights is not None and not random:
            given = {name: t for name, t in net.state_dict().items() if not name.startswith(self.fresh)}
            load_strict(given, at_positions_of(given, self.weights), what="the weights to start from")
        return net, self.family.cut(net)

    def create(self, **more: Any) -> Any:
        """The network for the images, whole, with timm's stem; ``more`` goes to timm."""
        size = {"img_size": self.data.side} if self.family.patches else {}
        given = {"num_classes": 0, "in_chans": self.data.channels, "global_pool": "avg", **self.family.fixed, **size}
        try:
            return timm.create_model(self.name, **given, **self.options, **more)
        except Exception as error:  # whatever timm raises here comes of the options that were given
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UsageError(f"--backbone {self._said()}: timm cannot build it: {reason}") from error

    def _said(self) -> str:
        return " ".join([self.name, *(f"--backbone.{key} {value}" for key, value in self.options.items())])


class TimmEncoder(Encoder):
    """A timm model without its last stage; :meth:`tail` gives last stages. Normalises by ``mean`` and ``std``."""

    mean: Tensor  # (1, C, 1, 1), as std
    std: Tensor
    net: Any  # the trunk: timm declares no types

    def __init__(
        self, backbone: Backbone, *, mean: Sequence[float], std: Sequence[float], branches: Sequence[str] = ("main",)
    ) -> None:
        super().__init__()
        self._backbone = backbone
        self._branches = tuple(branches)
        self.data = backbone.data
        self.register_buffer("mean", _per_channel("mean", mean, self.data))
        self.register_buffer("std", _per_channel("std", std, self.data))
        net, _ = backbone.build()
        self.channels = int(net.feature_info[-2]["num_chs"])
        self.features = int(net.head_hidden_size)
        self.multiple = math.lcm(*net.patch_embed.patch_size) if backbone.family.patches else 1
        self._smallest = int(net.feature_info[-2]["reduction"]) if backbone.family.unpadded else self.multiple
        self._check_side()
        self.net = use_branches(net, self._branches)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Feature map (B, D, h, w) of images in [0, 1].

        Raises:
            UsageError: a side is too small, or not a multiple of ``multiple``.
        """
        for side in x_BCHW.shape[2:]:
            if side < self._smallest or side % self.multiple:
                raise UsageError(f"--backbone {self._backbone.name}: {self._asked()}, and these have {side}")
        features: Tensor = self.net.forward_features((x_BCHW - self.mean) / self.std)
        if not self._backbone.family.patches:
            return features
        height = x_BCHW.shape[2] // self.net.patch_embed.patch_size[0]
        return features.transpose(1, 2).reshape(len(features), self.channels, height, -1)

    def _asked(self) -> str:
        if self._backbone.family.patches:
            return f"images need sides that are multiples of --backbone.patch_size, {self.multiple} pixels"
        return f"images need sides of at least {self._smallest} pixels"

    def tail(self) -> nn.Module:
        """A last stage, norm and pooling, (B, D, h, w) -> (B, features), on the encoder's device.

        It is newly initialised, or at the weights that the encoder starts from.
        """
        return self._tail(random=False)

    def random_tail(self) -> nn.Module:
        """A newly initialised :meth:`tail`, whatever the encoder starts from."""
        return self._tail(random=True)

    def _tail(self, *, random: bool) -> nn.Module:
        _, tail = self._backbone.build(random=random)
        return use_branches(tail, self._branches).to(self.mean.device)

    @property
    def fresh(self) -> tuple[str, ...]:
        """Prefixes of the trunk's parameters that are random whatever the weights that it starts from."""
        return self._backbone.fresh

    def _check_side(self) -> None:
        side, patch = self.data.side, self.multiple
        if side % patch == 0:
            return
        limit = min(patch, 4) if side <= SMALL else patch
        fit = max(size for size in range(1, limit + 1) if side % size == 0)
        raise UsageError(
            f"--backbone {self._backbone.name}: patches of {patch} pixels do not divide images of {side}; "
            f"give --backbone.patch_size {fit}, or --data.size {max(1, side // patch) * patch}"
        )


def build_encoder(
    name: str,
    options: Mapping[str, Any],
    data: DataFacts,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    branches: Sequence[str] = ("main",),
    weights: Mapping[str, Tensor] | None = None,
) -> TimmEncoder:
    """The encoder of timm's model ``name``, for images as in ``data``.

    Args:
        name: a timm model; images of at most 64 pixels replace a convolutional stem by one 3x3 stride-1 convolution.
        options: for timm, e.g. ``{"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128]}`` of resnet18.
        data: gives the side and channels of images.
        mean: of the training images in [0, 1], one a channel.
        std: likewise.
        branches: names of the BatchNorm branches; with one, BatchNorm stays as it is.
        weights: what it and its last stages start from: see :mod:`advss.models.pretrained`.

    Raises:
        UsageError: a model or option that timm does not know or that cannot be used here, or weights that do not fit.
    """
    backbone = backbone_of(name, options, data, weights)
    return TimmEncoder(backbone, mean=mean, std=std, branches=branches)


def backbone_of(
    name: str,
    options: Mapping[str, Any],
    data: DataFacts,
    weights: Mapping[str, Tensor] | None = None,
    *,
    stem: int = 0,
) -> Backbone:
    """What it takes to build a network; arguments and errors as of :func:`build_encoder`.

    ``stem`` is the side of the images that its stem is made for, where it is another than the data's.
    """
    family = family_of(name)
    for option in options:
        _check_option(option, name, family, stem or data.side)
    return Backbone(name, copy.deepcopy(dict(options)), data, family, weights, stem)


def keep_branch(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """A state dict with BatchNorm branches as one without: of the branches only ``name`` is kept.

    Raises:
        UsageError: there are branches, but none of that name.
    """
    kept: dict[str, Tensor] = {}
    found: set[str] = set()
    for key, value in state.items():
        match = re.fullmatch(rf"((?:.+\.)?)branches\.{MARK}([^.]+)\.(.+)", key)
        if match is None:
            kept[key] = value
            continue
        found.add(match[2])
        if match[2] == name:
            kept[match[1] + match[3]] = value
    if found and name not in found:
        raise UsageError(f"the weights have no BatchNorm branch '{name}'{did_you_mean(name, found)}")
    return kept


def _check_option(option: str, name: str, family: Family, stem: int) -> None:
    known = family.options()
    if family.small_stem is not None and stem <= SMALL and option in family.stem_options:
        why = f"has no effect on images of {stem} pixels, whose stem is one 3x3 convolution; leave it out"
        raise UsageError(f"--backbone.{option}: {why}")
    if option not in known:
        raise UsageError(f"--backbone.{option}: {name} has no such option{did_you_mean(option, known)}")


def _per_channel(what: str, values: Sequence[float], data: DataFacts) -> Tensor:
    if len(values) != data.channels:
        raise UsageError(f"{what} {tuple(values)}: expected {data.channels} numbers, one a channel of the images")
    if not all(math.isfinite(value) for value in values) or (what == "std" and min(values) <= 0):
        raise UsageError(f"{what} {tuple(values)}: expected finite numbers, and a std above 0 in each channel")
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


def use_branches(module: nn.Module, names: Sequence[str]) -> nn.Module:
    """``module`` with each BatchNorm replaced in place by independent copies, one a name; one name changes nothing."""
    if len(names) < 2:
        return module
    for key, child in list(module.named_children()):
        if isinstance(child, _BatchNorm):
            setattr(module, key, BranchNorm({name: copy.deepcopy(child) for name in names}))
        else:
            use_branches(child, names)
    return module
