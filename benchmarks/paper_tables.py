"""The paper's Tables 4, 5, 6 and 8 in our form: on the embedded digits over seeds, or on some images of CIFAR-10.

    python benchmarks/paper_tables.py --seeds 3 --jobs 2 --runs-dir runs/paper-digits
    python benchmarks/paper_tables.py --root DIR_OF_PARQUET --limit 1000 --pretrain-epochs 6 --finetune-epochs 12

Every model has the same epochs of pretraining and of adversarial fine-tuning; what differs is the pretraining: one task
under PGD or under Gaussian noise, the plain ensemble of the three (AP+SE) and the diversity-promoted one (AP+DPE) in
both signs of the term's part in the training loss. RA is under PGD-20, ℓ∞ 8/255, on all test images. Finished runs are
not made again, and interrupted ones go on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

Result = dict[str, Any]
TASKS = ("selfie", "rotation", "jigsaw")
ALL = ",".join(TASKS)
ALPHA = 0.1
# name -> what is said of pretraining; fine-tuning is F4 everywhere
MODELS: dict[str, dict[str, Any]] = {
    "dpe": {"pretext": ALL, "defense": "pgd", "diversity": ALPHA},
    "dpe-minus": {"pretext": ALL, "defense": "pgd", "diversity": ALPHA, "diversity_sign": "minus"},
    "se": {"pretext": ALL, "defense": "pgd"},
    **{task: {"pretext": task, "defense": "pgd"} for task in TASKS},
    **{f"smoothing-{task}": {"pretext": task, "defense": "smoothing"} for task in TASKS},
}


def common(arguments: argparse.Namespace, seed: int, name: str) -> dict[str, Any]:
    """What all runs of a seed share."""
    said = {"seed": seed, "name": name, "runs_dir": arguments.runs_dir, "tracking": False, "device": arguments.device}
    epochs = {"pretrain_epochs": arguments.pretrain_epochs, "finetune_epochs": arguments.finetune_epochs}
    said |= {flag: value for flag, value in epochs.items() if value}
    if arguments.root:
        said |= {"config": "digits", "data": {"parquet": {"root": str(arguments.root)}}, "data.limit": arguments.limit}
        said |= {"pretrain_flip": True, "finetune_flip": True, "finetune_crop": 4}
    return said


def fitted(model: str, seed: int, arguments: argparse.Namespace) -> Result:
    """One model: pretrained, fine-tuned in full and adversarially, evaluated; F2 too where Table 8 has it."""
    import torch

    from advss.configuration.resolve import from_mapping
    from advss.evaluations.evaluate import evaluate
    from advss.stages.fit import finetune, fit
    from advss.training.reporting import Silent

    torch.set_num_threads(arguments.threads)
    name = f"{model}-{seed}"
    settings = common(arguments, seed, name) | MODELS[model] | {"finetune_defense": "pgd"}
    resume = (arguments.runs_dir / name).exists()
    result = {"model": model, "seed": seed, **fit(from_mapping(settings), resume=resume, reporter=Silent())}
    if not model.startswith("smoothing"):
        return result
    other = from_mapping(settings | {"name": f"{name}-F2", "finetune": "partial"})
    folder = arguments.runs_dir / f"{name}-F2"
    tuned = finetune(other, source=arguments.runs_dir / name, resume=folder.exists(), reporter=Silent())
    if tuned.get("ra") is None:
        tuned = evaluate(folder, other.evaluation, device=arguments.device, reporter=Silent())
    return result | {"F2": {"ta": tuned["ta"], "ra": tuned["ra"]}}


def compared(seed: int, arguments: argparse.Namespace) -> Result:
    """Tables 4 and 6 of a seed, from its three single-task models: ASR, and TA and RA of every average of models."""
    import torch

    from advss.config import EvalSettings
    from advss.evaluations.ensemble import ensemble
    from advss.evaluations.transfer import transfer
    from advss.runs.finished import Asked
    from advss.training.reporting import Silent

    torch.set_num_threads(arguments.threads)
    runs = [arguments.runs_dir / f"{task}-{seed}" for task in TASKS]
    kept = {name: arguments.runs_dir / f"{name}-{seed}" for name in ("transfer", "average")}
    file = {"transfer": "transfer.json", "average": "result.json"}
    for name, folder in kept.items():
        if (folder / file[name]).is_file():
            continue
        asked = Asked(EvalSettings(), arguments.runs_dir, folder.name, arguments.device, tracking=False)
        if name == "transfer":
            transfer(runs, asked, reporter=Silent())
        else:
            ensemble(runs, asked, subsets=True, reporter=Silent())
    made, average = (json.loads((kept[name] / file[name]).read_text()) for name in kept)
    shared = {source.rpartition("-")[0]: found["others"]["not_shared"] for source, found in made["overlap"].items()}
    subsets = {"+".join(m.rpartition("-")[0] for m in row["members"]): row for row in average["subsets"]}
    rows = {name: {"ta": row["ta"], "ra": row["ra"]} for name, row in subsets.items()}
    both = {key: made[key] for key in ("error", "both_right", "asr_both_right")}
    return {"seed": seed, "asr": made["asr"], **both, "not_shared": shared, "averages": rows}


def jobs(arguments: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """The longest first."""
    for model in arguments.models or MODELS:
        for seed in range(arguments.seeds):
            yield model, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder of CIFAR-10's parquet files; digits without it")
    parser.add_argument("--limit", type=int, default=1000, help="training images, and test images at most")
    parser.add_argument("--pretrain-epochs", type=int, default=0)
    parser.add_argument("--finetune-epochs", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), help="these only, and no tables")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/paper-tables"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/paper_digits.json"))
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(fitted, model, seed, arguments) for model, seed in jobs(arguments)]
        results = [future.result() for future in waiting]
        if arguments.models:
            return
        seeds = range(arguments.seeds)
        comparisons = list(pool.map(compared, seeds, [arguments] * arguments.seeds))
    rows = {model: row([r for r in results if r["model"] == model]) for model in MODELS}
    write(rows, comparisons, arguments)
    show(rows, comparisons)


def row(results: list[Result]) -> Result:
    """What the seeds of one model came to."""
    found: Result = {key: [r[key] for r in results] for key in ("ta", "ra", "best_epoch")}
    found["seconds"] = [r["seconds"] for r in results]
    found["epochs"] = results[0]["epochs"]
    if "F2" in results[0]:
        found["F2"] = {key: [r["F2"][key] for r in results] for key in ("ta", "ra")}
    pretraining = [r["best_metrics"]["pretrain"] for r in results]
    found["pretraining"] = [
        {name: value for name, value in metrics.items() if "adversarial" in name} for metrics in pretraining
    ]
    return found


def write(rows: dict[str, Result], comparisons: list[Result], arguments: argparse.Namespace) -> None:
    """All of it as JSON, with where it is from."""
    import torch

    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    about: Result = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "threads": arguments.threads}
    about |= {"torch": torch.__version__, "commit": git.stdout.strip() or "unknown", "seeds": arguments.seeds}
    about |= {"data": f"cifar10, {arguments.limit} images" if arguments.root else "digits", "alpha": ALPHA}
    arguments.out.write_text(json.dumps(about | {"models": rows, "comparisons": comparisons}, indent=1) + "\n")


def show(rows: dict[str, Result], comparisons: list[Result]) -> None:
    """The four tables as Markdown: mean ± standard deviation over the seeds, in percent."""
    print("\nTable 5\n\n| pretraining | TA | RA | seconds of pretraining |\n|---|---|---|---|")
    for model in (*TASKS, "se", "dpe", "dpe-minus"):
        seconds = statistics.mean(took["pretrain"] for took in rows[model]["seconds"])
        print(f"| {model} | {spread(rows[model]['ta'])} | {spread(rows[model]['ra'])} | {seconds:.0f} |")
    print("\nTable 6\n\n| averaged | TA | RA |\n|---|---|---|")
    for name in comparisons[0]["averages"]:
        found = [c["averages"][name] for c in comparisons]
        print(f"| {name} | {spread([f['ta'] for f in found])} | {spread([f['ra'] for f in found])} |")
    print(f"\nTable 4\n\n| attacked | {' | '.join(TASKS)} |\n|---|---|---|---|")
    for i, attacked in enumerate(TASKS):
        cells = [spread([c["asr"][i][j] for c in comparisons]) for j in range(len(TASKS))]
        print(f"| {attacked} | {' | '.join(cells)} |")
    print(f"\nTable 4 over the images that both have right\n\n| attacked | {' | '.join(TASKS)} |\n|---|---|---|---|")
    for i, attacked in enumerate(TASKS):
        print(f"| {attacked} | {' | '.join(both_right(comparisons, i, j) for j in range(len(TASKS)))} |")
    print("\nnot shared:", {task: spread([c["not_shared"][task] for c in comparisons]) for task in TASKS})
    print("\nTable 8\n\n| smoothing | F2 TA | F2 RA | F4 TA | F4 RA |\n|---|---|---|---|---|")
    for task in TASKS:
        line = rows[f"smoothing-{task}"]
        parts = [line["F2"]["ta"], line["F2"]["ra"], line["ta"], line["ra"]]
        print(f"| {task} | {' | '.join(map(spread, parts))} |")


def both_right(comparisons: list[Result], attacked: int, source: int) -> str:
    """Success over the images that both models have right, and how many they are; a seed without any is left out."""
    rates = [c["asr_both_right"][attacked][source] for c in comparisons]
    known = [rate for rate in rates if rate is not None]
    counts = "/".join(str(c["both_right"][attacked][source]) for c in comparisons)
    return f"{spread(known) if known else '-'} of {counts}"


def spread(values: list[float]) -> str:
    """Mean ± standard deviation in percent."""
    mean = f"{100 * statistics.mean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


if __name__ == "__main__":
    main()
