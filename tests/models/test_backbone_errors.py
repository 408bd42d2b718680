"""What a user can mend about a backbone is said in one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from advss.errors import UsageError
from advss.hookspecs import DataFacts
from advss.models.encoder import build_encoder

NARROW: dict[str, Any] = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


BAD = [
    ("resnet81", {}, r"^--backbone resnet81: timm has no such model, nor has a plugin; did you mean 'resnet18'\?$"),
    ("a", {}, "timm has no such model, nor has a plugin; for example resnet18"),
    ("hf-hub:timm/resnet18", {}, "timm has no such model"),
    ("resnet18.a1_in1k", {}, r"'\.a1_in1k' names .*say --backbone.pretrained true to start from them, or resnet18$"),
    ("efficientnet_b0", {}, "another family than ResNet, ResNetV2, ConvNeXt, ViT"),
    ("resnet18", {"layer": [1, 1, 1, 1]}, r"--backbone\.layer: resnet18 has no such option; did you mean 'layers'\?"),
    ("resnet18", {"num_classes": 3}, r"--backbone\.num_classes: resnet18 has no such option"),
    ("test_vit", {"class_token": True}, r"--backbone\.class_token: test_vit has no such option"),
    ("resnet18", {"layers": "x"}, r"resnet18 --backbone\.layers x: timm cannot build it"),
    ("resnet18", {"layers": [1, 1]}, r"--backbone\.layers \[1, 1\]: cannot be split"),
    ("test_vit", {"depth": 1}, r"--backbone\.depth 1: cannot be split"),
    ("resnet18", {"stem_type": "deep"}, r"--backbone\.stem_type: has no effect on images of 32 pixels"),
    ("test_vit", {"patch_size": 14}, r"patches of 14 pixels do not divide images of 32; give --backbone\.patch_size 4"),
    ("deit_tiny_distilled_patch16_224", {}, "timm cannot build it: .*distillation tokens"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "message"), BAD)
def test_one_line_says_what_is_wrong(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        build_encoder(name, options, DataFacts(10, 32), mean=MEAN, std=STD)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [((0.5,), STD, "expected 3 numbers"), (MEAN, (0.1, 0.0, 0.1), "std above 0"), ((float("nan"),) * 3, STD, "finite")],
)
def test_mean_and_std_are_checked(mean: tuple[float, ...], std: tuple[float, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_encoder("resnet18", NARROW, DataFacts(10, 32), mean=mean, std=std)


@pytest.mark.parametrize(
    ("name", "side", "given", "message"),
    [
        ("test_vit", 32, 8, "multiples of --backbone.patch_size, 16 pixels"),
        ("test_convnext", 96, 8, "at least 16 pixels"),
    ],
)
def test_images_that_do_not_fit_are_refused(name: str, side: int, given: int, message: str) -> None:
    encoder = build_encoder(name, {}, DataFacts(10, side), mean=MEAN, std=STD)
    with pytest.raises(UsageError, match=f"{message}, and these have 8"):
        encoder(torch.zeros(1, 3, given, given))
