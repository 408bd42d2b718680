"""What may stand at the end of a command line, as far as it is typed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from advss.cli.vocabulary import CHOSEN, COMPONENTS, MORE, Flag, Vocabulary
from advss.launching import USUAL
from advss.switches import FLAG, NO, is_switch, normal, switched_off

if TYPE_CHECKING:
    from advss.plugins.names import Known

Candidates = Iterable[tuple[str, str]]  # words, each with one line on it
EVERYWHERE = {"--help": "every command", "--version": "print the version", "--print-completion": "bash, zsh or fish"}
LEAVE_OUT = "no:NAME leaves a plugin or distribution out"
STRICT = "--strict-plugins"
MARKS = {"run": ("config.yaml",), "any run": ("config.yaml", "transfer.json", "result.json")}
STUDIES = ("study", "any study")  # that were planned; those that come with advss, too
STUDY_OR_RUN = "study or run"
EVALUATE = "evaluate"  # whose options stand below the evaluation's name: --pgd.steps
SEVERAL = {"pretext": "no pretraining", "evaluation": "nothing is measured"}  # kinds, and what none of them means
LAUNCHER = "launcher"  # one is chosen where none is said
BUILT_IN = "advss"  # the distribution whose plugins keep their short names


def candidates(typed: list[str], known: Vocabulary) -> Candidates:
    """What may stand in place of the last of the words after ``advss``; some of it does not begin as that does."""
    *before, current = typed
    off, words = _parted(before)
    if before[-1:] == [FLAG]:
        return [(NO + name, "") for plugin in known["plugins"] for name in (plugin["distribution"], plugin["name"])]
    name = " ".join(words[:2]) if " ".join(words[:2]) in known["commands"] else "".join(words[:1])
    if name not in known["commands"]:
        return _commands(words, known)
    command = known["commands"][name]
    plugins = [plugin for plugin in known["plugins"] if not off & _all_names(plugin)]
    line = _Line(words[len(name.split()) :], command["flags"], plugins, known)
    if line.open:
        return line.values(line.open, current)
    if current.startswith("--") and "=" in current:
        flag, _, value = current.partition("=")
        return [(f"{flag}={candidate}", doc) for candidate, doc in line.values(flag[2:], value)]
    if current.startswith("-"):
        return line.flags_and_options(current)
    after = _commands(words, known) if len(words) == 1 else ()  # `advss runs` alone is a command, `runs show` another
    return [*after, *line.positional(command["positionals"], current)]


def _parted(before: list[str]) -> tuple[set[str], list[str]]:
    """The names that are switched off, and the words without the switches."""
    off, words, left = set(switched_off()), list[str](), list(before)
    while left:
        word = left.pop(0)
        if not is_switch(word):
            words += [word] if word != STRICT else []
            continue
        said = word.removeprefix(FLAG) or (left.pop(0) if left else "")
        off.add(normal(said.removeprefix(NO)))
    return off, words


def _commands(words: list[str], known: Vocabulary) -> Iterator[tuple[str, str]]:
    """The commands' first words, or what follows a first one."""
    if words[:1] == ["--print-completion"]:
        yield from [("bash", ""), ("zsh", ""), ("fish", "")]
    for name, command in known["commands"].items():
        first, _, second = name.partition(" ")
        if not words and (not second or first not in known["commands"]):
            yield first, "" if second else command["summary"]
        elif words == [first] and second:
            yield second, command["summary"]
    if not words:
        yield from [*EVERYWHERE.items(), (FLAG, LEAVE_OUT), (STRICT, "a broken plugin is an error")]


class _Line:
    """The words after a command that are typed, sorted."""

    def __init__(self, words: list[str], flags: dict[str, Flag], plugins: list[Known], known: Vocabulary) -> None:
        self.flags, self.plugins, self.recipes, self.studies = flags, plugins, known["recipes"], known["studies"]
        self.said: dict[str, str] = {}
        self.positionals: list[str] = []
        self.open = ""  # the flag whose value is being typed
        while words:
            word, *words = words
            flag, equals, value = word.removeprefix("--").partition("=")
            if not word.startswith("--"):
                self.positionals.append(word)
            elif equals:
                self.said[flag] = value
            elif self._takes_value(flag):
                if not words:
                    self.open = flag
                elif not words[0].startswith("--"):
                    self.said[flag], *words = words

    def flags_and_options(self, typed: str) -> Iterator[tuple[str, str]]:
        """The command's flags, and the options of what is chosen; of an evaluation that is typed, too."""
        evaluations = self._chosen(EVALUATE) if EVALUATE in self.flags else []
        for plugin in evaluations or self._evaluation(typed.removeprefix("--")):
            yield from ((f"--{plugin['name']}.{option['name']}", option["doc"]) for option in plugin["options"])
        for flag, about in self.flags.items():
            if flag == f"{LAUNCHER}.":
                continue
            if flag.endswith("."):  # where data are now, of whatever source
                yield from ((f"--{flag}{place}", about["doc"]) for place in self._places())
                continue
            yield f"--{flag}", about["doc"]
            chosen = self._chosen(flag) if about["options"] and flag != EVALUATE else []
            for plugin in chosen:
                member = f"{plugin['name']}." if len(chosen) > 1 else ""
                for option in plugin["options"]:
                    yield f"--{flag}.{member}{option['name']}", option["doc"]
        yield FLAG, LEAVE_OUT

    def _places(self) -> list[str]:
        """Options of data sources that take paths."""
        sources = [plugin for plugin in self.plugins if plugin["kind"] == "data"]
        return [option["name"] for source in sources for option in source["options"] if "Path" in option["type"]]

    def values(self, flag: str, typed: str) -> Candidates:
        """What a flag may be, where ``typed`` of it is typed."""
        if flag not in self.flags:
            return self._option_values(flag)
        values = self.flags[flag]["values"] or []
        return [(value, "") for value in values] if isinstance(values, list) else self._named(values, typed)

    def positional(self, kinds: list[str], typed: str) -> Candidates:
        """What the next positional argument may be."""
        place = len(self.positionals)
        if kinds and kinds[-1].endswith(MORE):
            place = min(place, len(kinds) - 1)
        found = self._named(kinds[place].removesuffix(MORE), typed) if place < len(kinds) else []
        return [(word, doc) for word, doc in found if word not in self.positionals]

    def _takes_value(self, flag: str) -> bool:
        if flag in self.flags:
            return self.flags[flag]["values"] is not None
        return bool(self._evaluation(flag)) or (flag.partition(".")[0] in CHOSEN and "." in flag)

    def _named(self, what: str, typed: str) -> Candidates:
        """Runs, recipes or plugins; several tasks or evaluations stand with commas between them."""
        if what in MARKS:
            return [(name, "") for name in self._runs(what)]
        if what == STUDY_OR_RUN:
            return [(name, "") for name in [*self._studies(), *self._runs("any run")]]
        if what in STUDIES:
            return [(name, "") for name in [*self._studies(), *(self.studies if what == "any study" else ())]]
        if what == "recipe":
            return self.recipes.items()
        if what not in SEVERAL:
            return self._plugins(what)
        before = typed.rpartition(",")[0]
        named = [(name, doc) for name, doc in self._plugins(what) if name not in before.split(",")]
        return [(f"{before},{name}", doc) for name, doc in named] if before else [*named, ("none", SEVERAL[what])]

    def _plugins(self, kind: str) -> list[tuple[str, str]]:
        """Names of one kind, or of all, by which they can be called."""
        rivals = [(plugin["kind"], plugin["name"]) for plugin in self.plugins]
        return [
            (plugin["name"] if alone or plugin["distribution"] == BUILT_IN else _full(plugin), plugin["summary"])
            for plugin in self.plugins
            if kind in (plugin["kind"], "plugin")
            for alone in [rivals.count((plugin["kind"], plugin["name"])) == 1]
        ]

    def _chosen(self, flag: str) -> list[Known]:
        """What the line chooses of a component; fine-tuning's defense is pretraining's where none is said."""
        usual = {"finetune-defense": self.said.get("defense", ""), LAUNCHER: USUAL}
        said = self.said.get(flag) or usual.get(flag, "")
        found = []
        for name in said.split(","):
            claims = [p for p in self.plugins if p["kind"] == CHOSEN[flag] and name in (p["name"], _full(p))]
            found += sorted(claims, key=lambda plugin: plugin["distribution"] != BUILT_IN)[:1]
        return found

    def _evaluation(self, flag: str) -> list[Known]:
        """The evaluation whose option a flag is, as ``pgd.steps``."""
        name, dot, _ = flag.partition(".")
        if not dot or EVALUATE not in self.flags or name in COMPONENTS:
            return []
        return [p for p in self.plugins if (p["kind"], p["name"]) == (COMPONENTS[EVALUATE], name)][:1]

    def _option_values(self, flag: str) -> Candidates:
        """Values of an option of what is chosen, where they are few."""
        component, _, rest = flag.partition(".")
        name = rest.rpartition(".")[2].replace("-", "_")
        chosen = self._chosen(component) if component in CHOSEN else self._evaluation(flag)
        options = [o for plugin in chosen for o in plugin["options"] if o["name"] == name]
        if any(option["type"] == "defense" for option in options):
            return self._plugins("defense")
        return [(value, "") for option in options for value in option["values"]]

    def _runs(self, what: str) -> list[str]:
        """Names of the runs where this line looks them up, and where it may be one, of comparisons."""
        folder = Path(self.said.get("runs-dir") or os.environ.get("ADVSS_RUNS_DIR") or "runs").expanduser()
        return sorted({path.parent.name for mark in MARKS[what] for path in folder.glob(f"*/{mark}")})

    def _studies(self) -> list[str]:
        """Names of the studies that were planned."""
        folder = Path(self.said.get("studies-dir") or "studies").expanduser()
        return sorted(path.parent.name for path in folder.glob("*/study.yaml"))


def _full(plugin: Known) -> str:
    return f"{plugin['distribution']}:{plugin['name']}"


def _all_names(plugin: Known) -> set[str]:
    return {normal(name) for name in (plugin["name"], plugin["distribution"], _full(plugin))}
