"""P1F4, P2F4 and P3F4 for every task on the embedded digits, over seeds, at the same fine-tuning epochs.

    python benchmarks/digits_table.py --seeds 3 --jobs 2 --runs-dir runs/digits-table

Runs that are finished are not made again, and interrupted ones go on. The table is of test TA and RA (PGD-20, ℓ∞
8/255), mean ± standard deviation over the seeds; P1 knows no task.
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

Cell = tuple[str, str]  # (P1, P2 or P3; task, "" for P1)
TASKS = ("selfie", "rotation", "jigsaw")
CELLS: tuple[Cell, ...] = (("P1", ""), *((p, task) for p in ("P2", "P3") for task in TASKS))


def run(cell: Cell, seed: int, runs_dir: Path) -> dict[str, Any]:
    """One run by the default recipe: fine-tuning is always F4."""
    import torch

    from advss.configuration.resolve import from_mapping
    from advss.stages.fit import fit
    from advss.training.reporting import Silent

    torch.set_num_threads(1)
    scheme, task = cell
    name = f"{scheme}F4-{task or 'scratch'}-{seed}"
    settings = {
        "pretext": task or "none",
        "defense": "none" if scheme == "P2" else "pgd",
        "finetune_defense": "pgd",
        "seed": seed,
        "name": name,
        "runs_dir": runs_dir,
        "tracking": False,
        "device": "cpu",
    }
    return fit(from_mapping(settings), resume=(runs_dir / name).exists(), reporter=Silent())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, one thread each")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/digits-table"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/digits.json"))
    arguments = parser.parse_args()
    jobs = [(cell, seed) for seed in range(arguments.seeds) for cell in CELLS]
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(run, *zip(*jobs, strict=True), [arguments.runs_dir] * len(jobs)))
    rows = [row(cell, [r for (c, _), r in zip(jobs, results, strict=True) if c == cell]) for cell in CELLS]
    write(rows, arguments)


def row(cell: Cell, results: list[dict[str, Any]]) -> dict[str, Any]:
    """One line of the table."""
    return {
        "scheme": f"{cell[0]}F4",
        "task": cell[1] or "-",
        "ta": [r["ta"] for r in results],
        "ra": [r["ra"] for r in results],
        "best_epoch": [r["best_epoch"] for r in results],
        "epochs": results[0]["epochs"],
        "seconds": [round(sum(r["seconds"].values()), 1) for r in results],
    }


def write(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    import torch

    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    about = {"machine": machine, "torch": torch.__version__, "seeds": arguments.seeds, "threads": 1}
    content = about | {"rows": rows}
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")
    draw(rows, arguments.out.with_suffix(".png"))
    print("| scheme | task | TA | RA |\n|---|---|---|---|")
    for line in rows:
        print(f"| {line['scheme']} | {line['task']} | {spread(line['ta'])} | {spread(line['ra'])} |")


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """TA and RA of each row: every seed a dot, the mean a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for measure, colour in (("ta", "tab:blue"), ("ra", "tab:red")):
        for place, line in enumerate(rows):
            values = [100 * value for value in line[measure]]
            axes.scatter([place] * len(values), values, s=14, color=colour, alpha=0.6)
            axes.hlines(statistics.mean(values), place - 0.25, place + 0.25, color=colour, linewidth=2)
        axes.scatter([], [], s=14, color=colour, label=f"test {measure.upper()}")
    axes.set_xticks(range(len(rows)), [f"{line['scheme']}\n{line['task']}" for line in rows])
    axes.set(ylabel="%", title="digits, 3 epochs of adversarial fine-tuning, one dot a seed")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=130)


def spread(values: list[float]) -> str:
    """Mean ± standard deviation in percent."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.1f} ± {100 * deviation:.1f}"


if __name__ == "__main__":
    main()
