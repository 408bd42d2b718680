"""Kill a run many times, at instants no code can foresee, and see whether anything was lost.

A tiny fit on digits that writes a checkpoint at every step runs as a process of its own, is killed by SIGKILL at a
random instant, resumed, killed again, and at last let finish. After each kill every checkpoint on disk is loaded; at
the end the weights and the result are compared, bit for bit, with those of a run that nobody killed.

    python benchmarks/kill_resume.py --kills 50 --seed 0
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

import torch

from advss.config import Choice, EvalSettings, RunConfig, StageSettings
from advss.errors import UsageError
from advss.stages.fit import fit
from advss.training.checkpoints import has_checkpoint, load_checkpoint
from advss.training.reporting import Silent

PROCESSES = multiprocessing.get_context("fork")  # each start would else spend seconds on imports
STAGES, KINDS = ("pretrain", "finetune"), ("last", "best")
SAME = ("ta", "ra", "best_epochs", "best_metrics", "epochs", "skipped_steps")


def config(runs_dir: Path, name: str, epochs: int) -> RunConfig:
    """Jigsaw under PGD on 80 digits, 4 steps an epoch, a checkpoint after each."""
    stage = StageSettings(epochs=epochs, batch_size=16, lr=0.05, schedule="onecycle", clip=5.0, ema=0.9, crop=2)
    attack = Choice("pgd", {"steps": 1})
    return RunConfig(
        pretext=(Choice("jigsaw", {"permutations": 5}, "jigsaw"),),
        defense=attack,
        finetune=Choice("full"),
        finetune_defense=attack,
        data=Choice("digits"),
        backbone=Choice("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}),
        pretraining=stage,
        finetuning=stage,
        evaluation=EvalSettings(steps=2, valid_steps=1, limit=20),
        limit=80,
        name=name,
        device="cpu",
        memory_format="contiguous",
        runs_dir=runs_dir,
        checkpoint_minutes=1e-9,
        tracking=False,
    )


def train(runs_dir: Path, name: str, epochs: int, begun: Event | None = None) -> None:
    """Start, or go on with, a run; ``begun`` is set when it begins to train."""

    class Announcer(Silent):
        def start(self, stage: str, *, steps: int, done: int, epochs: int, unit: str = "step") -> None:
            if begun is not None:
                begun.set()

    torch.set_num_threads(1)
    fit(config(runs_dir, name, epochs), resume=True, reporter=Announcer())


@dataclass
class Figures:
    """What is counted."""

    kills: int = 0
    loaded: int = 0
    unloadable: int = 0
    fell_back: int = 0


def kill_at_random(runs_dir: Path, name: str, epochs: int, after_s: float) -> bool:
    """Go on with a run and kill it so long after it began to train; whether it was killed before it ended."""
    begun = PROCESSES.Event()
    process = PROCESSES.Process(target=train, args=(runs_dir, name, epochs, begun))
    process.start()
    begun.wait(60)
    process.join(after_s)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def finish(runs_dir: Path, name: str, epochs: int) -> None:
    process = PROCESSES.Process(target=train, args=(runs_dir, name, epochs))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"run {name} ended with exit code {process.exitcode}")


def check(folder: Path, figures: Figures) -> None:
    """Load every checkpoint of a run."""
    for path in (folder / stage / f"{kind}.safetensors" for stage in STAGES for kind in KINDS):
        if not has_checkpoint(path):
            continue
        try:
            checkpoint = load_checkpoint(path, warn=False)
        except UsageError as error:
            figures.unloadable += 1
            print(error)
        else:
            figures.loaded += 1
            figures.fell_back += checkpoint.path != path


def differences(one: Path, other: Path) -> list[str]:
    """Tensors and figures in which two runs differ."""
    found = []
    for place in (f"{stage}/{kind}" for stage in STAGES for kind in KINDS):
        a, b = (load_checkpoint(run / f"{place}.safetensors").tensors for run in (one, other))
        found += [f"{place} {n}" for n in sorted(a.keys() | b.keys()) if n not in a or n not in b]
        found += [f"{place} {n}" for n in sorted(a.keys() & b.keys()) if not torch.equal(a[n], b[n])]
    results = [json.loads((run / "result.json").read_text()) for run in (one, other)]
    return found + [key for key in SAME if results[0][key] != results[1][key]]


def measure(kills: int, seed: int, epochs: int, longest_s: float) -> int:
    figures, draw, began, runs = Figures(), random.Random(seed), time.monotonic(), 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        train(folder, "whole", epochs)  # here, so that what is forked has all its imports behind it
        while figures.kills < kills:  # a run that ends before enough kills is followed by another
            killed = kill_at_random(folder, f"killed{runs}", epochs, draw.uniform(0, longest_s))
            check(folder / f"killed{runs}", figures)
            figures.kills += killed
            runs += not killed
        finish(folder, f"killed{runs}", epochs)
        broken = [folder / f"killed{run}" for run in range(1, runs + 1)]
        differing = [difference for run in broken for difference in differences(folder / "whole", run)]
    print(
        f"{figures.kills} kills of {runs} runs, seed {seed}: "
        f"{figures.loaded} checkpoints loaded, {figures.unloadable} unloadable, "
        f"{figures.fell_back} from the one before; resumed = uninterrupted: "
        f"{'bit for bit' if not differing else 'NO: ' + ', '.join(differing[:5])}; "
        f"{time.monotonic() - began:.0f} s on {platform.machine()}, Python {platform.python_version()}"
    )
    return int(bool(differing or figures.unloadable))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=8, help="of each stage, 4 steps each")
    parser.add_argument("--longest", type=float, default=1.5, help="seconds of training before a kill, at most")
    said = parser.parse_args()
    return measure(said.kills, said.seed, said.epochs, said.longest)


if __name__ == "__main__":
    sys.exit(main())
