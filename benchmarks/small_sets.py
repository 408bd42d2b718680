"""The recipe `small` on few real images: class folders made of CIFAR-10, beside the paper's plan and chance.

    python benchmarks/small_sets.py --root DIR_OF_PARQUET --cells small-32 paper-32

Every cell is one run on one thread, told by what it costs: seconds of the processor, which other jobs on the machine
do not change as they change seconds of the clock. Sides above 32 pixels are CIFAR-10's images made larger (bicubic):
they cost what photos of that side cost, and tell no more than 32 pixels do. Cells that are measured stay in the
results when others are added.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import platform
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

Settings = dict[str, Any]
TEST = 500  # images, of which 8/255 and 4/255 are measured
NARROW = {"resnetv2_18": {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128], "stem_chs": 16}}
SMALL: Settings = {"config": "small"}
# cifar10-paper scaled down to the same network and time; milestones at 60 and 80 % of the epochs, as released
PAPER: Settings = {
    "config": "cifar10-paper",
    "backbone": NARROW,
    "memory_format": "channels_last",
    "finetune_epochs": 30,
    "finetune_milestones": [18, 24],
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run: a plan, and the images it is of."""

    plan: Settings
    side: int = 32
    images: int = 300
    classes: tuple[int, ...] = tuple(range(10))
    pretext: str = "none"

    @property
    def folder(self) -> str:
        """The folder of its images."""
        return f"{len(self.classes)}-classes-{self.images}-images-{self.side}-px"


CELLS = {
    "small-32": Cell(SMALL),
    "small-32-rotation": Cell(SMALL, pretext="rotation"),
    "small-32-3-classes": Cell(SMALL, classes=(0, 3, 8)),  # airplane, cat, ship
    "small-32-3000": Cell(SMALL, images=3000),
    "small-64-rotation": Cell(SMALL, side=64, pretext="rotation"),
    "small-128": Cell(SMALL, side=128),
    "paper-32": Cell(PAPER),
}


def run(name: str, cell: Cell, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One cell by one seed."""
    import torch

    from advss.configuration.resolve import from_mapping
    from advss.evaluations.evaluate import evaluate
    from advss.stages.fit import fit
    from advss.training.reporting import Silent

    torch.set_num_threads(1)
    root = arguments.runs_dir / "images" / cell.folder
    if not root.exists():
        write_images(arguments.root, root, cell)
    settings: Settings = {
        **{"pretext": cell.pretext, "data": {"imagefolder": {"root": str(root)}}, "eval_limit": TEST},
        **{"seed": seed, "name": f"{name}-{seed}", "runs_dir": str(arguments.runs_dir)},
        **{"tracking": False, "device": "cpu"},
    }
    config = from_mapping(cell.plan | settings)
    began, of_processor = time.monotonic(), time.process_time()
    result = fit(config, reporter=Silent())
    spent, clock = time.process_time() - of_processor, time.monotonic() - began
    closer = dataclasses.replace(config.evaluation, eps=4 / 255, step_size=1 / 255)
    half = evaluate(Path(result["folder"]), closer, device="cpu", reporter=Silent())
    kept = ("ta", "ra", "best_epoch")
    return {
        **{"cell": name, "seed": seed, "side": cell.side, "images": cell.images, "classes": len(cell.classes)},
        **{
            "pretext": cell.pretext,
            "tested": TEST // len(cell.classes) * len(cell.classes),
            "chance": round(1 / len(cell.classes), 4),
        },
        **{key: result[key] for key in kept},
        "ra_4": half["ra"],
        **{"cpu_s": round(spent), "clock_s": round(clock), "stages_s": result["seconds"], "commit": commit()},
    }


def write_images(parquet: Path, root: Path, cell: Cell) -> None:
    """Class folders of the first images of each class."""
    import pyarrow.parquet as pq
    from PIL import Image

    for split, count in (("train", cell.images), ("test", TEST)):
        kept: Counter[int] = Counter()
        each = count // len(cell.classes)
        for path in sorted(parquet.glob(f"{split}*.parquet")):
            table = pq.read_table(path, columns=["img", "label"])
            for image, label in zip(table["img"].to_pylist(), table["label"].to_pylist(), strict=True):
                if label not in cell.classes or kept[label] == each:
                    continue
                folder = root / split / f"class-{label}"
                folder.mkdir(parents=True, exist_ok=True)
                pixels = Image.open(io.BytesIO(image["bytes"])).convert("RGB")
                pixels.resize((cell.side, cell.side), Image.Resampling.BICUBIC).save(folder / f"{kept[label]:05}.png")
                kept[label] += 1


def commit() -> str:
    """Of the code that measures."""
    return subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
    ).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/small-sets"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/small_sets.json"))
    arguments = parser.parse_args()
    before = json.loads(arguments.out.read_text())["rows"] if arguments.out.exists() else []
    rows = {(row["cell"], row["seed"]): row for row in before}
    for name in arguments.cells:
        for seed in arguments.seeds:
            row = rows[name, seed] = run(name, CELLS[name], seed, arguments)
            write(list(rows.values()), arguments.out)
            print(f"{name} seed {seed}: TA {row['ta']:.1%}  RA {row['ra']:.1%}  RA at 4/255 {row['ra_4']:.1%}")


def write(rows: list[dict[str, Any]], out: Path) -> None:
    import torch

    about = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "torch": torch.__version__, "threads": 1}
    out.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
