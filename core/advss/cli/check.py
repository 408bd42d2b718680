"""``advss plugins check NAME``: whether a plugin keeps the contract, one line a check."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from advss.cli.arguments import Arguments, Grammar
from advss.cli.context import check_plugins
from advss.errors import UsageError
from advss.output import printed
from advss.plugins import KINDS, Kind, options_of
from advss.plugins.discovery import Fault, Plugin
from advss.plugins.options import typed

if TYPE_CHECKING:
    from advss.testing.subject import Subject
    from advss.testing.verdicts import Verdict

OPTION = "--option "  # before an option's name in what is said of it
BEFORE = {"warned": "warning: ", "unchecked": "not checked: "}  # a message
DISCOVERED = "its distribution is found without fault"
SIGNS = {"passed": "✓", "warned": "!", "failed": "✗", "unchecked": "–"}
WORDS = {"passed": "passed", "warned": "with a warning", "failed": "failed", "unchecked": "not checked"}


def plugins_check(arguments: Arguments) -> int:
    """``advss plugins check NAME``: 0 where nothing fails, else 1."""
    from advss.testing.subject import Subject, named

    name, said = arguments.positionals[0], arguments.flags.get("option", [])
    kind, installed = _kind(arguments.flag("kind")), check_plugins(arguments)
    try:
        plugins = named(name, kind=kind)
    except UsageError:
        faults = [fault for fault in installed.found.faults if _may_be(name, fault)]
        if not faults:
            raise
        return _print_faults(faults, as_json="json" in arguments.switches)
    subjects = [Subject(plugin, *_options(plugin, said, plugins)) for plugin in plugins]
    if "json" in arguments.switches:
        return _print_json(subjects)
    return printed(max(_print_checks(subject) for subject in subjects))


def _kind(said: str | None) -> Kind | None:
    for kind in KINDS:
        if kind == said:
            return kind
    if said is not None:
        raise UsageError(f"--kind: expected one of {', '.join(KINDS)}, got '{said}'")
    return None


def _may_be(name: str, fault: Fault) -> bool:
    """Whether a user may mean by ``name`` what broke before its classes were known: ``flip`` of ``advss-flip``."""
    full = f"{fault.distribution}:{fault.entry_point}"
    return fault.status == "broken" and (name in fault.distribution or name in (fault.entry_point, full))


def _options(plugin: Plugin, said: list[str], plugins: list[Plugin]) -> tuple[dict[str, Any], int]:
    """``--option base.trades.beta=3`` as the configuration of a run would have it, judged by type.

    Of several plugins each takes the options that it has, and the first refuses one that nobody has. A data source's
    ``size`` stands apart.
    """
    from advss.configuration.assembly import assembled
    from advss.configuration.layers import Said
    from advss.testing.subject import of_others, side

    pairs = [text.partition("=") for text in said]
    for path, equals, _ in pairs:
        if not path or not equals:
            raise UsageError(f"--option: expected NAME=VALUE, got '{path}'")
    paths = [(tuple(path.replace("-", "_").split(".")), Said(value, f"{OPTION}{path}")) for path, _, value in pairs]
    sizes = [value.value for path, value in paths if path == ("size",)] if plugin.kind == "data" else []
    others = of_others(plugin, plugins) | ({"size"} if sizes else set())
    options = assembled(plugin.offered, [(path, value) for path, value in paths if path[0] not in others])
    typed(plugin.offered, options, flag=OPTION, what=plugin.name)
    for option in options_of(plugin.offered):
        if option.required and option.name not in options:
            line = f"{OPTION}{option.name}=VALUE is missing: {plugin.name} has no default for it ({option.type})"
            raise UsageError(line)
    return options, side(sizes[-1]) if sizes else 0


def _print_checks(subject: Subject) -> int:
    """Print each verdict as it is reached, what was told before left out, and how many there were of each."""
    from advss.testing.suite import check

    plugin, counts, again, seconds = subject.plugin, Counter[str](), Counter[str](), 0.0
    print(f"{plugin.name} ({plugin.kind}), {plugin.distribution} {plugin.version}")
    for verdict in check(subject):
        counts[verdict.outcome] += 1
        seconds += verdict.seconds
        if verdict.told:
            again[verdict.outcome] += 1
            continue
        print(f"{SIGNS[verdict.outcome]} {verdict.check}", flush=True)
        if verdict.message:
            print(f"    {BEFORE.get(verdict.outcome, '')}{verdict.message}", flush=True)
    for outcome, number in again.items():
        print(f"{SIGNS[outcome]} {number} more {WORDS[outcome]}, for what is said above")
    said = [f"{counts[o]} {word}" for o, word in WORDS.items() if counts[o] or o != "warned"]
    print(f"{', '.join(said)}, in {seconds:.1f} s\n")
    return int(counts["failed"] > 0)


def _print_json(subjects: list[Subject]) -> int:
    from advss.testing.suite import check

    verdicts = [list(check(subject)) for subject in subjects]
    described = [_described(s, found) for s, found in zip(subjects, verdicts, strict=True)]
    print(json.dumps(described, indent=2, ensure_ascii=False))
    return printed(int(any(verdict.outcome == "failed" for found in verdicts for verdict in found)))


def _described(subject: Subject, verdicts: list[Verdict]) -> dict[str, Any]:
    plugin = subject.plugin
    identity = {"kind": plugin.kind, "name": plugin.name}
    identity |= {"distribution": plugin.distribution, "version": plugin.version}
    checks = [
        {"check": v.check, "outcome": v.outcome, "message": v.message, "seconds": round(v.seconds, 3)} for v in verdicts
    ]
    return identity | {"checks": checks}


def _print_faults(faults: list[Fault], *, as_json: bool) -> int:
    """What is broken before its classes are known has one check, and fails it."""
    if as_json:
        print(json.dumps([_undiscovered(fault) for fault in faults], indent=2, ensure_ascii=False))
        return 1
    for fault in faults:
        print(f"{fault.entry_point}, {fault.distribution} {fault.version}\n{SIGNS['failed']} {DISCOVERED}")
        print(f"    {fault.error}{f' ({fault.place})' if fault.place else ''}")
    return 1


def _undiscovered(fault: Fault) -> dict[str, Any]:
    identity = {"kind": None, "name": fault.entry_point, "distribution": fault.distribution, "version": fault.version}
    check = {"check": DISCOVERED, "outcome": "failed", "message": fault.error, "seconds": 0.0}
    return identity | {"checks": [check]}


GRAMMAR = Grammar(
    "plugins check",
    "whether a plugin, or each of a distribution, keeps the contract",
    ("NAME",),
    {
        "kind": "where several kinds have the name: " + ", ".join(KINDS),
        "option": "NAME=VALUE of one of the plugin's options; may be said again",
    },
    {"json": "as JSON"},
)
