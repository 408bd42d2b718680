"""Help: commands, plugins, and every flag with its type, its value on this line and one line of documentation."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from advss.cli.arguments import Arguments, Grammar
from advss.config import Choice, EvalSettings, RunConfig, StageSettings
from advss.errors import UsageError, did_you_mean
from advss.plugins import KINDS, Kind, Option, PluginRow, Registry, options_of, registry

REQUIRED = "required"
LEAVE_OUT = "leave a plugin or a distribution out, for this command; several times for several"


def print_overview() -> None:
    """``advss --help``."""
    from advss.cli.commands import COMMANDS

    console = _console()
    console.print(
        "Usage: advss COMMAND [--FLAG VALUE ...]\n\nAdversarial self-supervised pretraining and fine-tuning.\n"
    )
    words = [(" ".join([name, *c.grammar.positionals]), c.grammar.summary) for name, c in COMMANDS.items()]
    _rows(console, "Commands", [(f"advss {command}", summary) for command, summary in words])
    examples = [
        ("advss fit --pretext selfie --defense pgd", "embedded digits, minutes on a CPU"),
        ("advss fit --pretext jigsaw --help", "installed plugins, and the options of the chosen ones"),
        ("advss fit --config cifar10-fast --data.root data", "a packaged recipe"),
    ]
    _rows(console, "Examples", examples)
    everywhere = [
        ("--help", "this, for each command too"),
        ("--version", "print the version"),
        ("--print-completion SHELL", "print a script that completes words in bash, zsh or fish"),
        ("-p no:NAME", LEAVE_OUT),
    ]
    _rows(console, "Everywhere", everywhere)


def print_help(grammar: Grammar, arguments: Arguments) -> None:
    """Help of one command; where it takes settings, their values are those of this very line."""
    console = _console()
    flags = " [--FLAG VALUE ...]" if grammar.flags or grammar.settings else ""
    console.print(f"Usage: advss {' '.join([grammar.command, *grammar.positionals])}{flags}\n\n{grammar.summary}.\n")
    everywhere = {"strict-plugins": "a broken plugin is an error, not a warning", "help": "this"}
    own = [(f"--{flag} {flag.upper()}", doc) for flag, doc in grammar.flags.items()]
    own += [(f"--{flag}", doc) for flag, doc in {**grammar.switches, **everywhere}.items()]
    if "pretext" in grammar.settings:
        _print_settings(console, arguments)
    elif grammar.settings:
        from advss.stages.settings import SETTINGS

        _rows(console, "Settings", [(f"--{flag}", _doc(SETTINGS[flag].option)) for flag in grammar.settings])
    _rows(console, "Flags", [*own, ("-p no:NAME", LEAVE_OUT)])


def _print_settings(console: Console, arguments: Arguments) -> None:
    """Components and settings, with the values that this line resolves to."""
    from advss.cli.commands import configured

    config = configured(arguments)
    _print_components(console, config, registry())
    _print_run(console, config)
    _print_stages(console, config)
    _options(console, "Evaluation", _fields("--eval-", EvalSettings, config.evaluation))
    _print_recipes(console)


def _print_components(console: Console, config: RunConfig, installed: Registry) -> None:
    chosen: dict[str, tuple[Choice, ...]] = {
        "pretext": config.pretext,
        "defense": (config.defense,),
        "finetune": (config.finetune,),
    }
    for kind in KINDS:
        several = "[,NAME...] | none" if kind == "pretext" else ""
        named = [(f"  {name}", summary_of(installed.find(kind, name))) for name in installed.names(kind)]
        _rows(console, f"--{kind} NAME{several}", named)
        for choice in chosen[kind]:
            member = f"{choice.key}." if len(chosen[kind]) > 1 else ""
            shown = _chosen(installed, kind, choice, f"--{kind}.{member}")
            _options(console, f"Options of {choice.name}", shown)
    from advss.data.sources import SOURCES

    other = [
        (
            "--finetune-defense NAME",
            "defense of fine-tuning, its options as --finetune-defense.OPTION; default: as --defense",
        )
    ]
    other += [
        ("--backbone NAME", f"a timm model, now {config.backbone.name}; what timm takes for it as --backbone.OPTION")
    ]
    _rows(console, "Other components", other)
    _rows(console, "--data NAME", [(f"  {name}", _source(source)) for name, source in SOURCES.items()])
    data = [(f"--data.{o.name}", o, config.data.options[o.name]) for o in options_of(SOURCES[config.data.name])]
    _options(console, f"Options of {config.data.name}", data)


def _chosen(installed: Registry, kind: Kind, choice: Choice, prefix: str) -> Iterator[tuple[str, Option, Any]]:
    """A choice's options with flags and values; below one that takes a defense, those of the defense it has."""
    for option in options_of(installed.find(kind, choice.name)):
        value = choice.options[option.name]
        if not option.wraps or value is None:
            yield prefix + option.name, option, value
            continue
        ((name, inner),) = value.items()
        yield prefix + option.name, option, name
        yield from _chosen(installed, "defense", Choice(name, inner), f"{prefix}{option.name}.{name}.")


def _print_run(console: Console, config: RunConfig) -> None:
    from advss.stages.settings import SETTINGS

    settings = [s for s in SETTINGS.values() if s.section == "run"]
    _options(console, "Run", [(f"--{s.flag}", s.option, getattr(config, s.option.name)) for s in settings])


def _print_stages(console: Console, config: RunConfig) -> None:
    """Both stages' settings side by side, since they are the same ones."""
    table = _table("Optimisation, --pretrain-... and --finetune-...", ("", "pretrain", "finetune", ""))
    for option in options_of(StageSettings):
        values = [_value(getattr(stage, option.name)) for stage in (config.pretraining, config.finetuning)]
        _add(table, "-" + option.name.replace("_", "-"), *values, _doc(option))
    _print(console, table)


def _print_recipes(console: Console) -> None:
    from advss.stages.recipes import read_config, recipes

    _rows(console, "Recipes, --config NAME", [(f"  {name}", read_config(name).description) for name in recipes()])


def print_plugins(rows: Sequence[PluginRow]) -> None:
    """``advss plugins list``."""
    table = _table("", ("kind", "name", "distribution", "version", "status"))
    for row in rows:
        _add(table, row.kind or "-", row.name, row.distribution, row.version or "-", row.status)
    _print(Console(), table)


def described_plugins(installed: Registry, name: str) -> list[dict[str, Any]]:
    """Every plugin of a name, with its options, in JSON's types.

    Raises:
        UsageError: there is none.
    """
    kinds: list[Kind] = [kind for kind in KINDS if name in _names(installed, kind)]
    if not kinds:
        known = {known for kind in KINDS for known in _names(installed, kind)}
        raise UsageError(f"unknown plugin '{name}'{did_you_mean(name, known)}")
    return [_described(installed, kind, name) for kind in kinds]


def _names(installed: Registry, kind: Kind) -> set[str]:
    rows = [row for row in installed.rows() if row.kind == kind]
    return {row.name for row in rows} | {f"{row.distribution}:{row.name}" for row in rows}


def _described(installed: Registry, kind: Kind, name: str) -> dict[str, Any]:
    from advss.stages.resolve import plain

    offered = installed.find(kind, name)
    row = next(
        r for r in installed.rows() if r.kind == kind and installed.find(kind, f"{r.distribution}:{r.name}") is offered
    )
    options = [
        {"name": o.name, "type": o.type, "default": REQUIRED if o.required else plain(o.default), "doc": o.doc}
        for o in options_of(offered)
    ]
    identity = {"kind": kind, "name": row.name, "distribution": row.distribution, "version": row.version}
    return identity | {"file": row.file, "doc": inspect.getdoc(offered) or "", "options": options}


def print_plugin(plugin: dict[str, Any]) -> None:
    """``advss plugins show NAME``."""
    console = _console()
    console.print(f"{plugin['name']} ({plugin['kind']}), {plugin['distribution']} {plugin['version']}", style="bold")
    console.print(plugin["file"], soft_wrap=True)
    console.print("\n" + plugin["doc"].partition("\n\nArgs:")[0] + "\n")
    table = _table("Options" if plugin["options"] else "No options", ("", "", ""))
    for option in plugin["options"]:
        doc = f"{option['doc'].removesuffix('.')} ({option['type']})".lstrip()
        _add(table, f"--{plugin['kind']}.{option['name']}", _value(option["default"]), doc)
    _print(console, table)


def _source(source: type) -> str:
    names = ", ".join(option.name for option in options_of(source))
    return summary_of(source) + (f" (options: {names})" if names else "")


def summary_of(offered: type) -> str:
    """The first sentence of a class's docstring, without its full stop."""
    first = (inspect.getdoc(offered) or "").partition("\n\n")[0]
    return " ".join(first.replace("``", "").split()).removesuffix(".")


def _fields(prefix: str, settings: type, values: object) -> list[tuple[str, Option, Any]]:
    options = options_of(settings)
    return [(prefix + o.name.replace("_", "-"), o, getattr(values, o.name)) for o in options]


def _options(console: Console, title: str, options: Iterable[tuple[str, Option, Any]]) -> None:
    """Flags with value, documentation and type; nothing where there are none."""
    table = _table(title, ("", "", ""))
    for flag, option, value in options:
        _add(table, flag, _value(value), _doc(option))
    if table.row_count:
        _print(console, table)


def _rows(console: Console, title: str, rows: Iterable[tuple[str, str]]) -> None:
    table = _table(title, ("", ""))
    for flag, doc in rows:
        _add(table, flag, doc)
    _print(console, table)


def _table(title: str, headings: Sequence[str]) -> Table:
    """A table without frame; the last column takes the rest of the line and wraps."""
    table = Table(
        title=Text(title) if title else None, title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    table.show_header, table.padding = any(headings), (0, 2, 0, 0)
    for place, heading in enumerate(headings):
        table.add_column(Text(heading), no_wrap=place == 0, overflow="fold", header_style="bold")
    return table


def _add(table: Table, *cells: str) -> None:
    table.add_row(*(Text(cell) for cell in cells))  # plain text: brackets are no markup


def _doc(option: Option) -> str:
    """Documentation and type in one."""
    return f"{option.doc.removesuffix('.')} ({option.type})".lstrip()


def _value(value: Any) -> str:
    """A value as it would be written on the line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return fraction(value)
    if isinstance(value, tuple | list):
        return "[" + ",".join(_value(item) for item in value) + "]"
    return str(value)


def fraction(value: float) -> str:
    """A float, as N/255 where it is one."""
    numerator = value * 255
    whole = round(numerator)
    if 0 < whole <= 16 and abs(numerator - whole) < 1e-9:  # 0.2 is 51/255 too, and no radius
        return f"{whole}/255"
    return f"{value:g}"


def _print(console: Console, table: Table) -> None:
    console.print(table)
    console.print()


def _console() -> Console:
    console = Console(highlight=False)
    console.width = min(console.width, 120)
    return console
