"""A task's hooks, before training, before each epoch and after each step: called alike for every task of every stage.

Within a hook the network and the task are in eval mode, in the task's first BatchNorm branch, without gradients, and
torch's global generator is seeded; modes and flags are put back after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from advss.attacks.victim import as_victim
from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Batch, PretextTask, Task, branch
from advss.randomness import Key, global_stream, of_member, stream
from advss.training.blame import blaming
from advss.training.work import Modules, Work

Hook = Literal["prepare", "before_epoch", "after_step"]


def has(task: Task, hook: Hook) -> bool:
    """Whether a task does anything in a hook."""
    return getattr(type(task), hook) is not getattr(Task, hook)


def epoch_hooks(work: Work, epoch: int, *, prepared: bool) -> None:
    """Each task's look at the data before an epoch, counted from 0; the first time its :meth:`prepare` before it.

    Raises:
        UsageError: a plugin's own error, in one line.
    """
    hooks: tuple[Hook, ...] = ("before_epoch",) if prepared else ("prepare", "before_epoch")
    with blaming(work.stage, work.plugins):
        for hook in hooks:
            for key, task in work.modules.tasks().items():
                if has(task, hook):
                    names = (work.seed, work.stage, epoch, of_member(key), hook)
                    with standing(work.modules, task, work.device, *names):
                        draws = stream(work.device, *names, "generator")
                        getattr(task, hook)(work.modules.trunk, work.everything, draws)
                    work.stop.check()


def after_step(work: Work, objective: TaskObjective, batch: Batch, inputs: tuple[Tensor, ...]) -> None:
    """Each task's own after an optimiser step on ``inputs``, those of all of them."""
    own = objective.by_member(tuple(x.detach() for x in inputs))
    for key, task in work.modules.tasks().items():
        if has(task, "after_step"):
            with standing(work.modules, task, work.device, *objective.key, of_member(key), "after_step"):
                task.after_step(work.modules.trunk, batch, own[key], objective.views[key])


@contextmanager
def standing(modules: Modules, task: Task, device: torch.device, *key: Key) -> Iterator[None]:
    """How network and task stand within a hook; ``key`` names the stream of torch's global generator."""
    first = task.branches[0] if isinstance(task, PretextTask) else "main"
    with torch.no_grad(), as_victim(modules), global_stream(device, *key), branch(first, modules):
        yield
