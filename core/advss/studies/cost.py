"""What a study costs: passes through the network, counted in one training step of each kind of stage, and that timed.

A pass is a forward and a backward pass of one image at the side that is trained on; a forward pass alone is a third of
one, and smaller views count by their area. PGD-10 training costs 11 passes an image. Validation is counted, too;
evaluations of test images are not. Seconds are for this machine, all of it; jobs side by side share it.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advss.config import RunConfig
from advss.data.loader import steps_of
from advss.runs.folder import RunFolder
from advss.runs.initial import first_weights
from advss.runs.session import Session, choose_device
from advss.stages.finetune import finetune_work
from advss.stages.pretrain import pretrain_work
from advss.studies.identity import Datasets
from advss.studies.plan import Plan, Stage
from advss.tracking.tracker import Tracker
from advss.training.first_batch import trial
from advss.training.reporting import Reporter, Silent
from advss.training.signals import StopRequest
from advss.training.work import Work, set_trainable

FORWARD = 1 / 3  # of a pass
SEEDS = ("seed", "split-seed")
LENGTHS = ("pretrain-epochs", "finetune-epochs", "data.limit", "images", "start")  # a step costs the same of any

Cost = dict[str, Any]  # passes an image and step; seconds a step


class Timed:
    """Kinds of stages, each built and tried once; what is ``known`` of before is not tried again."""

    def __init__(self, data: Datasets, reporter: Reporter, known: Mapping[str, Cost] | None = None) -> None:
        self.data, self.reporter, self.known = data, reporter, dict(known or {})

    def layout(self, config: RunConfig) -> str:
        """The memory layout that is the faster for a cell's fine-tuning, or its pretraining where that is all."""
        kind = "finetune" if config.finetuning.epochs else "pretrain"
        with self._opened(config, kind) as (session, work):
            session.settle_layout(work)
            layout: str = work.manifest["memory_format"]
        return layout

    def costs(self, plan: Plan) -> dict[str, dict[str, float]]:
        """Passes and seconds of each stage that trains, by run."""
        stages = [stage for stage in plan.stages.values() if stage.identity]
        kinds = {kind_of(stage): stage for stage in reversed(stages)}
        if untried := [stage for kind, stage in kinds.items() if kind not in self.known]:
            self.reporter.say(f"timing a step of each of {len(untried)} kinds of stages")
        for stage in untried:
            with self._opened(stage.config, stage.kind) as (session, work):
                session.settle_layout(work)
                self.known[kind_of(stage)] = _tried(work)
        return {stage.run: self._cost(stage) for stage in stages}

    def _cost(self, stage: Stage) -> dict[str, float]:
        of_step, splits = self.known[kind_of(stage)], self.data.splits(stage.config)
        own = stage.config.pretraining if stage.kind == "pretrain" else stage.config.finetuning
        part = splits.labelled if stage.kind == "finetune" else splits
        steps = steps_of(len(part.train), own.batch_size, own.epoch_steps)
        trained = own.epochs * steps * own.batch_size * of_step["passes"]
        validated = own.epochs * _validated(stage, len(part.valid), of_step["passes"])
        seconds = of_step["seconds"] / (own.batch_size * of_step["passes"])  # a pass
        return {"passes": round(trained + validated), "seconds": round((trained + validated) * seconds, 1)}

    @contextmanager
    def _opened(self, config: RunConfig, kind: str) -> Iterator[tuple[Session, Work]]:
        """A stage built in a folder that is gone afterwards."""
        with tempfile.TemporaryDirectory() as place, StopRequest() as stop:
            folder = RunFolder(Path(place) / "run")
            splits = self.data.splits(config)
            tracker = Tracker(folder.path, name="run", enabled=False)
            try:
                session = Session(config, folder, splits, choose_device(config.device), tracker, Silent(), stop)
                if config.start:
                    session.weights = first_weights(config, splits.facts, None, self.reporter.say)
                yield session, finetune_work(session, None) if kind == "finetune" else pretrain_work(session)
            finally:
                tracker.finish("FINISHED")


def kind_of(stage: Stage) -> str:
    """What the cost of a step hangs on."""
    assert stage.identity
    known_by = {key: value for key, value in stage.identity.known_by.items() if key not in (*SEEDS, *LENGTHS)}
    return json.dumps([known_by, stage.config.device, bool(stage.after)], sort_keys=True)


def _tried(work: Work) -> Cost:
    """Passes an image in one step, and its seconds, of the second of two."""
    set_trainable(work.modules, work.phases[0])
    trial(work, work.memory_format)
    with _counting(work.modules.trunk, work.loader.batch(0, 0, progress=0.0).x) as counted:
        _wait(work.device)
        began = time.perf_counter()
        trial(work, work.memory_format)
        _wait(work.device)
    return {"passes": counted[0], "seconds": time.perf_counter() - began}


@contextmanager
def _counting(trunk: nn.Module, x_BCHW: Tensor) -> Iterator[list[float]]:
    """Count, within, the passes through a network, an image of a batch."""
    counted = [0.0]

    def count(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        counted[0] += inputs[0].numel() / x_BCHW.numel() * (1 if torch.is_grad_enabled() else FORWARD)

    hook = trunk.register_forward_pre_hook(count)
    try:
        yield counted
    finally:
        hook.remove()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _validated(stage: Stage, images: int, of_step: float) -> float:
    """Passes of one validation: all images once, and an attack on those that are attacked."""
    evaluation = stage.config.evaluation
    attacked = min(images, evaluation.valid_limit or images)
    if stage.kind == "pretrain":
        return images * FORWARD + attacked * max(0.0, of_step - 1)  # the attack of training, and no step
    adversarial = "eval-valid-steps" in (stage.identity.known_by if stage.identity else {})
    return images * FORWARD + (attacked * (evaluation.valid_steps + FORWARD) if adversarial else 0)
