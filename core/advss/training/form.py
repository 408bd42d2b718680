"""The form of what plugins give; what does not have it is an error that says what it is and what to do."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from advss.errors import did_you_mean
from advss.hookspecs import Loss, Phase, PretextTask, Task, Views
from advss.models.held import held

GROUP_KEYS = {
    "lr_scale",
    *inspect.signature(SGD).parameters,
    *inspect.signature(AdamW).parameters,
}  # of a phase's groups


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
    require(isinstance(phases, list | tuple) and phases, f"phases() returns {_shown(phases)}; {wanted}")
    for phase in phases:
        require(isinstance(phase, Phase), f"phases() returns {_shown(phase)} among its phases; {wanted}")
        number = isinstance(phase.share, int | float) and 0 < phase.share < math.inf
        require(number, f"phases() gives a phase {_shown(phase.share)} as its share; give a number above 0")
        require(isinstance(phase.groups, list | tuple), f"Phase.groups is {_shown(phase.groups)}; {wanted}")
        for group in phase.groups:
            _check_group(group, wanted)
        _check_once(phase)


def _check_group(group: Any, wanted: str) -> None:
    named = isinstance(group, dict) and isinstance(group.get("params"), list | tuple)
    require(named, f"phases() gives a group that is {_shown(group)} and has no list 'params'; {wanted}")
    for p in group["params"]:
        require(isinstance(p, Tensor), f"phases() gives {_shown(p)} among the parameters of a group; {wanted}")
    for key in group:
        require(key in GROUP_KEYS, f"phases() gives a group the unknown key '{key}'{did_you_mean(key, GROUP_KEYS)}")


def _check_once(phase: Phase) -> None:
    params = [id(p) for group in phase.groups for p in group["params"]]
    require(len(set(params)) == len(params), "phases() gives a phase that names a parameter twice; name each once")


def check_views(views: Any, *, by: str = "views()") -> None:
    """What views() or freeze() gives: float32 inputs in [0, 1], and tensors as targets."""
    formed = isinstance(views, Views) and isinstance(views.inputs, tuple) and isinstance(views.targets, dict)
    require(formed, f"{by} returns {_shown(views)}; return Views((tensor, ...), {{name: tensor}})")
    require(views.inputs, f"{by} gives no inputs; there is nothing to train on")
    for place, x in enumerate(views.inputs):
        _check_input(f"input {place} of {by}", x)
    for name, target in views.targets.items():
        require(isinstance(target, Tensor), f"target '{name}' of {by} is {_shown(target)}; give a tensor")


def _check_input(what: str, x: Any) -> None:
    require(isinstance(x, Tensor), f"{what} is {_shown(x)}; give a tensor")
    require(x.dtype == torch.float32, f"{what} is {x.dtype}; give float32")
    require(x.numel(), f"{what} has shape {tuple(x.shape)}; give an entry an image")
    low, high = (float(bound) for bound in x.detach().aminmax())
    require(
        0 <= low <= high <= 1,
        f"{what} has values from {low:.4g} to {high:.4g}; stay in [0, 1]: clamp, and leave normalising to the encoder; "
        "what cannot be in [0, 1] belongs into targets",
    )


def check_loss(loss: Any) -> None:
    """What loss() gives: a float32 scalar, logits and metrics; the trainer skips a value that is not finite."""
    require(isinstance(loss, Loss), f"loss() returns {_shown(loss)}; return Loss(value, logits, metrics)")
    value, logits = loss.value, loss.logits
    require(isinstance(value, Tensor), f"Loss.value is {_shown(value)}; give a tensor")
    require(
        value.ndim == 0, f"Loss.value has shape {tuple(value.shape)}; give a scalar, the mean over the batch: .mean()"
    )
    require(value.dtype == torch.float32, f"Loss.value is {value.dtype}; give float32: .float() before the last steps")
    tensors = isinstance(logits, tuple) and all(isinstance(z, Tensor) for z in logits)
    require(tensors, f"Loss.logits is {_shown(logits)}; give a tuple of tensors")
    require(isinstance(loss.metrics, dict), f"Loss.metrics is {_shown(loss.metrics)}; give {{name: scalar tensor}}")
    for name, metric in loss.metrics.items():
        _check_metric(name, metric)


def _check_metric(name: str, metric: Any) -> None:
    wanted = "give a scalar tensor without gradient: .detach().mean()"
    require(isinstance(metric, Tensor), f"metric '{name}' is {_shown(metric)}; {wanted}")
    require(metric.ndim == 0, f"metric '{name}' has shape {tuple(metric.shape)}; {wanted}")
    require(not metric.requires_grad, f"metric '{name}' has a gradient; {wanted}")
    require(metric.isfinite(), f"metric '{name}' is {float(metric)} on the first batch; give a finite number")


def check_attack(inputs: Any, clean: tuple[Tensor, ...], *, noise: float) -> None:
    """What a defense's attack() gives in place of the inputs ``clean``: as many, of the same shapes, in [0, 1].

    ``noise`` above 0 is of a defense that adds noise, which certificates take as unclamped.
    """
    wanted = [tuple(x.shape) for x in clean]
    tensors = isinstance(inputs, tuple) and all(isinstance(x, Tensor) for x in inputs)
    require(tensors, f"attack() returns {_shown(inputs)}; return a tuple of tensors of shapes {wanted}")
    found = [tuple(x.shape) for x in inputs]
    require(found == wanted, f"attack() returns tensors of shapes {found} for objective.inputs of shapes {wanted}")
    for x in inputs:
        require(not x.requires_grad, "attack() returns an input with a graph; return x.detach()")
        low, high = (float(bound) for bound in x.aminmax())
        within = noise > 0 or 0 <= low <= high <= 1
        require(within, f"attack() returns values from {low:.4g} to {high:.4g}; clamp to [0, 1]")


def _shown(thing: Any) -> str:
    """What something is: its type, and a number or text itself."""
    if isinstance(thing, int | float | str):
        return f"the {type(thing).__name__} {thing!r:.40}"
    size = f" of length {len(thing)}" if isinstance(thing, list | tuple | dict) else ""
    return f"{type(thing).__name__}{size}"
