"""The plugin that is checked, by name, with its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from advss.config import Choice
from advss.errors import UsageError, did_you_mean
from advss.plugins import KINDS, Kind, Registry, build, complete, registry
from advss.plugins.discovery import Plugin
from advss.plugins.options import completed
from advss.plugins.registry import FLAGS, LABELS


@dataclass(frozen=True)
class Subject:
    """A registered plugin and what is said of its options."""

    plugin: Plugin
    options: Mapping[str, Any] = field(default_factory=dict)

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
        return build(self.kind, self.choice)

    def completed(self, said: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """All options, what is said of them included; ``said`` in their place."""
        return complete(self.kind, self.choice if said is None else Choice(self.choice.name, dict(said)))


def find(name: str, *, kind: Kind | None = None, options: Mapping[str, Any] | None = None) -> list[Subject]:
    """The plugins of a name: one, or one of each kind that has the name.

    Args:
        name: a short name, or ``distribution:name``.
        kind: of this kind alone.
        options: what is said of the plugin's options; those without a default are needed.

    Raises:
        UsageError: no such plugin, one that two distributions claim, or options that it does not have or needs.
    """
    return [with_options(plugin, options or {}, said=name) for plugin in named(name, kind=kind)]


def named(name: str, *, kind: Kind | None = None) -> list[Plugin]:
    """The plugins of a name; see :func:`find`."""
    installed = registry()
    kinds = [k for k in KINDS if kind in (None, k) and name in _names(installed, k)]
    if not kinds:
        known = {known for k in KINDS if kind in (None, k) for known in _names(installed, k)}
        raise UsageError(f"unknown {'plugin' if kind is None else LABELS[kind]} '{name}'{did_you_mean(name, known)}")
    return [_plugin(installed, k, name) for k in kinds]


def with_options(plugin: Plugin, options: Mapping[str, Any], *, said: str) -> Subject:
    """A plugin and its options, judged by type; what ``__init__`` makes of them is for a check to say."""
    completed(plugin.offered, options, flag=f"{FLAGS[plugin.kind]}.", what=said)
    return Subject(plugin, dict(options))


def _names(installed: Registry, kind: Kind) -> set[str]:
    plugins = [p for p in installed.found.plugins if p.kind == kind]
    return {p.name for p in plugins} | {f"{p.distribution}:{p.name}" for p in plugins}


def _plugin(installed: Registry, kind: Kind, name: str) -> Plugin:
    offered = installed.find(kind, name)
    return next(p for p in installed.found.plugins if p.kind == kind and p.offered is offered)
