"""The plugin that is checked, by name, with its options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from advss.config import Choice
from advss.configuration.settings import typed_setting
from advss.errors import UsageError
from advss.plugins import KINDS, Kind, Registry, build, complete, registry
from advss.plugins.discovery import Plugin
from advss.plugins.kinds import options_prefix
from advss.plugins.options import completed, options_of
from advss.switches import normal
from advss.testing.unknown import unknown


@dataclass(frozen=True)
class Subject:
    """A registered plugin and what is said of its options."""

    plugin: Plugin
    options: Mapping[str, Any] = field(default_factory=dict)
    size: int = 0  # of a data source, which every run has beside its options

    @property
    def kind(self) -> Kind:
        """What it is, one of ``KINDS``."""
        return self.plugin.kind

    @property
    def choice(self) -> Choice:
        """The plugin as a configuration chooses it."""
        return Choice(f"{self.plugin.distribution}:{self.plugin.name}", dict(self.options))

    def new(self) -> Any:
        """A new object, made as a run makes it."""
        made = build(self.kind, self.choice)
        if self.size:
            made.size = self.size
        return made

    def completed(self, said: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """All options, what is said of them included; ``said`` in their place."""
        return complete(self.kind, self.choice if said is None else Choice(self.choice.name, dict(said)))


def find(name: str, *, kind: Kind | None = None, options: Mapping[str, Any] | None = None) -> list[Subject]:
    """The plugins of a name: one, or one of each kind that has the name, or all of a distribution.

    Args:
        name: a short name, ``distribution:name``, or a distribution's.
        kind: of this kind alone.
        options: what is said of the plugin's options; those without a default are needed. Of several plugins each
            takes those that it has, data sources ``size``, too.

    Raises:
        UsageError: no such plugin, one that two distributions claim, or options that it does not have or needs.
    """
    plugins, subjects = named(name, kind=kind), []
    for plugin in plugins:
        own = {key: value for key, value in (options or {}).items() if key not in of_others(plugin, plugins)}
        size = side(own.pop("size", 0)) if plugin.kind == "data" else 0
        prefix = options_prefix(plugin.kind, plugin.name)
        completed(plugin.offered, own, flag=prefix, what=plugin.name)  # by type; __init__ is checked
        subjects.append(Subject(plugin, own, size))
    return subjects


def side(said: object) -> int:
    """``--option size=64`` of a data source, which is no option of its own but of every run."""
    return int(typed_setting("data.size", said, origin="--option size"))


def named(name: str, *, kind: Kind | None = None) -> list[Plugin]:
    """The plugins of a name; see :func:`find`. A plugin's name goes before a distribution's."""
    installed = registry()
    kinds = [k for k in KINDS if kind in (None, k) and name in _names(installed, k)]
    if kinds:
        return [_plugin(installed, k, name) for k in kinds]
    plugins = [p for k in KINDS if kind in (None, k) for p in installed.found.plugins if p.kind == k]
    whole = [p for p in plugins if normal(p.distribution) == normal(name)]
    if not whole:
        raise UsageError(unknown(installed, kind, name))
    return whole


def of_others(plugin: Plugin, plugins: Iterable[Plugin]) -> set[str]:
    """Names of options that a plugin does not have and another of those that are checked with it has."""
    return {name for other in plugins for name in _option_names(other)} - _option_names(plugin)


def _option_names(plugin: Plugin) -> set[str]:
    return {option.name for option in options_of(plugin.offered)} | ({"size"} if plugin.kind == "data" else set())


def _names(installed: Registry, kind: Kind) -> set[str]:
    plugins = [p for p in installed.found.plugins if p.kind == kind]
    return {p.name for p in plugins} | {f"{p.distribution}:{p.name}" for p in plugins}


def _plugin(installed: Registry, kind: Kind, name: str) -> Plugin:
    offered = installed.find(kind, name)
    return next(p for p in installed.found.plugins if p.kind == kind and p.offered is offered)
