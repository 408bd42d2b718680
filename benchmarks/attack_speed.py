"""How long do attacks take? PGD beside foolbox's, each part of AutoAttack beside the released code's.

    python benchmarks/attack_speed.py --rounds 5

Both sides are timed in turn within one run, since machines drift; what counts are the ratios, the median over the
rounds of the pairs. Each has the same images, radius and steps, but draws of its own; what stands after it is told.
PGD runs in the layout that evaluation has, theirs as the model is usually given. A part of AutoAttack is timed alone,
on 100 digits that a small network, trained to withstand a little, has right.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from foolbox.attacks.projected_gradient_descent import LinfProjectedGradientDescentAttack
from foolbox.models.pytorch import PyTorchModel
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from sklearn.datasets import load_digits
from torch import Tensor, nn

from advss.attacks import Threat, maximise
from advss.attacks.apgd import APGD
from advss.attacks.fab import FAB
from advss.attacks.pgd import PGD
from advss.attacks.square import Square
from advss.hookspecs import DataFacts
from advss.models.classifier import ImageClassifier
from advss.models.encoder import build_encoder
from advss.training.memory import keep_freed_memory

Attack = Callable[[], Tensor]  # which images stand after it
Victim = tuple[nn.Module, Tensor, Tensor]
RESULT = Path(__file__).parent / "results/attack_speed.json"
EPS, IMAGES = 0.1, 100


def digits() -> Victim:
    """A small network, and 100 digits that it did not see and has right."""
    data = load_digits()
    x, label = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(data.target)
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 16, 3, padding=1), nn.Tanh(), nn.Conv2d(16, 16, 3, stride=2), nn.Tanh())
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(144, 10))
    optimizer, generator = torch.optim.Adam(model.parameters(), lr=0.008), torch.Generator().manual_seed(0)
    for step in range(120):
        some, own = x[:1200].roll(-100 * step, 0)[:100], label[:1200].roll(-100 * step)[:100]

        def loss(inputs: tuple[Tensor, ...], own: Tensor = own) -> Tensor:
            return F.cross_entropy(model(inputs[0]), own)

        attacked = maximise(loss, (some,), generator, Threat(eps=0.15, step_size=0.15, steps=1))
        optimizer.zero_grad()
        loss(attacked).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.eval()
    right = (model(x[1200:]).argmax(1) == label[1200:]).nonzero()[:IMAGES, 0]
    return model, x[1200:][right], label[1200:][right]


def resnet() -> Victim:
    """A ResNet-18 a quarter as wide, untrained, random images of 32 pixels, and what it answers about them."""
    torch.manual_seed(0)
    encoder = build_encoder(
        "resnet18",
        {"channels": [16, 32, 64, 128]},
        DataFacts(images=64, side=32, classes=10),
        mean=[0.5] * 3,
        std=[0.25] * 3,
    )
    model, x = ImageClassifier(encoder, encoder.tail(), 10), torch.rand(64, 3, 32, 32)
    model(x)  # gives the BatchNorm statistics of their own
    model.eval()
    return model, x, model(x).argmax(1)


def pgd(victim: Victim, eps: float) -> tuple[Attack, Attack]:
    """PGD-20 in ℓ∞ by us, channels last, and by foolbox."""
    model, x, label = victim
    ours = copy.deepcopy(model).to(memory_format=torch.channels_last)
    images = x.contiguous(memory_format=torch.channels_last)
    threat = Threat(eps=eps, step_size=eps / 4, steps=20)
    other = LinfProjectedGradientDescentAttack(abs_stepsize=eps / 4, steps=20, random_start=True)
    theirs = PyTorchModel(model, bounds=(0, 1), device=x.device)
    return (
        lambda: PGD()(ours, images, label, threat, torch.Generator().manual_seed(0)).robust_B,
        lambda: ~other(theirs, x, label, epsilons=eps)[2],
    )


def part(
    victim: Victim, ours: APGD | FAB | Square, theirs: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Attack, Attack]:
    """A part of AutoAttack by us and by the released code."""
    model, x, label = victim

    def stands(made: Tensor) -> Tensor:
        with torch.no_grad():
            right: Tensor = model(made).argmax(1) == label
        return right

    return (
        lambda: stands(ours(model, x, label, Threat(eps=EPS), torch.Generator().manual_seed(0))),
        lambda: stands(theirs(x, label)),
    )


def pairs() -> dict[str, tuple[int, tuple[Attack, Attack]]]:
    """By name: number of images, and the two attacks."""
    small, wide = digits(), resnet()
    model = small[0]
    norm = {"norm": "Linf", "eps": EPS, "seed": 0}
    released: dict[str, tuple[APGD | FAB | Square, Callable[[Tensor, Tensor], Tensor]]] = {
        "apgd-ce": (APGD(), APGDAttack(model, n_iter=100, **norm).perturb),
        "apgd-t": (APGD(loss="targeted"), APGDAttack_targeted(model, n_iter=100, **norm).perturb),
        "fab-t": (FAB(), FABAttack_PT(model, n_iter=100, targeted=True, n_target_classes=9, **norm).perturb),
        "square": (Square(), SquareAttack(model, n_queries=5000, resc_schedule=False, **norm).perturb),
    }
    parts = {name: (IMAGES, part(small, *both)) for name, both in released.items()}
    return {"pgd, digits": (IMAGES, pgd(small, EPS)), "pgd, resnet18": (64, pgd(wide, 2 / 255)), **parts}


def timed(attack: Attack) -> tuple[float, int]:
    """Seconds, and how many images stand."""
    began = time.perf_counter()
    stands = attack()
    return time.perf_counter() - began, int(stands.sum())


def compared(images: int, both: tuple[Attack, Attack], rounds: int) -> dict[str, float | int]:
    """Seconds an image of ours and theirs, their ratio, and what stands; a first round is not counted."""
    found = [[timed(attack) for attack in both] for _ in range(rounds + 1)][1:]
    seconds = [[one[0] for one in side] for side in zip(*found, strict=True)]
    return {
        "images": images,
        "ours_s_per_image": round(statistics.median(seconds[0]) / images, 5),
        "theirs_s_per_image": round(statistics.median(seconds[1]) / images, 5),
        "ratio": round(statistics.median(a / b for a, b in zip(*seconds, strict=True)), 3),
        "ours_stand": found[-1][0][1],
        "theirs_stand": found[-1][1][1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    keep_freed_memory()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    figures = {}
    print(f"{'':<14} {'ours':>9} {'theirs':>9}  ratio  stand   seconds an image")
    for name, (images, both) in pairs().items():
        one = figures[name] = compared(images, both, arguments.rounds)
        seconds = f"{one['ours_s_per_image']:9.5f} {one['theirs_s_per_image']:9.5f}"
        print(f"{name:<14} {seconds} {one['ratio']:6.3f}  {one['ours_stand']}/{one['theirs_stand']}", flush=True)
    about = {
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "commit": commit,
    }
    content = {**about, "rounds": arguments.rounds, "attacks": figures}
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
