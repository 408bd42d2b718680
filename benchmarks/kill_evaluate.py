"""Kill measurements many times, at instants no code can foresee, and see whether anything was lost or made twice.

A small classifier of digits is measured by ``advss evaluate RUN --evaluate ...`` in small chunks, as a process of its
own, which is killed by SIGKILL at a random instant; the same command goes on, is killed again, and at last let finish.
Then the answers by image and the figures are compared, bit for bit, with those of a measurement that nobody killed;
each part of each chunk that a process was done with is counted; and what is left behind is looked for.

    python benchmarks/kill_evaluate.py --out benchmarks/results/kill_evaluate.json --eval-steps 20 --eval-eps 2/255
    python benchmarks/kill_evaluate.py --out benchmarks/results/kill_evaluate.json --evaluate autoattack \
        --images 3 --chunk 1 --eval-eps 12/255 --autoattack.version custom --autoattack.attacks apgd-ce,apgd-dlr
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import torch

import advss
from advss.cli.main import main as command
from advss.evaluations.chunks import Kept
from advss.measuring import Answers

PROCESSES = multiprocessing.get_context("fork")  # each start would else spend seconds on imports
KILLED = -signal.SIGKILL
TIMES = ("seconds", "advss", "device", "measured_before", "file")  # of a measurement, that may differ


def trained(runs: Path) -> None:
    """A classifier of 300 digits, some of which it gets right under attack."""
    advss.fit(
        pretext="none",
        defense="none",
        backbone={"resnet18": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}},
        evaluate="none",
        finetune_epochs=8,
        finetune_batch_size=16,
        eval_valid_steps=1,
        data_limit=300,
        name="whole",
        runs_dir=str(runs),
        device="cpu",
        memory_format="contiguous",
        tracking=False,
    )
    shutil.copytree(runs / "whole", runs / "killed")


def measure(runs: Path, name: str, words: list[str], log: Path, begun: Event) -> None:
    """``advss evaluate``, which notes in a file each part of a chunk that is kept, as soon as it is.

    ``begun`` is set when it looks for what is done.
    """
    read, write = Kept.read, Kept.write

    def telling(self: Kept, first: int, parts: int) -> tuple[int, Answers]:
        begun.set()
        return read(self, first, parts)

    def noting(self: Kept, first: int, done: int, answers: Answers, took_s: float) -> None:
        write(self, first, done, answers, took_s)
        with log.open("a") as file:
            file.write(f"{Path(str(self.folder)).name} {first} {done}\n")

    Kept.read, Kept.write = telling, noting  # type: ignore[method-assign]
    torch.set_num_threads(1)
    os.environ["ADVSS_TRACKING"] = "false"
    line = ["evaluate", name, "--runs-dir", str(runs), "--quiet", *words]
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        code = command(line)
    sys.exit(code)


def run(runs: Path, name: str, words: list[str], log: Path, after_s: float | None = None) -> tuple[int, float]:
    """Measure in a process of its own, killed so many seconds after it began unless it is done.

    Returns:
        Its exit code, and the seconds from when it began.
    """
    begun = PROCESSES.Event()
    process = PROCESSES.Process(target=measure, args=(runs, name, words, log, begun))
    process.start()
    while process.is_alive() and not begun.wait(0.02):  # where all is measured there is nothing to begin
        pass
    began = time.monotonic()
    process.join(after_s)
    process.kill()
    process.join()
    return int(process.exitcode or 0), time.monotonic() - began


def finish(runs: Path, name: str, words: list[str], log: Path) -> float:
    """Measure to the end; the seconds that took."""
    code, seconds = run(runs, name, words, log)
    if code:
        raise SystemExit(f"run {name} ended with exit code {code}")
    return seconds


def kept(folder: Path) -> dict[str, tuple[Mapping[str, Any], bytes]]:
    """What is said in each measurement's file, times aside, and the bytes of its answers."""
    found = dict[str, tuple[Mapping[str, Any], bytes]]()
    for path in sorted((folder / "evaluations").glob("*.json")):
        content = {key: value for key, value in json.loads(path.read_text()).items() if key not in TIMES}
        found[path.stem] = content, path.with_suffix(".safetensors").read_bytes()
    return found


def differences(one: Path, other: Path) -> list[str]:
    """Measurements, and names of pictures, in which two runs differ."""
    found = kept(one), kept(other)
    names = {name for name in found[0].keys() | found[1].keys() if found[0].get(name) != found[1].get(name)}
    names |= pictures(one) ^ pictures(other)
    return [f"{other.name} {name}" for name in sorted(names)]


def pictures(folder: Path) -> set[str]:
    """Names of what is drawn of measurements, and of training."""
    return {path.name for path in (folder / "figures").iterdir()}


def leftovers(folder: Path) -> list[str]:
    """What should not be there any more when all is measured."""
    found = [path for path in (folder / "evaluations").iterdir() if path.suffix not in (".json", ".safetensors")]
    return [str(path.relative_to(folder)) for path in [*found, *folder.rglob(".*.new")]]


def compare(evaluations: str, images: tuple[int, int], options: list[str], kills: int, seed: int) -> dict[str, Any]:
    """One command, killed ``kills`` times over, in as many measurements as that takes; ``images``: all, of a chunk."""
    words = ["--evaluate", evaluations, "--limit", str(images[0]), "--eval-batch-size", str(images[1]), *options]
    draw, killed, rounds, twice, differing, left = random.Random(seed), 0, 0, 0, [], []
    with tempfile.TemporaryDirectory() as temporary:
        runs = Path(temporary)
        torch.set_num_threads(1)  # before any process is forked
        trained(runs)
        began = time.monotonic()
        longest_s = finish(runs, "whole", words, runs / "whole.log")
        parts = Counter((runs / "whole.log").read_text().splitlines())
        while killed < kills:
            rounds, log = rounds + 1, runs / f"killed{rounds}.log"
            folder = shutil.copytree(runs / "killed", runs / f"killed{rounds}")
            while killed < kills and run(runs, folder.name, words, log, draw.uniform(0, longest_s))[0] == KILLED:
                killed += 1
            finish(runs, folder.name, words, log)
            counted = Counter(log.read_text().splitlines())
            twice += sum(count - 1 for count in counted.values())
            differing += differences(runs / "whole", folder)
            left += leftovers(folder)
    return {
        "evaluations": evaluations,
        "images": images[0],
        "chunk": images[1],
        "options": options,
        "unkilled_s": round(longest_s, 1),
        "kills": killed,
        "measurements": rounds,
        "parts_of_chunks": len(parts),
        "measured_twice": twice,
        "differing": differing,
        "left_behind": left,
        "measuring_s": round(time.monotonic() - began, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluate", default="pgd,clean")
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--chunk", type=int, default=10)
    parser.add_argument("--out", type=Path)
    said, options = parser.parse_known_args()
    found = compare(said.evaluate, (said.images, said.chunk), options, said.kills, said.seed)
    machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    found |= {"seed": said.seed, "machine": machine, "python": platform.python_version(), "torch": torch.__version__}
    print(json.dumps(found, indent=1))
    if said.out:
        before = json.loads(said.out.read_text()) if said.out.exists() else {}
        said.out.write_text(json.dumps({**before, said.evaluate: found}, indent=1) + "\n")
    return int(bool(found["measured_twice"] or found["differing"] or found["left_behind"]))


if __name__ == "__main__":
    sys.exit(main())
