"""A run may be on any device: tried on a pretended one, and on a GPU where there is one."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Generator, Tensor, nn

from advss.hookspecs import Batch, Views
from advss.randomness import stream
from advss.testing.elsewhere import Elsewhere, ElsewhereGenerator, parameters_made_there, send, send_module
from advss.testing.ready import Ready, ready
from advss.testing.stand_ins import every_batch, one_batch
from advss.testing.subject import Subject
from advss.testing.verdicts import BrokenError, UncheckedError

NEEDS_GPU = re.compile("cuda|nvidia", re.IGNORECASE)


class Place:
    """A real device, to which modules and tensors are moved as core moves them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def within(self) -> AbstractContextManager[None]:
        """The context in which a plugin's code runs there."""
        return nullcontext()

    def generator(self) -> Generator:
        """What core hands to a plugin there."""
        return stream(self.device, "draws")

    def move_module(self, module: nn.Module) -> None:
        """Parameters and buffers, in place."""
        module.to(self.device)

    def tensor(self, t: Tensor) -> Tensor:
        """A copy there."""
        return t.to(self.device)

    def batch(self, batch: Batch) -> Batch:
        """A copy there."""
        moved = {name: self.tensor(getattr(batch, name)) for name in ("x", "raw", "index", "label")}
        return Batch(**moved, progress=batch.progress)

    def views(self, views: Views) -> Views:
        """The views there."""
        targets = {name: t.to(self.device) for name, t in views.targets.items()}
        return Views(tuple(x.to(self.device) for x in views.inputs), targets)


class Pretended(Place):
    """A second GPU that is not there: everything is computed on the CPU, and what mixes the two is refused."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))

    def within(self) -> AbstractContextManager[None]:
        """Every function of tensors is watched."""
        return _elsewhere()

    def generator(self) -> Generator:
        """One that says it is on the pretended device."""
        return ElsewhereGenerator()

    def move_module(self, module: nn.Module) -> None:
        """What ``module.to(device)`` would move lies there from here on."""
        send_module(module)

    def tensor(self, t: Tensor) -> Tensor:
        """A copy there."""
        copy = t.clone()
        send(copy)
        return copy

    def views(self, views: Views) -> Views:
        """The views, which lie there from here on."""
        send(*views.inputs, *views.targets.values())
        return views


def everywhere(works: Callable[[Place], None]) -> None:
    """Try on the pretended device, which names the cause of what is wrong, and then on a GPU where there is one."""
    there = torch.cuda.is_available()
    try:
        works(Pretended())
    except UncheckedError:
        if not there:
            raise
    if there:
        works(Place(torch.device("cuda", torch.cuda.current_device())))


def a_task_works_on_another_device(subject: Subject) -> None:
    """Hooks, views, freeze, loss and its gradient, with network and batch moved as core moves them."""
    everywhere(partial(task_works, subject))


def task_works(subject: Subject, place: Place) -> None:
    """All that core calls of a task, at a place."""
    it = ready(subject, prepared=False)
    place.move_module(it.modules)
    with place.within():
        it.look_at_data(map(place.batch, every_batch()), place.generator(), place.device)
        views = it.views(place.generator(), place.batch(one_batch()))
        _train(it, views, place)
        _train(it, it.frozen(views), place)


def _train(it: Ready, views: Views, place: Place) -> None:
    inputs = tuple(x.detach().requires_grad_() for x in views.inputs)
    it.loss(Views(inputs, views.targets)).value.backward()  # type: ignore[no-untyped-call]
    it.after_step(views, place.batch(one_batch()), place.device)


@contextmanager
def _elsewhere() -> Iterator[None]:
    """The pretended device is there, and warnings of an autocast for a GPU that is not are silent."""
    with warnings.catch_warnings(action="ignore"), parameters_made_there(), Elsewhere():
        try:
            yield
        except (RuntimeError, AssertionError) as error:
            if isinstance(error, BrokenError) or not NEEDS_GPU.search(str(error)):
                raise
            raise UncheckedError(
                f"it asks for a GPU that is only pretended ({str(error).splitlines()[0]}), for a generator of its own "
                "perhaps: draw from the one that is given, or try it on a GPU"
            ) from error
