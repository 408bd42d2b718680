"""The packages in examples/ on the embedded digits, over seeds, beside what they are to be compared with.

    pip install ./examples/advss-contrastive ./examples/advss-awp ./examples/advss-lpft ./examples/advss-lora
    python benchmarks/examples_table.py --seeds 3 --jobs 2 --runs-dir runs/examples-table

Everything is the default recipe, three epochs of pretraining and three of fine-tuning, which is adversarial. The table
is of test TA and RA (PGD-20, ℓ∞ 8/255), mean ± standard deviation over the seeds. Finished runs are not made again, and
interrupted ones go on. digits_table.py has P1F4 and P3F4 of the built-in tasks.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

AWP = {"awp": {"base": "pgd", "gamma": 0.01}}  # released around PGD
ACL = {"pretext": {"contrastive": {"flip": 0.0}}, "defense": {"pgd": {"steps": 5, "clean_weight": 0.0}}}
CELLS: dict[str, dict[str, Any]] = {
    "contrastive": {**ACL, "finetune_defense": {"pgd": {"steps": 10, "clean_weight": "auto"}}},
    "none, awp": {"pretext": "none", "defense": AWP},
    "rotation, awp": {"pretext": "rotation", "defense": AWP},
    "rotation, lp-ft": {"pretext": "rotation", "defense": "pgd", "finetune": "lp-ft"},
    "rotation, lora": {"pretext": "rotation", "defense": "pgd", "finetune": "lora"},
}


def run(cell: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One run."""
    import torch

    from advss.configuration.resolve import from_mapping
    from advss.stages.fit import fit
    from advss.training.reporting import Silent

    torch.set_num_threads(1)
    name = f"{cell.replace(', ', '-')}-{seed}"
    runs_dir = arguments.runs_dir
    common = {"seed": seed, "name": name, "runs_dir": runs_dir, "tracking": False, "device": "cpu"}
    result = fit(from_mapping(CELLS[cell] | common), resume=(runs_dir / name).exists(), reporter=Silent())
    return result | {"robust_by_epoch": robust_by_epoch(runs_dir / name / "metrics.jsonl")}


def robust_by_epoch(journal: Path) -> dict[str, list[float]]:
    """Of each epoch of fine-tuning: accuracy on the attacked training images, RA on the validation part."""
    from advss.tracking.journal import read_metrics

    rows = [m.values for m in read_metrics(journal) if m.stage == "finetune" and "valid/ra" in m.values]
    return {"train": [row["train/accuracy"] for row in rows], "valid": [row["valid/ra"] for row in rows]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, one thread each")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/examples-table"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/examples.json"))
    arguments = parser.parse_args()
    jobs = [(cell, seed) for seed in range(arguments.seeds) for cell in CELLS]
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(run, *zip(*jobs, strict=True), [arguments] * len(jobs)))
    rows = [row(cell, [r for (c, _), r in zip(jobs, results, strict=True) if c == cell]) for cell in CELLS]
    write(rows, arguments)


def row(cell: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """One line of the table."""
    kept = {key: [r[key] for r in results] for key in ("ta", "ra", "best_epoch", "robust_by_epoch")}
    said = {"cell": cell, "plugins": results[0]["plugins"], "epochs": results[0]["epochs"]}
    return said | kept | {"seconds": [round(sum(r["seconds"].values()), 1) for r in results]}


def write(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    import torch

    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    about = {"machine": machine, "torch": torch.__version__, "seeds": arguments.seeds, "threads": 1}
    arguments.out.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")
    print("| | TA | RA |\n|---|---|---|")
    for line in rows:
        print(f"| {line['cell']} | {spread(line['ta'])} | {spread(line['ra'])} |")


def spread(values: list[float]) -> str:
    """Mean ± standard deviation in percent."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.1f} ± {100 * deviation:.1f}"


if __name__ == "__main__":
    main()
