"""How long is a PGD-10 training step? The engine against the bare passes, and against the algorithm written plainly.

    python benchmarks/step_speed.py --backbone resnetv2_50 --batch 32 --rounds 5

All are timed in turn within one run, since machines drift; what counts are the ratios, the median over the rounds of
the pairs. "bare" is the passes that nobody can leave out, in the engine's layout and precision: 10 forward and input
gradient passes, one forward and parameter gradient pass, the optimiser's step. "plain" is adversarial training as it is
usually written: NCHW float32, `loss.backward()` in the attack, parameter gradients and all.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from advss.config import Choice
from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Batch, DataFacts, Defense, FinetuneScheme
from advss.models.classifier import ImageClassifier
from advss.models.encoder import build_encoder
from advss.plugins.registry import build
from advss.randomness import stream
from advss.training.layout import FORMATS
from advss.training.memory import keep_freed_memory

EPS, STEP, STEPS = 8 / 255, 2 / 255, 10
Step = Callable[[], None]


class Setting:
    """One network, its batch and its optimiser, in one layout and precision."""

    def __init__(self, backbone: str, batch: int, *, layout: str, bf16: bool, device: torch.device) -> None:
        torch.manual_seed(0)
        encoder = build_encoder(
            backbone, {}, DataFacts(images=batch, side=32, classes=10), mean=[0.5] * 3, std=[0.25] * 3
        )
        self.layout, self.bf16, self.device = FORMATS[layout], bf16, device
        self.model = ImageClassifier(encoder, encoder.tail(), 10).to(device)
        self.model.to(memory_format=self.layout)
        self.x = torch.rand(batch, 3, 32, 32, device=device).contiguous(memory_format=self.layout)
        self.label = torch.randint(10, (batch,), device=device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)

    def criterion(self, x: Tensor) -> Tensor:
        """Cross-entropy at images."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            logits = self.model(x)
        return F.cross_entropy(logits.float(), self.label)


def engine(setting: Setting) -> Step:
    """The step as the trainer makes it."""
    scheme, defense = build("finetune", Choice("full")), build("defense", Choice("pgd"))
    assert isinstance(scheme, FinetuneScheme)
    assert isinstance(defense, Defense)
    batch = Batch(setting.x, setting.x, torch.arange(len(setting.x)), setting.label)

    def step() -> None:
        generator = stream(setting.device, 0)
        objective = TaskObjective(
            setting.model,
            {"full": scheme},
            (scheme.views(batch, generator),),
            stage="finetune",
            key=(0,),
            bf16=setting.bf16,
            memory_format=setting.layout,
        )
        inputs = defense.attack(objective, generator)
        setting.optimizer.zero_grad(set_to_none=True)
        defense.loss(objective, inputs, generator).total.backward()  # type: ignore[no-untyped-call]
        setting.optimizer.step()

    return step


def bare(setting: Setting) -> Step:
    """The passes alone."""

    def step() -> None:
        parameters = list(setting.model.parameters())
        for parameter in parameters:
            parameter.requires_grad_(False)
        x = setting.x.clone().requires_grad_()
        for _ in range(STEPS):
            torch.autograd.grad(setting.criterion(x), x)
        for parameter in parameters:
            parameter.requires_grad_(True)
        setting.optimizer.zero_grad(set_to_none=True)
        setting.criterion(x.detach()).backward()  # type: ignore[no-untyped-call]
        setting.optimizer.step()

    return step


def plain(setting: Setting) -> Step:
    """Adversarial training as it is usually written."""

    def step() -> None:
        x = (setting.x + torch.empty_like(setting.x).uniform_(-EPS, EPS)).clamp(0, 1)
        for _ in range(STEPS):
            x = x.detach().requires_grad_()
            setting.criterion(x).backward()  # type: ignore[no-untyped-call]
            assert x.grad is not None
            x = x + STEP * x.grad.sign()
            x = torch.max(torch.min(x, setting.x + EPS), setting.x - EPS).clamp(0, 1)
        setting.optimizer.zero_grad()
        setting.criterion(x.detach()).backward()  # type: ignore[no-untyped-call]
        setting.optimizer.step()

    return step


def seconds(step: Step, device: torch.device) -> float:
    """Of one step, the device waited for."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return f"{model[0] if model else platform.processor()}, {torch.get_num_threads()} threads"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnetv2_50")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layout", default="channels_last", choices=list(FORMATS))
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def setting(layout: str, bf16: bool) -> Setting:
        return Setting(arguments.backbone, arguments.batch, layout=layout, bf16=bf16, device=device)

    chosen, halved = setting(arguments.layout, False), setting(arguments.layout, True)
    steps = {
        "engine": engine(chosen),
        "bare": bare(chosen),
        "plain": plain(setting("contiguous", False)),
        "engine bf16": engine(halved),
        "bare bf16": bare(halved),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for counted in [False] + [True] * arguments.rounds:
        for name, step in steps.items():
            took = seconds(step, device)
            if counted:
                times[name].append(took)
    report(times, arguments, machine(device))


def report(times: dict[str, list[float]], arguments: argparse.Namespace, where: str) -> None:
    def ratio(one: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))

    figures = {
        "machine": where,
        "torch": torch.__version__,
        "backbone": arguments.backbone,
        "batch": arguments.batch,
        "layout": arguments.layout,
        "rounds": arguments.rounds,
        "median_s": {name: round(statistics.median(values), 4) for name, values in times.items()},
        "engine / bare": round(ratio("engine", "bare"), 3),
        "engine bf16 / bare bf16": round(ratio("engine bf16", "bare bf16"), 3),
        "plain / engine": round(ratio("plain", "engine"), 3),
        "plain / engine bf16": round(ratio("plain", "engine bf16"), 3),
    }
    print(json.dumps(figures, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
