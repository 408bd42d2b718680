"""What a trainer is given: the modules of a stage, their names in a checkpoint, and which of them train when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from advss.arithmetic import Arithmetic
from advss.config import StageSettings
from advss.data.loader import Loader
from advss.ensemble.columns import ImagePixels
from advss.ensemble.diversity import Diversity
from advss.ensemble.objective import Stage, TaskObjective
from advss.hookspecs import Batch, Classifier, Defense, FinetuneScheme, Loss, Phase, Task, Views
from advss.models.weights import load_strict
from advss.named import NamedModules
from advss.randomness import Key, stream
from advss.training.signals import StopRequest

Metrics = dict[str, float]
Validate = Callable[["Modules", Arithmetic], Metrics]


class Modules(nn.Module):
    """Trunk and members of a stage: what trains, is averaged and is saved."""

    def __init__(self, trunk: nn.Module, members: Mapping[str, Task], stage: Stage) -> None:
        super().__init__()
        self.trunk = trunk
        self.members = NamedModules(members)
        self.stage = stage
        self.frozen = [p for p in self.parameters() if not p.requires_grad]  # in build(); they never train

    def tasks(self) -> dict[str, Task]:
        """The members by key."""
        return self.members.by_name()

    def _places(self) -> dict[str, nn.Module]:
        if self.stage == "pretrain":
            return {"encoder.": self.trunk, **{f"tasks.{key}.": task for key, task in self.tasks().items()}}
        return {"": self.trunk, "scheme.": next(iter(self.tasks().values()))}

    def named_state(self) -> dict[str, Tensor]:
        """Parameters and buffers by the names they have in a checkpoint."""
        return {f"{at}{name}": t for at, module in self._places().items() for name, t in module.state_dict().items()}

    @torch.no_grad()
    def deployed(self) -> dict[str, Tensor]:
        """What is kept of the best epoch: of fine-tuning the plain classifier, as its scheme leaves it."""
        task = next(iter(self.tasks().values()))
        if not isinstance(task, FinetuneScheme):
            return self.named_state()
        assert isinstance(self.trunk, Classifier)
        return task.deployed(self.trunk)

    def load_named_state(self, state: Mapping[str, Tensor], *, what: str) -> None:
        """Load what :meth:`named_state` gave, strictly.

        Raises:
            UsageError: a key is missing, left over or of another shape; it is named and nothing is loaded.
        """
        load_strict(self.named_state(), state, what=what)


@dataclass
class Work:
    """One stage, ready to train."""

    modules: Modules
    defense: Defense
    loader: Loader
    phases: list[Phase]
    settings: StageSettings
    validate: Validate
    score: Callable[[Metrics], tuple[float, ...]]  # the epoch with the greatest is kept; the earliest of equals
    seed: int
    device: torch.device
    diversity: Diversity = field(default_factory=Diversity)
    averaged: bool = False  # members' losses are averaged in the training loss rather than summed
    bf16: bool = False
    memory_format: torch.memory_format = torch.contiguous_format
    everything: Iterable[Batch] = ()  # every image to train and validate on, for hooks: not augmented, again and again
    manifest: dict[str, Any] = field(default_factory=dict)  # what rebuilds the model; must agree on resuming
    plugins: list[dict[str, str]] = field(default_factory=list)  # that it is made of; versions may change on resuming
    stop: StopRequest = field(default_factory=StopRequest)  # asked at every call of the objective

    @property
    def stage(self) -> Stage:
        """Which stage this is."""
        return self.modules.stage

    @property
    def arithmetic(self) -> Arithmetic:
        """Of every pass of the stage."""
        return Arithmetic(self.bf16, self.memory_format)

    def objective(self, batch: Batch, *, step: int, replay: int = 0) -> TaskObjective:
        """The stage's objective on a batch: every draw a function of (seed, stage, step, member).

        In its replays the views are the same, and what torch's global generator gives is another.
        """
        key = (self.seed, self.stage, step)
        tasks = self.modules.tasks()
        weights = self.diversity.in_attack(step), self.diversity.in_loss(step)
        if self.diversity.pixels == "task" or weights == (0, 0):
            views, pixels = make_views(tasks, batch, key), None
        else:
            traced = self.loader.traced(batch, *divmod(step, self.loader.steps_per_epoch))
            views, pixels = make_traced_views(tasks, *traced, key)
        return TaskObjective(
            self.modules.trunk,
            tasks,
            views,
            index=batch.index,
            stage=self.stage,
            key=(*key, "replay", replay) if replay else key,
            progress=batch.progress,
            diversity=weights[0],
            loss_diversity=weights[1],
            pixels=pixels,
            bf16=self.bf16,
            memory_format=self.memory_format,
            between=self.stop.check,
        )

    def total(self, loss: Loss) -> Tensor:
        """What is minimised: a defense's loss of the M members, summed or averaged, and its diversity term."""
        return loss.value / len(self.modules.members) + loss.penalty if self.averaged else loss.total

    def phase_starts(self) -> list[int]:
        """The epoch at which each phase begins, and at the end the number of epochs."""
        shares = [0.0]
        for phase in self.phases:
            shares.append(shares[-1] + phase.share)
        return [round(share / shares[-1] * self.settings.epochs) for share in shares]

    def idle_phases(self) -> list[int]:
        """The places of phases whose share is rounded to no epoch, where there are epochs."""
        spans = list(pairwise(self.phase_starts()))
        return [place for place, (start, end) in enumerate(spans) if start == end and self.settings.epochs]


def make_views(tasks: Mapping[str, Task], batch: Batch, key: tuple[Key, ...]) -> tuple[Views, ...]:
    """Each task's views of a batch, drawn from a stream of its own."""
    with torch.no_grad():
        return tuple(t.views(batch, stream(batch.x.device, *key, name, "views")) for name, t in tasks.items())


def make_traced_views(
    tasks: Mapping[str, Task], pixels_BCPP: Tensor, batch: Batch, key: tuple[Key, ...]
) -> tuple[tuple[Views, ...], ImagePixels]:
    """As :func:`make_views`, with the way that gradients take back to the pixels that ``batch`` is made of.

    So a task may take the images before their augmentation or after it: ``batch.raw`` and ``batch.x``.
    """
    traced = {name: t.views(batch, stream(batch.raw.device, *key, name, "views")) for name, t in tasks.items()}
    views = tuple(
        Views(tuple(x.detach() for x in v.inputs), {name: t.detach() for name, t in v.targets.items()})
        for v in traced.values()
    )
    return views, ImagePixels(pixels_BCPP, traced)


def set_trainable(module: nn.Module, phase: Phase) -> None:
    """Let the phase's parameters train and all others stand; a subtree without any stands in eval mode."""
    chosen = {id(p) for group in phase.groups for p in group["params"]}
    for parameter in module.parameters():
        parameter.requires_grad_(id(parameter) in chosen)
    module.train()
    stand(module)


def stand(module: nn.Module) -> None:
    """Let each subtree of whose parameters none trains stand in eval mode."""
    for part in module.modules():
        own = list(part.parameters())
        if own and not any(p.requires_grad for p in own):
            part.eval()
