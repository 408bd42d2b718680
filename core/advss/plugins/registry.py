"""Names of plugins, and plugins from names."""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from advss.config import Choice, EvalSettings, change_paths
from advss.errors import UsageError, did_you_mean
from advss.output import tell
from advss.plugins.blame import culprit, suspect
from advss.plugins.discovery import Disabled, Discovery, Plugin, discover
from advss.plugins.installed import GROUP
from advss.plugins.kinds import FLAGS, KINDS, LABELS, Kind, options_prefix
from advss.plugins.measured import filled
from advss.plugins.names import Known, recall
from advss.plugins.options import REQUIRED, completed, options_of, read_defense
from advss.switches import VARIABLE, normal, switched_off

MOST_WRAPPED = 8  # defenses around a defense


class UnknownPluginError(UsageError):
    """There is no plugin of this kind and name here.

    ``switched_off``: there would be, but for a switch.
    """

    def __init__(self, line: str, *, kind: str, name: str, switched_off: bool) -> None:
        super().__init__(line)
        self.kind, self.name, self.switched_off = kind, name, switched_off


@dataclass(frozen=True)
class PluginRow:
    """One line of ``advss plugins list``.

    A distribution that broke, or was switched off as a whole, has no kind.
    """

    kind: str
    name: str
    distribution: str
    version: str
    file: str  # of the class, or file:line of the error
    status: str  # "ok", "use DISTRIBUTION:NAME", "disabled by SWITCH", "broken: ...", "untidy: ..." or "slow: ..."
    api: str = ""  # that the plugin's module says it is written for
    error: str = ""  # of what is broken, untidy or slow


class Registry:
    """The plugins of one discovery."""

    def __init__(self, found: Discovery) -> None:
        self.found = found

    def find(self, kind: Kind, name: str) -> type:
        """The class of a plugin.

        Args:
            kind: one of ``KINDS``.
            name: a short name, or ``distribution:name``.

        Raises:
            UsageError: no such name, or one that two distributions claim.
        """
        return self.plugin(kind, name).offered

    def plugin(self, kind: Kind, name: str) -> Plugin:
        """A plugin and where it comes from; see :meth:`find`."""
        plugins = [p for p in self.found.plugins if p.kind == kind]
        claims = [p for p in plugins if name in (p.name, _full(p))]
        claims = [p for p in claims if p.distribution == GROUP] or claims  # built-ins keep their short names
        if not claims:
            off = self._off(kind, name)
            known = [p.name for p in plugins] + ([_full(p) for p in plugins] if ":" in name else [])
            hint = (
                f"; {off.switch} switches off '{off}'"
                if off
                else self._broken(name) or did_you_mean(name, known) + self._unseen()
            )
            line = f"unknown {LABELS[kind]} '{name}'{hint}"
            raise UnknownPluginError(line, kind=kind, name=name, switched_off=off is not None)
        if len(claims) > 1:
            full = [_full(plugin) for plugin in claims]
            say = f"say which, such as {FLAGS[kind]} {full[0]}"
            raise UsageError(f"{LABELS[kind]} '{name}' is claimed by {' and '.join(full)}; {say}")
        return claims[0]

    def names(self, kind: Kind) -> list[str]:
        """What :meth:`find` takes for each plugin: short names, full ones where a short one is not enough."""
        return [p.name if self._short(p) else _full(p) for p in self.found.plugins if p.kind == kind]

    def rows(self) -> list[PluginRow]:
        """Every plugin, those that are broken or switched off included."""
        rows = [
            PluginRow(p.kind, p.name, p.distribution, p.version, _file(p.offered), self._status(p), p.api)
            for kind in KINDS
            for p in self.found.plugins
            if p.kind == kind
        ]
        rows += [
            PluginRow(d.kind or "", d.name, d.distribution, d.version, "", f"disabled by {d.switch}")
            for d in self.found.disabled
        ]
        return rows + [
            PluginRow("", f.entry_point, f.distribution, f.version, f.place, f"{f.status}: {f.error}", error=f.error)
            for f in self.found.faults
        ]

    def offered(self, row: PluginRow) -> type | None:
        """The class of a row; None where there is none to be had."""
        key = (row.kind, row.name, row.distribution)
        return next((p.offered for p in self.found.plugins if (p.kind, p.name, p.distribution) == key), None)

    def _off(self, kind: Kind, name: str) -> Disabled | None:
        """What was switched off and had the name, as far as that is known of what was not imported."""
        for disabled in self.found.disabled:
            named = {disabled.name} if disabled.kind == kind else set()
            named |= {known["name"] for known in self._recalled(disabled) if known["kind"] == kind}
            if name in named | {f"{disabled.distribution}:{known}" for known in named}:
                return disabled
            if not disabled.name and name.partition(":")[0] == disabled.distribution:
                return disabled
        return None

    def _broken(self, name: str) -> str:
        """The end of an error message: an entry point or distribution of this name that is broken; else empty."""
        meant = {normal(name), normal(f"{GROUP}-{name}"), normal(name.partition(":")[0])}
        faults = [f for f in self.found.faults if f.status == "broken"]
        own = [f for f in faults if meant & {normal(f.entry_point), normal(f.distribution)}]
        return f"; it may be of {own[0].distribution}, which is broken: {own[0].error}" if own else ""

    def _unseen(self) -> str:
        """The end of an error message: distributions that are switched off, and nobody knows what they have."""
        unseen = [d for d in self.found.disabled if not d.name and not self._recalled(d)]
        return "".join(f" ({d.switch} switches off '{d}')" for d in unseen)

    def _recalled(self, disabled: Disabled) -> list[Known]:
        """What the cache knows of a distribution that was switched off as a whole."""
        return recall(d for d in self.found.installed if not disabled.name and d.name == disabled.distribution)

    def _short(self, plugin: Plugin) -> bool:
        rivals = [p for p in self.found.plugins if (p.kind, p.name) == (plugin.kind, plugin.name)]
        return len(rivals) == 1 or plugin.distribution == GROUP

    def _status(self, plugin: Plugin) -> str:
        return "ok" if self._short(plugin) else f"use {_full(plugin)}"


def registry(*, strict: bool | None = None) -> Registry:
    """The installed plugins, found once; what is wrong with them is one line each on stderr.

    Args:
        strict: broken and untidy plugins are an error; by default where ADVSS_STRICT_PLUGINS is set to 1 or true.

    Raises:
        UsageError: ``strict``, and a plugin is broken or untidy.
    """
    found = _discovered()
    wanted = os.environ.get("ADVSS_STRICT_PLUGINS", "").lower() in ("1", "true", "yes") if strict is None else strict
    faults = [fault for fault in found.faults if fault.status != "slow"]
    if wanted and faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UsageError(f"{faults[0]}{more}")
    for fault in found.faults:
        _warn(str(fault))
    for switch in set(switched_off().values()) - {VARIABLE} - {disabled.switch for disabled in found.disabled}:
        _warn(f"{switch} leaves nothing out: there is no such plugin or distribution")
    return Registry(found)


def forget() -> None:
    """Find the plugins anew at the next call of :func:`registry`, after a distribution came or went."""
    _discovered_without.cache_clear()
    _warn.cache_clear()


def complete(kind: Kind, choice: Choice, *, flag: str | None = None) -> dict[str, Any]:
    """All options of a plugin, typed: what was said, and the defaults of the rest; tried on the class itself.

    Args:
        kind: one of ``KINDS``.
        choice: name and what was said of its options.
        flag: what the options are called in error messages, such as ``--defense.``.

    Raises:
        UsageError: an unknown plugin or option, a wrong type, or a value that the plugin refuses.
    """
    prefix = flag or options_prefix(kind, choice.name.rpartition(":")[2])
    offered = registry().find(kind, choice.name)
    options = completed(offered, choice.options, flag=prefix, what=choice.name)
    for name, (inner, inner_flag) in _wrapped(offered, options, prefix).items():
        options[name] = {inner.name: complete("defense", inner, flag=inner_flag)}
    try:
        _instance(offered, _whole(kind, options), flag=prefix, what=choice.name)
    except (KeyboardInterrupt, UsageError):
        raise
    except BaseException as error:  # SystemExit too: no plugin ends the program
        own = suspect(registry().plugin(kind, choice.name), label=LABELS[kind], called=choice.name)
        found = culprit(error, [own] if own and not own.ours else [])
        if found is None:
            raise
        raise UsageError(f"{_said(prefix, choice.name)}: {found.line(error)}") from error
    return options


def build(kind: Kind, choice: Choice, *, flag: str | None = None) -> Any:
    """A new plugin object; see :func:`complete`."""
    prefix = flag or options_prefix(kind, choice.name.rpartition(":")[2])
    offered = registry().find(kind, choice.name)
    options = completed(offered, choice.options, flag=prefix, what=choice.name)
    return _instance(offered, _whole(kind, options), flag=prefix, what=choice.name)


def _whole(kind: Kind, options: dict[str, Any]) -> dict[str, Any]:
    """Options as a class is given them: an evaluation's that are left to ``--eval-...`` as these are by default."""
    return filled(options, EvalSettings()) if kind == "evaluation" else options


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
    found = {name: change_paths(value, Path.expanduser) for name, value in options.items()}
    try:
        return offered(**found | built)
    except UsageError:
        raise
    except (ValueError, TypeError) as error:
        line = " ".join(str(error).split())
        named = line.split(" ", 1)[0] in options
        raise UsageError(f"{flag}{line}" if named else f"{_said(flag, what)}: {line}") from error


def _said(prefix: str, name: str) -> str:
    """A choice as a line says it, from what stands before its options: ``--defense pgd``, ``--evaluate pgd``."""
    where = prefix.rstrip(".").removesuffix(f".{name}")
    alone = where == f"--{name.rpartition(':')[2]}" and where not in FLAGS.values()
    return f"{FLAGS['evaluation'] if alone else where} {name}"


def _discovered() -> Discovery:
    return _discovered_without(tuple(switched_off().items()))


@cache
def _discovered_without(switches: tuple[tuple[str, str], ...]) -> Discovery:
    return discover()


@cache
def _warn(line: str) -> None:
    tell(f"advss: warning: {line}")


def _full(plugin: Plugin) -> str:
    return f"{plugin.distribution}:{plugin.name}"


def _file(offered: type) -> str:
    try:
        return inspect.getfile(offered)
    except (OSError, TypeError):  # made at run time, without a file
        return offered.__module__
