"""A pretended device: CPU tensors that say they lie on a second GPU, so that code tied to one device shows itself.

It needs no GPU. Within :class:`Elsewhere` every function of tensors that Python calls is watched: what is made with
``device=`` the pretended one, moved there, or computed from what lies there, lies there too, and everything is really
computed on the CPU. PyTorch's fake tensors would do the first half of this, but hold no values, so that ``.item()``,
boolean masks and backward passes without a GPU fail in them.

What it cannot see: kernels (an operator that no GPU has), C++ extensions, and where tensors lie within ``torch.func``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from advss.testing.verdicts import BrokenError, UncheckedError

CPU = torch.device("cpu")
PLACE = torch.device("cuda", 1)  # neither the CPU nor what .cuda() and "cuda" mean
_MARK = "_advss_elsewhere"
_MAY_MIX = {
    *("copy_", "__setitem__", "index_put_", "to", "type_as", "view_as", "expand_as", "reshape_as", "set data"),
    "_has_compatible_shallow_copy_type",  # asked by nn.Module.to()
}
_FOLLOWS_FIRST = {"__getitem__", "view_as", "expand_as", "reshape_as"}
_TOGETHER = {"cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack"}  # numbers do not move along here


class ElsewhereGenerator(torch.Generator):
    """A CPU generator that says it is on the pretended device."""

    device = PLACE

    def clone_state(self) -> ElsewhereGenerator:
        """Another in the same state."""
        clone = ElsewhereGenerator()
        clone.set_state(self.get_state())
        return clone


def send(*tensors: Tensor) -> None:
    """Let tensors lie on the pretended device from here on."""
    for t in tensors:
        setattr(t, _MARK, True)


def send_module(module: nn.Module) -> None:
    """What ``module.to(device)`` would move: parameters and buffers, and nothing that is not registered."""
    send(*module.parameters(), *module.buffers())


def lies_there(t: Tensor) -> bool:
    """Whether a tensor lies on the pretended device."""
    return getattr(t, _MARK, False)


@contextmanager
def parameters_made_there() -> Iterator[None]:
    """Within, a parameter lies where lies what it is made of, which PyTorch tells no mode."""
    made = nn.Parameter.__new__

    def new(cls: type, data: Any = None, requires_grad: bool = True) -> Any:
        parameter: Any = made(cls, data, requires_grad)
        if data is not None and lies_there(data):
            send(parameter)
        return parameter

    with patch.object(nn.Parameter, "__new__", new):
        yield


class Elsewhere(TorchFunctionMode):
    """Within, the pretended device is there, and mixing it with the CPU is an error as on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.blind = False  # tensors wrapped by torch.func were seen, whose place is not known

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Answer for the device, refuse what a GPU refuses, and compute the rest on the CPU."""
        name, kwargs = _name(func), dict(kwargs or {})
        if name == "__deepcopy__":  # its other argument is of what was copied before, wherever that lies
            return _place(func(*args), [], there=lies_there(args[0]), moved=False)
        if name in _QUESTIONS:
            return _QUESTIONS[name](lies_there(args[0]))
        _refuse(name, args)
        wanted = _wanted(name, args, kwargs)
        tensors = list(_tensors((args, kwargs)))
        self.blind = self.blind or any(map(_wrapped, tensors))
        self._check_places(name, tensors, args)
        there = _result_place(name, tensors, args, wanted)
        args, rest = _here(name, args, kwargs)
        out = func(*args, **rest)
        _check_generator(name, kwargs.get("generator"), there)
        if name == "set data":
            setattr(args[0], _MARK, lies_there(args[1]))
        return _place(out, tensors, there=there, moved=wanted is not None or name in ("to", "cpu", "type_as"))

    def _check_places(self, name: str, tensors: list[Tensor], args: tuple[Any, ...]) -> None:
        there = [t for t in tensors if lies_there(t)]
        here = [t for t in tensors if not lies_there(t) and (t.ndim or name in _TOGETHER) and not _wrapped(t)]
        if not there or not here or name in _MAY_MIX:
            return
        if name == "__getitem__" and lies_there(args[0]):  # a CPU index into a GPU's tensor is allowed
            return
        if self.blind:
            raise UncheckedError(
                "it uses torch.func, within which it cannot be seen where tensors lie; try it on a GPU"
            )
        raise BrokenError(
            f"{name}() mixes a tensor on the run's device, of shape {tuple(there[0].shape)}, with one on the CPU, of "
            f"shape {tuple(here[0].shape)}; make new tensors where the inputs lie (device=x.device), and register what "
            "is kept (register_buffer, nn.Parameter, nn.ModuleList), so that it moves along"
        )


def _name(func: Callable[..., Any]) -> str:
    """A function's name, for a property ``get device`` or ``set data``."""
    name = getattr(func, "__name__", str(func))
    if name not in ("__get__", "__set__"):
        return name
    return f"{name.strip('_')} {getattr(getattr(func, '__self__', None), '__name__', '')}"


_QUESTIONS: dict[str, Callable[[bool], Any]] = {
    "get device": lambda there: PLACE if there else CPU,
    "get is_cuda": lambda there: there,
    "get is_cpu": lambda there: not there,
    "get_device": lambda there: PLACE.index if there else -1,
}


def _refuse(name: str, args: tuple[Any, ...]) -> None:
    """What ties code to one device whatever its tensors."""
    if name == "cuda":
        raise BrokenError(".cuda() goes to the current GPU whatever the run's device is; use .to(x.device)")
    if name in ("numpy", "__array__") and lies_there(args[0]):
        raise BrokenError(f".{name}() of a tensor on the run's device; a GPU's tensor needs .cpu() first")


def _wanted(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.device | None:
    """The device that a call names."""
    for device in [kwargs.get("device"), *filter(_is_device, args[1:] if name == "to" else ())]:
        if device is not None:
            wanted = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
            if wanted.type != "cpu" and wanted != PLACE:
                raise BrokenError(f"{name}() names the device '{device}'; take it from a tensor: device=x.device")
            return wanted
    return None


def _is_device(argument: object) -> bool:
    return isinstance(argument, torch.device | str | int) and not isinstance(argument, bool)


def _result_place(name: str, tensors: list[Tensor], args: tuple[Any, ...], wanted: torch.device | None) -> bool:
    if wanted is not None:
        return wanted == PLACE
    if name == "cpu":
        return False
    if name in ("to", "type_as") and len(tensors) > 1:
        return lies_there(tensors[1])
    if name in _FOLLOWS_FIRST:
        return lies_there(args[0])
    return any(map(lies_there, tensors))


def _check_generator(name: str, generator: object, there: bool) -> None:
    if isinstance(generator, torch.Generator) and (generator.device == PLACE) != there:
        drawn, own = ("the run's device", "the CPU") if there else ("the CPU", "the run's device")
        raise BrokenError(
            f"{name}() draws on {drawn} from a generator on {own}; draw from the generator that is given, "
            "with device=generator.device"
        )


def _here(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments with the CPU in place of the pretended device."""
    if kwargs.get("device") is not None:
        kwargs = {**kwargs, "device": CPU}
    if name == "to":
        args = (args[0], *(CPU if _is_device(a) else a for a in args[1:]))
    return args, kwargs


def _place(out: Any, given: list[Tensor], *, there: bool, moved: bool) -> Any:
    """Mark what a call returned; one of its own arguments keeps its place, and a copy of it moves."""
    if isinstance(out, Tensor) and moved and lies_there(out) != there:
        out = out.view_as(out)
    for t in _tensors(out):
        if not any(t is g for g in given):
            setattr(t, _MARK, there)
    return out


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _wrapped(t: Tensor) -> bool:
    """Whether ``torch.func`` holds a tensor in a wrapper of its own."""
    functorch = getattr(torch._C, "_functorch", None)
    return functorch is not None and functorch.is_functorch_wrapped_tensor(t)
