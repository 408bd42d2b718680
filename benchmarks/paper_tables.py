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

    from advss.stages import run
    from advss.stages.resolve import from_mapping
    from advss.training.reporting import Silent

    torch.set_num_threads(arguments.threads)
    name = f"{model}-{seed}"
    settings = common(arguments, seed, name) | MODELS[model] | {"finetune_defense": "pgd"}
    resume = (arguments.runs_dir / name).exists()
    result = {"model": model, "seed": seed, **run.fit(from_mapping(settings), resume=resume, reporter=Silent())}
    if not model.startswith("smoothing"):
        return result
    other = from_mapping(settings | {"name": f"{name}-F2", "finetune": "partial"})
    folder = arguments.runs_dir / f"{name}-F2"
    tuned = run.finetune(other, source=arguments.runs_dir / name, resume=folder.exists(), reporter=Silent())
    if tuned.get("ra") is None:
        tuned = run.evaluate(folder, other.evaluation, device=arguments.device, reporter=Silent())
    return result | {"F2": {"ta": tuned["ta"], "ra": tuned["ra"]}}


def compared(seed: int, arguments: argparse.Namespace) -> Result:
    """Tables 4 and 6 of a seed, from its three single-task models."""
    from advss.stages.ensemble import ensemble
    from advss.stages.transfer import transfer
    from advss.training.reporting import Silent

    raise NotImplementedError((seed, ensemble, transfer, Silent))


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
    for r in results:
        print(r["model"], r["seed"], r["ta"], r["ra"], r["best_epoch"], r["seconds"], r.get("F2", ""))


if __name__ == "__main__":
    main()
