"""Finding plugins: every distribution with an entry point in the group ``advss``, one by one, surviving any of them.

A plugin is code that somebody else wrote and that somebody else's upgrade broke. So whatever it does while it is
imported, registered or asked for its classes becomes a :class:`Fault`, one line, and the others work.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, distributions
from types import ModuleType
from typing import TYPE_CHECKING, Literal, get_args, get_type_hints

from advss.errors import did_you_mean

if TYPE_CHECKING:
    import pluggy

Kind = Literal["pretext", "defense", "finetune"]
KINDS: tuple[Kind, ...] = get_args(Kind)
HOOKS: dict[str, Kind] = {
    "advss_pretext_tasks": "pretext",
    "advss_defenses": "defense",
    "advss_finetune_schemes": "finetune",
}
GROUP = "advss"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # fits flags, YAML keys, file names and the separators : , + # .


@dataclass(frozen=True)
class Plugin:
    """One class that a distribution offers."""

    kind: Kind
    name: str
    offered: type
    distribution: str
    version: str


@dataclass(frozen=True)
class Fault:
    """Why a distribution, or a part of it, is not there."""

    entry_point: str
    distribution: str
    version: str
    error: str

    def __str__(self) -> str:
        return f"plugin {self.distribution} {self.version} ({self.entry_point}): {self.error}"


@dataclass
class Discovery:
    """What there is, what is broken, and what ADVSS_DISABLE_PLUGINS switched off (``distribution:name``)."""

    plugins: list[Plugin] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    disabled: list[str] = field(default_factory=list)


class _RefusedError(Exception):
    """A plugin breaks the contract; the message says how."""


def discover() -> Discovery:
    """Import every plugin and collect its classes; never raises on a plugin's account, KeyboardInterrupt apart."""
    manager = _manager()
    disabled = {word.strip().lower() for word in os.environ.get("ADVSS_DISABLE_PLUGINS", "").split(",")} - {""}
    found = Discovery()
    for distribution in _distributions():
        entry_points = [e for e in distribution.entry_points if e.group == GROUP]
        if entry_points and distribution.name.lower() in disabled:
            found.disabled.append(distribution.name)
        else:
            for entry_point in entry_points:
                _Reader(distribution, entry_point, found).read(manager)
    for plugin in [p for p in found.plugins if {p.name.lower(), f"{p.distribution}:{p.name}".lower()} & disabled]:
        found.plugins.remove(plugin)
        found.disabled.append(f"{plugin.distribution}:{plugin.name}")
    return found


def _distributions() -> list[Distribution]:
    """Installed distributions by name, advss first; of two of one name the first on the path counts."""
    first: dict[str, Distribution] = {}
    for distribution in distributions():
        with suppress(Exception):  # metadata that cannot be read: a half-removed installation, which no plugin can be
            key = re.sub(r"[-_.]+", "-", distribution.name).lower()
            if distribution.entry_points is not None:
                first.setdefault(key, distribution)
    return [first[key] for key in sorted(first, key=lambda key: (key != GROUP, key))]


def _manager() -> pluggy.PluginManager:
    """A plugin manager that knows the contract, and takes any function named ``advss_...`` of a module for a hook."""
    import pluggy

    from advss import hookspecs

    class Manager(pluggy.PluginManager):
        def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
            marked = super().parse_hookimpl_opts(plugin, name)
            if marked is not None or not name.startswith("advss_"):
                return marked
            unmarked = getattr(plugin, name)
            own = inspect.isfunction(unmarked) and unmarked.__module__ == getattr(plugin, "__name__", None)
            return pluggy.HookimplMarker(GROUP)(unmarked).advss_impl if own else None

    manager = Manager(GROUP)
    manager.add_hookspecs(hookspecs)
    return manager


class _Reader:
    """Reads one entry point into a :class:`Discovery`."""

    def __init__(self, distribution: Distribution, entry_point: EntryPoint, found: Discovery) -> None:
        self.distribution, self.entry_point, self.found = distribution, entry_point, found

    def read(self, manager: pluggy.PluginManager) -> None:
        """Import, register, and call its hooks one by one."""
        with self._surviving():
            module = self.entry_point.load()
            _register(manager, module, f"{self.distribution.name}:{self.entry_point.name}")
            for hook in manager.get_hookcallers(module) or []:
                with self._surviving():
                    self._call(hook, module)

    def _call(self, hook: pluggy.HookCaller, module: ModuleType) -> None:
        if not hook.has_spec():
            raise _RefusedError(f"unknown hook '{hook.name}'{did_you_mean(hook.name, HOOKS)}")
        for implementation in hook.get_hookimpls():
            if implementation.plugin is module:
                for offered in _listed(hook.name, implementation.function()):
                    with self._surviving():
                        self._add(offered, HOOKS[hook.name])

    def _add(self, offered: object, kind: Kind) -> None:
        plugin = Plugin(kind, *_checked(offered, kind), self.distribution.name, self.distribution.version)
        if any(
            (p.kind, p.name, p.distribution) == (kind, plugin.name, plugin.distribution) for p in self.found.plugins
        ):
            raise _RefusedError(f"offers the {kind} '{plugin.name}' twice")
        self.found.plugins.append(plugin)

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """Whatever a plugin raises is a fault; SystemExit too, since no plugin ends the program."""
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            line = str(error) if isinstance(error, _RefusedError) else f"{type(error).__name__}: {error}"
            fault = Fault(self.entry_point.name, self.distribution.name, self.distribution.version, _one_line(line))
            self.found.faults.append(fault)


def _register(manager: pluggy.PluginManager, module: ModuleType, name: str) -> bool:
    """Register a module whose API is ours; leave no trace of one that cannot be."""
    from advss.hookspecs import API

    wanted = getattr(module, "advss_api", API)
    if not (isinstance(wanted, tuple) and len(wanted) == 2 and all(isinstance(n, int) for n in wanted)):
        raise _RefusedError(f"advss_api must be a pair of integers such as {API}, got {wanted!r}")
    if wanted[0] > API[0]:
        raise _RefusedError(f"needs advss API {wanted[0]}.{wanted[1]}, this is {API[0]}.{API[1]}; upgrade advss")
    try:
        manager.register(module, name)
    except BaseException:
        if manager.has_plugin(name):
            manager.unregister(name=name)
        raise
    return True


def _base(kind: Kind) -> type:
    from advss.hookspecs import Defense, FinetuneScheme, PretextTask

    return {"pretext": PretextTask, "defense": Defense, "finetune": FinetuneScheme}[kind]


def _listed(hook: str, returned: object) -> Sequence[object]:
    if not isinstance(returned, list | tuple):
        raise _RefusedError(f"{hook}() must return a list of classes, got {type(returned).__name__}")
    return returned


def _checked(offered: object, kind: Kind) -> tuple[str, type]:
    """Name and class, where the class keeps the contract."""
    base = _base(kind)
    if not (inspect.isclass(offered) and issubclass(offered, base)):
        raise _RefusedError(f"{offered!r} is not a subclass of {base.__name__}")
    name = getattr(offered, "name", None)
    if not isinstance(name, str) or not NAME.fullmatch(name) or (kind, name) == ("pretext", "none"):
        raise _RefusedError(
            f"class {offered.__name__} has the name {name!r}; expected letters, digits, '-' and '_'"
            " ('none' is not for pretext tasks)"
        )
    parameters = own_parameters(offered)
    for parameter in parameters:
        if parameter.kind is not parameter.KEYWORD_ONLY or parameter.annotation is parameter.empty:
            raise _RefusedError(
                f"option '{parameter.name}' of class {offered.__name__} must be keyword-only and annotated"
            )
    if parameters:
        get_type_hints(offered.__init__)  # an annotation that cannot be read is found now and not when it is needed
    return name, offered


def own_parameters(offered: type) -> list[inspect.Parameter]:
    """The parameters of a class's ``__init__``; none where it only inherits PyTorch's or object's."""
    owner = next(c for c in offered.__mro__ if "__init__" in c.__dict__)
    if owner is object or owner.__module__.startswith("torch."):
        return []
    return list(inspect.signature(owner.__dict__["__init__"]).parameters.values())[1:]


def _one_line(text: str) -> str:
    return " ".join(text.split())
