"""``advss plugins new DIR --kind KIND``: a plugin package to start from."""

from __future__ import annotations

import shlex
from pathlib import Path

from advss.cli.arguments import Arguments, Grammar
from advss.cli.context import check_plugins
from advss.errors import UsageError
from advss.plugins import Kind
from advss.plugins.kinds import LABELS

TEMPLATES: tuple[Kind, ...] = ("pretext", "defense", "finetune", "evaluation", "launcher")


def plugins_new(arguments: Arguments) -> int:
    """``advss plugins new DIR``."""
    from advss.scaffold import name_of, new_package

    kind, folder = _kind(arguments.flag("kind")), Path(arguments.positionals[0])
    check_plugins(arguments, computing=False)
    name = arguments.flag("name")
    package = new_package(folder, kind, name_of(folder) if name is None else name)
    place, module = shlex.quote(str(folder)), folder / "src" / package.module / "__init__.py"
    print(f"{package.distribution}: the {LABELS[kind]} '{package.name}' in {module}")
    print("\nNext:\n")
    for line in (f"pip install -e {place}", f"advss plugins check {package.name}", package.line):
        print(f"  {line}")
    return 0


def _kind(said: str | None) -> Kind:
    for kind in TEMPLATES:
        if kind == said:
            return kind
    kinds = ", ".join(TEMPLATES)
    if said is None:
        raise UsageError(f"`advss plugins new` needs --kind, one of {kinds}")
    hint = "; a data source is written from the example in docs/data.md" if said == "data" else ""
    raise UsageError(f"--kind: expected one of {kinds}, got '{said}'{hint}")


GRAMMAR = Grammar(
    "plugins new",
    "write a plugin package to start from: it installs, passes its tests and works as it is",
    ("DIR",),
    {"kind": "what the plugin is: " + ", ".join(TEMPLATES), "name": "of the plugin; default: DIR's, without advss-"},
)
