"""Layers of settings: a recipe, a configuration file, the environment, the command line or Python's keywords.

Whatever it came from, a layer is a mapping with the flags' words as keys. A component (``pretext``, ``defense``, ...)
is chosen by name, with options below the name or behind dots::

    pretext: selfie                        pretext: {selfie: {grid: 4}}
    pretext: [selfie, {jigsaw: {grid: 3}}]  pretext.grid: 4
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from advss.config import Choice
from advss.configuration.settings import COMPONENTS, SETTINGS, SEVERAL, nearest_flag, python_keyword
from advss.errors import UsageError, did_you_mean

SPECIAL_VARIABLES = ("ADVSS_DEBUG", "ADVSS_DISABLE_PLUGINS", "ADVSS_STRICT_PLUGINS")


@dataclass(frozen=True)
class Said:
    """A value, and what it is called in an error message."""

    value: Any
    origin: str


@dataclass
class Part:
    """What a layer says of one component."""

    members: tuple[Choice, ...] | None = None  # None: this layer does not choose
    options: list[tuple[tuple[str, ...], Said]] = field(default_factory=list)  # ([member,] option) -> value


@dataclass
class Case:
    """Settings for the runs whose final choices match ``when``: component -> names, any of which will do."""

    when: dict[str, tuple[str, ...]]
    layer: Layer


@dataclass
class Layer:
    """One layer, read but not yet judged against plugins."""

    parts: dict[str, Part] = field(default_factory=dict)
    settings: dict[str, Said] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)
    description: str = ""


def read_layer(content: Mapping[str, Any], *, where: str = "", text: bool = False, chooses: bool = True) -> Layer:
    """A layer from a mapping.

    Args:
        content: values by flag, hyphens or underscores.
        where: the file it came from; empty for flags, which are called ``--flag`` in error messages.
        text: values are text from a command line; a backbone's options, of no known type, are read as YAML.
        chooses: components may be chosen; else their options only.

    Raises:
        UsageError: an unknown key, or a component that is not written as one.
    """
    layer = Layer()
    for key, value in content.items():
        head, _, rest = str(key).partition(".")
        flag = head.replace("_", "-") + (f".{rest}" if rest else "")
        origin = f"{where}: {flag}" if where else f"--{as_typed(flag)}"
        if flag in SETTINGS:
            layer.settings[flag] = Said(value, origin)
        elif flag.partition(".")[0] in COMPONENTS:
            _read_component(
                layer,
                flag,
                Said(_plain(value) if text and head == "backbone" and rest else value, origin),
                chooses=chooses,
            )
        elif flag == "cases" and where and chooses:
            layer.cases = [_read_case(case, where=where) for case in _list(value, origin)]
        elif flag == "description" and where:
            layer.description = str(value)
        else:
            write = str if where or text else python_keyword
            hint = "" if where or text else _keyword_hint(flag)
            hint = hint or nearest_flag(flag, [*SETTINGS, *COMPONENTS], write=write)
            raise UsageError(f"unknown setting {origin}{hint}")
    return layer


def as_typed(flag: str) -> str:
    """A flag as it is typed: ``evaluate.pgd.eps`` is ``pgd.eps``."""
    component, _, option = flag.partition(".")
    return option if component == "evaluate" and "." in option else flag


def read_environment(environ: Mapping[str, str]) -> Layer:
    """The layer of the variables ``ADVSS_...``, such as ADVSS_SEED.

    Raises:
        UsageError: a variable that would be ignored.
    """
    layer = Layer()
    known = {"ADVSS_" + flag.upper().replace("-", "_"): flag for flag in [*SETTINGS, *COMPONENTS] if "." not in flag}
    for variable, value in sorted(environ.items()):
        if not variable.startswith("ADVSS_") or variable in SPECIAL_VARIABLES:
            continue
        if variable not in known:
            raise UsageError(f"environment variable {variable} would be ignored{_variable_hint(variable, known)}")
        flag = known[variable]
        if flag in SETTINGS:
            layer.settings[flag] = Said(value, variable)
        else:
            _read_component(layer, flag, Said(value, variable), chooses=True)
    return layer


def _variable_hint(variable: str, known: Mapping[str, str]) -> str:
    component, option = _option_of(variable.removeprefix("ADVSS_").lower().replace("_", "-"))
    if option:
        name = component if component != "evaluate" else "NAME"
        return f": options of components have no variable; use --{name}.{option}"
    return did_you_mean(variable, [*known, *SPECIAL_VARIABLES])


def _keyword_hint(flag: str) -> str:
    """How Python writes a component's option, for there is no dot in a keyword."""
    component, option = _option_of(flag)
    keyword = component.replace("-", "_")
    return f'; options stand below a name: {keyword}={{"NAME": {{"{option}": ...}}}}' if option else ""


def _option_of(flag: str) -> tuple[str, str]:
    """The component and the option that a flag with a hyphen for its dot means; empty where it means none."""
    for component in ("finetune-defense", "pretrain-data", "pretext", "defense", "data", "backbone", "evaluate"):
        if flag.startswith(component + "-"):
            return component, flag.removeprefix(component).strip("-").replace("-", "_")
    return "", ""


def _read_component(layer: Layer, flag: str, said: Said, *, chooses: bool) -> None:
    component, _, rest = flag.partition(".")
    part = layer.parts.setdefault(component, Part())
    if rest:
        part.options.append((tuple(rest.split(".")), said))
        return
    members = members_of(component, said)
    if component in ("data", "pretrain-data"):
        members = tuple(_of_source(layer, component, member, said.origin) for member in members)
    if chooses:
        part.members = members
    for member in [] if chooses else members:
        if not member.options:
            raise UsageError(
                f"{said.origin}: a case adds options and chooses nothing; write {{{member.name}: {{...}}}}"
            )
        options = [((member.key, name), Said(value, f"{said.origin}.{name}")) for name, value in member.options.items()]
        part.options.extend(options)


def _of_source(layer: Layer, component: str, member: Choice, origin: str) -> Choice:
    """A source without what is the run's: ``limit`` below it is ``--data.limit``, or ``--pretrain-data.limit``."""
    options = dict(member.options)
    for name in [name for name in options if f"{component}.{name}" in SETTINGS]:
        layer.settings[f"{component}.{name}"] = Said(options.pop(name), f"{origin}.{name}")
    return replace(member, options=options)


def members_of(component: str, said: Said) -> tuple[Choice, ...]:
    """The components that a value chooses, with distinct keys."""
    several, optional = component in SEVERAL, component in (*SEVERAL, "pretrain-data")
    value = said.value
    if isinstance(value, str):
        value = [word.strip() for word in value.split(",")]
    elif isinstance(value, Mapping):
        value = [{name: options} for name, options in value.items()]
    named = [_member(item, said.origin) for item in _list(value, said.origin)]
    if optional and [name for name, _ in named] == ["none"]:
        return ()
    if several and "none" in dict(named):
        raise UsageError(f"{said.origin}: 'none' stands alone, got {said.value}")
    if not several and len(named) != 1:
        raise UsageError(f"{said.origin}: expected one name, got {said.value}")
    choices: list[Choice] = []
    for name, options in named:
        short = name.rpartition(":")[2]
        count = sum(c.name.rpartition(":")[2] == short for c in choices) + 1
        choices.append(Choice(name, options, short if count == 1 else f"{short}#{count}"))
    return tuple(choices)


def _member(item: object, origin: str) -> tuple[str, dict[str, Any]]:
    name, options = next(iter(item.items())) if isinstance(item, Mapping) and len(item) == 1 else (item, None)
    if not isinstance(name, str) or not name or not isinstance(options or {}, Mapping):
        raise UsageError(f"{origin}: expected a name, or a name with its options, got {item!r}")
    return name, {str(key).replace("-", "_"): value for key, value in dict(options or {}).items()}


def _read_case(case: object, *, where: str) -> Case:
    if not isinstance(case, Mapping) or not isinstance(case.get("when"), Mapping):
        raise UsageError(f"{where}: a case is a mapping with 'when', got {case!r}")
    when = {str(key).replace("_", "-"): value for key, value in case["when"].items()}
    for key in when:
        if key not in COMPONENTS:
            raise UsageError(f"{where}: unknown component '{key}' in when{did_you_mean(key, COMPONENTS)}")
    names = {key: tuple(value) if isinstance(value, list) else (str(value),) for key, value in when.items()}
    rest = {key: value for key, value in case.items() if key != "when"}
    return Case(names, read_layer(rest, where=where, chooses=False))


def _list(value: object, origin: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise UsageError(f"{origin}: expected a name or a list, got {value!r}")
    return list(value)


def _plain(value: object) -> object:
    """Text of a flag as the YAML value it spells; text where it spells none."""
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value
