"""Everything that shell completion can offer, from a cache that is made again when a file it comes from changes.

Making it needs the commands, but neither torch nor any plugin: their names come from the names' cache, which each
command that loads plugins keeps. Reading it needs next to nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from advss.cache import changed_at, read_cache, write_cache

if TYPE_CHECKING:
    from advss.cli.arguments import Grammar
    from advss.plugins.names import Known

FILE = "completion.json"
MORE = "..."  # behind what a positional argument is: any number of them
COMPONENTS = {  # flag -> kind of what it chooses
    "pretext": "pretext",
    "defense": "defense",
    "finetune": "finetune",
    "finetune-defense": "defense",
    "data": "data",
    "pretrain-data": "data",
    "evaluate": "evaluation",
}
CHOSEN = {**COMPONENTS, "launcher": "launcher"}  # and what no run has
VALUES = {**CHOSEN, "config": "recipe", "from": "run", "resume": "run"}
POSITIONALS = {
    "RUN": "run",
    "RUN...": "run" + MORE,
    "[RUN...]": "run" + MORE,
    "NAME": "plugin",
    "STUDY": "study",
    "[STUDY]": "any study",
    "STUDY|RUN...": "study or run" + MORE,
}


class Flag(TypedDict):
    """A flag: one line on it, and its values by name or by what they are; None where it takes none.

    ``options`` says that the options of what it chooses are flags, too.
    """

    doc: str
    values: str | list[str] | None
    options: bool


class Words(TypedDict):
    """A command: one line on it, what its positionals are, and its flags."""

    summary: str
    positionals: list[str]
    flags: dict[str, Flag]


class Vocabulary(TypedDict):
    """What there is to say."""

    commands: dict[str, Words]
    plugins: list[Known]
    recipes: dict[str, str]
    studies: list[str]  # that come with advss


def vocabulary() -> Vocabulary:
    """What there is to say, from the cache where that still holds."""
    kept: Any = read_cache(FILE).get(sys.prefix)
    try:
        held = kept["path"] == sys.path and all(changed_at(path) == when for path, when in kept["files"].items())
    except (TypeError, KeyError, AttributeError):  # there is none, or it is somebody else's
        held = False
    return kept["vocabulary"] if held else make_vocabulary()


def make_vocabulary() -> Vocabulary:
    """Make the vocabulary, and keep it."""
    from advss.cli.commands import COMMANDS
    from advss.configuration.recipes import read_config, recipes
    from advss.plugins.installed import installed
    from advss.plugins.names import files_of, recall
    from advss.studies.definition import packaged

    found = installed()
    plugins = recall(found)
    made: Vocabulary = {
        "commands": {name: _words(command.grammar, plugins) for name, command in COMMANDS.items()},
        "plugins": plugins,
        "recipes": {name: read_config(name).description for name in recipes()},
        "studies": [*packaged()],
    }
    ours = [str(m.__file__) for name, m in list(sys.modules.items()) if name.startswith("advss.")]
    ours += [str(one.place) for one in found]
    files = {path: changed_at(path) for path in [*ours, *files_of(found), *sys.path]}
    others = {prefix: kept for prefix, kept in read_cache(FILE).items() if Path(prefix).is_dir()}
    write_cache(FILE, {**others, sys.prefix: {"path": sys.path, "files": files, "vocabulary": made}})
    return made


def _words(grammar: Grammar, plugins: list[Known]) -> Words:
    from advss.cli.arguments import EVERYWHERE
    from advss.cli.new import TEMPLATES
    from advss.configuration.settings import SETTINGS
    from advss.plugins import KINDS
    from advss.plugins.names import values_of
    from advss.runs.listing import STATES
    from advss.runs.wanted import SORTED

    flags: dict[str, Flag] = {}
    for flag in grammar.settings:
        option = SETTINGS[flag].option if flag in SETTINGS else None
        values = VALUES.get(flag) or (values_of(option.annotation) if option else [])
        flags[flag] = {"doc": option.doc if option else "", "values": values, "options": flag in COMPONENTS}
    flags |= {short: flags[flag] for short, flag in grammar.short.items()}
    kinds: list[str] = list(TEMPLATES if grammar.command == "plugins new" else KINDS)
    few: dict[str, str | list[str]] = {
        **VALUES,
        "kind": kinds,
        "state": list(STATES),
        "sort": list(SORTED),
        "versions": ["keep", "new"],
    }
    own = [p for p in plugins if (p["kind"], p["name"]) == ("evaluation", grammar.evaluation)]
    docs = {option["name"].replace("_", "-"): option["doc"] for plugin in own for option in plugin["options"]}
    for flag, doc in grammar.flags.items():
        chooses = flag in CHOSEN and flag not in COMPONENTS  # those are filters here
        flags[flag] = {"doc": doc or docs.get(flag, ""), "values": few.get(flag, []), "options": chooses}
    switches = {**grammar.switches, **dict.fromkeys(EVERYWHERE, "")}
    flags |= {f: {"doc": doc or docs.get(f, ""), "values": None, "options": False} for f, doc in switches.items()}
    positionals = [POSITIONALS.get(name, "") for name in grammar.positionals]
    if grammar.command.startswith("runs "):  # of comparisons and damaged runs, too
        positionals = [kind.replace("run", "any run") for kind in positionals]
    return {"summary": grammar.summary, "positionals": positionals, "flags": flags}
