"""M tasks, their views and the diversity term as one objective: what a defense attacks and a trainer minimises.

Eq. (2)-(3) of the paper: Σ_i ℓ^(i)(θ_p, θ_pc^(i), x + δ^(i)) + α·g. A classifier is the case M = 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from advss.ensemble.diversity import log_det
from advss.hookspecs import BranchNorm, Loss, Objective, PretextTask, Task, Views, branch
from advss.randomness import Key, global_stream

Stage = Literal["pretrain", "finetune"]


class _Root(nn.Module):
    """Trunk and members under one module, so that functional_call can put other parameters in their place."""

    def __init__(self, trunk: nn.Module, members: Mapping[str, Task]) -> None:
        super().__init__()
        self.trunk = trunk
        self.members = nn.ModuleDict(dict(members))

    def forward(self, objective: TaskObjective, inputs: tuple[Tensor, ...], penalty: bool) -> Loss:
        return objective.evaluate(inputs, penalty)


class TaskObjective(Objective):
    """The one implementation of :class:`advss.hookspecs.Objective`.

    Args:
        trunk: what the members share: the encoder, or the classifier when fine-tuning.
        members: the tasks by key, in order.
        views: one for each member, in the same order.
        stage: which stage this is, for options whose default differs.
        key: names the random stream of dropout at this step: (seed, stage, step).
        diversity: α of eq. (3).
        bf16: run the forward passes under bfloat16 autocast.
        memory_format: layout of the inputs.
    """

    def __init__(
        self,
        trunk: nn.Module,
        members: Mapping[str, Task],
        views: tuple[Views, ...],
        *,
        stage: Stage,
        key: tuple[Key, ...],
        diversity: float = 0.0,
        bf16: bool = False,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.root = _Root(trunk, members)
        self.members = dict(members)
        self.views = tuple(
            Views(tuple(x.contiguous(memory_format=memory_format) for x in v.inputs), v.targets) for v in views
        )
        self.inputs = tuple(x for v in self.views for x in v.inputs)
        self.device = self.inputs[0].device
        self.stage = stage
        self.key, self.calls = key, 0
        self.diversity, self.bf16 = diversity, bf16
        self._overrides: dict[str, Tensor] | None = None
        self._branched = any(isinstance(module, BranchNorm) for module in self.root.modules())

    def __call__(self, inputs: tuple[Tensor, ...], *, penalty: bool = True) -> Loss:
        """Sum of the members' losses at ``inputs``, plus α·g unless ``penalty`` is false or α is 0."""
        arguments = (self, inputs, penalty and self.diversity != 0)
        if self._overrides is None:
            out: Loss = self.root(*arguments)
        else:
            out = functional_call(self.root, self._overrides, arguments)
        return out

    def evaluate(self, inputs: tuple[Tensor, ...], penalty: bool) -> Loss:
        """The losses themselves; called through the root module so that :meth:`at` reaches every parameter."""
        self.calls += 1
        if penalty:  # g is made of input gradients, which a plain training step would not ask for
            inputs = tuple(x if x.requires_grad else x.detach().requires_grad_() for x in inputs)
        losses: list[Loss] = []
        gradients: list[Tensor] = []
        with torch.set_grad_enabled(torch.is_grad_enabled() or penalty):
            for (key, task), views, own in zip(self.members.items(), self.views, self._split(inputs), strict=True):
                losses.append(self._member_loss(key, task, views, own, twice_differentiable=penalty))
                if penalty:
                    gradients.append(sum_of_gradients(losses[-1].value, own))
            g = self.diversity * log_det(gradients) if penalty else 0.0
        return _sum(list(self.members), losses, g)

    def _member_loss(
        self, key: str, task: Task, views: Views, inputs: tuple[Tensor, ...], *, twice_differentiable: bool
    ) -> Loss:
        with ExitStack() as stack:
            stack.enter_context(global_stream(self.device, *self.key, key, self.calls))
            stack.enter_context(self._autocast())
            stack.enter_context(self._own_branch(task))
            if twice_differentiable:  # the fused attention kernels have no double backward
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            return task.loss(self.root.trunk, inputs, views.targets)

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self.bf16 else nullcontext()

    def _own_branch(self, task: Task) -> AbstractContextManager[None]:
        """A member begins in its own first BatchNorm branch, wherever it stands among the others."""
        if self._branched and isinstance(task, PretextTask):
            return branch(task.branches[0], self.root.trunk, task)
        return nullcontext()

    def _split(self, inputs: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
        start = 0
        for views in self.views:
            yield inputs[start : start + len(views.inputs)]
            start += len(views.inputs)

    @contextmanager
    def attacking(self, mode: Literal["train", "eval"] = "train") -> Iterator[None]:
        """See :meth:`advss.hookspecs.Objective.attacking`."""
        modules = list(self.root.modules())
        modes = [m.training for m in modules]
        learning = [p for p in self.root.parameters() if p.requires_grad]
        views = self.views
        for parameter in learning:
            parameter.requires_grad_(False)
        try:
            if mode == "eval":
                self.root.eval()
            with self.holding_statistics():
                self.views = tuple(self._frozen(k, t, v) for (k, t), v in zip(self.members.items(), views, strict=True))
                yield
        finally:
            self.views = views
            for module, training in zip(modules, modes, strict=True):
                module.training = training
            for parameter in learning:
                parameter.requires_grad_(True)

    def _frozen(self, key: str, task: Task, views: Views) -> Views:
        if type(task).freeze is Task.freeze:
            return views
        stream = global_stream(self.device, *self.key, key, "freeze")
        with torch.no_grad(), stream, self._autocast(), self._own_branch(task):
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
        return {name: p for name, p in self.root.named_parameters() if p.requires_grad}

    @contextmanager
    def at(self, parameters: dict[str, Tensor]) -> Iterator[None]:
        """See :meth:`advss.hookspecs.Objective.at`."""
        before, self._overrides = self._overrides, parameters
        try:
            yield
        finally:
            self._overrides = before


def sum_of_gradients(value: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    """A member's column of G: the sum of its inputs' gradients, (B, C, H, W), itself differentiable.

    An input without influence on ``value`` adds nothing.
    """
    gradients = torch.autograd.grad(value, inputs, create_graph=True, materialize_grads=True)
    return torch.stack(gradients).sum(0) if len(gradients) > 1 else gradients[0]


def _sum(keys: list[str], losses: list[Loss], penalty: Tensor | float) -> Loss:
    """One loss of M: values added, logits in order, metrics under the member's key when there are several."""
    value = losses[0].value if len(losses) == 1 else torch.stack([loss.value for loss in losses]).sum()
    prefixes = [""] if len(keys) == 1 else [f"{key}/" for key in keys]
    metrics = {f"{p}{name}": m for p, loss in zip(prefixes, losses, strict=True) for name, m in loss.metrics.items()}
    if len(losses) > 1:
        metrics |= {f"{key}/loss": loss.value.detach() for key, loss in zip(keys, losses, strict=True)}
    return Loss(value, tuple(z for loss in losses for z in loss.logits), metrics, penalty)
