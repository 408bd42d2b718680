"""M tasks, their views and the diversity term as one objective: what a defense attacks and a trainer minimises.

Eq. (2)-(3) of the paper: Σ_i ℓ^(i)(θ_p, θ_pc^(i), x + δ^(i)) + α·g. A classifier is the case M = 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from advss.arithmetic import autocast
from advss.attacks.victim import as_victim
from advss.ensemble.columns import ImagePixels, check_same_shape, input_gradients, own_pixels
from advss.ensemble.diversity import described, gram, log_det
from advss.ensemble.second_order import FastSecondOrder
from advss.hookspecs import BranchNorm, Loss, Objective, PretextTask, Task, Views, branch
from advss.named import NamedModules
from advss.randomness import Key, global_stream

Stage = Literal["pretrain", "finetune"]
Asked = Literal["loss", "attacked"]  # of a task


class _Root(nn.Module):
    """Trunk and members under one module, so that functional_call can put other parameters in their place."""

    def __init__(self, trunk: nn.Module, members: Mapping[str, Task]) -> None:
        super().__init__()
        self.trunk = trunk
        self.members = NamedModules(members)

    def forward(self, objective: TaskObjective, inputs: tuple[Tensor, ...], weight: float) -> Loss:
        return objective.evaluate(inputs, weight)


class TaskObjective(Objective):
    """The one implementation of :class:`advss.hookspecs.Objective`.

    Args:
        trunk: what the members share: the encoder, or the classifier when fine-tuning.
        members: the tasks by key, in order.
        views: one for each member, in the same order.
        stage: which stage this is, for options whose default differs.
        progress: share of the stage's training done; 1 outside training.
        index: the images' places, (B,); by default they are the first ones.
        key: names the random stream of dropout at this step: (seed, stage, step).
        diversity: α of eq. (3), in what an attack maximises and in the training loss.
        loss_diversity: α in the training loss where it is another there.
        pixels: compares gradients in the images' pixels; None compares them in each task's own.
        bf16: run the forward passes under bfloat16 autocast.
        memory_format: layout of the inputs.
        between: called between any two passes, forward or backward, of a member; what it raises ends the call.
    """

    def __init__(  # noqa: PLR0913 - what a step is made of
        self,
        trunk: nn.Module,
        members: Mapping[str, Task],
        views: tuple[Views, ...],
        *,
        stage: Stage,
        key: tuple[Key, ...],
        index: Tensor | None = None,
        progress: float = 1.0,
        diversity: float = 0.0,
        loss_diversity: float | None = None,
        pixels: ImagePixels | None = None,
        bf16: bool = False,
        memory_format: torch.memory_format = torch.contiguous_format,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self.root = _Root(trunk, members)
        self.members = dict(members)
        self.views = {
            key: Views(tuple(x.contiguous(memory_format=memory_format) for x in v.inputs), v.targets)
            for key, v in zip(members, views, strict=True)
        }
        self.inputs = tuple(x for v in self.views.values() for x in v.inputs)
        self.device = self.inputs[0].device
        self.index = torch.arange(len(self.inputs[0]), device=self.device) if index is None else index
        self.stage, self.progress = stage, progress
        self.carried = ()
        self.key, self.calls = key, 0
        self.attack_weight = diversity
        self.loss_weight = diversity if loss_diversity is None else loss_diversity
        self.pixels, self.bf16, self.between = pixels, bf16, between
        self._gram_BMM: Tensor | None = None  # where the training loss was last evaluated with g
        self._attacked = False
        self._overrides: dict[str, Tensor] | None = None
        self._branched = any(isinstance(module, BranchNorm) for module in self.root.modules())

    def __call__(self, inputs: tuple[Tensor, ...], *, penalty: bool = True) -> Loss:
        """Sum of the members' losses at ``inputs``, plus α·g unless ``penalty`` is false or α is 0."""
        self._check(inputs)
        weight = self.attack_weight if self._attacked else self.loss_weight
        arguments = (self, inputs, weight if penalty else 0.0)
        if self._overrides is None:
            out: Loss = self.root(*arguments)
        else:
            out = functional_call(self.root, self._overrides, arguments)
        return out

    def _check(self, inputs: tuple[Tensor, ...]) -> None:
        """The inputs of every member, for a member could not say whose fault others are."""
        many = isinstance(inputs, tuple | list)
        given = [getattr(x, "shape", None) for x in inputs] if many else type(inputs).__name__
        wanted = [x.shape for x in self.inputs]
        if given != wanted:
            shapes = [shape and tuple(shape) for shape in given] if many else given
            like = f"a tuple like objective.inputs, of shapes {[tuple(shape) for shape in wanted]}"
            raise ValueError(f"the objective takes {like}; it was given {shapes}")

    def evaluate(self, inputs: tuple[Tensor, ...], weight: float) -> Loss:
        """The losses themselves; called through the root module so that :meth:`at` reaches every parameter."""
        self.calls += 1
        if weight == 0:
            asked = self._asked()
            losses = {key: self._member_loss(key, own, asked) for key, own in self.by_member(inputs).items()}
            return self._sum(losses, 0.0)
        losses, gram_BMM = self._with_gram(inputs, self._asked(), differentiable=True)
        if not self._attacked:
            self._gram_BMM = gram_BMM.detach()
        return self._sum(losses, weight * log_det(gram_BMM))

    def _sum(self, losses: dict[str, Loss], penalty: Tensor | float) -> Loss:
        """The members' losses as one, whose backward pass calls ``between`` before each member's."""
        for loss in losses.values():
            if loss.value.grad_fn is not None:
                loss.value.register_hook(lambda gradient: self.between())  # type: ignore[no-untyped-call]
        return _sum(losses, penalty)

    def member(self, key: str) -> Loss:
        """One member's own loss at its unperturbed inputs."""
        return self._member_loss(key, self.by_member(self.inputs)[key], "loss")

    def measured(self) -> dict[str, Tensor]:
        """The term g and the gradients' cosines in the training loss; empty where it was evaluated without them."""
        return {} if self._gram_BMM is None else described(list(self.members), self._gram_BMM)

    def measure(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """The same at ``inputs``, by passes of its own that leave nothing behind; empty for one member."""
        if len(self.members) < 2:
            return {}
        with self.attacking("train"):
            return described(list(self.members), self._with_gram(inputs, "loss", differentiable=False)[1])

    def _asked(self) -> Asked:
        return "attacked" if self._attacked else "loss"

    def _with_gram(
        self, inputs: tuple[Tensor, ...], asked: Asked, *, differentiable: bool
    ) -> tuple[dict[str, Loss], Tensor]:
        """The members' losses and GᵀG (B, M, M), whether or not gradients are asked for around it."""
        inputs = tuple(x if x.requires_grad else x.detach().requires_grad_() for x in inputs)
        losses: dict[str, Loss] = {}
        columns: dict[str, Tensor] = {}
        with torch.enable_grad():
            for key, own in self.by_member(inputs).items():
                losses[key] = self._member_loss(key, own, asked, twice=differentiable)
                gradients = input_gradients(losses[key].value, own, differentiable=differentiable)
                columns[key] = (self.pixels.column if self.pixels else own_pixels)(key, gradients)
            check_same_shape(columns)
            return losses, gram(list(columns.values()))

    def _member_loss(self, key: str, inputs: tuple[Tensor, ...], asked: Asked, *, twice: bool = False) -> Loss:
        """A member's loss, what is trained or what is attacked; with ``twice`` it can be differentiated twice, fast."""
        task = self.members[key]
        self.between()
        with ExitStack() as stack:
            stack.enter_context(global_stream(self.device, *self.key, key, self.calls))
            stack.enter_context(autocast(self.device, bf16=self.bf16))
            stack.enter_context(self._own_branch(task))
            if twice:  # the fused attention kernels have no double backward
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
                stack.enter_context(FastSecondOrder())
            loss = task.loss if asked == "loss" else task.attacked
            return loss(self.root.trunk, inputs, self.views[key].targets)

    def _own_branch(self, task: Task) -> AbstractContextManager[None]:
        """A member begins in its own first BatchNorm branch, wherever it stands among the others."""
        if self._branched and isinstance(task, PretextTask):
            return branch(task.branches[0], self.root.trunk, task)
        return nullcontext()

    def by_member(self, inputs: tuple[Tensor, ...]) -> dict[str, tuple[Tensor, ...]]:
        """``inputs`` by member."""
        left = iter(inputs)
        return {key: tuple(itertools.islice(left, len(views.inputs))) for key, views in self.views.items()}

    @contextmanager
    def attacking(self, mode: Literal["train", "eval"] = "train") -> Iterator[None]:
        """See :meth:`advss.hookspecs.Objective.attacking`."""
        views, attacked = self.views, self._attacked
        self._attacked = True
        try:
            with as_victim(self.root, mode), self.holding_statistics():
                self.views = {key: self._frozen(key, self.members[key], v) for key, v in views.items()}
                yield
        finally:
            self.views, self._attacked = views, attacked

    def _frozen(self, key: str, task: Task, views: Views) -> Views:
        if type(task).freeze is Task.freeze:
            return views
        stream = global_stream(self.device, *self.key, key, "freeze")
        with torch.no_grad(), stream, autocast(self.device, bf16=self.bf16), self._own_branch(task):
            return task.freeze(self.root.trunk, views)

    @contextmanager
    def holding_statistics(self) -> Iterator[None]:
        """See :meth:`advss.hookspecs.Objective.holding_statistics`."""
        # not by momentum 0: 0·nan is nan, and one bad batch would stay in the statistics for ever
        norms = [m for m in self.root.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
        for norm in norms:
            norm.track_running_stats = False
        try:
            yield
        finally:
            for norm in norms:
                norm.track_running_stats = True

    def parameters(self) -> dict[str, Tensor]:
        """See :meth:`advss.hookspecs.Objective.parameters`."""
        now = self._overrides or {}
        return {name: now.get(name, p) for name, p in self.root.named_parameters() if p.requires_grad}

    @contextmanager
    def at(self, parameters: dict[str, Tensor]) -> Iterator[None]:
        """See :meth:`advss.hookspecs.Objective.at`."""
        before, self._overrides = self._overrides, {**(self._overrides or {}), **parameters}
        try:
            yield
        finally:
            self._overrides = before


def _sum(losses: dict[str, Loss], penalty: Tensor | float) -> Loss:
    """One loss of M: values added, logits in order, metrics under the member's key when there are several.

    Where one member has no logits, or no labels, there are none, for what others alone have would leave it undefended.
    """
    if len(losses) == 1:
        (loss,) = losses.values()
        return replace(loss, penalty=penalty)
    value = torch.stack([loss.value for loss in losses.values()]).sum()
    metrics = {f"{key}/{name}": m for key, loss in losses.items() for name, m in loss.metrics.items()}
    metrics |= {f"{key}/loss": loss.value.detach() for key, loss in losses.items()}
    if not all(loss.logits for loss in losses.values()):
        return Loss(value, metrics=metrics, penalty=penalty)
    logits = tuple(z for loss in losses.values() for z in loss.logits)
    known = all(loss.labels for loss in losses.values())
    labels = tuple(label for loss in losses.values() for label in loss.labels) if known else ()
    weights = tuple(w for loss in losses.values() for w in loss.weights or (1.0,) * len(loss.logits))
    return Loss(value, logits, metrics, penalty, labels, weights)
