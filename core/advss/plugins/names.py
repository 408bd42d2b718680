"""Names of installed plugins from a cache, so that shell completion and hints need not import them.

An entry is of one distribution, by the folder of its metadata, and holds as long as the files that it was read from
were last changed when they were then: metadata, entry points, and the modules of entry points and classes.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args, get_origin

from advss.cache import cache_path, changed_at, read_cache, write_cache
from advss.plugins.discovery import Discovery, Plugin
from advss.plugins.installed import ENTRY_POINTS, Installed
from advss.plugins.options import options_of

FILE, FORMAT = "plugins.json", 1


class KnownOption(TypedDict):
    """An option of a plugin; ``values``: all that there are, where they are few."""

    name: str
    type: str
    doc: str
    values: list[str]


class Known(TypedDict):
    """A plugin."""

    kind: str
    name: str
    distribution: str
    summary: str
    options: list[KnownOption]


def remember(found: Discovery) -> None:
    """Put what was found into the cache: distributions that are whole, in place of what was known of them."""
    entries, before = _entries(), _entries()
    for distribution in found.installed:
        key = str(distribution.place)
        if not _is_whole(distribution, found):
            if any(f.distribution == distribution.name for f in found.faults):
                entries.pop(key, None)
        elif not _holds(entries.get(key), distribution):
            with suppress(Exception):  # documentation or defaults that cannot be read: a plugin's, so anything goes
                entries[key] = _entry(distribution, [p for p in found.plugins if p.distribution == distribution.name])
    entries = {key: entry for key, entry in entries.items() if changed_at(key)}
    if entries != before:
        write_cache(FILE, {"format": FORMAT, "distributions": entries})


def recall(distributions: Iterable[Installed]) -> list[Known]:
    """What the cache knows of the plugins of these distributions."""
    entries = _entries()
    found: list[Known] = []
    for distribution in distributions:
        entry: Any = entries.get(str(distribution.place))
        if _holds(entry, distribution):
            found += entry["plugins"]
    return found


def files_of(distributions: Iterable[Installed]) -> list[str]:
    """The files on which it hangs what :func:`recall` knows of these distributions."""
    entries = _entries()
    named = [path for d in distributions for path in entries.get(str(d.place), {}).get("files", {})]
    return [str(cache_path(FILE)), *named]


def summary_of(offered: type) -> str:
    """The first sentence of a class's docstring, without its full stop."""
    first = (inspect.getdoc(offered) or "").partition("\n\n")[0]
    return " ".join(first.replace("``", "").split()).removesuffix(".")


def _entries() -> dict[str, Any]:
    content = read_cache(FILE)
    entries = content.get("distributions")
    if content.get("format") != FORMAT or not isinstance(entries, dict):
        return {}
    return {key: e for key, e in entries.items() if isinstance(e, dict) and isinstance(e.get("files"), dict)}


def _is_whole(distribution: Installed, found: Discovery) -> bool:
    broken = any(f.status == "broken" and f.distribution == distribution.name for f in found.faults)
    return not broken and all(d.distribution != distribution.name for d in found.disabled)


def _holds(entry: Any, distribution: Installed) -> bool:
    try:
        ours = entry["version"] == distribution.version and _is_well_formed(entry["plugins"])
        return ours and all(changed_at(path) == when for path, when in entry["files"].items())
    except (TypeError, KeyError, AttributeError):  # nothing, or somebody else's
        return False


def _is_well_formed(plugins: list[Known]) -> bool:
    texts = [plugin[key] for plugin in plugins for key in ("kind", "name", "distribution", "summary")]
    for option in (option for plugin in plugins for option in plugin["options"]):
        texts += [option["name"], option["type"], option["doc"], *option["values"]]
    return all(isinstance(text, str) for text in texts)


def _entry(distribution: Installed, plugins: list[Plugin]) -> dict[str, Any]:
    assert distribution.place is not None
    files = [distribution.place / name for name in (ENTRY_POINTS, "METADATA", "PKG-INFO")]
    files += [_file(sys.modules.get(entry_point.module)) for entry_point in distribution.entry_points]
    files += [_file(plugin.offered) for plugin in plugins]
    return {
        "version": distribution.version,
        "files": {str(path): changed_at(path) for path in files},
        "plugins": [_known(plugin) for plugin in plugins],
    }


def _known(plugin: Plugin) -> Known:
    options: list[KnownOption] = [
        {"name": o.name, "type": o.type, "doc": o.doc, "values": values_of(o.annotation)}
        for o in options_of(plugin.offered)
    ]
    return {
        "kind": plugin.kind,
        "name": plugin.name,
        "distribution": plugin.distribution,
        "summary": summary_of(plugin.offered),
        "options": options,
    }


def values_of(annotation: Any) -> list[str]:
    """All values of a type, as they are said on the command line; none where they are not few."""
    if annotation is bool:
        return ["true", "false"]
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    return [value for part in get_args(annotation) if get_origin(part) is Literal for value in values_of(part)]


def _file(thing: Any) -> Path:
    try:
        return Path(inspect.getfile(thing))
    except (OSError, TypeError):  # made at run time, without a file
        return Path("/nowhere")
