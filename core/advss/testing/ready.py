"""A task of either kind, built and prepared as a run does it, with the network that its loss is asked of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from advss.ensemble.objective import Stage, TaskObjective
from advss.hookspecs import Batch, FinetuneScheme, Loss, Phase, PretextTask, Task, Views, branch
from advss.models.classifier import ImageClassifier
from advss.randomness import global_stream, stream
from advss.testing.asked import UNSEEDED, changed, unseeded
from advss.testing.stand_ins import FACTS, SmallEncoder, every_batch, one_batch
from advss.testing.subject import Subject
from advss.testing.verdicts import UncheckedError, as_in_training, expect
from advss.training.form import check_form_of_loss, check_form_of_views, check_phases, tensors
from advss.training.hooks import standing
from advss.training.work import Modules, stand

CPU = torch.device("cpu")
FIELDS = ("x", "raw", "index", "label")  # of a batch, that are tensors


class Ready:
    """A task and its network: the small encoder, or when fine-tuning a classifier on it.

    Args:
        task: newly made.
        seed: of what :meth:`~advss.hookspecs.PretextTask.build` draws.
        prepared: whether the task has had its look at the data; a run that is resumed loads it instead.
        branches: BatchNorm branches of the encoder, by default those of the task.
    """

    def __init__(
        self, task: Task, *, seed: int = 0, prepared: bool = True, branches: tuple[str, ...] | None = None
    ) -> None:
        assert isinstance(task, PretextTask | FinetuneScheme)
        self.task, self.batch = task, one_batch()
        self.stage: Stage = "pretrain" if isinstance(task, PretextTask) else "finetune"
        self.network: Any = _network(task, branches)
        self.drawn, self.altered = list[str](), list[str]()  # what its methods did that they may not, in words
        with self._asked("build()"), global_stream("cpu", seed, "init"):
            task.build(self.network)
        self.modules = Modules(self.network, {"it": task}, self.stage)
        stand(self.modules)
        if prepared:
            self.look_at_data(every_batch(), stream("cpu", seed, "look"))

    def look_at_data(self, data: Iterable[Batch], generator: Generator, device: torch.device = CPU) -> None:
        """The task's hooks before its first epoch."""
        with standing(self.modules, self.task, device, "look"):
            every = list(data)
            given = {f"batch.{name} of image {b.index[0]} on": getattr(b, name) for b in every for name in FIELDS}
            with self._asked("prepare()", given):
                self.task.prepare(self.network, every, generator)
            with self._asked("before_epoch()", given):
                self.task.before_epoch(self.network, every, generator)

    def after_step(self, views: Views, batch: Batch | None = None, device: torch.device = CPU) -> None:
        """The task's hook after a step on the unperturbed inputs."""
        batch, views = batch or one_batch(), _copy(views)
        given = tensors(views) | {f"batch.{name}": getattr(batch, name) for name in FIELDS}
        with standing(self.modules, self.task, device, "after_step"), self._asked("after_step()", given):
            self.task.after_step(self.network, batch, views.inputs, views)

    @contextmanager
    def _asked(self, what: str, given: Mapping[str, Tensor] | None = None) -> Iterator[None]:
        """While the task is asked, with tensors of which others have copies of their own."""
        given = given or {}
        before = [t.detach().clone() for t in given.values()]
        with unseeded() as drawn:
            yield
        self.drawn += [f"{what} draws from {library}{UNSEEDED}" for library in drawn]
        self.altered += [f"{what} changes {name} in place" for name in changed(given, before)]

    @contextmanager
    def own_branch(self) -> Iterator[None]:
        """The BatchNorm branch that a pretext task begins in."""
        if not isinstance(self.task, PretextTask):
            yield
            return
        with branch(self.task.branches[0], self.network, self.task):
            yield

    def views(self, generator: Generator | None = None, batch: Batch | None = None) -> Views:
        """What the task sees of a batch, by default of a fresh copy of the same one."""
        with torch.no_grad(), self._asked("views()"):
            views = self.task.views(batch or one_batch(), generator or stream("cpu", "views"))
        as_in_training(check_form_of_views, views)
        return views

    def frozen(self, views: Views) -> Views:
        """What freeze() makes of them."""
        views = _copy(views)
        with torch.no_grad(), self.own_branch(), self._asked("freeze()", tensors(views)):
            frozen = self.task.freeze(self.network, views)
        as_in_training(partial(check_form_of_views, by="freeze()"), frozen)
        return frozen

    def loss(self, views: Views, *, seed: int = 0, asked: Literal["loss", "attacked"] = "loss") -> Loss:
        """The task's own loss at the inputs of ``views``, or what is attacked, under a seed of the global generator."""
        views = _copy(views)
        method = self.task.loss if asked == "loss" else self.task.attacked
        with global_stream("cpu", seed, "loss"), self.own_branch(), self._asked(f"{asked}()", tensors(views)):
            loss = method(self.network, views.inputs, views.targets)
        as_in_training(check_form_of_loss, loss)
        return loss

    def sure_loss(self, views: Views) -> Tensor:
        """The loss in eval mode, where dropout draws nothing.

        Raises:
            UncheckedError: it is not finite, or random there too, so that two values of it do not compare.
        """
        self.modules.eval()
        one, other = (self.loss(views, seed=seed).value.detach() for seed in (0, 1))
        expect_finite(one, other)
        if not torch.allclose(one, other, rtol=1e-6, atol=1e-7):
            raise UncheckedError("its loss is random in eval mode too")
        return one

    def repeated_views(self) -> Views:
        """The task's views, where two calls give the same.

        Raises:
            UncheckedError: they do not, so that what follows from them does not compare.
        """
        one, other = self.views(), self.views()
        if not same_tensors(tensors(one), tensors(other)):
            raise UncheckedError("views do not repeat")
        return one

    def objective(self, views: Views | None = None, **how: Any) -> TaskObjective:
        """The task alone as an objective, its loss tried before; ``how`` as for :class:`TaskObjective`."""
        own = views or self.views()
        expect_finite(self.loss(own).value)
        if self.altered:
            raise UncheckedError(self.altered[0])
        how |= {"index": self.batch.index}
        return TaskObjective(self.network, {"it": self.task}, (own,), stage=self.stage, key=(0, self.stage), **how)

    def phases(self) -> list[Phase]:
        """Which parameters train when: in pretraining all, always."""
        if isinstance(self.task, FinetuneScheme):
            return phases_of(self.task, self.network)
        return [Phase(1.0, [{"params": [p for p in self.modules.parameters() if p.requires_grad]}])]


def _network(task: Task, branches: tuple[str, ...] | None) -> Any:
    return SmallEncoder(branches or task.branches) if isinstance(task, PretextTask) else classifier()


def _copy(views: Views) -> Views:
    """With inputs and targets of their own, through which gradients reach the others."""
    return Views(tuple(x.clone() for x in views.inputs), {name: t.clone() for name, t in views.targets.items()})


def ready(subject: Subject, **how: Any) -> Ready:
    """A new object of the plugin, made :class:`Ready`."""
    return Ready(subject.new(), **how)


def classifier(*, loaded: str = "encoder") -> ImageClassifier:
    """A classifier on the small encoder, of which pretraining gave "nothing", the "encoder" or the "tail" too."""
    encoder = SmallEncoder()
    with global_stream("cpu", "classifier"):
        made = ImageClassifier(encoder, encoder.tail(), FACTS.classes)
    if loaded != "nothing":
        made.load_pretrained(encoder.state_dict(), made.tail.state_dict() if loaded == "tail" else None)
    return made


def phases_of(scheme: FinetuneScheme, network: ImageClassifier) -> list[Phase]:
    """What the scheme's phases() gives, phases with a share and groups of parameters."""
    missing = type(scheme).phases is FinetuneScheme.phases
    expect(not missing, f"class {type(scheme).__name__} has no phases(), for which there is no default")
    phases = scheme.phases(network)
    as_in_training(check_phases, phases)
    return phases


def expect_finite(*values: Tensor) -> None:
    """Losses of which more can be asked.

    Raises:
        UncheckedError: one is not finite, which a check of its own says.
    """
    for value in values:
        if not value.isfinite():
            raise UncheckedError(f"its loss is not finite: {float(value.detach())}")


def same_tensors(some: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    """Whether names, types and values are the same."""
    pairs = zip(some.values(), others.values(), strict=False)
    return list(some) == list(others) and all(
        one.dtype == other.dtype and torch.equal(one, other) for one, other in pairs
    )


def short(name: str) -> str:
    """A name in a checkpoint as the plugin knows it."""
    for prefix in ("tasks.it.", "scheme.", "encoder."):
        name = name.removeprefix(prefix)
    return name


def own_parameters(ready: Ready) -> dict[str, nn.Parameter]:
    """The parameters that the task brought, by name; those that it froze left out."""
    others = {id(p) for p in ready.network.parameters()}
    return {name: p for name, p in ready.task.named_parameters() if p.requires_grad and id(p) not in others}
