"""The form of what plugins give; what does not have it is an error that says what it is and what to do."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from advss.errors import did_you_mean
from advss.hookspecs import Loss, Phase, PretextTask, Task, Views
from advss.models.held import held
from advss.plugins.discovery import NAME

GROUP_KEYS = {
    "lr_scale",
    *inspect.signature(SGD).parameters,
    *inspect.signature(AdamW).parameters,
}  # of a phase's groups

OWN_METRICS = ("loss", "gradient_norm", "lr")  # what training logs beside a task's

LONGEST = 4  # parts of a value that a message describes


class MisfitError(Exception):
    """Something that a plugin gives is not of the form that the contract asks for."""


def require(holds: object, message: str) -> None:
    """Raise :class:`MisfitError` unless ``holds``."""
    if not holds:
        raise MisfitError(message)


def check_made(task: Task) -> None:
    """A task that was just made is a module that its base classes have set up."""
    made = "_modules" in vars(task) and (not isinstance(task, PretextTask) or hasattr(task, "tail"))
    require(made, "its __init__ does not call super().__init__(); call it there, before all else")
    if isinstance(task, PretextTask):
        check_branches(task.branches)


def check_branches(names: Any) -> None:
    """BatchNorm branches are several names of their own; they stand in the names of parameters."""
    named = isinstance(names, tuple) and all(isinstance(name, str) and NAME.fullmatch(name) for name in names)
    wanted = "give each a name of its own, of letters, digits, '-' and '_', one at least, in a tuple"
    require(named and names and len(set(names)) == len(names), f"branches is {names!r}; {wanted}")


def check_parameters(task: Task, known: nn.Module) -> None:
    """Every parameter that a task leads to is among those of ``known``, which train and are saved."""
    found = {id(p) for p in known.parameters()}
    for path, p in held(task):
        require(
            id(p) in found,
            f"{path} is a parameter that PyTorch does not find, so it neither trains nor is saved; hold it as an "
            "attribute of its own, in nn.ModuleList, nn.ModuleDict or nn.ParameterList",
        )


def check_phases(phases: Any) -> None:
    """What a scheme's phases() gives: several phases, whose groups name their parameters."""
    wanted = "return [Phase(1.0, [{'params': [parameter, ...]}])]"
    require(isinstance(phases, list | tuple) and phases, f"phases() returns {in_words(phases)}; {wanted}")
    for phase in phases:
        require(isinstance(phase, Phase), f"phases() returns {in_words(phase)} among its phases; {wanted}")
        number = isinstance(phase.share, int | float) and 0 < phase.share < math.inf
        require(number, f"phases() gives a phase the share {phase.share!r:.40}; give a number above 0")
        require(isinstance(phase.groups, list | tuple), f"Phase.groups is {in_words(phase.groups)}; {wanted}")
        for group in phase.groups:
            _check_group(group, wanted)
        _check_once(phase)


def _check_group(group: Any, wanted: str) -> None:
    named = isinstance(group, dict) and isinstance(group.get("params"), list | tuple)
    require(named, f"phases() gives a group that is {in_words(group)} and has no list 'params'; {wanted}")
    others = [p for p in group["params"] if not isinstance(p, Tensor)]  # to print each tensor would take its time
    require(not others, f"phases() gives {next(iter(others), None)!r:.40} among the parameters of a group; {wanted}")
    for key in group:
        require(key in GROUP_KEYS, f"phases() gives a group the unknown key '{key}'{did_you_mean(key, GROUP_KEYS)}")


def _check_once(phase: Phase) -> None:
    params = [id(p) for group in phase.groups for p in group["params"]]
    require(len(set(params)) == len(params), "phases() gives a phase that names a parameter twice; name each once")


def check_deployed(given: Any, plain: Mapping[str, Tensor]) -> None:
    """What a scheme's deployed() gives: tensors under the names, and of the form, of the ``plain`` classifier's."""
    formed = isinstance(given, Mapping) and all(isinstance(t, Tensor) for t in given.values())
    require(formed, f"deployed() returns {in_words(given)}; return the state dict of a plain classifier")
    lacking, left = [name for name in plain if name not in given], [name for name in given if name not in plain]
    wanted = "return the state dict that the classifier has without what build() makes of it, under those names"
    require(not lacking, f"deployed() gives no '{(lacking or [''])[0]}'{_nor(left)}; {wanted}")
    require(not left, f"deployed() gives '{(left or [''])[0]}', which a plain classifier does not have; {wanted}")
    for name, t in plain.items():
        form, expected = (f"{tuple(x.shape)} {x.dtype}" for x in (given[name], t))
        require(form == expected, f"deployed() gives '{name}' as {form} instead of {expected}")


def _nor(left: list[str]) -> str:
    return f" but '{left[0]}'" if left else ""


def check_not_frozen(phases: Iterable[Phase], modules: nn.Module) -> None:
    """No phase names a parameter that build() has frozen."""
    names = {id(p): name for name, p in modules.named_parameters()}
    for p in (p for phase in phases for group in phase.groups for p in group["params"]):
        name = names.get(id(p), "a parameter").removeprefix("trunk.")
        require(p.requires_grad, f"phases() names {name}, which build() has frozen; leave it out, or do not freeze it")


def check_views(views: Any, *, by: str = "views()") -> None:
    """What views() or freeze() gives: of its form, with float32 inputs in [0, 1]."""
    check_form_of_views(views, by=by)
    require(views.inputs, f"{by} gives no inputs; there is nothing to train on")
    for place, x in enumerate(views.inputs):
        _check_input(f"input {place} of {by}", x)


def check_form_of_views(views: Any, *, by: str = "views()") -> None:
    """A ``Views`` with tensors in a tuple and a dict, whatever is in them."""
    formed = isinstance(views, Views) and isinstance(views.inputs, tuple) and isinstance(views.targets, dict)
    require(formed, f"{by} returns {in_words(views)}; return Views((tensor, ...), {{name: tensor}})")
    for what, t in tensors(views).items():
        require(
            isinstance(t, Tensor),
            f"{what} of {by} is {in_words(t)}; give a tensor with one entry an image, or for a target that is one "
            "number for all torch.tensor(number, device=batch.x.device)",
        )


def tensors(views: Views) -> dict[str, Tensor]:
    """Inputs and targets by what messages call them."""
    inputs = {f"input {place}": x for place, x in enumerate(views.inputs)}
    return inputs | {f"target '{name}'": t for name, t in views.targets.items()}


def _check_input(what: str, x: Tensor) -> None:
    require(x.dtype == torch.float32, f"{what} is {x.dtype}; give float32")
    require(x.numel(), f"{what} has shape {tuple(x.shape)}; give an entry an image")
    low, high = (float(bound) for bound in x.detach().aminmax())
    require(
        0 <= low <= high <= 1,
        f"{what} has values from {low:.4g} to {high:.4g}; stay in [0, 1]: clamp, and leave normalising to the encoder; "
        "what cannot be in [0, 1] belongs into targets",
    )


def check_loss(loss: Any) -> None:
    """What loss() gives: of its form, a float32 scalar and scalar metrics; that it is finite, the trainer sees to."""
    check_form_of_loss(loss)
    check_precision(loss.value)
    check_metrics(loss.metrics)


def check_form_of_loss(loss: Any) -> None:
    """A ``Loss`` whose value is a scalar tensor, to which its penalty adds, with logits and metrics."""
    require(isinstance(loss, Loss), f"loss() returns {in_words(loss)}; return Loss(value, logits, metrics)")
    value, logits, metrics, term = (getattr(loss, field) for field in ("value", "logits", "metrics", "penalty"))
    require(isinstance(value, Tensor), f"Loss.value is {in_words(value)}; give a tensor")
    require(
        value.ndim == 0, f"Loss.value has shape {tuple(value.shape)}; give a scalar, the mean over the batch: .mean()"
    )
    require(_are_tensors(logits), f"Loss.logits is {in_words(logits)}; give a tuple of tensors")
    _check_labels(loss)
    require(isinstance(metrics, dict), f"Loss.metrics is {in_words(metrics)}; give {{name: scalar tensor}}")
    adds = isinstance(term, float | int) or (isinstance(term, Tensor) and term.ndim == 0)
    require(adds, f"Loss.penalty is {in_words(term)}; give a scalar, the penalty of a pass or 0.0")


def _check_labels(loss: Loss) -> None:
    """Labels and weights are given for all logits or for none, labels in the logits' shapes without their last."""
    logits, labels, weights = loss.logits, loss.labels, loss.weights
    require(_are_tensors(labels), f"Loss.labels is {in_words(labels)}; give a tuple of tensors")
    wanted, given = [tuple(z.shape[:-1]) for z in logits], [tuple(label.shape) for label in labels]
    require(not labels or given == wanted, f"Loss.labels has shapes {given} for logits that ask for {wanted}")
    for label in labels:
        require(label.dtype == torch.int64, f"Loss.labels holds {label.dtype}; give int64")
    for label, most in zip(labels, [z.shape[-1] - 1 for z in logits], strict=False):
        low, high = (int(bound) for bound in label.aminmax())
        within = f"give 0 to {most}, or -1 for none"
        require(high <= most, f"Loss.labels reaches {high} where logits are of {most + 1} classes; {within}")
        require(low >= -1, f"Loss.labels goes down to {low}; {within}")
    numbers = isinstance(weights, tuple) and all(isinstance(w, int | float) and 0 <= w < math.inf for w in weights)
    require(numbers, f"Loss.weights is {in_words(weights)}; give a tuple of finite numbers of at least 0")
    require(
        not weights or len(weights) == len(logits), f"Loss.weights has {len(weights)} entries for {len(logits)} logits"
    )


def check_precision(value: Tensor) -> None:
    """A loss is float32, under autocast too."""
    require(value.dtype == torch.float32, f"Loss.value is {value.dtype}; give float32: .float() before the last steps")


def check_metrics(metrics: dict[str, Any]) -> None:
    """Metrics are finite scalars without gradient."""
    wanted = "give a scalar tensor without gradient: .detach().mean()"
    for name, metric in metrics.items():
        require(name not in OWN_METRICS, f"metric '{name}' is one that training has itself; give it another name")
        require(isinstance(metric, Tensor), f"metric '{name}' is {in_words(metric)}; {wanted}")
        require(metric.ndim == 0, f"metric '{name}' has shape {tuple(metric.shape)}; {wanted}")
        require(not metric.requires_grad, f"metric '{name}' has a gradient; {wanted}")
        require(metric.isfinite(), f"metric '{name}' is {float(metric)} on the first batch; give a finite number")


def check_attack(inputs: Any, clean: tuple[Tensor, ...], *, noise: float) -> None:
    """What a defense's attack() gives in place of the inputs ``clean``: of their form, detached, in [0, 1].

    ``noise`` above 0 is of a defense that adds noise, which certificates take as unclamped.
    """
    check_form_of_attack(inputs, clean)
    for x in inputs:
        require(not x.requires_grad, "attack() returns an input with a graph; return x.detach()")
        low, high = (float(bound) for bound in x.aminmax())
        within = noise > 0 or 0 <= low <= high <= 1
        require(within, f"attack() returns values from {low:.4g} to {high:.4g}; clamp to [0, 1]")


def check_replays(replays: Any) -> None:
    """How many steps a defense trains on each batch."""
    whole = isinstance(replays, int) and not isinstance(replays, bool) and replays > 0
    require(whole, f"replays is {replays!r:.40}; give a whole number of at least 1")


def check_form_of_attack(inputs: Any, clean: tuple[Tensor, ...], *, by: str = "attack()") -> None:
    """A tuple of as many tensors as there are inputs ``clean``, of their shapes."""
    wanted = "return a tuple of tensors, one for each of objective.inputs"
    require(_are_tensors(inputs), f"{by} returns {in_words(inputs)}; {wanted}")
    shapes, like = ([tuple(x.shape) for x in some] for some in (inputs, clean))
    require(shapes == like, f"{by} returns tensors of shapes {shapes} for objective.inputs of shapes {like}")


def _are_tensors(given: Any) -> bool:
    return isinstance(given, tuple) and all(isinstance(x, Tensor) for x in given)


def in_words(value: object) -> str:
    """What a value is, by types and shapes: ``tuple (Tensor of shape (6, 3, 32, 32), int)``; never its content."""
    name = type(value).__name__
    if isinstance(value, Tensor):
        return f"{name} of shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"{name} ({_listed(map(in_words, value[:LONGEST]), len(value))})" if value else f"empty {name}"
    if isinstance(value, dict):
        return f"{name} of {_listed(map(repr, list(value)[:LONGEST]), len(value))}" if value else f"empty {name}"
    fields = [f"{field} = {in_words(part)}" for field, part in vars(value).items()] if is_dataclass(value) else []
    return f"{name} ({', '.join(fields)})" if fields else name


def _listed(parts: Iterable[str], number: int) -> str:
    return ", ".join(parts) + ", ..." * (number > LONGEST)
