"""How long is a training step with the diversity term (AP+DPE) against one without it (AP+SE)?

    python benchmarks/ensemble_speed.py --rounds 5

Selfie, rotation and jigsaw under PGD-10, the three as one objective, on the backbone of the recipe `digits` or, by
`--backbone`, any other. All are timed in turn within one run, since machines drift; what counts are the ratios, medians
over the rounds. "PyTorch's" is the same step with PyTorch's own second derivative of batch normalisation.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from advss.config import Choice
from advss.ensemble.diversity import Diversity
from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Batch, DataFacts, Defense, PretextTask
from advss.models.encoder import build_encoder
from advss.plugins.registry import build
from advss.randomness import stream
from advss.training.layout import FORMATS
from advss.training.memory import keep_freed_memory
from advss.training.work import make_traced_views, make_views

DIGITS = {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128], "stem_chs": 16}
OPTIONS: dict[str, dict[str, Any]] = {"selfie": {"layers": 2}, "rotation": {}, "jigsaw": {}}
CASES = {
    "AP+SE": Diversity(),
    "AP+DPE": Diversity(0.1),
    "in the attack only": Diversity(0.1, "attack"),
    "in the loss only": Diversity(0.1, "loss"),
    "in image pixels": Diversity(0.1, pixels="image"),
}


class Setting:
    """Encoder, three tasks and a batch, in one layout."""

    def __init__(self, arguments: argparse.Namespace, layout: str) -> None:
        torch.manual_seed(0)
        self.device, self.layout, self.bf16 = torch.device(arguments.device), FORMATS[layout], arguments.bf16
        facts = DataFacts(images=arguments.batch, side=32, classes=10)
        options = DIGITS if arguments.backbone == "resnetv2_18" else {}
        self.encoder = build_encoder(arguments.backbone, options, facts, mean=[0.5] * 3, std=[0.25] * 3)
        self.tasks: dict[str, PretextTask] = {}
        for name, own in OPTIONS.items():
            task = build("pretext", Choice(name, own))
            assert isinstance(task, PretextTask)
            task.build(self.encoder)
            self.tasks[name] = task
        self.modules = nn.ModuleList([self.encoder, *self.tasks.values()])
        self.modules.to(self.device).to(memory_format=self.layout)
        x = torch.rand(arguments.batch, 3, 32, 32, device=self.device)
        places = torch.arange(len(x), device=self.device)
        self.batch = Batch(x, x, places, places % 10)
        defense = build("defense", Choice("pgd"))
        assert isinstance(defense, Defense)
        self.defense = defense

    def step(self, diversity: Diversity) -> None:
        """The passes of one training step."""
        views, pixels = make_views(self.tasks, self.batch, (0,)), None
        if diversity.pixels == "image":
            raw = self.batch.raw.detach().requires_grad_()
            views, pixels = make_traced_views(self.tasks, raw, replace(self.batch, x=raw, raw=raw), (0,))
        objective = TaskObjective(
            self.encoder,
            self.tasks,
            views,
            stage="pretrain",
            key=(0,),
            diversity=diversity.in_attack(0),
            loss_diversity=diversity.in_loss(0),
            pixels=pixels,
            bf16=self.bf16,
            memory_format=self.layout,
        )
        generator = stream(self.device, 0)
        inputs = self.defense.attack(objective, generator)
        self.defense.loss(objective, inputs, generator).total.backward()  # type: ignore[no-untyped-call]
        self.modules.zero_grad(set_to_none=True)


def pytorchs(setting: Setting) -> None:
    """AP+DPE with PyTorch's second derivative of batch normalisation."""
    with mock.patch("advss.ensemble.objective.FastSecondOrder", nullcontext):
        setting.step(CASES["AP+DPE"])


def seconds(work: Callable[[], None], device: torch.device) -> float:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    began = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - began


def measured(setting: Setting, rounds: int) -> dict[str, float]:
    """Median seconds of each case, after one round that is not counted."""
    steps: dict[str, Callable[[], None]] = {name: partial(setting.step, d) for name, d in CASES.items()}
    steps["AP+DPE, PyTorch's"] = partial(pytorchs, setting)
    took: dict[str, list[float]] = {name: [] for name in steps}
    for counted in [False] + [True] * rounds:
        for name, step in steps.items():
            one = seconds(step, setting.device)
            if counted:
                took[name].append(one)
    return {name: statistics.median(values) for name, values in took.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnetv2_18")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's own choice")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ensemble_speed.json"))
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    rows = {layout: measured(Setting(arguments, layout), arguments.rounds) for layout in FORMATS}
    where = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else platform.machine()
    about = {"device": where, "threads": torch.get_num_threads(), "torch": torch.__version__, "batch": arguments.batch}
    about |= {"backbone": arguments.backbone, "bf16": arguments.bf16, "rounds": arguments.rounds}
    arguments.out.write_text(json.dumps(about | {"seconds a step": rows}, indent=1) + "\n")
    for layout, row in rows.items():
        print(f"\n{layout}")
        for name, value in row.items():
            print(f"  {name:<22} {value:7.3f} s  {value / row['AP+SE']:5.2f} × AP+SE")


if __name__ == "__main__":
    main()
