"""A study's wall time beside that of the same cells by ``advss fit``, one after another.

    python benchmarks/study_speed.py paper-table3 --jobs 2 --out benchmarks/results/study_speed.json

Both are whole commands on one machine that does nothing else: first the study of one seed, then a ``fit`` for each of
its cells, with all cores. What a study saves is pretraining that cells share, and cores that one small network leaves
idle. The figures of the two are compared, too: they differ by
what another number of threads rounds otherwise, which training enlarges.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from advss.studies.folder import StudyFolder

ADVSS = (sys.executable, "-m", "advss.cli.main")


def timed(place: Path, *words: str) -> float:
    """Seconds of one command."""
    began = time.perf_counter()
    subprocess.run((*ADVSS, *words, "--quiet"), cwd=place, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def compared(place: Path, study: str, jobs: int, settings: list[str]) -> dict[str, Any]:
    """Both, in one folder; the study's runs lie in runs/, those of fit in fits/."""
    words = [word for one in settings for word in ("--set", one)]
    of_study = timed(place, "study", "run", study, "--name", "s", "--seeds", "1", "--jobs", str(jobs), *words)
    folder = StudyFolder(place / "studies" / "s")
    cells = [cell for cell in folder.content["cells"] if cell["run"]]
    of_fits, differences = list[float](), list[float]()
    for cell in cells:
        name, config = f"fit-{len(of_fits)}", folder.job(cell["run"]) / "config.yaml"
        of_fits.append(timed(place, "fit", "--config", str(config), "--name", name, "--runs-dir", "fits"))
        theirs = json.loads((place / "fits" / name / "result.json").read_text())
        differences.append(abs(theirs["ra"] - folder.run(cell["run"]).read_result()["ra"]))
    stages = [stage["kind"] for stage in folder.stages.values()]
    return {
        "cells": len(cells),
        "trainings": sum(kind in ("pretrain", "finetune") for kind in stages),
        "trainings_by_fits": sum(2 if cell["pretraining"] else 1 for cell in cells),
        "study_s": round(of_study, 1),
        "fits_s": round(sum(of_fits), 1),
        "ratio": round(of_study / sum(of_fits), 3),
        "largest_difference_of_ra": round(max(differences), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--place", type=Path, help="where all is left; else it is gone afterwards")
    parser.add_argument("--out", type=Path)
    said = parser.parse_args()
    found = {"study": said.study, "jobs": said.jobs, "settings": said.settings}
    with tempfile.TemporaryDirectory() as temporary:
        found |= compared(said.place or Path(temporary), said.study, said.jobs, said.settings)
    found |= {"machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores", "torch": torch.__version__}
    print(json.dumps(found, indent=1))
    if said.out:
        said.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
