"""A run may be on any device: tried on a pretended one, without a GPU."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from advss.hookspecs import Batch, PretextTask, Views
from advss.randomness import global_stream
from advss.testing.elsewhere import Elsewhere, ElsewhereGenerator, send, send_module
from advss.testing.ready import Ready, ready
from advss.testing.stand_ins import every_batch, one_batch
from advss.testing.subject import Subject
from advss.testing.verdicts import BrokenError, UncheckedError

NEEDS_GPU = re.compile("cuda|nvidia", re.IGNORECASE)


def a_task_works_on_another_device(subject: Subject) -> None:
    """prepare, views, freeze, loss, its gradient and after_step, with network and batch moved as core moves them."""
    it = ready(subject, prepared=False)
    send_module(it.modules)
    with elsewhere():
        if isinstance(it.task, PretextTask):
            with global_stream("cpu", "prepare"), it.own_branch():
                it.task.prepare(it.network, map(_sent, every_batch()))
        views = it.views(ElsewhereGenerator(), _sent(one_batch()))
        with torch.no_grad():
            frozen = it.task.freeze(it.network, views)
        _train(it, views)
        _train(it, frozen)


def _train(it: Ready, views: Views) -> None:
    inputs = tuple(x.detach().requires_grad_() for x in views.inputs)
    it.loss(Views(inputs, views.targets)).value.backward()  # type: ignore[no-untyped-call]
    if isinstance(it.task, PretextTask):
        with torch.no_grad():
            it.task.after_step(it.network)


@contextmanager
def elsewhere() -> Iterator[None]:
    """The pretended device is there, and warnings of an autocast for a GPU that is not are silent."""
    with warnings.catch_warnings(action="ignore"), Elsewhere():
        try:
            yield
        except (RuntimeError, AssertionError) as error:
            if isinstance(error, BrokenError) or not NEEDS_GPU.search(str(error)):
                raise
            raise UncheckedError(
                f"it asks for a GPU that is only pretended ({str(error).splitlines()[0]}), for a generator of its own "
                "perhaps: draw from the one that is given, or try it on a GPU"
            ) from error


def _sent(batch: Batch) -> Batch:
    """A copy on the pretended device."""
    moved = replace(
        batch, x=batch.x.clone(), raw=batch.raw.clone(), index=batch.index.clone(), label=batch.label.clone()
    )
    send(moved.x, moved.raw, moved.index, moved.label)
    return moved
