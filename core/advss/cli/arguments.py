"""Words of a command line sorted into positionals, flags with values, and switches; what they mean is judged later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from advss.configuration.settings import COMPONENTS, SETTINGS, nearest_flag, typed_setting
from advss.errors import UsageError
from advss.switches import is_switch, take_switch

EVERYWHERE = ("help", "strict-plugins")


@dataclass(frozen=True)
class Grammar:
    """What a command takes.

    Attributes:
        command: its words, such as ``plugins list``.
        summary: one line for the help.
        positionals: names of its positional arguments, all required but one in brackets, the last; one that ends in
            ``...`` takes all that are left.
        flags: flags with a value that are no settings, with one line each for the help; ``data.`` is all below it.
        switches: flags without a value, likewise.
        settings: flags of the settings and components it takes.
        short: other names of settings.
        evaluation: the evaluation whose options some of its flags and switches are; what they mean is said there.
    """

    command: str
    summary: str
    positionals: tuple[str, ...] = ()
    flags: dict[str, str] = field(default_factory=dict)
    switches: dict[str, str] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    short: dict[str, str] = field(default_factory=dict)
    evaluation: str = ""


@dataclass
class Arguments:
    """A command line, sorted; every value is still text."""

    positionals: list[str] = field(default_factory=list)
    flags: dict[str, list[str]] = field(default_factory=dict)
    switches: set[str] = field(default_factory=set)
    settings: dict[str, str] = field(default_factory=dict)
    without: list[str] = field(default_factory=list)  # names behind -p no:

    def flag(self, name: str) -> str | None:
        """The last value of a flag."""
        return self.flags[name][-1] if name in self.flags else None


@dataclass(frozen=True)
class Command:
    """A command of the line."""

    grammar: Grammar
    run: Callable[[Arguments], int]


def sort_words(words: Sequence[str], grammar: Grammar) -> Arguments:
    """Sort the words after a command.

    Raises:
        UsageError: an unknown flag, a flag without its value, or too few or many positionals.
    """
    arguments = Arguments()
    left = list(words)
    while left:
        if name := take_switch(left):
            arguments.without.append(name)
            continue
        word = left.pop(0)
        if word == "-h":
            arguments.switches.add("help")
        elif word.startswith("--"):
            _sort_flag(word, left, arguments, grammar)
        elif word.startswith("-") and len(word) > 1:
            raise UsageError(f"unknown flag {word} of `advss {grammar.command}`: flags begin with --")
        else:
            arguments.positionals.append(word)
    if "help" not in arguments.switches:
        _count(arguments.positionals, grammar)
    return arguments


def _sort_flag(word: str, left: list[str], arguments: Arguments, grammar: Grammar) -> None:
    """Sort one flag, taking its value from ``left`` unless it stands behind ``=``."""
    name, equals, inline = word[2:].partition("=")
    head, dot, rest = name.partition(".")
    flag = head.replace("_", "-") + dot + rest
    flag = grammar.short.get(flag, flag)
    own = flag in grammar.flags or (bool(rest) and head + dot in grammar.flags)
    if dot and head.replace("_", "-") not in COMPONENTS and not own and "evaluate" in grammar.settings:
        head, flag = "evaluate", f"evaluate.{flag}"  # --autoattack.version
    component = dot and head.replace("_", "-") in COMPONENTS and head.replace("_", "-") in grammar.settings
    if flag in grammar.switches or flag in EVERYWHERE:
        if equals:
            raise UsageError(f"--{flag} takes no value, got '{inline}'")
        arguments.switches.add(flag)
        return
    if not (component or own or flag in grammar.settings):
        flags = [flag for flag in grammar.flags if not flag.endswith(".")]
        known = [*flags, *grammar.switches, *EVERYWHERE, *grammar.settings]
        hint = nearest_flag(flag, known, write=lambda name: f"--{name}")
        raise UsageError(f"unknown flag --{flag} of `advss {grammar.command}`{hint}")
    if equals:
        value = inline
    elif left and not left[0].startswith("--") and not is_switch(left[0]):
        value = left.pop(0)
    elif own or not (component or _is_switch(flag)):
        raise UsageError(f"--{name} needs a value")
    else:
        value = "true"
    if own:
        arguments.flags.setdefault(flag, []).append(value)
    else:
        if name in grammar.short:
            typed_setting(flag, value, origin=f"--{name}")  # judged here, where it is known what was typed
        arguments.settings[flag] = value


def _is_switch(flag: str) -> bool:
    return flag in SETTINGS and SETTINGS[flag].option.annotation is bool


def _count(positionals: list[str], grammar: Grammar) -> None:
    missing = [name for name in grammar.positionals[len(positionals) :] if not name.startswith("[")]
    if missing:
        got = f", got {' '.join(positionals)}" if positionals else ""
        raise UsageError(f"`advss {grammar.command}` needs {' '.join(grammar.positionals)}{got}")
    extra = positionals[len(grammar.positionals) :]
    endless = bool(grammar.positionals) and grammar.positionals[-1].rstrip("]").endswith("...")
    if extra and not endless:
        raise UsageError(f"unexpected word '{extra[0]}' after `advss {grammar.command}`; flags begin with --")
