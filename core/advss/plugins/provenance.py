"""Which plugins a run used, as its checkpoints and its result record them, and what is said when these are not here."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, cast

from advss.config import Choice, RunConfig
from advss.errors import UsageError
from advss.output import tell
from advss.plugins.blame import Suspect, package_of, suspect
from advss.plugins.kinds import LABELS, Kind
from advss.plugins.options import options_of, read_defense
from advss.plugins.registry import UnknownPluginError, registry

Record = dict[str, str]  # kind, name, distribution, version
Chosen = tuple[Kind | Literal["backbone"], Choice]
_warned: set[tuple[str, str, str]] = set()


def used(kind: Kind, choice: Choice) -> list[Record]:
    """The plugin of a choice, and the defenses that it takes as options, as a manifest records them."""
    plugin = registry().plugin(kind, choice.name)
    names = {"kind": kind, "name": plugin.name, "distribution": plugin.distribution, "version": plugin.version}
    records: list[Record] = [names]
    for option in options_of(plugin.offered):
        value = choice.options.get(option.name, option.default)
        if option.wraps and isinstance(value, str | Mapping):
            records += used("defense", Choice(*read_defense(value, flag=option.name)))
    return records


def used_by(choices: Iterable[Chosen]) -> list[Record]:
    """The plugins of several choices, each once, in order; a backbone of timm's own is none."""
    found: list[Record] = []
    for kind, choice in choices:
        records = _registered(choice.name) if kind == "backbone" else used(kind, choice)
        found += [record for record in records if record not in found]
    return found


def _registered(backbone: str) -> list[Record]:
    """The distribution whose module has registered a backbone with timm."""
    import timm

    if backbone not in timm.list_models(backbone):  # to sort all of them takes 50 ms
        return []
    package = timm.model_entrypoint(backbone).__module__.partition(".")[0]
    found = registry().found
    owners = {name.partition(":")[0] for module, name in found.modules.items() if module.partition(".")[0] == package}
    return [
        {"kind": "backbone", "name": backbone, "distribution": d.name, "version": d.version}
        for d in found.installed
        if d.name in owners
    ]


def suspects(records: Iterable[Record]) -> list[Suspect]:
    """The plugins of a run's records, where their code is known, as what may have raised an exception."""
    found = [_suspect(record) for record in records]
    return [suspect for suspect in found if suspect is not None]


def _suspect(record: Record) -> Suspect | None:
    name, distribution = record["name"], record["distribution"]
    if record["kind"] != "backbone":
        kind, full = cast("Kind", record["kind"]), f"{distribution}:{name}"
        short = name in registry().names(kind) and registry().plugin(kind, name).distribution == distribution
        return suspect(registry().plugin(kind, full), label=LABELS[kind], called=name if short else full)
    import timm

    file = sys.modules[timm.model_entrypoint(name).__module__].__file__
    home = package_of(file) if file else None
    return Suspect(LABELS["backbone"], name, distribution, record["version"], home) if home else None


def choices_of(config: RunConfig, *stages: Literal["pretrain", "finetune", "evaluate"]) -> list[Chosen]:
    """Every plugin that a run's configuration names for its stages."""
    of_stage: dict[str, list[Chosen]] = {
        "pretrain": [
            *(("pretext", member) for member in config.pretext),
            ("defense", config.defense),
            *(("data", one) for one in (config.pretrain_data,) if one),
        ],
        "finetune": [("finetune", config.finetune), ("defense", config.finetune_defense)],
        "evaluate": [("evaluation", one) for one in config.evaluate],
    }
    return [
        *(choice for stage in stages for choice in of_stage[stage]),
        ("data", config.data),
        ("backbone", config.architecture),
    ]


@contextmanager
def saying_what_is_needed(records: Callable[[], Any], *, run: str) -> Iterator[None]:
    """Within, an error for the lack of a plugin that a run recorded becomes the line that says what to install.

    Before another error a warning names the plugins that have another version here: an option of theirs may be gone.
    """
    try:
        yield
    except UsageError as error:
        line = needed(error, records(), run=run)
        if line is None:
            warn_of_other_versions(records(), what=f"run {run}")
            raise
        raise UsageError(line) from error


def needed(error: Exception, records: Any, *, run: str) -> str | None:
    """The line that says which distribution a run needs, where ``error`` comes from its lack and a record names it.

    Args:
        error: what resolving the run's configuration raised.
        records: what the run recorded of its plugins.
        run: what the run is called.
    """
    unknown = _unknown(error)
    if unknown is None or unknown.switched_off:
        return None
    for record in _well_formed(records):
        names = (record["name"], f"{record['distribution']}:{record['name']}")
        if record["kind"] == unknown.kind and unknown.name in names:
            needs = f"run {run} needs the {LABELS[unknown.kind]} '{record['name']}' of {_lacking(record)}"
            return needs + _others_lacking(records, record)
    return None


def warn_of_other_versions(records: Any, *, what: str) -> None:
    """Say on stderr, once, which distributions of plugins have another version here than they had in a run."""
    versions = {p.distribution: p.version for p in registry().found.plugins}
    for record in _well_formed(records):
        name, was = record["distribution"], record["version"]
        here = versions.get(name, was)
        if here != was and (name, was, here) not in _warned:
            _warned.add((name, was, here))
            tell(f"advss: warning: {what} was made with {name} {was}; {name} {here} is installed")


def agrees(was: Any, now: Any) -> bool:
    """Whether what a manifest holds is what there is now, apart from options that a newer version of a plugin adds."""
    if not (isinstance(was, dict) and isinstance(now, dict)):
        return bool(was == now)
    described = "name" in was
    return was.keys() == now.keys() and all(
        _kept(value, now[key]) if described and key == "options" else agrees(value, now[key])
        for key, value in was.items()
    )


def _kept(was: Any, now: Any) -> bool:
    """Whether all options that there were are what they were."""
    if not (isinstance(was, dict) and isinstance(now, dict)):
        return bool(was == now)
    return all(key in now and _kept(value, now[key]) for key, value in was.items())


def _unknown(error: BaseException | None) -> UnknownPluginError | None:
    while error is not None and not isinstance(error, UnknownPluginError):
        error = error.__cause__
    return error


def _lacking(record: Record) -> str:
    """A record's distribution and what to do about it."""
    name, version = record["distribution"], record["version"]
    install = f"pip install {shlex.quote(f'{name}=={version}')}"
    for fault in registry().found.faults:
        if fault.distribution == name and fault.status == "broken":
            return f"{name} {version}; {fault.version} is here and broken ({fault.error}); mend it, or {install}"
    here = [distribution.version for distribution in registry().found.installed if distribution.name == name]
    if here:
        return f"{name} {version}; {here[0]} is here and does not have it; {install}"
    return f"{name} {version}, which is not installed; {install}"


def _others_lacking(records: Any, said: Record) -> str:
    """What is to be added on the other distributions of a run that are not installed."""
    here = {distribution.name for distribution in registry().found.installed} | {said["distribution"]}
    lacking = {r["distribution"]: r["version"] for r in _well_formed(records) if r["distribution"] not in here}
    if not lacking:
        return ""
    wanted = " ".join(shlex.quote(f"{name}=={version}") for name, version in lacking.items())
    return f"; not installed either, of those that it used: {wanted}"


def _well_formed(records: Any) -> list[Record]:
    """Records as they should be; none of a file that is older than they are."""
    keys = ("kind", "name", "distribution", "version")
    rows = records if isinstance(records, list) else []
    return [row for row in rows if isinstance(row, dict) and all(isinstance(row.get(key), str) for key in keys)]
