"""What the command line, the help and YAML need of every plugin."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator
from typing import Any, get_args

import torch
import yaml
from torch import nn

from advss.configuration.resolve import plain
from advss.errors import UsageError
from advss.plugins import Kind, registry
from advss.plugins.options import Option, convert, options_of
from advss.testing.asked import UNSEEDED, unseeded
from advss.testing.subject import Subject
from advss.testing.verdicts import BrokenError, expect

NEEDED: dict[Kind, tuple[str, ...]] = {  # methods without a default
    "pretext": ("views", "loss"),
    "defense": (),
    "finetune": ("phases",),
    "evaluation": ("measure",),
    "launcher": ("launch",),
    "data": ("classes", "labels", "images"),
}
CONTRACT = ("advss.hookspecs", "advss.launching", "advss.measuring", "advss.sourcing")  # modules
NEAR = 0.75  # likeness of two names: that of "biuld" and "build" is 0.8
UNWRITTEN = (torch.Tensor, nn.Module, torch.Generator)


def its_distribution_is_found_without_fault(subject: Subject) -> None:
    """Nothing of the distribution is broken, and importing it does nothing that no plugin should."""
    for fault in registry().found.faults:
        expect(
            fault.distribution != subject.plugin.distribution or fault.status == "slow",
            f"{fault.entry_point} is {fault.status}: {fault.error} {fault.place}",
        )


def its_docstring_says_what_it_is(subject: Subject) -> None:
    """The first line of the class's docstring is its line in the help."""
    offered = subject.plugin.offered
    inherited = {base.__doc__ for base in offered.__mro__[1:]}
    expect(
        offered.__doc__ and offered.__doc__ not in inherited,
        f"class {offered.__name__} has no docstring of its own; its first line is what the help says of it",
    )


def every_option_has_a_type(subject: Subject) -> None:
    """An option's annotation turns text into its value."""
    for option in options_of(subject.plugin.offered):
        expect(
            option.annotation is not Any and option.annotation is not object,
            f"option '{option.name}' is annotated {option.type}; say what it takes, such as int or Literal['a', 'b']",
        )
        _expect_written(option)


def every_option_is_documented(subject: Subject) -> None:
    """An option's line in the help stands under ``Args:``."""
    for option in options_of(subject.plugin.offered):
        expect(
            option.doc,
            f"option '{option.name}' is not documented; add '{option.name}: ...' under 'Args:' in the docstring of "
            f"class {subject.plugin.offered.__name__}",
        )


def every_default_is_of_its_type(subject: Subject) -> None:
    """What the annotation makes of a default is the default."""
    for option in options_of(subject.plugin.offered):
        _expect_written(option)
        if option.required:
            continue
        try:
            same = convert(option, option.default, flag=option.name) == option.default
        except UsageError:
            same = False
        expect(same, f"option '{option.name}' has the default {option.default!r}, which is no {option.type}")


def its_options_pass_through_yaml(subject: Subject) -> None:
    """A run's config.yaml holds all options, and gives the same ones again."""
    for option in options_of(subject.plugin.offered):
        _expect_written(option)
    options = subject.completed()
    try:
        again = subject.completed(yaml.safe_load(yaml.safe_dump(plain(options))))
    except UsageError as error:
        raise BrokenError(
            f"its options do not come back from YAML ({error}); use numbers, text, paths, true or false, null and lists"
        ) from error
    for name, value in again.items():
        expect(value == options[name], f"option '{name}' is {options[name]!r}, and {value!r} after YAML")


def making_it_draws_nothing_and_makes_no_parameters(subject: Subject) -> None:
    """What is drawn in ``__init__`` would not follow from the run's seed: core seeds the generator around build()."""
    before = torch.get_rng_state()
    with unseeded() as drawn:
        made = subject.new()
    expect(not drawn, f"__init__ draws from {''.join(drawn[:1])}{UNSEEDED}")
    where = "from a torch.Generator of its own" if subject.kind == "data" else "in build()"
    expect(
        torch.equal(torch.get_rng_state(), before),
        f"__init__ draws from torch's global generator, which is not seeded there; draw {where}",
    )
    if isinstance(made, nn.Module):
        early = [name for name, _ in made.named_parameters()]
        expect(not early, f"__init__ makes the parameter '{_first(early)}'; make it in build(), which is seeded")


def its_methods_are_named_as_in_the_contract(subject: Subject) -> None:
    """No method that the contract needs is missing, and none is there by a name that is nearly the contract's."""
    offered = subject.plugin.offered
    base, missing = _base(offered), _not_overridden(offered)
    own = {name for c in offered.__mro__ if c.__module__ not in CONTRACT for name in _functions(c)}
    for name in own - set(dir(base)):
        for meant in difflib.get_close_matches(name, missing, n=1, cutoff=NEAR):
            raise BrokenError(f"class {offered.__name__} has {name}(); did you mean {meant}()?")
    needed = sorted(missing & set(NEEDED[subject.kind]))
    if "measure_part" not in missing:  # which calls measure() by default
        needed = [name for name in needed if name != "measure"]
    expect(not needed, f"class {offered.__name__} has no {_first(needed)}(), for which there is no default")


def its_methods_take_what_core_gives(subject: Subject) -> None:
    """The methods without a default are there, and take what core gives them."""
    base = _base(subject.plugin.offered)
    for name, contract in inspect.getmembers(base, inspect.isfunction):
        own = getattr(subject.plugin.offered, name)
        if name.startswith("_") or contract.__module__ not in CONTRACT or own is contract:
            continue
        wanted = len(inspect.signature(contract).parameters)
        try:
            inspect.signature(own).bind(*[None] * wanted)
        except TypeError:
            said = ", ".join(inspect.signature(contract).parameters)
            raise BrokenError(f"{name}{inspect.signature(own)} does not take ({said}) in order") from None


def _base(offered: type) -> type:
    return next(c for c in offered.__mro__ if c.__module__ in CONTRACT)


def _functions(owner: type) -> list[str]:
    return [name for name, value in vars(owner).items() if inspect.isfunction(value) and not name.startswith("_")]


def _not_overridden(offered: type) -> set[str]:
    """The contract's methods that a class leaves as they are."""
    contract = {name for c in offered.__mro__ if c.__module__ in CONTRACT for name in _functions(c)}
    return {name for name in contract if getattr(getattr(offered, name), "__module__", "") in CONTRACT}


def _expect_written(option: Option) -> None:
    """An option's value comes from text or YAML, which a tensor, a module or a generator does not."""
    unwritten = [part for part in _parts(option.annotation) if inspect.isclass(part) and issubclass(part, UNWRITTEN)]
    expect(
        not unwritten,
        f"option '{option.name}' is annotated {option.type}, which cannot be typed or stand in YAML; take numbers, "
        "text or a path, and make it from them in build() or where it is used",
    )


def _parts(annotation: Any) -> Iterator[Any]:
    """An annotation and what stands within its brackets."""
    yield annotation
    for argument in get_args(annotation):
        yield from _parts(argument)


def _first(names: list[str]) -> str:
    return names[0] if names else ""
