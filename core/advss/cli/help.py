"""Help: commands, plugins, and every flag with its type, its value on this line and one line of documentation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console

from advss.cli.arguments import Arguments, Grammar
from advss.cli.layout import (
    add_row,
    documented,
    new_console,
    new_table,
    print_options,
    print_rows,
    print_table,
    written,
)
from advss.config import BackboneStart, Choice, EvalSettings, RunConfig, StageSettings
from advss.configuration.settings import SEVERAL
from advss.plugins import Kind, Option, Registry, options_of, registry
from advss.plugins.kinds import FLAGS, options_prefix
from advss.plugins.names import summary_of
from advss.plugins.options import MissingOptionError

STRICT = "a broken plugin is an error, not a warning"
LEAVE_OUT = "leave a plugin or a distribution out, for this command; several times for several"


def print_overview() -> None:
    """``advss --help``."""
    from advss.cli.commands import COMMANDS

    console = new_console()
    console.print(
        "Usage: advss COMMAND [--FLAG VALUE ...]\n\nAdversarial self-supervised pretraining and fine-tuning.\n"
    )
    words = [(" ".join([name, *c.grammar.positionals]), c.grammar.summary) for name, c in COMMANDS.items()]
    print_rows(console, "Commands", [(f"advss {command}", summary) for command, summary in words])
    examples = [
        ("advss fit --pretext selfie --defense pgd", "embedded digits, minutes on a CPU"),
        ("advss fit --pretext jigsaw --help", "installed plugins, and the options of the chosen ones"),
        ("advss fit --config cifar10-fast --data.root data", "a packaged recipe"),
    ]
    print_rows(console, "Examples", examples)
    everywhere = [
        ("--help", "this, for each command too"),
        ("--version", "print the version"),
        ("--print-completion SHELL", "print a script that completes words in bash, zsh or fish"),
        ("-p no:NAME", LEAVE_OUT),
        ("--strict-plugins", STRICT),
    ]
    print_rows(console, "Everywhere", everywhere)


def print_help(grammar: Grammar, arguments: Arguments) -> None:
    """Help of one command; where it takes settings, their values are those of this very line."""
    console = new_console()
    flags = " [--FLAG VALUE ...]" if grammar.flags or grammar.settings else ""
    console.print(f"Usage: advss {' '.join([grammar.command, *grammar.positionals])}{flags}\n\n{grammar.summary}.\n")
    everywhere = {"strict-plugins": STRICT, "help": "this"}
    values = {
        flag: f"OPTION {'VALUE' if flag == 'launcher.' else 'PATH'}" if flag.endswith(".") else f" {flag.upper()}"
        for flag in grammar.flags
    }
    docs = _said_by(grammar.evaluation) if grammar.evaluation else {}
    own = [(f"--{flag}{values[flag]}", doc or docs[flag]) for flag, doc in grammar.flags.items()]
    own += [(f"--{flag}", doc or docs[flag]) for flag, doc in {**grammar.switches, **everywhere}.items()]
    if "pretext" in grammar.settings:
        _print_settings(console, arguments)
    elif grammar.settings:
        from advss.configuration.settings import SETTINGS

        if "evaluate" in grammar.settings:
            _print_kind(console, "evaluation", "--evaluate NAME[,NAME...]")
        names = {flag: f"--{flag}" for flag in grammar.settings if flag in SETTINGS}
        names |= {flag: f"--{short}, --{flag}" for short, flag in grammar.short.items()}
        print_rows(console, "Settings", [(name, documented(SETTINGS[flag].option)) for flag, name in names.items()])
    if "launcher" in grammar.flags:
        _print_kind(console, "launcher", "--launcher NAME")
    print_rows(console, "Flags", [*own, ("-p no:NAME", LEAVE_OUT)])


def _said_by(evaluation: str) -> dict[str, str]:
    """What an evaluation says of its options, by flag, with the default where it says one."""
    options = options_of(registry().find("evaluation", evaluation))
    said = {o.name.replace("_", "-"): (o.doc.removesuffix("."), o.default) for o in options}
    return {flag: doc if default in (None, False) else f"{doc} ({default})" for flag, (doc, default) in said.items()}


def _print_kind(console: Console, kind: Kind, heading: str) -> None:
    """The plugins of a kind and their options."""
    installed = registry()
    classes = {name: installed.find(kind, name) for name in installed.names(kind)}
    print_rows(console, heading, [(f"  {name}", summary_of(c)) for name, c in classes.items()])
    for name, offered in classes.items():
        prefix = options_prefix(kind, name)
        shown = [(f"{prefix}{o.name}", o, "required" if o.required else o.default) for o in options_of(offered)]
        print_options(console, f"Options of {name}", shown)


def _print_settings(console: Console, arguments: Arguments) -> None:
    """Components and settings, with the values that this line resolves to."""
    from advss.cli.commands import configured

    try:
        config = configured(arguments)
    except MissingOptionError as missing:
        console.print(f"{missing}. What follows is of the default choices.\n", soft_wrap=True)
        options = options_of(missing.offered)
        shown = [(f"{missing.flag}{o.name}", o, "required" if o.required else o.default) for o in options]
        print_options(console, f"Options of {missing.what}", shown)
        config = configured(Arguments())
    _print_components(console, config, registry())
    _print_run(console, config)
    _print_stages(console, config)
    print_options(console, "Evaluation", _fields("--eval-", EvalSettings, config.evaluation))
    _print_recipes(console)


def _print_components(console: Console, config: RunConfig, installed: Registry) -> None:
    chosen: dict[Kind, tuple[Choice, ...]] = {
        "pretext": config.pretext,
        "defense": (config.defense,),
        "finetune": (config.finetune,),
        "evaluation": config.evaluate,
        "data": (config.data,),
    }
    for kind, choices in chosen.items():
        several = "[,NAME...] | none" if FLAGS[kind].removeprefix("--") in SEVERAL else ""
        named = [(f"  {name}", summary_of(installed.find(kind, name))) for name in installed.names(kind)]
        print_rows(console, f"{FLAGS[kind]} NAME{several}", named)
        for choice in choices:
            member = f"{choice.key}." if len(choices) > 1 else ""
            prefix = options_prefix(kind, choice.key) + ("" if kind == "evaluation" else member)
            shown = _chosen(installed, kind, choice, prefix)
            print_options(console, f"Options of {choice.name}", shown)
    other = [
        (
            "--finetune-defense NAME",
            "defense of fine-tuning, its options as --finetune-defense.OPTION; default: as --defense",
        ),
        (
            "--pretrain-data NAME",
            "other images to pretrain on, options as --pretrain-data.OPTION; default: those of --data",
        ),
    ]
    backbone = [config.backbone.name, *(f"--backbone.{n} {written(v)}" for n, v in config.backbone.options.items())]
    other += [
        ("--backbone NAME", f"a timm model, now {' '.join(backbone)}; what timm takes for it as --backbone.OPTION")
    ]
    print_rows(console, "Other components", other)
    start = config.start or BackboneStart()
    starts = [(f"--backbone.{o.name}", o, getattr(start, o.name)) for o in options_of(BackboneStart)]
    print_options(console, f"What {config.backbone.name} starts from", starts)


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
    from advss.configuration.settings import SETTINGS

    settings = [s for s in SETTINGS.values() if s.section == "run"]
    print_options(console, "Run", [(f"--{s.flag}", s.option, getattr(config, s.option.name)) for s in settings])


def _print_stages(console: Console, config: RunConfig) -> None:
    """Both stages' settings side by side, since they are the same ones."""
    table = new_table("Optimisation, --pretrain-... and --finetune-...", ("", "pretrain", "finetune", ""))
    for option in options_of(StageSettings):
        values = [written(getattr(stage, option.name)) for stage in (config.pretraining, config.finetuning)]
        add_row(table, "-" + option.name.replace("_", "-"), *values, documented(option))
    print_table(console, table)


def _print_recipes(console: Console) -> None:
    from advss.configuration.recipes import read_config, recipes

    print_rows(console, "Recipes, --config NAME", [(f"  {name}", read_config(name).description) for name in recipes()])


def _fields(prefix: str, settings: type, values: object) -> list[tuple[str, Option, Any]]:
    options = options_of(settings)
    return [(prefix + o.name.replace("_", "-"), o, getattr(values, o.name)) for o in options]
