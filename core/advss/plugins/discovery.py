"""Finding plugins: every distribution with an entry point in the group ``advss``, one by one, surviving any of them.

A plugin is code that somebody else wrote and that somebody else's upgrade broke. So whatever it does while it is
imported, registered or asked for its classes becomes a :class:`Fault`, one line, and the others work.
"""

from __future__ import annotations

import inspect
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, get_type_hints

from advss.errors import did_you_mean
from advss.plugins.faults import Fault, Status, one_line, place_of, said_by
from advss.plugins.installed import ENTRY_POINTS, GROUP, Installed, installed
from advss.plugins.kinds import HOOKS, TAKEN, Kind, base_of
from advss.switches import normal, switched_off

if TYPE_CHECKING:
    import pluggy

    from advss.plugins.isolation import Isolation

__all__ = [
    "GROUP",
    "NAME",
    "Disabled",
    "Discovery",
    "Fault",
    "Plugin",
    "discover",
    "own_parameters",
]

NO_OPTIONS = ("limit", "size", "resize")  # of a data source: they are every run's
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")  # fits flags, YAML keys, file names and the separators : , + # .
SLOW_S = 5.0  # a plugin that takes longer to import is named, since every command waits for it


@dataclass(frozen=True)
class Plugin:
    """One class that a distribution offers; ``api`` is what its module says, such as "1.0", or empty."""

    kind: Kind
    name: str
    offered: type
    distribution: str
    version: str
    api: str = ""


@dataclass(frozen=True)
class Disabled:
    """A plugin, or, without a name, a whole distribution that a switch leaves out."""

    distribution: str
    version: str
    switch: str  # as the user said it
    name: str = ""
    kind: Kind | None = None

    def __str__(self) -> str:
        return f"{self.distribution}:{self.name}" if self.name else self.distribution


@dataclass
class Discovery:
    """What there is, what is wrong, and what was switched off."""

    plugins: list[Plugin] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    disabled: list[Disabled] = field(default_factory=list)
    installed: list[Installed] = field(default_factory=list)
    modules: dict[str, str] = field(default_factory=dict)  # that were read -> distribution:entry-point


class _RefusedError(Exception):
    """A plugin breaks the contract; the message says how."""


def discover() -> Discovery:
    """Import every plugin and collect its classes; never raises on a plugin's account, KeyboardInterrupt apart."""
    from advss.plugins.isolation import Isolation

    found, off = Discovery(installed=installed()), switched_off()
    isolation, manager = Isolation(), _manager()  # with torch, so that no plugin's import is blamed for torch's
    with isolation.quiet():
        for distribution in found.installed:
            switch = off.get(normal(distribution.name))
            if switch:
                found.disabled.append(Disabled(distribution.name, distribution.version, switch))
                continue
            if distribution.error:
                found.faults.append(Fault(ENTRY_POINTS, distribution.name, distribution.version, distribution.error))
            for entry_point in distribution.entry_points:
                _Reader(distribution, entry_point, found).read(manager, isolation)
    _leave_out(found, off)
    return found


def _leave_out(found: Discovery, off: dict[str, str]) -> None:
    """Take out the plugins that are switched off by their own names."""
    for plugin in list(found.plugins):
        switch = off.get(normal(plugin.name)) or off.get(normal(f"{plugin.distribution}:{plugin.name}"))
        if switch:
            found.plugins.remove(plugin)
            found.disabled.append(Disabled(plugin.distribution, plugin.version, switch, plugin.name, plugin.kind))


def _manager() -> pluggy.PluginManager:
    """A plugin manager that knows the contract, and takes any function named ``advss_...`` of a module for a hook."""
    import pluggy

    from advss import hookspecs

    class Manager(pluggy.PluginManager):
        def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
            function = vars(plugin).get(name)
            if not isinstance(function, FunctionType):
                return None
            own = function.__module__ == getattr(plugin, "__name__", None)  # not the contract's, imported with a star
            if own and name.startswith("advss_") and not hasattr(function, "advss_impl"):
                pluggy.HookimplMarker(GROUP)(function)
            return super().parse_hookimpl_opts(plugin, name)

    manager = Manager(GROUP)
    manager.add_hookspecs(hookspecs)
    return manager


class _Reader:
    """Reads one entry point into a :class:`Discovery`."""

    def __init__(self, distribution: Installed, entry_point: EntryPoint, found: Discovery) -> None:
        self.distribution, self.entry_point, self.found = distribution, entry_point, found
        self.api = ""

    def read(self, manager: pluggy.PluginManager, isolation: Isolation) -> None:
        """Import, register, and call its hooks one by one; undo and name what else it does."""
        began, faults = time.monotonic(), len(self.found.faults)
        with isolation.watching() as done, self._surviving():
            self._read(manager)
        took = time.monotonic() - began
        slow = took > SLOW_S and self.distribution.name != GROUP
        if slow:
            done.append(f"took {took:.0f} s to import; -p no:{self.distribution.name} leaves it out")
        if done and len(self.found.faults) == faults:
            self._fault("; ".join(done), "slow" if slow and len(done) == 1 else "untidy")

    def _read(self, manager: pluggy.PluginManager) -> None:
        module = self.entry_point.load()
        if not isinstance(module, ModuleType):
            raise _RefusedError(f"names {self.entry_point.value}, which is no module; name the one with the hooks")
        self.api = _api_of(module)
        with self._registered(manager, module):
            hooks = manager.get_hookcallers(module) or []
            if not hooks and not _registers_backbones(module):
                raise _RefusedError(_without_hooks(module))
            for hook in hooks:
                with self._surviving():
                    self._call(hook)

    @contextmanager
    def _registered(self, manager: pluggy.PluginManager, module: ModuleType) -> Iterator[None]:
        """Within, the module is the only plugin that the manager knows; a module that was read before is refused."""
        name = f"{self.distribution.name}:{self.entry_point.name}"
        before = self.found.modules.setdefault(module.__name__, name)
        if before != name:
            raise _RefusedError(f"module {module.__name__} is already registered as {before}")
        manager.register(module, name)
        try:
            yield
        finally:
            manager.unregister(module)

    def _call(self, hook: pluggy.HookCaller) -> None:
        if not hook.has_spec():
            raise _RefusedError(f"unknown hook '{hook.name}'{did_you_mean(hook.name, HOOKS)}")
        for implementation in hook.get_hookimpls():
            for offered in _listed(hook.name, implementation.function()):
                with self._surviving():
                    self._add(offered, HOOKS[hook.name])

    def _add(self, offered: object, kind: Kind) -> None:
        name, checked = _checked(offered, kind)
        plugin = Plugin(kind, name, checked, self.distribution.name, self.distribution.version, self.api)
        if any((p.kind, p.name, p.distribution) == (kind, name, plugin.distribution) for p in self.found.plugins):
            raise _RefusedError(f"offers the {kind} '{name}' twice")
        self.found.plugins.append(plugin)

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """Whatever a plugin raises is a fault; SystemExit too, since no plugin ends the program."""
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            refused = isinstance(error, _RefusedError)
            self._fault(str(error) if refused else said_by(error), place="" if refused else place_of(error))

    def _fault(self, error: str, status: Status = "broken", place: str = "") -> None:
        name, version = self.distribution.name, self.distribution.version
        self.found.faults.append(Fault(self.entry_point.name, name, version, one_line(error), status, place))


def _api_of(module: ModuleType) -> str:
    """The API that a module says it is written for; refused where that is none of ours."""
    from advss.hookspecs import API

    wanted = getattr(module, "advss_api", None)
    if wanted is None:
        return ""
    if not (isinstance(wanted, tuple) and len(wanted) == 2 and all(isinstance(n, int) for n in wanted)):
        raise _RefusedError(f"advss_api must be a pair of integers such as {API}, got {wanted!r}")
    if wanted[0] > API[0]:
        raise _RefusedError(f"needs advss API {wanted[0]}.{wanted[1]}, this is {API[0]}.{API[1]}; upgrade advss")
    return f"{wanted[0]}.{wanted[1]}"


def _registers_backbones(module: ModuleType) -> bool:
    """Whether a package has registered models with timm; it has not where timm was not imported."""
    timm, package = sys.modules.get("timm"), module.__name__.partition(".")[0]
    own = [timm.model_entrypoint(name).__module__ for name in timm.list_models()] if timm else []
    return package in {place.partition(".")[0] for place in own}


def _without_hooks(module: ModuleType) -> str:
    imported = [hook for hook in HOOKS if hasattr(module, hook)]
    if imported:
        return f"only imports {imported[0]}; mark it with @hookimpl where it is defined"
    return f"module {module.__name__} defines none of the hooks {', '.join(HOOKS)}"


def _listed(hook: str, returned: object) -> Sequence[object]:
    if not isinstance(returned, list | tuple):
        raise _RefusedError(f"{hook}() must return a list of classes, got {type(returned).__name__}")
    return returned


def _checked(offered: object, kind: Kind) -> tuple[str, type]:
    """Name and class, where the class keeps the contract."""
    base = base_of(kind)
    if isinstance(offered, base):
        raise _RefusedError(f"a hook gives an object of {type(offered).__name__}; return the class, not an instance")
    if not (inspect.isclass(offered) and issubclass(offered, base)):
        raise _RefusedError(f"{offered!r} is not a subclass of {base.__name__}")
    name = getattr(offered, "name", None)
    taken = TAKEN.get(kind, ())
    if not isinstance(name, str) or not NAME.fullmatch(name) or name in taken:
        but = f", and none of {', '.join(map(repr, taken))}" if taken else ""
        raise _RefusedError(
            f"class {offered.__name__} has the name {name!r}; expected at most 100 letters, digits, '-' and '_'{but}"
        )
    parameters = own_parameters(offered)
    for parameter in parameters:
        if kind == "data" and parameter.name in NO_OPTIONS:
            hidden = f"an option '{parameter.name}', which --data.{parameter.name} of every run hides"
            raise _RefusedError(f"class {offered.__name__} has {hidden}")
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
