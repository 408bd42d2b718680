"""AutoAttack on the README's digits model: RA beside PGD's, what each attack costs, and the released code's time.

    advss fit --pretext selfie --defense pgd --name digits
    python benchmarks/autoattack_digits.py runs/digits --part accuracy
    python benchmarks/autoattack_digits.py runs/digits --part speed

At ε = .1, where attacks differ. Seconds are of the processor, on one thread, as other jobs on the machine do not change
them as they change seconds of the clock. For speed both sides attack the same images in turn, by draws of their own.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import advss
from advss.config import Choice, EvalSettings
from advss.evaluations.evaluate import evaluate
from advss.measuring import Victim
from advss.randomness import stream
from advss.runs.folder import find_run
from advss.training.reporting import Silent

EPS, IMAGES = 0.1, 100
ROUNDS, IN_ROUND = 2, 15
RESULT = Path(__file__).parent / "results/autoattack_digits.json"
PGD = {"PGD-20": {}, "PGD-20, margin": {"loss": "margin"}}


class Timed(Silent):
    """Processor seconds of each part, of one chunk."""

    def __init__(self) -> None:
        self.began, self.seconds = time.process_time(), list[float]()

    def start(self, stage: str, *, steps: int, done: int = 0, epochs: int = 0, unit: str = "") -> None:
        """A measurement begins."""
        self.began, self.seconds = time.process_time(), []

    def step(self, *, step: int, images: int, metrics: Mapping[str, float]) -> None:
        """A part is done."""
        now = time.process_time()
        self.seconds.append(now - self.began)
        self.began = now


def accuracy(run: Path) -> dict[str, Any]:
    """RA under AutoAttack and PGD of the same images, and seconds an image of each attack."""
    from advss_evaluations.autoattack import AutoAttack

    settings = EvalSettings(eps=EPS, step_size=EPS / 4, steps=20, limit=IMAGES, batch_size=IMAGES)
    found = {}
    for name, options in PGD.items():
        (one,) = evaluate(run, settings, [Choice("pgd", options)], device="cpu", reporter=Silent())["measured"]
        found[name] = {"ta": one["figures"]["ta"], "ra": one["figures"]["ra"]}
    timed, choice = Timed(), [Choice("autoattack")]
    (one,) = evaluate(run, settings, choice, device="cpu", reporter=timed)["measured"]
    seconds = defaultdict[str, float](float)
    for part, took in zip(AutoAttack().parts(10), timed.seconds, strict=True):
        seconds[part.split("/")[0]] += took / IMAGES
    costs = {attack: round(took, 3) for attack, took in seconds.items()}
    return {"images": IMAGES, **found, one["title"]: {**one["figures"], "seconds_an_image": costs}}


def speed(run: Path) -> dict[str, Any]:
    """Seconds an image of the whole, ours and the released code's, on images of which each round has others."""
    model, (x, label) = advss.load_model(run), advss.load_data(run)
    rounds = []
    for start in range(0, ROUNDS * IN_ROUND, IN_ROUND):
        some, own = x[start : start + IN_ROUND], label[start : start + IN_ROUND]
        sides = {"ours": ours(model, some, own), "theirs": theirs(model, some, own)}
        rounds.append({side: {"seconds_an_image": s / IN_ROUND, "stand": n} for side, (s, n) in sides.items()})
        print(rounds[-1], flush=True)
    totals = [sum(one[side]["seconds_an_image"] for one in rounds) for side in ("ours", "theirs")]
    return {"images": ROUNDS * IN_ROUND, "rounds": rounds, "ratio": round(totals[0] / totals[1], 3)}


def ours(model: torch.nn.Module, x: Tensor, label: Tensor) -> tuple[float, int]:
    from advss_evaluations.autoattack import AutoAttack

    began, evaluation, answers = time.process_time(), AutoAttack(eps=EPS), dict[str, Tensor]()
    victim = Victim(model, classes=[str(k) for k in range(10)])
    for part in evaluation.parts(10):
        answers = dict(evaluation.measure_part(part, answers, victim, x, label, stream("cpu", 0, part)))
    return time.process_time() - began, int(answers["ra"].sum())


def theirs(model: torch.nn.Module, x: Tensor, label: Tensor) -> tuple[float, int]:
    from pyautoattack import AutoAttack as Released

    began, other = time.process_time(), Released(model, norm="Linf", eps=EPS, version="standard", seed=0)
    made, _ = other.run_standard_evaluation(x, label, batch_size=len(x))
    took = time.process_time() - began
    with torch.no_grad():
        return took, int((model(made).argmax(1) == label).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--part", choices=["accuracy", "speed"], required=True)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run = find_run(arguments.run).path
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    about = {
        "machine": f"{platform.processor() or platform.machine()}, 1 thread",
        "torch": torch.__version__,
        "commit": commit,
        "seed": 0,
    }
    measured = {"accuracy": accuracy, "speed": speed}[arguments.part](run)
    whole = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"eps": EPS}
    arguments.out.write_text(json.dumps({**whole, arguments.part: {**about, **measured}}, indent=1) + "\n")


if __name__ == "__main__":
    main()
