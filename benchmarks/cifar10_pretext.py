"""Do the pretext tasks learn on real images? Each, adversarially, on 5,000 images of CIFAR-10 with a small backbone.

    python benchmarks/cifar10_pretext.py --root DIR_OF_PARQUET --epochs 6

Reports each task's own accuracy on 5,000 test images, clean and under PGD-10, beside chance: the share of the
largest class, 1/4 for rotation and Selfie and 12.9 % for jigsaw (0.1 + 0.9/31). Images are not cropped: the black rim
of a zero-padded crop tells a patch its place. With crops of padding 4, jigsaw reached 90 % on attacked training images
in 4 epochs, and 5 % on clean validation images.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

CHANCE = {"jigsaw": 0.1 + 0.9 / 31, "selfie": 0.25, "rotation": 0.25}
BACKBONE = {"resnetv2_18": {"layers": [1, 1, 1, 1], "channels": [24, 48, 96, 192], "stem_chs": 24}}


def run(task: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Pretrain one task."""
    import torch

    from advss.configuration.resolve import from_mapping
    from advss.stages.fit import pretrain
    from advss.training.reporting import Silent

    torch.set_num_threads(arguments.threads)
    name = f"cifar10-pretext-{task}"
    settings: dict[str, Any] = {
        "config": "digits",
        "pretext": {task: {"layers": 2} if task == "selfie" else {}},
        "defense": "pgd",
        "data": {"parquet": {"root": str(arguments.root)}},
        "data.limit": arguments.limit,
        "backbone": BACKBONE,
        "pretrain_epochs": arguments.epochs,
        "pretrain_batch_size": 32,
        "memory_format": "channels_last",
        "name": name,
        "runs_dir": arguments.runs_dir,
        "tracking": False,
        "device": "cpu",
    }
    resume = (arguments.runs_dir / name).exists()
    result = pretrain(from_mapping(settings), resume=resume, reporter=Silent())
    metrics = on_test_images(arguments.runs_dir / name)
    return {
        "task": task,
        "chance": round(CHANCE[task], 4),
        "clean": metrics["clean/accuracy"],
        "adversarial": metrics["adversarial/accuracy"],
        "best_epoch": result["best_epochs"]["pretrain"],
        "seconds": result["seconds"]["pretrain"],
    }


def on_test_images(folder: Path) -> dict[str, float]:
    """The best epoch's loss and accuracy on the test images, clean and under the training attack, in eval mode."""
    import torch

    from advss.arithmetic import Arithmetic
    from advss.config import Choice
    from advss.data.augmentation import Augment
    from advss.data.loader import Loader
    from advss.data.splits import open_splits
    from advss.models.spec import ModelSpec, build_encoder_from
    from advss.plugins.registry import build
    from advss.runs.session import build_defense
    from advss.runs.stored import stored_config
    from advss.stages.validation import ValidationImages, pretext_validation
    from advss.training.checkpoints import load_checkpoint
    from advss.training.signals import StopRequest
    from advss.training.work import Modules

    config = stored_config(folder)
    checkpoint = load_checkpoint(folder / "pretrain" / "best.safetensors")
    encoder = build_encoder_from(ModelSpec.from_json(checkpoint.manifest["model"]))
    member: Choice = config.pretext[0]
    task = build("pretext", member)
    task.build(encoder)
    modules = Modules(encoder, {member.key or member.name: task}, "pretrain")
    modules.load_named_state(checkpoint.tensors, what=str(checkpoint.path))
    test = open_splits(config.data.name, config.data.options, limit=config.limit, seed=config.seed).test
    loader = Loader(test, batch_size=100, device=torch.device("cpu"), augment=Augment(), key=("test",))
    defense = build_defense(config.defense)
    images = ValidationImages(loader, loader)
    return pretext_validation(images, 100, defense, seed=config.seed, stop=StopRequest())(modules, Arithmetic())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--tasks", nargs="+", choices=list(CHANCE), default=list(CHANCE))
    parser.add_argument("--jobs", type=int, default=2, help="runs at once")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/cifar10-pretext"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cifar10_pretext.json"))
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        rows = list(pool.map(run, arguments.tasks, [arguments] * len(arguments.tasks)))
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    content = {
        "machine": machine,
        "images": arguments.limit,
        "epochs": arguments.epochs,
        "backbone": BACKBONE,
        "seed": 0,
        "rows": rows,
    }
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")
    print("| task | chance | clean | adversarial |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row['task']} | {row['chance']:.1%} | {row['clean']:.1%} | {row['adversarial']:.1%} |")


if __name__ == "__main__":
    main()
