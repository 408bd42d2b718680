"""``advss plugins list`` and ``advss plugins show NAME``."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict
from typing import Any

from advss.cli.arguments import Arguments, Grammar
from advss.cli.context import check_plugins
from advss.errors import UsageError, did_you_mean
from advss.output import printed
from advss.plugins import Option, PluginRow, Registry, options_of
from advss.plugins.kinds import options_prefix

REQUIRED = "required"


def plugins_list(arguments: Arguments) -> int:
    """``advss plugins list``."""
    from advss.cli.layout import add_row, new_console, new_table, print_table

    rows = check_plugins(arguments, computing=False).rows()
    if "json" in arguments.switches:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return printed()
    table = new_table("", ("kind", "name", "distribution", "version", "API", "status"))
    for row in rows:
        add_row(table, row.kind or "-", row.name or "-", row.distribution, row.version, row.api or "-", row.status)
    print_table(new_console(), table)
    return printed()


def plugins_show(arguments: Arguments) -> int:
    """``advss plugins show NAME``."""
    shown = described(check_plugins(arguments, computing=False), arguments.positionals[0])
    if "json" in arguments.switches:
        print(json.dumps(shown, indent=2))
        return printed()
    for plugin in shown:
        print_plugin(plugin)
    return printed()


def described(installed: Registry, name: str) -> list[dict[str, Any]]:
    """What is called so, a plugin or all that a distribution has, with options, in JSON's types.

    Raises:
        UsageError: there is none.
    """
    rows = installed.rows()
    found = [row for row in rows if name in _names(row)]
    if not found:
        raise UsageError(f"unknown plugin '{name}'{did_you_mean(name, [n for row in rows for n in _names(row)])}")
    return [_described(installed, row) for row in found]


def _names(row: PluginRow) -> list[str]:
    return [name for name in (row.name, row.distribution, f"{row.distribution}:{row.name}") if name]


def _described(installed: Registry, row: PluginRow) -> dict[str, Any]:
    offered = installed.offered(row)
    options = [_option(option) for option in options_of(offered)] if offered else []
    return asdict(row) | {"doc": inspect.getdoc(offered) or "" if offered else "", "options": options}


def _option(option: Option) -> dict[str, Any]:
    from advss.configuration.resolve import plain

    default = REQUIRED if option.required else plain(option.default)
    return {"name": option.name, "type": option.type, "default": default, "doc": option.doc}


def print_plugin(plugin: dict[str, Any]) -> None:
    """Print what :func:`described` says of one."""
    from advss.cli.layout import add_row, new_console, new_table, print_table, reflowed, written

    console = new_console()
    kind, api = f" ({plugin['kind']})" if plugin["kind"] else "", f", API {plugin['api']}" if plugin["api"] else ""
    title = f"{plugin['name'] or plugin['distribution']}{kind}, {plugin['distribution']} {plugin['version']}{api}"
    console.print(title, style="bold", soft_wrap=True)
    for line in (plugin["file"], plugin["status"] if plugin["status"] != "ok" else ""):
        if line:
            console.print(line, soft_wrap=True)
    for paragraph in reflowed(plugin["doc"]):
        console.print()
        console.print(paragraph)
    console.print()
    if not plugin["kind"]:
        return
    table = new_table("Options" if plugin["options"] else "No options", ("", "", ""))
    for option in plugin["options"]:
        doc = f"{option['doc'].removesuffix('.')} ({option['type']})".lstrip()
        add_row(table, options_prefix(plugin["kind"], plugin["name"]) + option["name"], written(option["default"]), doc)
    print_table(console, table)


_JSON = {"json": "as JSON"}
GRAMMARS = [
    (plugins_list, Grammar("plugins list", "installed plugins, broken ones too", (), {}, _JSON)),
    (plugins_show, Grammar("plugins show", "a plugin, or a distribution's, with options", ("NAME",), {}, _JSON)),
]
