"""Backbones that a plugin's module registers with timm: found, cut, trained, loaded again; what cannot be is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import timm
import torch

import advss
from advss.cli.main import main
from advss.config import Choice
from advss.errors import UsageError
from advss.hookspecs import DataFacts
from advss.models.encoder import TimmEncoder, build_encoder
from advss.plugins import forget, registry
from advss.plugins.discovery import discover
from advss.plugins.provenance import used_by

Install = Callable[..., str]
Told = Callable[[], list[str]]
Capture = pytest.CaptureFixture[str]
CODE = """
from timm.layers import BatchNormAct2d
from timm.models import build_model_with_cfg, register_model
from timm.models.convnext import ConvNeXt
from timm.models.resnet import Bottleneck, ResNet
from timm.models.resnetv2 import ResNetV2
from timm.models.vision_transformer import VisionTransformer
from torch import nn

default_cfgs = {name: {} for name in ("acme_resnet", "acme_v2", "acme_convnext", "acme_vit", "acme_own", "acme_mine")}

class Block(Bottleneck):
    expansion = 2
    def __init__(self, inplanes, planes, *args, **options):
        super().__init__(inplanes, planes, *args, **options)
        out = planes * self.expansion
        self.conv3, self.bn3 = nn.Conv2d(self.conv2.out_channels, out, 1, bias=False), nn.BatchNorm2d(out)

def built(kind, name, given, options):
    return build_model_with_cfg(kind, name, options.pop("pretrained"), **{**given, **options})

@register_model
def acme_resnet(**options):
    return built(ResNet, "acme_resnet", dict(block=Block, layers=(1, 1, 1, 1), channels=(8, 8, 8, 12)), options)

@register_model
def acme_v2(**options):
    shape = dict(layers=(1, 1, 1, 1), channels=(8, 8, 16, 16), stem_chs=8, norm_layer=BatchNormAct2d)
    return built(ResNetV2, "acme_v2", shape, options)

@register_model
def acme_convnext(**options):
    return built(ConvNeXt, "acme_convnext", dict(depths=(1, 1, 1, 1), dims=(8, 8, 16, 16)), options)

@register_model
def acme_vit(**options):
    return built(VisionTransformer, "acme_vit", dict(patch_size=4, embed_dim=24, depth=4, num_heads=3), options)

class Own(ResNet):
    def forward_features(self, x):
        return super().forward_features(x) * 2

@register_model
def acme_own(**options):
    return built(Own, "acme_own", dict(block=Block, layers=(1, 1, 1, 1), channels=(8, 8, 8, 8)), options)

@register_model
def acme_mine(pretrained=False, **options):
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten())

@register_model
def acme_bare(pretrained=False):
    return ResNet(Block, (1, 1, 1, 1))

@register_model
def acme_odd(**options):
    raise RuntimeError("two\\nlines")
"""
NARROW = "--pretext none --defense none --finetune-epochs 1 --finetune-batch-size 18 --data.limit 40"
QUICK = f"{NARROW} --eval-steps 1 --eval-valid-steps 1 --device cpu --memory-format contiguous --tracking false --quiet"


@pytest.fixture(autouse=True)
def _own_registry() -> Iterator[None]:
    yield
    _forget_backbones()


def _forget_backbones() -> None:
    models = timm.models._registry
    for name in [name for name in timm.list_models() if not timm.model_entrypoint(name).__module__.startswith("timm.")]:
        models._clear_model_entries(name)
        del models._model_entrypoints[name]


def encoder(name: str, side: int = 32, **options: object) -> TimmEncoder:
    return build_encoder(name, options, DataFacts(10, side, classes=4), mean=[0.5] * 3, std=[0.25] * 3)


@pytest.mark.parametrize(
    ("name", "label", "channels", "features"),
    [
        ("acme_resnet", "ResNet", 16, 24),
        ("acme_v2", "ResNetV2", 16, 16),
        ("acme_convnext", "ConvNeXt", 16, 16),
        ("acme_vit", "ViT", 24, 24),
    ],
)
def test_it_is_cut_as_its_family_is(install: Install, name: str, label: str, channels: int, features: int) -> None:
    install("acme", CODE)
    net = encoder(name)
    assert (net._backbone.family.label, net.channels, net.features) == (label, channels, features)
    assert net.tail()(net(torch.rand(2, 3, 32, 32))).shape == (2, features)
    assert all(not p.is_meta for p in net.parameters())


def test_finding_its_family_draws_nothing(install: Install) -> None:
    install("acme", CODE)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = encoder("acme_resnet").state_dict()
        torch.manual_seed(0)
        torch_resnet = timm.create_model("acme_resnet", num_classes=0)
    drawn = torch_resnet.state_dict()
    assert torch.equal(first["net.layer1.0.conv1.weight"], drawn["layer1.0.conv1.weight"])


def test_its_options_reach_it(install: Install) -> None:
    install("acme", CODE)
    assert encoder("acme_resnet", layers=[2, 1, 1, 1]).state_dict().keys() > encoder("acme_resnet").state_dict().keys()
    with pytest.raises(UsageError, match=r"--backbone\.layer: acme_resnet has no such option; did you mean 'layers'"):
        encoder("acme_resnet", layer=[2, 1, 1, 1])


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("acme_own", r"builds Own; timm's ResNet, ResNetV2, ConvNeXt, ViT can be split$"),
        ("acme_mine", r"builds Sequential; timm's ResNet, ResNetV2, ConvNeXt, ViT can be split$"),
        ("acme_bare", r"cannot build it: .*unexpected keyword argument"),
        ("acme_odd", r"cannot build it: two lines$"),
    ],
)
def test_what_cannot_be_cut_is_one_line_that_names_the_module(install: Install, name: str, error: str) -> None:
    module = install("acme", CODE)
    with pytest.raises(UsageError, match=rf"^--backbone {name}: module {module} {error}"):
        encoder(name)


def test_a_wrong_name_is_told_the_nearest(install: Install) -> None:
    install("acme", CODE)
    with pytest.raises(UsageError, match="timm has no such model, nor has a plugin; did you mean 'acme_resnet'"):
        encoder("acme_resnt")


@pytest.mark.filterwarnings("ignore:Overwriting test_resnet in registry")
def test_timms_own_names_are_not_for_others(install: Install) -> None:
    own = timm.model_entrypoint("test_resnet")
    module = install("acme", CODE.replace("acme_resnet", "test_resnet"))
    registry()
    try:
        with pytest.raises(UsageError, match=f"module {module} registers it over timm's own; it needs another name"):
            encoder("test_resnet")
    finally:
        timm.models.register_model(own)


def test_a_module_of_backbones_needs_no_hook(install: Install) -> None:
    install("acme", CODE)
    assert [fault for fault in discover().faults if fault.distribution == "acme"] == []


def test_a_module_without_either_is_a_fault(install: Install) -> None:
    install("acme", CODE)
    install("other", "import timm\n")
    (fault,) = discover().faults
    assert (fault.distribution, "defines none of the hooks" in fault.error) == ("other", True)


def test_a_distribution_that_is_left_out_brings_none(
    install: Install, told: Callable[[], list[str]], tmp_path: Path
) -> None:
    install("acme", CODE)
    line = f"fit --backbone acme_resnet -p no:acme --runs-dir {tmp_path / 'runs'} {QUICK}"
    assert main(line.split()) == 2
    (error,) = told()
    assert error.startswith("advss: error: --backbone acme_resnet: timm has no such model, nor has a plugin; did you")
    assert not list(tmp_path.glob("runs/*"))


def test_a_run_trains_it_and_another_process_loads_it(install: Install, tmp_path: Path) -> None:
    """Loading imports the plugin, though no command has."""
    site = tmp_path / install("acme", CODE)
    assert main(f"fit --backbone acme_resnet --name one --runs-dir {tmp_path / 'runs'} {QUICK}".split()) == 0
    result = json.loads((tmp_path / "runs" / "one" / "result.json").read_text())
    assert result["backbone"] == "acme_resnet"
    record = {"kind": "backbone", "name": "acme_resnet", "distribution": "acme", "version": "2.5"}
    assert [plugin for plugin in result["plugins"] if plugin["kind"] == "backbone"] == [record]
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.save(x, tmp_path / "x.pt")
    code = (
        "import advss, torch\n"
        "model = advss.load_model('runs/one')\n"
        "with torch.no_grad(): torch.save(model(torch.load('x.pt')), 'y.pt')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)}, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""
    with torch.no_grad():
        expected = advss.load_model(tmp_path / "runs" / "one")(x)
    torch.testing.assert_close(torch.load(tmp_path / "y.pt"), expected)


def test_a_run_whose_backbone_is_gone_says_what_to_install(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """To load its model, to measure it and to go on with it."""
    module = install("acme", CODE)
    assert main(f"fit --backbone acme_resnet --name one --runs-dir {tmp_path / 'runs'} {QUICK}".split()) == 0
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.path.remove(str(tmp_path / module))
    _forget_backbones()
    forget()
    trained = tmp_path / "runs" / "one"
    capsys.readouterr()
    line = "needs the backbone 'acme_resnet' of acme 2.5, which is not installed; pip install acme==2.5"
    with pytest.raises(UsageError, match=line):
        advss.load_model(trained)
    assert main(["evaluate", str(trained)]) == 2
    assert line in capsys.readouterr().err
    result = json.loads((trained / "result.json").read_text())
    (trained / "result.json").write_text(json.dumps(result | {"status": "running"}))
    assert main(["fit", "--resume", str(trained), "--runs-dir", str(trained.parent)]) == 2
    assert line in capsys.readouterr().err
    assert json.loads((trained / "result.json").read_text())["plugins"] == result["plugins"]


def test_timms_own_backbone_is_no_plugin() -> None:
    assert used_by([("backbone", Choice("resnet18"))]) == []
