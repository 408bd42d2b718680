"""What to say of a name that no plugin has: what it is the name of, or which names are like it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from advss.errors import LONGEST_LIST, did_you_mean
from advss.plugins import KINDS, Kind, Registry
from advss.plugins.discovery import Disabled, Plugin
from advss.plugins.installed import GROUP, Installed
from advss.plugins.kinds import LABELS, one
from advss.plugins.names import recall
from advss.switches import normal

PREFIX = "advss-"  # with which distributions' names usually begin, and which may be left out
SCRIPTS = {"console_scripts", "gui_scripts"}  # groups of entry points that nobody takes for ours


def unknown(installed: Registry, kind: Kind | None, name: str) -> str:
    """One line on a name that is no plugin's, nor that of a distribution with plugins of the kind."""
    found, said = installed.found, f"unknown {LABELS[kind] if kind else 'plugin'} '{name}'"
    same = next((p for p in found.plugins if name in (p.name, _full(p))), None)
    if same:  # of another kind than was asked for
        return f"{said}; '{name}' is {one(same.kind)}"
    own = next((d for d in found.installed if normal(name.partition(":")[0]) in _called(d)), None)
    off = next((d for d in found.disabled if _switches_off(d, name, own)), None)
    if off:
        return f"{said}; {off.switch} switches off '{off}'"
    if own and own.name != GROUP:
        return f"{said}; {own.name} offers {_offered(installed, own)}"
    other = None if own else _without_plugins(name)
    if other:
        return f"{other.name} is installed and has no entry point in the group {GROUP}{_groups(other)}"
    asked = [p for p in found.plugins if kind in (None, p.kind)]
    longer = {_full(p) if ":" in name else p.distribution for p in asked}
    return said + nearest(name, {n for k in KINDS if kind in (None, k) for n in installed.names(k)}, longer)


def nearest(name: str, known: Iterable[str], more: Iterable[str] = ()) -> str:
    """The end of an error message: the name that is meant, all there are where they are few, or those most like it.

    Args:
        name: what was said.
        known: names that there are.
        more: names that may be meant too, and are not listed.
    """
    names = sorted(set(known))
    meant = {*names, *more}
    if difflib.get_close_matches(name, meant, n=1):
        return did_you_mean(name, meant)
    if len(names) <= LONGEST_LIST:
        return did_you_mean(name, names)
    like = difflib.get_close_matches(name, names, n=3, cutoff=0.0)
    return f"; the nearest are {_quoted(like)}; `advss plugins list` has all"


def _full(plugin: Plugin) -> str:
    return f"{plugin.distribution}:{plugin.name}"


def _called(own: Installed) -> set[str]:
    """What a user may call a distribution by: its name, its entry points, plugins that it had when last seen whole."""
    names = {own.name, own.name.removeprefix(PREFIX), *(entry_point.name for entry_point in own.entry_points)}
    return {normal(name) for name in names | {known["name"] for known in recall([own])}}


def _switches_off(off: Disabled, name: str, own: Installed | None) -> bool:
    """Whether what is switched off is the plugin of a name, or the whole distribution that may have it."""
    whole = own is not None and not off.name and off.distribution == own.name
    return whole or normal(name) in {normal(off.name or off.distribution), normal(str(off))}


def _offered(installed: Registry, own: Installed) -> str:
    """The plugins of a distribution, each by the name that finds it."""
    plugins = [p for kind in KINDS for p in installed.found.plugins if (p.kind, p.distribution) == (kind, own.name)]
    said = [(p.kind, _full(p) if _full(p) in installed.names(p.kind) else p.name) for p in plugins]
    offered = [f"the {LABELS[kind]} '{name}'" for kind, name in said]
    return ", ".join(offered) or f"no {', '.join(LABELS[kind] for kind in KINDS)}"


def _without_plugins(name: str) -> Distribution | None:
    """The installed distribution that a name may mean."""
    for said in (name, f"{PREFIX}{name}"):
        try:
            return distribution(said)
        except (PackageNotFoundError, ValueError):  # the latter: an empty name
            continue
    return None


def _groups(other: Distribution) -> str:
    """The end of a line: in which groups it has some, for one may be ours misspelt."""
    groups = sorted({entry_point.group for entry_point in other.entry_points} - SCRIPTS)
    return f"; it has them in {_quoted(groups)}" if groups else "; add one to its pyproject.toml and install it again"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
