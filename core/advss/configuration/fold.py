"""Layers folded into one configuration: first the names, which decide the cases, then options and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from advss.config import BackboneStart, Choice, EvalSettings, RunConfig, StageSettings, change_paths
from advss.configuration.assembly import Assignments, assembled
from advss.configuration.layers import Layer, Said
from advss.configuration.radius import LENGTHS, Unsaid, drop_lengths, lines, order, unsaid
from advss.configuration.settings import COMPONENTS, SETTINGS, Section, typed_setting
from advss.configuration.together import check_together
from advss.errors import UsageError, did_you_mean, of_flag
from advss.output import tell
from advss.plugins.kinds import Kind
from advss.plugins.options import options_of, typed
from advss.plugins.registry import complete, registry

KINDS: dict[str, Kind] = {
    "pretext": "pretext",
    "defense": "defense",
    "finetune": "finetune",
    "finetune-defense": "defense",
    "data": "data",
    "pretrain-data": "data",
    "evaluate": "evaluation",
}


def fold(layers: Sequence[Layer], *, say: bool = True) -> RunConfig:
    """The configuration that layers come to, later ones winning; unless told not to, it says what came of itself.

    Raises:
        UsageError: anything unknown, mistyped, out of range or missing.
    """
    history = list(accumulate(layers, Choices.after, initial=Choices({"pretrain-data": ()})))
    missing = [name for name in COMPONENTS if name not in history[-1].members]
    if missing:
        raise UsageError(f"--{missing[0]} is missing: no configuration chooses it")
    folded = _Folded(history)
    for place, layer in enumerate(layers):
        folded.take(layer, place)
        for case in layer.cases:
            if all(folded.final.matches(component, names) for component, names in case.when.items()):
                folded.take_case(case.layer)
    config = folded.config()
    for line in lines(folded.unsaid) if say else ():
        tell(line)
    return config


@dataclass(frozen=True)
class Choices:
    """Which components some layers choose; fine-tuning follows pretraining's defense until a layer says otherwise."""

    members: dict[str, tuple[Choice, ...]]
    follows: bool = True

    def after(self, layer: Layer) -> Choices:
        """The choices once one more layer is taken."""
        said = {c: part.members for c in COMPONENTS if (part := layer.parts.get(c)) and part.members is not None}
        follows = self.follows and "finetune-defense" not in said
        if follows and "defense" in said:
            said["finetune-defense"] = tuple(replace(member, options={}) for member in said["defense"])
        return Choices(self.members | said, follows)

    def has(self, component: str, member: Choice) -> bool:
        """Whether a member is chosen, its options aside."""
        return any((m.key, m.name) == (member.key, member.name) for m in self.members.get(component, ()))

    def matches(self, component: str, names: tuple[str, ...]) -> bool:
        """Whether a choice is one of a case's names: ``none`` is no member, ``+`` several."""
        members = self.members[component]
        short = [member.name.rpartition(":")[2] for member in members]
        said = "none" if not members else "+" if len(members) > 1 else short[0]
        return said in names


class _Folded:
    """What layers, taken in order, say of settings and of the finally chosen members.

    Args:
        history: the choices before the first layer and after each one.
    """

    def __init__(self, history: Sequence[Choices]) -> None:
        self.history, self.final = history, history[-1]
        self.options: dict[tuple[str, str], Assignments] = {
            (component, member.key): [] for component in COMPONENTS for member in self.final.members[component]
        }
        self.settings: dict[str, Said] = {}
        self.unsaid: list[Unsaid] = []

    def take(self, layer: Layer, place: int) -> None:
        """Take the layer at a place: what it says of members that stay chosen from there on, and settings."""
        for component, part in layer.parts.items():
            for member in part.members or ():
                self._add(component, member, _inline(component, member), place)
            members = self.history[place + 1].members.get(component, ())
            said = [
                (member, _option_path(path, member), value)
                for path, value in sorted(part.options, key=lambda one: "#" in one[0][0])  # of one, after of all
                for member in self._targets(component, path, value, members)
            ]
            for member, inner, value in sorted(said, key=lambda one: order(one[1])):
                self._add(component, member, [(inner, value)], place)
        self._set(layer.settings)

    def take_case(self, layer: Layer) -> None:
        """Take a case's layer, whose options are the finally chosen members', chosen by a later layer or not."""
        for component, part in layer.parts.items():
            for path, value in sorted(part.options, key=lambda one: order(one[0])):
                for member in self.final.members[component]:
                    inner = _option_path(path, member)
                    if (len(path) > 1 and not _names(path, member)) or not _has_option(component, member, inner[0]):
                        continue  # a case may speak of members that are not there
                    self.options[component, member.key].append((inner, value))
        self._set(layer.settings)

    def _set(self, said: Mapping[str, Said]) -> None:
        """Keep what one more layer says of settings."""
        if "eval-norm" in said:
            before = self.settings.get("eval-norm", Said(EvalSettings.norm, ""))
            flags = [f"eval-{name.replace('_', '-')}" for name in LENGTHS]
            drop_lengths(self.settings, flags, was=before.value, norm=said["eval-norm"].value)
        self.settings |= said

    def _add(self, component: str, member: Choice, said: Assignments, place: int) -> None:
        """Keep what the layer at ``place`` says of a member, unless another one stands in its place later."""
        if all(later.has(component, member) for later in self.history[place + 1 :]):
            self.options[component, member.key] += said

    def _targets(self, component: str, path: tuple[str, ...], said: Said, members: tuple[Choice, ...]) -> list[Choice]:
        """The members that an option is for; none where all of them are replaced by later layers.

        Raises:
            UsageError: no member has such an option.
        """
        named = [m for m in members if _names(path, m)] or list(members)
        present = [m for m in named if self.final.has(component, m)]
        targets = [m for m in present if _has_option(component, m, _option_path(path, m)[0])]
        if not targets and len(present) == len(named):
            raise UsageError(_unknown(component, path, said, present))
        return targets

    def config(self) -> RunConfig:
        """The configuration, judged as a whole."""
        chosen = {name: self._choices(name) for name in COMPONENTS}
        values = {flag: typed_setting(flag, said.value, origin=said.origin) for flag, said in self.settings.items()}
        sections: dict[Section, dict[str, Any]] = {"pretrain": {}, "finetune": {}, "eval": {}, "run": {}}
        for flag, value in values.items():
            sections[SETTINGS[flag].section][SETTINGS[flag].option.name] = value
        pretraining, finetuning = (_stage(name, sections[name]) for name in ("pretrain", "finetune"))
        config = RunConfig(
            pretext=chosen["pretext"],
            defense=chosen["defense"][0],
            finetune=chosen["finetune"][0],
            finetune_defense=chosen["finetune-defense"][0],
            data=chosen["data"][0],
            pretrain_data=next(iter(chosen["pretrain-data"]), None),
            evaluate=chosen["evaluate"],
            backbone=chosen["backbone"][0],
            pretraining=pretraining if chosen["pretext"] else replace(pretraining, epochs=0),
            finetuning=finetuning,
            evaluation=self._evaluation(sections["eval"]),
            **sections["run"],
        )
        check_together(config)
        return config

    def _evaluation(self, said: Mapping[str, Any]) -> EvalSettings:
        """The attack that measures RA; what is wrong with it begins with the option's name."""
        try:
            evaluation = EvalSettings(**said)
        except ValueError as error:
            option, _, wrong = str(error).partition(" ")
            flag = f"eval-{option.replace('_', '-')}"
            raise UsageError(f"{self.settings[flag].origin}: {wrong}") from error
        self.unsaid += unsaid(said, vars(evaluation), "--eval-")
        return evaluation

    def _choices(self, component: str) -> tuple[Choice, ...]:
        members = self.final.members[component]
        chosen = []
        for member in members:
            prefix = f"--{component}.{member.key}." if len(members) > 1 else f"--{component}."
            prefix = f"--{member.key}." if component == "evaluate" else prefix
            said = self._said(component, member)
            options = _complete(component, replace(member, options=said), prefix)
            self.unsaid += unsaid(said, options, prefix)
            chosen.append(replace(member, options=options))
        return tuple(chosen)

    def _said(self, component: str, member: Choice) -> dict[str, Any]:
        """What was said of a member; fine-tuning's defense takes what is not said from the same one of pretraining."""
        said = self.options[component, member.key]
        if component == "finetune-defense" and self.final.has("defense", member):
            said = [*self.options["defense", member.key], *said]
        return assembled(None if component == "backbone" else _class_of(component, member), said)


def _names(path: tuple[str, ...], member: Choice) -> bool:
    """Whether an option's path begins with a member: by key, by name, or as the first of its name."""
    return len(path) > 1 and path[0] in (member.key, member.name, f"{member.key}#1")


def _inline(component: str, member: Choice) -> Assignments:
    """What was said of a member beside its name."""
    said = sorted(member.options.items(), key=lambda one: order(one[:1]))
    return [((name,), Said(value, f"--{component}.{name}")) for name, value in said]


def _option_path(path: tuple[str, ...], member: Choice) -> tuple[str, ...]:
    return tuple(word.replace("-", "_") for word in (path[1:] if _names(path, member) else path))


def _complete(component: str, choice: Choice, flag: str) -> dict[str, Any]:
    """A component's options, all of them where they are known, typed."""
    if component == "backbone":
        return _from_here(choice.options | _start(choice, flag))
    if KINDS[component] != "data":
        return complete(KINDS[component], choice, flag=flag)
    with of_flag(f"--{component}"):
        return _from_here(complete("data", choice, flag=flag))


def _from_here(options: dict[str, Any]) -> dict[str, Any]:
    """Options whose paths are absolute: a run finds its files from whatever folder it is looked at."""
    return {n: change_paths(v, lambda path: Path.cwd() / path.expanduser()) for n, v in options.items()}


def _start(choice: Choice, flag: str) -> dict[str, Any]:
    """What a backbone starts from, as far as it is said."""
    own = [option.name for option in options_of(BackboneStart)]
    said = {name: value for name, value in choice.options.items() if name in own}
    start = typed(BackboneStart, said, flag=flag, what=choice.name)
    if start.get("pretrained") and start.get("weights"):
        raise UsageError(f"{flag}pretrained and {flag}weights {start['weights']}: a backbone starts from one of them")
    return start


def _class_of(component: str, choice: Choice) -> type:
    return registry().find(KINDS[component], choice.name)


def _has_option(component: str, member: Choice, option: str) -> bool:
    return component == "backbone" or option in {o.name for o in options_of(_class_of(component, member))}


def _unknown(component: str, path: tuple[str, ...], said: Said, members: list[Choice]) -> str:
    keys = [member.key for member in members]
    names = ", ".join(keys)
    if component == "evaluate" and len(path) > 1 and path[0] not in keys:
        return _of_no_evaluation(path[0], said, keys)
    if not members:
        return f"{said.origin}: no {component} is chosen"
    if len(path) > 1 and path[0] not in keys:
        return f"{said.origin}: '{path[0]}' is not among what --{component} chooses: {names}"
    known = [option.name for member in members for option in options_of(_class_of(component, member))]
    return f"unknown option {said.origin} of {names}{did_you_mean(path[-1], known)}"


def _of_no_evaluation(name: str, said: Said, chosen: list[str]) -> str:
    """What is wrong with an option below a name that ``--evaluate`` does not choose, or that no evaluation has."""
    known, short = registry().names("evaluation"), name.partition("#")[0]
    if short in known:
        return f"{said.origin}: --evaluate does not choose it; say --evaluate {','.join([*chosen, short])}"
    return f"unknown flag {said.origin}: there is no evaluation '{name}'{did_you_mean(name, [*known, *COMPONENTS])}"


def _stage(name: Section, said: dict[str, Any]) -> StageSettings:
    for option in options_of(StageSettings):
        if option.required and option.name not in said:
            flag = f"--{name}-{option.name.replace('_', '-')}"
            raise UsageError(f"{flag} is missing: no configuration sets it")
    settings = StageSettings(**said)
    if settings.schedule == "multistep" and not settings.milestones:
        raise UsageError(f"--{name}-schedule multistep needs --{name}-milestones, such as [60,80]")
    if settings.optimizer == "sgd" and settings.nesterov and not settings.momentum:
        raise UsageError(f"--{name}-nesterov true needs a --{name}-momentum above 0, such as 0.9")
    if settings.resized_crop and settings.crop:
        both = f"--{name}-resized-crop {settings.resized_crop} and --{name}-crop {settings.crop}"
        raise UsageError(f"{both}: an image is cropped in one way; say --{name}-crop 0, or --{name}-resized-crop 0")
    return settings
