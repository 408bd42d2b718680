"""Names of plugins, and plugins from names."""

from __future__ import annotations

import inspect
import os
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

from advss.config import Choice
from advss.errors import UsageError, did_you_mean
from advss.plugins.discovery import GROUP, KINDS, Discovery, Kind, Plugin, discover
from advss.plugins.options import REQUIRED, completed, options_of, read_defense, typed

FLAGS: dict[Kind, str] = {"pretext": "--pretext", "defense": "--defense", "finetune": "--finetune"}
MOST_WRAPPED = 8  # defenses around a defense
LABELS: dict[Kind, str] = {"pretext": "pretext task", "defense": "defense", "finetune": "fine-tuning scheme"}


@dataclass(frozen=True)
class PluginRow:
    """One line of ``advss plugins list``; a distribution that broke has no kind, and its error as the status."""

    kind: str
    name: str
    distribution: str
    version: str
    file: str
    status: str  # "ok", "use DISTRIBUTION:NAME", "disabled", or "broken: ..."


class Registry:
    """The plugins of one discovery."""

    def __init__(self, found: Discovery) -> None:
        self.found = found

    def find(self, kind: Kind, name: str) -> type:
        """The class of a plugin.

        Args:
            kind: "pretext", "defense" or "finetune".
            name: a short name, or ``distribution:name``.

        Raises:
            UsageError: no such name, or one that two distributions claim.
        """
        plugins = [p for p in self.found.plugins if p.kind == kind]
        claims = [p for p in plugins if name in (p.name, _full(p))]
        claims = [p for p in claims if p.distribution == GROUP] or claims  # built-ins keep their short names
        if not claims:
            known = [p.name for p in plugins] + ([_full(p) for p in plugins] if ":" in name else [])
            off = [d for d in self.found.disabled if name in (d, d.rpartition(":")[2])]
            hint = f"; ADVSS_DISABLE_PLUGINS switches off '{off[0]}'" if off else did_you_mean(name, known)
            raise UsageError(f"unknown {LABELS[kind]} '{name}'{hint}")
        if len(claims) > 1:
            raise UsageError(f"{LABELS[kind]} '{name}' is claimed by {' and '.join(map(_full, claims))}; say which")
        return claims[0].offered

    def names(self, kind: Kind) -> list[str]:
        """What :meth:`find` takes for each plugin: short names, full ones where a short one is not enough."""
        return [p.name if self._short(p) else _full(p) for p in self.found.plugins if p.kind == kind]

    def rows(self) -> list[PluginRow]:
        """Every plugin, those that are broken or disabled included."""
        rows = [
            PluginRow(p.kind, p.name, p.distribution, p.version, _file(p.offered), self._status(p))
            for kind in KINDS
            for p in self.found.plugins
            if p.kind == kind
        ]
        rows += [
            PluginRow("", d.rpartition(":")[2], d.partition(":")[0], "", "", "disabled") for d in self.found.disabled
        ]
        return rows + [
            PluginRow("", f.entry_point, f.distribution, f.version, "", f"broken: {f.error}") for f in self.found.faults
        ]

    def _short(self, plugin: Plugin) -> bool:
        rivals = [p for p in self.found.plugins if (p.kind, p.name) == (plugin.kind, plugin.name)]
        return len(rivals) == 1 or plugin.distribution == GROUP

    def _status(self, plugin: Plugin) -> str:
        return "ok" if self._short(plugin) else f"use {_full(plugin)}"


def registry(*, strict: bool | None = None) -> Registry:
    """The installed plugins, found once; what is broken is one line each on stderr.

    Args:
        strict: broken plugins are an error; by default where ADVSS_STRICT_PLUGINS is set to 1 or true.

    Raises:
        UsageError: ``strict`` and a plugin is broken.
    """
    found = _discovered()
    wanted = os.environ.get("ADVSS_STRICT_PLUGINS", "").lower() in ("1", "true", "yes") if strict is None else strict
    if wanted and found.faults:
        more = f" (and {len(found.faults) - 1} more)" if len(found.faults) > 1 else ""
        raise UsageError(f"{found.faults[0]}{more}")
    _warn()
    return Registry(found)


def forget() -> None:
    """Find the plugins anew at the next call of :func:`registry`, after a distribution came or went."""
    _discovered.cache_clear()
    _warn.cache_clear()


def complete(kind: Kind, choice: Choice, *, flag: str | None = None) -> dict[str, Any]:
    """All options of a plugin, typed: what was said, and the defaults of the rest; tried on the class itself.

    Args:
        kind: "pretext", "defense" or "finetune".
        choice: name and what was said of its options.
        flag: what the options are called in error messages, such as ``--defense.``.

    Raises:
        UsageError: an unknown plugin or option, a wrong type, or a value that the plugin refuses.
    """
    prefix = flag or f"{FLAGS[kind]}."
    offered = registry().find(kind, choice.name)
    options = completed(offered, choice.options, flag=prefix, what=choice.name)
    for name, (inner, inner_flag) in _wrapped(offered, options, prefix).items():
        options[name] = {inner.name: complete("defense", inner, flag=inner_flag)}
    _instance(offered, options, flag=prefix, what=choice.name)
    return options


def build(kind: Kind, choice: Choice, *, flag: str | None = None) -> Any:
    """A new plugin object; see :func:`complete`."""
    prefix = flag or f"{FLAGS[kind]}."
    offered = registry().find(kind, choice.name)
    options = typed(offered, choice.options, flag=prefix, what=choice.name)
    return _instance(offered, options, flag=prefix, what=choice.name)


def wrapped_class(name: str, *, flag: str) -> type:
    """The class of a defense that the option ``flag`` takes.

    Raises:
        UsageError: as :meth:`Registry.find`, naming the option.
    """
    try:
        return registry().find("defense", name)
    except UsageError as error:
        raise UsageError(f"{flag}: {error}") from error


def _wrapped(offered: type, options: dict[str, Any], prefix: str) -> dict[str, tuple[Choice, str]]:
    """The defenses that a class takes as options, by default too, and what their own options are called.

    Raises:
        UsageError: one is not installed, or they wrap one another without end.
    """
    wrapped = {}
    for option in options_of(offered):
        value = options.get(option.name, option.default)
        if not option.wraps or value is None or value is REQUIRED:
            continue
        flag = prefix + option.name
        name, said = read_defense(value, flag=flag)
        if prefix.count(".") > 2 * MOST_WRAPPED:
            raise UsageError(f"{flag[:40]}...: more than {MOST_WRAPPED} defenses around '{name}'; does it wrap itself?")
        wrapped_class(name, flag=flag)
        wrapped[option.name] = (Choice(name, said), f"{flag}.{name.rpartition(':')[2]}.")
    return wrapped


def _instance(offered: type, options: dict[str, Any], *, flag: str, what: str) -> Any:
    wrapped = _wrapped(offered, options, flag)
    built = {name: build("defense", inner, flag=inner_flag) for name, (inner, inner_flag) in wrapped.items()}
    try:
        return offered(**options | built)
    except UsageError:
        raise
    except (ValueError, TypeError) as error:
        line = " ".join(str(error).split())
        named = line.split(" ", 1)[0] in options
        where = flag.rstrip(".")
        raise UsageError(f"{flag}{line}" if named else f"{where.removesuffix(f'.{what}')} {what}: {line}") from error


@cache
def _discovered() -> Discovery:
    return discover()


@cache
def _warn() -> None:
    for fault in _discovered().faults:
        print(f"advss: warning: {fault}", file=sys.stderr)


def _full(plugin: Plugin) -> str:
    return f"{plugin.distribution}:{plugin.name}"


def _file(offered: type) -> str:
    try:
        return inspect.getfile(offered)
    except (OSError, TypeError):  # made at run time, without a file
        return offered.__module__
