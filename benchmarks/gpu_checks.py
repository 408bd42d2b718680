"""Everything that wants a GPU, in one command: is it right there, how fast is it, and what comes out on CIFAR-10.

    python benchmarks/gpu_checks.py --root DIR_OF_CIFAR10_PARQUET --seed 0

1. Correctness: on the GPU the objective, its input gradients and a PGD attack equal the CPU's, for each task alone and
   for the three together with the diversity term; bf16 comes close; every defense trains a step, and every installed
   plugin does what the conformance suite asks of it on another device; a run that is stopped in mid-epoch and resumed
   ends with the same accuracies as one that was not; every installed evaluation measures it as on the CPU, nearly.
2. The training step against the bare passes and the plain algorithm (step_speed.py), and the ensemble's with the
   diversity term against the one without it (ensemble_speed.py).
3. `cifar10-fast` on all of CIFAR-10: P1F4, and P3F4 by each task, the three as AP+SE and as AP+DPE; each measured on
   all test images by PGD and by AutoAttack.

Figures go to benchmarks/results/gpu-*.json with the GPU's name, torch version, commit and seed. MLflow is not needed:
the runs keep their journals, and `advss sync RUN` sends them later. `--device cpu --only correctness` tries the checks
without a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from advss.attacks import Threat, maximise
from advss.config import Choice, EvalSettings
from advss.configuration.resolve import from_mapping
from advss.ensemble.objective import TaskObjective
from advss.errors import UsageError
from advss.evaluations.evaluate import evaluate
from advss.evaluations.intervals import numbers
from advss.hookspecs import Batch, DataFacts, Defense, PretextTask, Views
from advss.models.encoder import build_encoder
from advss.plugins.registry import build, registry
from advss.randomness import stream
from advss.stages.fit import fit
from advss.testing.checks.defenses import defense_works
from advss.testing.checks.device import Place, task_works
from advss.testing.subject import Subject
from advss.training.reporting import Silent
from advss.training.signals import Interrupted

RESULTS = Path(__file__).parent / "results"
SMALL = {"resnet18": {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128]}}


TASKS = ("selfie", "rotation", "jigsaw")


def objective(
    names: str, device: torch.device, *, bf16: bool = False, layout: str = "contiguous", diversity: float = 0.0
) -> TaskObjective:
    """The objective of tasks on 16 random images, views drawn on the CPU, so that devices see the same."""
    torch.manual_seed(0)
    facts = DataFacts(images=16, side=32, classes=10)
    encoder = build_encoder("resnet18", SMALL["resnet18"], facts, mean=[0.5] * 3, std=[0.25] * 3)
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    x = torch.rand(16, 3, 32, 32, generator=stream("cpu", 0))
    batch = Batch(x, x, torch.arange(16), torch.zeros(16).long())
    tasks: dict[str, PretextTask] = {}
    views: list[Views] = []
    for name in names.split(","):
        task = build("pretext", Choice(name, {"layers": 2, "dropout": 0.0} if name == "selfie" else {}))
        assert isinstance(task, PretextTask)
        task.build(encoder)
        made = task.views(batch, stream("cpu", 1))
        targets = {key: t.to(device) for key, t in made.targets.items()}
        views.append(Views(tuple(v.to(device) for v in made.inputs), targets))
        tasks[name] = task.to(device).to(memory_format=memory_format)
    return TaskObjective(
        encoder.to(device).to(memory_format=memory_format),
        tasks,
        tuple(views),
        stage="pretrain",
        key=(0,),
        diversity=diversity,
        bf16=bf16,
        memory_format=memory_format,
    )


def gradient(made: TaskObjective, mode: Literal["train", "eval"] = "eval") -> tuple[float, torch.Tensor]:
    """Loss and input gradients; in eval mode both devices normalise by the same statistics."""
    with made.attacking(mode):
        inputs = tuple(x.detach().requires_grad_() for x in made.inputs)
        value = made(inputs).total
        gradients = torch.autograd.grad(value, inputs)
    return float(value.detach()), torch.cat([g.flatten() for g in gradients]).cpu()


def correctness(device: torch.device) -> dict[str, Any]:
    """Compare the device with the CPU; raises AssertionError where it is wrong."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    figures: dict[str, Any] = {}
    for task in TASKS:
        reference, g = gradient(objective(task, torch.device("cpu")))
        for name, options in {
            "float32": {},
            "channels_last": {"layout": "channels_last"},
            "bf16": {"bf16": True},
        }.items():
            value, other = gradient(objective(task, device, **options))  # type: ignore[arg-type]
            error = float((other - g).norm() / g.norm())
            figures[f"{task} {name}"] = {"loss_difference": abs(value - reference), "gradient_error": error}
            assert abs(value - reference) < (0.1 if name == "bf16" else 1e-4) * abs(reference), (
                task,
                name,
                value,
                reference,
            )
            assert error < (0.5 if name == "bf16" else 1e-3), (task, name, error)
    for mode in ("eval", "train"):  # in train mode through our own second derivative of batch normalisation
        figures[f"diversity {mode}"] = diversity_agrees(device, mode)
    figures["defenses"] = defenses_train(device)
    figures["plugins"] = plugins_work(device)
    figures["attack"] = attack_stays_inside(device)
    figures["resume"] = resumes(device)
    return figures


def diversity_agrees(device: torch.device, mode: Literal["train", "eval"]) -> dict[str, float]:
    """The three tasks with a heavy diversity term: value and input gradients as on the CPU."""
    names = ",".join(TASKS)
    reference, g = gradient(objective(names, torch.device("cpu"), diversity=1.0), mode)
    figures: dict[str, float] = {}
    for name, layout, bf16 in (("float32", "contiguous", False), ("float32 NHWC", "channels_last", False)):
        value, other = gradient(objective(names, device, layout=layout, bf16=bf16, diversity=1.0), mode)
        figures |= {f"{name} loss": abs(value - reference), f"{name} gradient": float((other - g).norm() / g.norm())}
        assert abs(value - reference) < 1e-3 * abs(reference), (mode, name, value, reference)
        assert figures[f"{name} gradient"] < 2e-2, (mode, name, figures)
    value, other = gradient(objective(names, device, bf16=True, diversity=1.0), mode)
    figures["bf16 loss"] = abs(value - reference)
    assert other.isfinite().all()
    return figures


def defenses_train(device: torch.device) -> dict[str, float]:
    """Every installed defense attacks the three tasks with the diversity term, and its loss has a finite gradient."""
    figures: dict[str, float] = {}
    for name in registry().names("defense"):
        made = objective(",".join(TASKS), device, diversity=0.1)
        defense = build("defense", Choice(name))
        assert isinstance(defense, Defense)
        generator = stream(device, 0)
        loss = defense.loss(made, defense.attack(made, generator), generator)
        loss.total.backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in made.root.parameters() if p.grad is not None]
        assert all(g.isfinite().all() for g in gradients), name
        figures[name] = float(loss.total.detach())
    return figures


def plugins_work(device: torch.device) -> list[str]:
    """What the conformance suite asks of plugins on another device, asked of all that are installed on this one."""
    works = {"pretext": task_works, "finetune": task_works, "defense": defense_works}
    tried = [plugin for plugin in registry().found.plugins if plugin.kind in works]
    for plugin in tried:
        works[plugin.kind](Subject(plugin), Place(device))
    return [f"{plugin.kind} {plugin.distribution}:{plugin.name}" for plugin in tried]


def attack_stays_inside(device: torch.device) -> dict[str, float]:
    """PGD on the device stays in its ball and raises the loss."""
    made = objective("rotation", device)
    with made.attacking("train"):
        before = float(made(made.inputs).value)
        (x,) = maximise(lambda xs: made(xs).total, made.inputs, stream(device, 0), Threat())
        after = float(made((x,)).value)
    radius = float((x - made.inputs[0]).abs().max())
    assert radius <= 8 / 255 + 1e-6, radius
    assert after > before, (before, after)
    return {"loss_before": before, "loss_after": after, "radius": radius}


class StopAt(Silent):
    """Interrupts training by SIGTERM's exception at a step."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, *, step: int, images: int, metrics: Mapping[str, float]) -> None:
        """Raise at the step."""
        if step == self.at:
            raise Interrupted(15)


def resumes(device: torch.device) -> dict[str, Any]:
    """A run stopped in mid-epoch and resumed, beside one that was not."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        common: dict[str, Any] = {"pretext": "rotation", "tracking": False, "runs_dir": folder, "device": str(device)}
        common |= {"pretrain_epochs": 1, "finetune_epochs": 1, "data.limit": 320}
        whole = fit(from_mapping({**common, "name": "whole"}), reporter=Silent())
        with contextlib.suppress(Interrupted):
            fit(from_mapping({**common, "name": "broken"}), reporter=StopAt(4))
        resumed = fit(from_mapping({**common, "name": "broken"}), resume=True, reporter=Silent())
        measured = evaluations_agree(Path(folder) / "whole", device)
    figures = {name: {"ta": r["ta"], "ra": r["ra"]} for name, r in (("whole", whole), ("resumed", resumed))}
    assert abs(whole["ta"] - resumed["ta"]) < 0.05, figures
    return figures | {"evaluations": measured}


def evaluations_agree(run: Path, device: torch.device) -> dict[str, Any]:
    """Every installed evaluation that takes such a run, on 60 of its test images, there and on the CPU."""
    figures: dict[str, Any] = {}
    for name in registry().names("evaluation"):
        for where in ("cpu", str(device)):
            for kept in (run / "evaluations").glob(f"{name}-*"):  # of the other device
                kept.unlink()
            with contextlib.suppress(UsageError):  # certificates want a model that was trained on noise
                settings = EvalSettings(limit=60, steps=10)
                found = evaluate(run, settings, [Choice(name)], device=where, reporter=Silent())["measured"][0]
                figures.setdefault(name, {})[where] = numbers(found["figures"])
    for name, found in figures.items():
        here, there = found.values() if len(found) > 1 else [*found.values()] * 2
        for figure in {"ta", "ra"} & here.keys() & there.keys():
            assert abs(here[figure] - there[figure]) <= 0.05, (name, figure, found)
    return figures


def train(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """cifar10-fast on all of CIFAR-10."""
    rows = []
    together = ",".join(TASKS)
    models = [("none", 0.0), *((task, 0.0) for task in TASKS), (together, 0.0), (together, 0.1)]
    for task, diversity in models:
        settings = {
            "config": "cifar10-fast",
            "pretext": task,
            "diversity": diversity,
            "defense": "pgd",
            "data": {"parquet": {"root": str(arguments.root)}},
            "seed": arguments.seed,
            "name": f"fast-{task.replace(',', '+')}-{diversity:g}-{arguments.seed}",
            "runs_dir": arguments.runs_dir,
            "tracking": False,
        }
        resume = (arguments.runs_dir / str(settings["name"])).exists()
        result = fit(from_mapping(settings), resume=resume, reporter=Silent())
        kept = ("ta", "ra", "ra_attack", "best_epoch", "epochs", "seconds")
        strong = evaluate(Path(result["folder"]), EvalSettings(), [Choice("autoattack")], reporter=Silent())[
            "measured"
        ][0]
        aa = {"aa": strong["figures"]["ra"], "aa_title": strong["title"], "aa_seconds": strong["seconds"]}
        rows.append({"task": task, "diversity": diversity, **{key: result[key] for key in kept}, **aa})
        print(json.dumps(rows[-1]), flush=True)
        write("train", {"rows": rows}, arguments)
    return rows


def write(name: str, content: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Put figures beside the others, with where they are from."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    about = {"gpu": gpu, "torch": torch.__version__, "commit": commit or "unknown", "seed": arguments.seed}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"gpu-{name}.json").write_text(json.dumps(about | content, indent=1) + "\n")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder of CIFAR-10 as parquet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", choices=["correctness", "speed", "train"])
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.only in (None, "correctness"):
        figures = correctness(torch.device(arguments.device))
        print(json.dumps(figures, indent=1), flush=True)
        write("correctness", {"device": arguments.device, **figures}, arguments)
    if arguments.only in (None, "speed"):
        script = [sys.executable, str(Path(__file__).with_name("step_speed.py")), "--batch", "128"]
        arguments.out.mkdir(parents=True, exist_ok=True)
        subprocess.run([*script, "--out", str(arguments.out / "gpu-step_speed.json")], check=True)
        script = [sys.executable, str(Path(__file__).with_name("ensemble_speed.py")), "--device", arguments.device]
        script += ["--backbone", "resnet18", "--batch", "128"]
        subprocess.run([*script, "--out", str(arguments.out / "gpu-ensemble_speed.json")], check=True)
    if arguments.only in (None, "train"):
        if arguments.root is None:
            parser.error("--root is needed to train on CIFAR-10")
        train(arguments)


if __name__ == "__main__":
    main()
