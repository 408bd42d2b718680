"""Kill a study many times, at instants no code can foresee: its command, one of its jobs, or both at once.

Six tiny trainings on digits run by ``advss study run --jobs 2``. A random victim gets SIGKILL at a random instant and
the same command goes on at once, while jobs whose command has died may still be saving; when a study is done, another
one begins, until there have been as many kills as asked for. Then every study is compared with one that
nobody killed: weights bit for bit, RA, and the steps of the journals.

    python benchmarks/kill_study.py --kills 30 --out benchmarks/results/kill_study.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml

from advss.studies.folder import StudyFolder
from advss.tracking.journal import read_metrics
from advss.training.checkpoints import load_checkpoint

WHO = ("command", "job", "both")
PGD = {"pgd": {"steps": 1}}
STUDY: dict[str, Any] = {
    "fixed": {
        "config": "digits",
        "data": "digits",
        "data.limit": 200,
        "backbone": {"resnet18": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}},
        "pretrain-epochs": 10,
        "finetune-epochs": 10,
        "pretrain-batch-size": 16,
        "finetune-batch-size": 16,
        "checkpoint-minutes": 0.001,
        "eval-steps": 2,
        "eval-limit": 40,
        "eval-valid-steps": 1,
        "evaluate": ["pgd"],
        "precision": "float32",
        "memory-format": "contiguous",
        "tracking": False,
    },
    "rows": {"P1": {"pretext": "none", "defense": PGD}, "P3": {"pretext": "rotation", "defense": PGD}},
    "seeds": 2,
}


def begin(place: Path) -> psutil.Popen:
    """The command, which goes on with the study in a folder."""
    place.mkdir(exist_ok=True)
    (place / "s.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    words = (sys.executable, "-m", "advss.cli.main", "study", "run", "s.yaml", "--jobs", "2", "--quiet")
    with (place / "log").open("ab") as log:
        return psutil.Popen(words, cwd=place, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=log, stderr=log)


def kill(process: psutil.Popen, who: str, draw: random.Random, after_s: float) -> str:
    """Kill a victim so long after now; whom, empty where the study was done before."""
    with suppress(psutil.TimeoutExpired):
        process.wait(after_s)
        return ""
    jobs = process.children()
    victims = {"command": [process], "job": [draw.choice(jobs)] if jobs else []}
    victims["both"] = victims["command"] + victims["job"]
    for victim in victims[who]:
        victim.kill()
    if process in victims[who]:
        process.wait()
    return who if len(victims[who]) == (2 if who == "both" else 1) else ""


def differences(one: Path, other: Path) -> list[str]:
    """What two studies differ in."""
    found = []
    whole, killed = (StudyFolder(place / "studies" / "s") for place in (one, other))
    for run, stage in whole.stages.items():
        ours, theirs = killed.run(run), whole.run(run)
        if [m.step for m in read_metrics(ours.journal)] != [m.step for m in read_metrics(theirs.journal)]:
            found.append(f"{run}: steps in the journal")
        if ours.read_result().get("ra") != theirs.read_result().get("ra"):
            found.append(f"{run}: ra")
        pair = [load_checkpoint(folder.best(stage["kind"])).tensors for folder in (ours, theirs)]
        if pair[0].keys() != pair[1].keys() or not all(torch.equal(pair[0][name], pair[1][name]) for name in pair[0]):
            found.append(f"{run}: weights")
    return [f"{other.name}: {line}" for line in found]


def compared(place: Path, kills: int, seed: int) -> dict[str, Any]:
    """Studies in a folder, killed as often as asked for."""
    draw, killed, differing, studies, codes = random.Random(seed), Counter[str](), list[str](), 0, Counter[int]()
    began = time.monotonic()
    if begin(place / "whole").wait():
        raise SystemExit((place / "whole" / "log").read_text())
    longest_s = time.monotonic() - began
    while killed.total() < kills:
        studies, folder, code = studies + 1, place / f"killed{studies + 1}", 1
        while code:
            process = begin(folder)
            if killed.total() < kills and (who := kill(process, draw.choice(WHO), draw, draw.uniform(3, longest_s))):
                killed[who] += 1
            code = process.wait()
            codes[code] += 1
        differing += differences(place / "whole", folder)
        print(f"{killed.total()} kills, {studies} studies done, {len(differing)} differences", flush=True)
    return {
        "kills": dict(killed),
        "studies": studies,
        "trainings": studies * len(StudyFolder(place / "whole" / "studies" / "s").stages),
        "exit_codes": dict(codes),
        "unkilled_s": round(longest_s, 1),
        "differing": differing,
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = compared(Path(temporary), said.kills, said.seed) | {"seed": said.seed}
    found |= {"machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores", "torch": torch.__version__}
    print(json.dumps(found, indent=1))
    if said.out:
        said.out.write_text(json.dumps(found, indent=1) + "\n")
    return int(bool(found["differing"]))


if __name__ == "__main__":
    sys.exit(main())
