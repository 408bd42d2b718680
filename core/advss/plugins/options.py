"""Options: the keyword-only, typed parameters of a class, as the command line, YAML and the help see them.

Values come as text (from flags) or as YAML's types; jsonargparse turns them into what the annotation asks for.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from advss.attacks.threat import USUAL
from advss.errors import UsageError, did_you_mean
from advss.plugins.discovery import own_parameters

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

REQUIRED = MISSING  # the default of an option that has none
FRACTION = re.compile(r"\s*([+-]?\d+\.?\d*)\s*/\s*(\d+\.?\d*)\s*")


class MissingOptionError(UsageError):
    """An option without a default was not given: of ``offered``, called ``what``, whose flags begin with ``flag``."""

    def __init__(self, line: str, *, offered: type, flag: str, what: str) -> None:
        super().__init__(line)
        self.offered, self.flag, self.what = offered, flag, what


@dataclass(frozen=True)
class Option:
    """One option: its annotation, its default (``REQUIRED`` where it has none) and one line of documentation."""

    name: str
    annotation: Any
    default: Any
    doc: str

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is REQUIRED

    @property
    def wraps(self) -> bool:
        """Whether it takes another defense: a name, or ``{name: {option: value}}``."""
        return _takes_defense(self.annotation)

    @property
    def is_place(self) -> bool:
        """Whether it takes a path, or several: of a data source, where the images lie."""
        return _takes_paths(self.annotation)

    @cached_property
    def parser(self) -> ArgumentParser:
        """Reads ``--value`` of the annotated type; made once, as that takes longer than to read."""
        from jsonargparse import ArgumentParser

        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--value", type=self.annotation)
        return parser

    @property
    def type(self) -> str:
        """The annotation as a user reads it: ``int``, ``float | 'auto'``, ``'linf' | 'l2'``, ``defense``."""
        return "defense" if self.wraps else type_name(self.annotation)


@cache
def options_of(offered: type) -> tuple[Option, ...]:
    """The options of a plugin's class or the fields of a settings dataclass, in the order of their definition."""
    docs = _docs(offered)
    if is_dataclass(offered):
        hints = get_type_hints(offered)
        return tuple(Option(f.name, hints[f.name], f.default, docs.get(f.name, "")) for f in fields(offered))
    parameters = own_parameters(offered)
    hints = get_type_hints(offered.__init__) if parameters else {}  # type: ignore[misc]
    return tuple(
        Option(p.name, hints[p.name], REQUIRED if p.default is p.empty else p.default, docs.get(p.name, ""))
        for p in parameters
    )


def typed(offered: type, said: Mapping[str, Any], *, flag: str, what: str) -> dict[str, Any]:
    """What was said of a class's options, each in its annotated type.

    Args:
        offered: the class.
        said: values by option name.
        flag: the options' prefix in error messages, such as ``--defense.``.
        what: whose options they are, such as ``pgd``.

    Raises:
        UsageError: an unknown option, or a value of another type.
    """
    known = {option.name: option for option in options_of(offered)}
    result = {}
    for name, value in said.items():
        if name not in known:
            raise UsageError(f"unknown option {flag}{name} of {what}{did_you_mean(name, known)}")
        result[name] = convert(known[name], value, flag=f"{flag}{name}")
    return result


def completed(offered: type, said: Mapping[str, Any], *, flag: str, what: str) -> dict[str, Any]:
    """All options of a class: what was said, typed, and the defaults of the rest.

    Where ``eps`` or ``step_size`` beside a ``norm`` is None, it is what is usual for the norm.

    Raises:
        UsageError: as :func:`typed`, or an option without a default that was not given.
    """
    options = typed(offered, said, flag=flag, what=what)
    for option in options_of(offered):
        if option.name not in options and option.required:
            line = f"{flag}{option.name} is missing: {what} has no default for it ({option.type})"
            raise MissingOptionError(line, offered=offered, flag=flag, what=what)
    full = {option.name: options.get(option.name, option.default) for option in options_of(offered)}
    usual = USUAL.get(str(full.get("norm")), {})
    return full | {name: length for name, length in usual.items() if name in full and full[name] is None}


def convert(option: Option, value: Any, *, flag: str) -> Any:
    """``value`` in the option's type; text such as ``8/255`` is a fraction where a float is asked for.

    Raises:
        UsageError: it is of another type.
    """
    if _is_of(option.annotation, value):
        return value
    from jsonargparse import ArgumentError

    asked = _read(option.annotation, value)
    wrong = UsageError(f"{flag}: expected {_in_words(option)}, got {value!r}")
    if value is None and not _accepts(option.annotation, type(None)):  # jsonargparse lets null pass for any type
        raise wrong
    if option.wraps:
        _ = value is None or read_defense(value, flag=flag)
        return value
    try:
        result = option.parser.parse_object({"value": asked}).value
    except ArgumentError as error:
        raise wrong from error
    return _at_home(result, flag) if isinstance(result, Path) else result


def _in_words(option: Option) -> str:
    """What an option takes, as a user says it."""
    return "a number, such as 0.5 or 8/255" if option.type in ("float", "float | null") else option.type


def _is_of(annotation: Any, value: Any) -> bool:
    """Whether a value is plainly of its type already, as most are that were read before."""
    inner = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    plain = [one for one in inner if one is not type(None)]
    if value is None:
        return len(plain) < len(inner)
    return len(plain) == 1 and plain[0] in (bool, int, float) and type(value) is plain[0]


def _at_home(path: Path, flag: str) -> Path:
    """A path whose ``~`` is somebody's home, as a shell has it where it is not quoted or behind a ``=``."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UsageError(f"{flag}: there is no home '{path.parts[0]}'; say the whole path") from error


def read_defense(value: Any, *, flag: str) -> tuple[str, dict[str, Any]]:
    """Name and said options of a defense that another takes, from ``trades`` or ``{trades: {beta: 3}}``.

    Raises:
        UsageError: it is neither.
    """
    name, said = next(iter(value.items())) if isinstance(value, Mapping) and len(value) == 1 else (value, None)
    if not isinstance(name, str) or not name or not isinstance(said or {}, Mapping):
        raise UsageError(f"{flag}: expected the name of a defense, or a name with its options, got {value!r}")
    return name, {str(key).replace("-", "_"): inner for key, inner in (said or {}).items()}


def type_name(annotation: Any) -> str:
    """An annotation in a few words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " | ".join(type_name(a) for a in arguments)
    if origin is Literal:
        return " | ".join(str(a) if isinstance(a, str) else repr(a) for a in arguments)
    if annotation in (None, type(None)):
        return "null"
    if origin is not None:
        inner = ", ".join("..." if a is Ellipsis else type_name(a) for a in arguments)
        return f"{origin.__name__}[{inner}]"
    return getattr(annotation, "__name__", str(annotation))


def _takes_defense(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, types.UnionType):
        return any(map(_takes_defense, get_args(annotation)))
    # by name: the contract imports torch, which is not there yet where settings alone are read
    named = (annotation.__module__, annotation.__name__) if inspect.isclass(annotation) else ()
    return named == ("advss.hookspecs", "Defense")


def _takes_paths(annotation: Any) -> bool:
    inner = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType, list, tuple) else ()
    return annotation is Path or any(map(_takes_paths, inner))


def _accepts(annotation: Any, wanted: type) -> bool:
    if get_origin(annotation) in (Union, types.UnionType):
        return any(_accepts(a, wanted) for a in get_args(annotation))
    return annotation in (wanted, Any)


def _read(annotation: Any, value: Any) -> Any:
    """Text in the forms that YAML does not know: ``8/255`` for a float, ``60,80`` for a sequence, and of such."""
    inner = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    sequence = next((one for one in inner if get_origin(one) in (tuple, list)), None)
    if sequence is None:
        return _number(annotation, value)
    item = get_args(sequence)[0]
    if isinstance(value, list | tuple):
        return [_number(item, one) for one in value]
    if not isinstance(value, str) or value == "null":
        return value
    items = value.strip().removeprefix("[").removesuffix("]").split(",")
    return f"[{','.join(str(_number(item, one)) for one in items)}]"


def _number(annotation: Any, value: Any) -> Any:
    """A fraction's number, where a float is asked for; all else as it is."""
    match = FRACTION.fullmatch(value) if isinstance(value, str) else None
    if match and _accepts(annotation, float) and float(match[2]):
        return float(match[1]) / float(match[2])
    return value


def _docs(offered: type) -> dict[str, str]:
    """One line an option, from ``Args:`` or ``Attributes:`` of the class, or of where its ``__init__`` comes from."""
    from docstring_parser import DocstringStyle, parse

    docs: dict[str, str] = {}
    owner = next(c for c in offered.__mro__ if "__init__" in c.__dict__)
    for text in (offered.__init__.__doc__, owner.__doc__, offered.__doc__):  # type: ignore[misc]
        for parameter in parse(text or "", style=DocstringStyle.GOOGLE).params:
            docs[parameter.arg_name] = " ".join((parameter.description or "").replace("``", "").split())
    return docs
