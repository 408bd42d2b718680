"""What was said of a component's options, in order, assembled into nested mappings.

An option that takes a defense becomes ``{name: options}`` whichever way it was said: ``base: trades``,
``base: {trades: {beta: 3}}``, or ``base.trades.beta: 3`` and ``base.beta: 3`` once a name is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from advss.configuration.layers import Said
from advss.configuration.radius import LENGTHS, drop_lengths, order
from advss.errors import UsageError
from advss.plugins.options import Option, options_of, read_defense
from advss.plugins.registry import wrapped_class

Path = tuple[str, ...]
Assignments = list[tuple[Path, Said]]  # ([option, ...] option) -> value, later ones winning


def assembled(offered: type | None, said: Sequence[tuple[Path, Said]]) -> dict[str, Any]:
    """Options by name.

    Args:
        offered: the class whose options they are; None where it has no known ones.
        said: what was said, later assignments winning.

    Raises:
        UsageError: what was said of a wrapped defense is of one that is not chosen or not installed.
    """
    options: dict[str, Any] = {}
    for path, value in said:
        _assign(options, offered, path, value)
    return options


def _assign(options: dict[str, Any], offered: type | None, path: Path, said: Said) -> None:
    name, *inner = path
    option = next((o for o in options_of(offered) if o.name == name), None) if offered else None
    if option is not None and option.wraps:
        options[name] = _wrap(option, options.get(name, option.default), tuple(inner), said)
    elif inner:
        nested = options.get(name)
        options[name] = dict(nested) if isinstance(nested, dict) else {}
        _assign(options[name], None, tuple(inner), said)
    else:
        if option is not None and name == "norm":
            lengths = (
                [o.name for o in options_of(offered) if o.name in LENGTHS and o.default is None] if offered else []
            )
            drop_lengths(options, lengths, was=options.get(name, option.default), norm=said.value)
        options[name] = said.value


def _wrap(option: Option, before: Any, path: Path, said: Said) -> dict[str, dict[str, Any]] | None:
    """What an option that takes a defense comes to after one more word about it, at ``path`` below the option."""
    chosen = read_defense(before, flag=said.origin) if isinstance(before, str | dict) else None
    if not path:
        return None if said.value is None else _choose(chosen, said)
    if chosen is None:
        raise UsageError(f"{said.origin}: no defense is chosen for {option.name}")
    name, options = chosen
    offered = wrapped_class(name, flag=said.origin)
    _assign(options, offered, _below(option, name, offered, path, said), said)
    return {name: options}


def _choose(before: tuple[str, dict[str, Any]] | None, said: Said) -> dict[str, dict[str, Any]]:
    """A name, or a name with options; the same name again keeps its options."""
    name, more = read_defense(said.value, flag=said.origin)
    offered = wrapped_class(name, flag=said.origin)
    options = before[1] if before and before[0] == name else {}
    for key, value in sorted(more.items(), key=lambda one: order(one[:1])):
        _assign(options, offered, (key,), Said(value, f"{said.origin}.{name}.{key}"))
    return {name: options}


def _below(option: Option, name: str, offered: type, path: Path, said: Said) -> Path:
    """The path within the options of the chosen defense, whose name may stand before it."""
    if len(path) == 1:
        return path
    if path[0] in [word.replace("-", "_") for word in (name, name.rpartition(":")[2])]:
        return path[1:]
    if path[0] not in {o.name for o in options_of(offered)}:
        raise UsageError(f"{said.origin}: '{path[0]}' is not the defense that {option.name} chooses: {name}")
    return path
