"""New plugin packages, written from text templates: ``advss plugins new``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

from advss.errors import UsageError
from advss.hookspecs import API
from advss.plugins import Kind, registry
from advss.plugins.discovery import NAME
from advss.plugins.kinds import LABELS, TAKEN, base_of, one

WORDS: dict[Kind, str] = {  # of the class's name
    "pretext": "Task",
    "defense": "Defense",
    "finetune": "Scheme",
    "evaluation": "Evaluation",
    "launcher": "Launcher",
}
PREFIX = "advss-"  # of the distribution; so no plugin's module hides one of Python's or PyTorch's


@dataclass(frozen=True)
class Package:
    """What a new package is called, all from the plugin's name."""

    kind: Kind
    name: str

    @property
    def distribution(self) -> str:
        """What pip calls it."""
        return PREFIX + self.name

    @property
    def module(self) -> str:
        """What Python imports."""
        return self.distribution.replace("-", "_").lower()

    @property
    def class_name(self) -> str:
        """The plugin's class."""
        camel = "".join(part[:1].upper() + part[1:] for part in re.split("[-_]+", self.name))
        word = WORDS[self.kind]
        return word + camel if camel[0].isdigit() else camel + word

    @property
    def line(self) -> str:
        """The command that tries it."""
        tried = {
            "pretext": f"fit --pretext {self.name} --defense pgd",
            "defense": f"fit --pretext rotation --defense {self.name}",
            "finetune": f"fit --pretext rotation --defense pgd --finetune {self.name}",
            "evaluation": f"fit --pretext none --defense pgd --evaluate pgd,{self.name}",
            "launcher": f"study run --vary pretext=none,rotation --launcher {self.name}",
        }
        return f"advss {tried[self.kind]}"

    def files(self) -> dict[str, str]:
        """Its files by path, filled in."""
        words = {
            "kind": self.kind,
            "name": self.name,
            "label": LABELS[self.kind],
            "a_label": one(self.kind),
            "contract": base_of(self.kind).__module__.partition(".")[2],
            "distribution": self.distribution,
            "module": self.module,
            "class_name": self.class_name,
            "line": self.line,
            "api": str(API),
        }
        templates = {
            "pyproject.toml": "pyproject.toml.txt",
            "README.md": "README.md.txt",
            f"src/{self.module}/__init__.py": f"{self.kind}.py.txt",
            f"tests/test_{self.module}.py": f"test_{self.kind}.py.txt",
        }
        folder = files(__name__) / "templates"
        return {path: Template((folder / t).read_text("utf-8")).substitute(words) for path, t in templates.items()}


def name_of(folder: Path) -> str:
    """The name of a plugin in ``folder``: the folder's own, without a leading ``advss-``."""
    own = folder.resolve().name
    return own.removeprefix(PREFIX) or own


def new_package(folder: Path, kind: Kind, name: str) -> Package:
    """Write a package with one plugin into a folder that is empty or not there yet.

    Args:
        folder: where it goes.
        kind: what the plugin is.
        name: what it is called on the command line.

    Raises:
        UsageError: the name is bad or taken, the folder has something in it, or it cannot be written.
    """
    package = Package(kind, name)
    _check_name(package)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} exists and is not an empty folder; name another one")
        for path, text in package.files().items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, "utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or folder}: {error.strerror}") from error
    return package


def _check_name(package: Package) -> None:
    kind, name = package.kind, package.name
    taken = TAKEN.get(kind, ())
    if not NAME.fullmatch(name) or not name[-1].isalnum() or name in taken:
        but = f", and not {' or '.join(taken)}" if taken else ""
        raise UsageError(
            f"'{name}' is no name of {one(kind)}: letters, digits, - and _, a letter or digit first and last{but}; "
            "choose another folder or --name"
        )
    for plugin in registry().found.plugins:
        if (plugin.kind, plugin.name.lower()) == (kind, name.lower()):
            owner = f"{plugin.distribution} {plugin.version}"
            raise UsageError(
                f"the {LABELS[kind]} '{plugin.name}' is installed already ({owner}); choose another --name"
            )
    if find_spec(package.module) is not None:
        raise UsageError(f"a module {package.module} is installed already; choose another --name than '{name}'")
