"""What are OpenMP's threads worth on quiet and on busy cores? What advss chooses against each choice made by hand.

    python benchmarks/threads.py --rounds 3 --out benchmarks/results/threads.json
    python benchmarks/threads.py --fit --loads 0 2 --rounds 2 --out benchmarks/results/threads_fit.json

The first is of steps, the second of the default run, shortened; each takes minutes on two cores.

Machines drift and others use them, so all settings take turns within one load, and what counts are the ratios of the
medians. A load is that many processes of this script's own that do nothing but count. A small network trains in
processes that wait while they have no turn; "advss" starts when the load is there and looks at the cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from advss.threads import THREADS, WAITING, allowed_threads, busy, own_cores, settle

TEAM = "a second team"  # what advss does where the load comes while it trains
SETTINGS: dict[str, dict[str, str]] = {
    "as torch has it": {"GOMP_SPINCOUNT": "300000"},  # libgomp's own default, said, so that advss leaves it
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
    TEAM: {"GOMP_SPINCOUNT": "300000"},
    "advss": {},
}
LOADS = (0, 2, 7)
FIT = "fit --pretext selfie --defense pgd --data.limit 200 --pretrain-epochs 1 --finetune-epochs 1 --tracking false"
BUSY = "while True: pass"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each setting at each load")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a turn; at least one step is made")
    parser.add_argument("--loads", type=int, nargs="*", default=list(LOADS), help="busy processes beside it")
    parser.add_argument("--fit", action="store_true", help="time the default run, shortened, in place of steps")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker)
        return
    measured = [fits(load, arguments) if arguments.fit else steps(load, arguments) for load in arguments.loads]
    figures: dict[str, Any] = {"machine": machine(), "torch": version("torch"), "python": platform.python_version()}
    figures |= {"what": f"seconds of advss {FIT}" if arguments.fit else "steps a second", "rounds": arguments.rounds}
    figures |= {"loads": measured}
    print(json.dumps(figures, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n")


def steps(load: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Steps a second of a small network at one load, by setting."""
    speeds: dict[str, list[float]] = {name: [] for name in SETTINGS}
    others = busy(own_cores())
    with ExitStack() as stack:
        by_hand = [name for name in SETTINGS if name != "advss"]
        workers = {name: stack.enter_context(worker(name)) for name in by_hand}  # while nothing slows their start
        stack.enter_context(loaded(load))
        workers["advss"] = stack.enter_context(worker("advss"))
        for _ in range(arguments.rounds):
            for name, process in workers.items():
                speeds[name].append(float(told(process, arguments.seconds)))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    best = max(value for name, value in medians.items() if name not in ("advss", TEAM))
    return report(load, others, medians, medians["advss"] / best)


def fits(load: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the shortened default run at one load, as torch has it and as advss chooses."""
    seconds: dict[str, list[float]] = {"as torch has it": [], "advss": []}
    others = busy(own_cores())
    with loaded(load):
        for _ in range(arguments.rounds):
            for name, taken in seconds.items():
                with tempfile.TemporaryDirectory() as folder:
                    began = time.perf_counter()
                    line = [sys.executable, "-m", "advss.cli.main", *FIT.split(), "--runs-dir", folder, "--quiet"]
                    subprocess.run(line, env=environment(name), check=True, capture_output=True)
                    taken.append(time.perf_counter() - began)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return report(load, others, medians, medians["as torch has it"] / medians["advss"])


def report(load: int, others: float, medians: dict[str, float], ratio: float) -> dict[str, Any]:
    """The figures of one load; ``others``: cores that were busy before this script came."""
    rounded = {name: round(value, 2) for name, value in medians.items()}
    print(f"beside {load} busy processes: {rounded}, ratio {ratio:.2f}", file=sys.stderr)
    return {"busy": load, "others": round(others, 1), "median": rounded, "ratio": round(ratio, 3)}


@contextmanager
def loaded(count: int) -> Iterator[None]:
    """Within the context, that many processes keep cores busy."""
    counting = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    time.sleep(0.5 * bool(count))
    try:
        yield
    finally:
        for process in counting:
            process.kill()
            process.wait()


@contextmanager
def worker(name: str) -> Iterator[subprocess.Popen[str]]:
    """A process that trains when it is told to."""
    line = [sys.executable, __file__, "--worker", name]
    pipe = subprocess.PIPE
    process = subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True, env=environment(name))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def environment(name: str) -> dict[str, str]:
    """This process's environment with one setting and no other of its kind."""
    return {key: value for key, value in os.environ.items() if key not in (*THREADS, *WAITING)} | SETTINGS[name]


def told(process: subprocess.Popen[str], seconds: float) -> str:
    """What a worker answers to its turn: steps a second."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{seconds}\n")
    process.stdin.flush()
    return process.stdout.readline()


def work(name: str) -> None:
    """A worker: a narrow ResNet-18 under PGD-2, a turn for every line it is given."""
    settle()
    import torch
    import torch.nn.functional as F

    from advss.hookspecs import DataFacts
    from advss.models.classifier import ImageClassifier
    from advss.models.encoder import build_encoder
    from advss.training.crowding import Team

    if name == TEAM:
        Team().hold()
    torch.manual_seed(0)
    narrow = {"layers": [1, 1, 1, 1], "channels": [32, 64, 128, 256]}
    encoder = build_encoder(
        "resnet18", narrow, DataFacts(images=16, side=32, classes=10), mean=[0.5] * 3, std=[0.2] * 3
    )
    model = ImageClassifier(encoder, encoder.tail(), 10)
    x, label = torch.rand(16, 3, 32, 32), torch.randint(10, (16,))

    def step() -> None:
        attacked = x.clone().requires_grad_()
        for _ in range(2):
            torch.autograd.grad(F.cross_entropy(model(attacked), label), attacked)
        F.cross_entropy(model(x), label).backward()  # type: ignore[no-untyped-call]

    step()
    print("ready", flush=True)
    for line in sys.stdin:
        began, count = time.perf_counter(), 0
        while not count or time.perf_counter() - began < float(line):
            step()
            count += 1
        print(count / (time.perf_counter() - began), flush=True)


def machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    model = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return f"{model[0] if model else platform.processor()}, {allowed_threads()} cores"


if __name__ == "__main__":
    main()
