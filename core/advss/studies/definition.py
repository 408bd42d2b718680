"""What a study is of, as its file says it: what is fixed, named rows, what varies, and seeds.

``studies/NAME/study.yaml``::

    fixed: {data: digits, finetune-epochs: 4, evaluate: [pgd]}     # settings, as in a configuration file
    rows:                                                          # named partial settings
      P1 F4: {pretext: none, defense: pgd}
      P3 F4: {pretext: selfie, defense: pgd}
    vary: {pretrain-data.limit: [1000, 2000]}                      # each with each; + joins an ensemble of tasks
    seeds: 3                                                       # 0, 1, 2; or a list
    skip: [{row: P1 F4, pretrain-data.limit: 2000}]                # cells that are left out
    ensembles: {all: [P1 F4, P3 F4]}                               # rows averaged, for each seed
    transfers: {table: [P1 F4, P3 F4]}                             # rows compared, for each seed

Cells are rows x what varies x seeds. A cell's settings are those of the recipe that fits the data, of the
environment, and of ``fixed``, of its row and of what varies, later ones winning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import yaml

from advss.configuration.recipes import read_yaml
from advss.configuration.resolve import dumped
from advss.errors import UsageError, did_you_mean

PARTS = (
    "description",
    "fixed",
    "rows",
    "vary",
    "seeds",
    "skip",
    "ensembles",
    "transfers",
    "published",
    "decided",
)


@dataclass(frozen=True)
class Definition:
    """A study's file.

    Attributes:
        fixed: settings of all cells, by flag.
        rows: named partial settings; none is one row without a name.
        vary: values by flag.
        seeds: of each cell one for each.
        skip: cells that are left out, by row, by what varies, or by what is resolved.
        ensembles: rows whose classifiers are averaged, by the name of the average.
        transfers: rows whose examples are tried on one another, by the name of the comparison.
        published: what a paper has in these rows: ``{source: ..., rows: {ROW: {ta: ..., ra: ...}}}``, in percent.
        decided: settings that the plan has decided, once, for all runs to come.
        description: in a line or more.
    """

    fixed: Mapping[str, Any] = field(default_factory=dict)
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    vary: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    skip: tuple[Mapping[str, Any], ...] = ()
    ensembles: Mapping[str, Sequence[str]] = field(default_factory=dict)
    transfers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    published: Mapping[str, Any] = field(default_factory=dict)
    decided: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""

    @classmethod
    def read(cls, content: Mapping[str, Any], *, where: str) -> Self:
        """A definition from what YAML holds.

        Raises:
            UsageError: an unknown part, or one of another form; ``where`` is named.
        """
        for key in content:
            if key not in PARTS:
                raise UsageError(f"{where}: a study has no part '{key}'{did_you_mean(key, PARTS)}")
        for key in PARTS:
            if (value := content.get(key)) is not None:
                _check_form(key, value, where=where)
        said = {key: value for key, value in content.items() if value is not None}
        if "seeds" in said:
            said["seeds"] = seeds_of(said["seeds"], origin=f"{where}: seeds")
        if "rows" in said:
            said["rows"] = {str(name): settings or {} for name, settings in said["rows"].items()}
        return cls(**said | {"skip": tuple(said.get("skip", ()))})

    def to_yaml(self) -> str:
        """As a file that reads to an equal one."""
        content = {key: getattr(self, key) for key in PARTS if getattr(self, key)}
        return dumped({**content, "seeds": list(self.seeds)})

    def over(
        self, fixed: Mapping[str, Any], vary: Mapping[str, Sequence[Any]], seeds: tuple[int, ...] | None = None
    ) -> Self:
        """Itself, with more fixed, with more that varies, and other seeds."""
        return replace(
            self,
            fixed={**self.fixed, **fixed},
            vary={**self.vary, **vary},
            seeds=self.seeds if seeds is None else seeds,
        )


def seeds_of(said: Any, *, origin: str) -> tuple[int, ...]:
    """How many seeds there are, from 0 on, or a list of them.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(said, int) and not isinstance(said, bool) and said > 0:
        return tuple(range(said))
    good = isinstance(said, list) and said and all(type(one) is int and one >= 0 for one in said)
    if not good or len(set(said)) < len(said):
        raise UsageError(f"{origin}: expected how many, such as 3, or a list such as [0,1,2], got {said}")
    return tuple(said)


def packaged() -> dict[str, str]:
    """Texts of the studies that come with advss, by name."""
    found = [path for path in (files("advss") / "studies" / "packaged").iterdir() if path.name.endswith(".yaml")]
    return {path.name.removesuffix(".yaml"): path.read_text("utf-8") for path in sorted(found, key=lambda p: p.name)}


def read_definition(path: Path) -> Definition:
    """The definition in a file; files that its ``config`` names lie beside it.

    Raises:
        UsageError: it cannot be read, or is no study.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from error
    return parse_definition(text, where=str(path), beside=path.parent)


def parse_definition(text: str, *, where: str, beside: Path | None = None) -> Definition:
    """The definition in a text; errors as of :func:`read_definition`."""
    try:
        content = read_yaml(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{where}: expected the parts of a study ({', '.join(PARTS[:4])}, ...), got {content!r:.60}")
    definition = Definition.read(content, where=where)
    configs = [_found(one, beside) for one in configs_of(definition.fixed)]
    return replace(definition, fixed={**definition.fixed, "config": configs}) if configs else definition


def configs_of(fixed: Mapping[str, Any]) -> list[str]:
    """The recipes and files that ``fixed`` names in its ``config``."""
    said = fixed.get("config") or []
    return [str(one) for one in (said if isinstance(said, list) else [said])]


def _found(config: str, beside: Path | None) -> str:
    """A file beside the study's by its whole path, so that the study is the same from every folder."""
    here = (beside / config) if beside else None
    return str(here.resolve()) if here and here.is_file() else config


def axis(said: str) -> tuple[str, list[Any]]:
    """What ``--vary KEY=A,B`` says: commas stand between values, but for those within brackets.

    Raises:
        UsageError: it is not written so.
    """
    key, equals, values = said.partition("=")
    if not equals or not key or not values:
        raise UsageError(f"--vary: expected KEY=A,B, such as defense=none,pgd, got '{said}'")
    return key.removeprefix("--"), [value_of(one) for one in _apart(values)]


def setting(said: str) -> tuple[str, Any]:
    """What ``--set KEY=VALUE`` says; errors as of :func:`axis`."""
    key, equals, value = said.partition("=")
    if not equals or not key:
        raise UsageError(f"--set: expected KEY=VALUE, such as finetune-epochs=4, got '{said}'")
    return key.removeprefix("--"), value_of(value)


def value_of(text: str) -> Any:
    """Text of a command line as the YAML value it spells; text where it spells none."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _apart(values: str) -> Iterable[str]:
    depth, begun = 0, 0
    for place, letter in enumerate(values):
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and not depth:
            yield values[begun:place]
            begun = place + 1
    yield values[begun:]


def _check_form(key: str, value: Any, *, where: str) -> None:
    """Raise UsageError where a part is not written as one."""
    wanted, good = "a mapping", isinstance(value, Mapping)
    if key in ("description", "seeds"):
        return
    if key == "rows":
        wanted = "a mapping of names to settings"
        good = good and all(isinstance(settings or {}, Mapping) for settings in value.values())
    elif key in ("vary", "ensembles", "transfers"):
        wanted = "a mapping of names to lists"
        good = good and all(isinstance(values, list) and values for values in value.values())
    elif key == "skip":
        wanted, good = "a list of mappings", isinstance(value, list) and all(isinstance(one, Mapping) for one in value)
    if not good:
        raise UsageError(f"{where}: {key} is {wanted}, got {value!r:.80}")
