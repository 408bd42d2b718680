"""LP-FT: which parameters move in which phase, and how fast, by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor, nn

from advss.cli.main import main
from advss.hookspecs import Classifier
from advss.testing import conformance
from advss_lpft import LPFT

TINY = "--data.limit 200 --backbone resnet18 --backbone.layers [1,1,1,1] --backbone.channels [8,8,16,16]"
QUICK = "--finetune lp-ft --finetune-schedule constant --eval-steps 1 --tracking false --log-every 1"


class Net(Classifier):
    """A classifier whose pretraining loaded the encoder, and the last stage or not."""

    def __init__(self, *loaded: str) -> None:
        super().__init__()
        self.encoder = nn.Linear(2, 3)  # type: ignore[assignment]
        self.tail, self.head, self.loaded = nn.Linear(3, 4), nn.Linear(4, 5), loaded

    def fresh(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters() if name.partition(".")[0] not in self.loaded]


def names(net: Net, parameters: list[nn.Parameter]) -> set[str]:
    chosen = {id(p) for p in parameters}
    return {name.partition(".")[0] for name, p in net.named_parameters() if id(p) in chosen}


@pytest.mark.parametrize(
    ("loaded", "probe"),
    [(("encoder", "tail"), {"head"}), (("encoder",), {"tail", "head"})],
)
def test_what_pretraining_did_not_load_is_the_probe_and_then_all_trains(
    loaded: tuple[str, ...], probe: set[str]
) -> None:
    net = Net(*loaded)
    first, second = LPFT(share=0.25, lr_scale=0.5).phases(net)
    assert names(net, first.groups[0]["params"]) == probe
    assert names(net, second.groups[0]["params"]) == {"encoder", "tail", "head"}
    assert (first.share, second.share) == (0.25, 0.75)
    assert second.groups[0]["lr_scale"] == 0.5


@pytest.mark.parametrize("option", ["share 0", "share 1", "lr_scale 0"])
def test_options_out_of_range_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--finetune", "lp-ft", *f"--finetune.{option}".split()]) == 2
    assert f"--finetune.{option.split()[0]} must be" in capsys.readouterr().err


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``probe``, whose one epoch of fine-tuning is the first phase, and ``both``, with an epoch of each."""
    folder = tmp_path_factory.mktemp("runs")
    at = ["--runs-dir", str(folder)]
    probe = (
        f"--pretext rotation --pretrain-epochs 1 --defense none --finetune-epochs 1 --finetune.share 0.9 {TINY} {QUICK}"
    )
    assert main(["fit", "--name", "probe", *at, *probe.split()]) == 0
    both = f"--data.limit 200 --finetune-defense none --finetune-epochs 2 --finetune.share 0.5 {QUICK}"
    assert main(["finetune", "--name", "both", "--from", str(folder / "probe"), *at, *both.split()]) == 0
    return folder


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Which parts of the classifier differ, statistics of BatchNorm apart."""
    learnt = [name for name in after if name.startswith(("encoder.", "tail.", "head.")) and "running" not in name]
    return {n.partition(".")[0] for n in learnt if n not in before or not before[n].equal(after[n])}


def pretrained(runs: Path) -> dict[str, Tensor]:
    tensors = load_file(runs / "probe" / "pretrain" / "best.safetensors")
    return {name.removeprefix("tasks.rotation."): tensor for name, tensor in tensors.items()}


def finetuned(runs: Path, name: str) -> dict[str, Tensor]:
    tensors = load_file(runs / name / "finetune" / "last.safetensors")
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("optimizer.")}


def test_in_the_first_phase_the_head_alone_moves_and_statistics_stand(runs: Path) -> None:
    before, after = pretrained(runs), finetuned(runs, "probe")
    assert moved(before, after) == {"head"}
    assert all(before[name].equal(t) for name, t in after.items() if "running" in name)


def test_in_the_second_phase_all_moves(runs: Path) -> None:
    assert moved(pretrained(runs), finetuned(runs, "both")) == {"encoder", "tail", "head"}


def test_the_second_phase_has_a_tenth_of_the_learning_rate(runs: Path) -> None:
    lines = [json.loads(line) for line in (runs / "both" / "metrics.jsonl").read_text().splitlines()]
    rates = {line["epoch"]: line["values"]["step/lr"] for line in lines if "step/lr" in line.get("values", {})}
    assert rates[2] == pytest.approx(rates[1] / 10)


test_it_keeps_the_contract = conformance("lp-ft")
