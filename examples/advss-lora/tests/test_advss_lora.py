"""LoRA: what moves, what is left of it, and that a run of it can be killed."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import advss
from advss.cli.main import main
from advss.hookspecs import Classifier
from advss.testing import conformance
from advss_lora import LoRA, LowRank

HERE = "--data.limit 200 --device cpu --memory-format contiguous --tracking false"
PRE = f"--pretext rotation --defense none --pretrain-epochs 1 {HERE}"
NARROW = "--backbone resnet18 --backbone.layers [1,1,1,1] --backbone.channels [8,8,16,16]"
TUNE = (
    "--finetune lora --finetune.rank 2 --finetune-ema 0.9 --finetune-epochs 1 --finetune-batch-size 16 "
    f"--finetune-defense pgd --finetune-defense.steps 2 --eval-valid-steps 1 --checkpoint-minutes 1e-9 {HERE}"
)


class Net(Classifier):
    """A classifier of which a convolution and a linear layer were loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 4, 3)  # type: ignore[assignment]
        self.tail = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
        self.head = nn.Linear(5, 2)
        self.kept = [*self.encoder.parameters(), *self.tail.parameters()]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.tail(self.encoder(x)))
        return logits

    def fresh(self) -> list[nn.Parameter]:
        return [p for p in self.parameters() if all(p is not q for q in self.kept)]


def built(*, rank: int = 2, alpha: float = 6.0) -> tuple[Net, LoRA]:
    net, scheme = Net(), LoRA(rank=rank, alpha=alpha, lr_scale=0.5)
    scheme.build(net)
    return net, scheme


def images() -> Tensor:
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_it_begins_at_what_was_loaded() -> None:
    plain = Net()
    adapted = copy.deepcopy(plain)
    LoRA().build(adapted)
    assert torch.equal(adapted(images()), plain(images()))


def test_head_and_adapters_train_and_what_was_loaded_stands() -> None:
    net, scheme = built()
    (phase,) = scheme.phases(net)
    rest, adapters = (group["params"] for group in phase.groups)
    assert {id(p) for p in rest} == {id(p) for p in net.head.parameters()}
    assert {id(p) for p in adapters} == {id(p) for m in net.modules() if isinstance(m, LowRank) for p in m.parameters()}
    assert [tuple(p.shape) for p in adapters] == [(2, 27), (4, 2), (2, 4), (5, 2)]
    assert phase.groups[1]["lr_scale"] == 0.5


def test_the_weight_that_is_left_is_the_loaded_one_and_alpha_over_rank_times_the_product() -> None:
    net, scheme = built(rank=2, alpha=6.0)
    loaded = {name: t.clone() for name, t in Net().state_dict().items()}
    adapters = [m for m in net.modules() if isinstance(m, LowRank)]
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn_like(p))
        state = {name: t.detach() for name, t in scheme.deployed(net).items()}
        base = net.state_dict()["encoder.parametrizations.weight.original"]
        product = torch.einsum("or,rk->ok", adapters[0].up.double(), adapters[0].down.double())
        expected = base.double() + 3.0 * product.view(4, 3, 3, 3)
    assert state.keys() == loaded.keys()
    torch.testing.assert_close(state["encoder.weight"].double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_the_plain_classifier_answers_alike(dtype: torch.dtype, close: float) -> None:
    net, scheme = built()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.3 * torch.randn_like(p))
    plain, x = Net().to(dtype), images().to(dtype)
    plain.load_state_dict(scheme.deployed(net.to(dtype)))
    torch.testing.assert_close(plain(x), net(x), atol=close, rtol=0)


@pytest.mark.parametrize("option", ["rank 0", "alpha 0", "lr_scale 0"])
def test_options_out_of_range_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--finetune", "lora", *f"--finetune.{option}".split()]) == 2
    assert f"--finetune.{option.split()[0]} must be" in capsys.readouterr().err


# ---------------------------------------------------------------- runs
@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``pre``, pretrained, ``whole``, which goes on from it under pgd, and ``killed``, the same killed on its way."""
    folder = tmp_path_factory.mktemp("runs")
    killed = folder / "killed"
    tune = ["finetune", "--from", str(folder / "pre"), "--runs-dir", str(folder), *TUNE.split()]
    assert main(["pretrain", "--name", "pre", "--runs-dir", str(folder), *f"{PRE} {NARROW}".split()]) == 0
    assert main([*tune, "--name", "whole"]) == 0
    command = [str(Path(sys.executable).with_name("advss")), *tune, "--name", "killed"]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    while not (killed / "finetune" / "last.json").is_file() and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (killed / "finetune" / "best.json").is_file(), "it was killed too late"
    assert main(["finetune", "--resume", str(killed)]) == 0
    return folder


def tensors(runs: Path, name: str, which: str) -> dict[str, Tensor]:
    return load_file(runs / name / "finetune" / f"{which}.safetensors")


@pytest.mark.parametrize("which", ["best", "last"])
def test_killed_and_resumed_it_is_the_same_bit_for_bit(which: str, runs: Path) -> None:
    whole, killed = (tensors(runs, name, which) for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    assert [name for name in whole if not torch.equal(whole[name], killed[name])] == []


def test_last_holds_what_was_loaded_as_it_was_and_adapters_that_moved(runs: Path) -> None:
    last, loaded = tensors(runs, "whole", "last"), load_file(runs / "pre" / "pretrain" / "best.safetensors")
    base = {name: t for name, t in last.items() if name.startswith("encoder.") and name.endswith("weight.original")}
    assert base
    for name, t in base.items():
        assert torch.equal(t, loaded[name.replace("parametrizations.weight.original", "weight")])
    ups = [t for name, t in last.items() if name.endswith(".up") and not name.startswith(("average.", "optimizer."))]
    assert len(ups) == len(base) + len([name for name in last if name.startswith("tail.") and name.endswith(".up")])
    assert all(t.abs().max() > 0 for t in ups)


def test_the_best_is_the_moving_average_merged(runs: Path) -> None:
    last, best = tensors(runs, "whole", "last"), tensors(runs, "whole", "best")
    at = "average.encoder.net.layer1.0.conv1.parametrizations.weight."
    up, down = last[f"{at}0.up"], last[f"{at}0.down"]
    merged = best["encoder.net.layer1.0.conv1.weight"]
    torch.testing.assert_close(merged, last[f"{at}original"] + 8.0 * (up @ down).view_as(merged))
    assert not [name for name in best if "parametrizations" in name]


def test_the_model_is_loaded_where_this_package_is_not(runs: Path) -> None:
    code = (
        "import sys, torch, advss; from advss.plugins import registry\n"
        "assert 'lora' not in registry().names('finetune')\n"
        f"torch.save(advss.load_model({str(runs / 'whole')!r})(torch.ones(1, 3, 32, 32)), {str(runs / 'logits')!r})"
    )
    env = os.environ | {"ADVSS_DISABLE_PLUGINS": "advss-lora"}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    expected = advss.load_model(runs / "whole")(torch.ones(1, 3, 32, 32))
    assert torch.equal(torch.load(runs / "logits"), expected)


test_it_keeps_the_contract = conformance("lora")
