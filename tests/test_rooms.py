"""The rooms of core stand one above the other: an import goes down only, and none goes round."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import advss

CORE = Path(advss.__file__).parent
# from the top down; rooms of one storey stand beside one another and do not import each other, but for the ground's
STOREYS = [
    {"__init__", "api", "cli", "testing", "scaffold"},
    {"studies", "reports"},
    {"stages"},
    {"evaluations"},
    {"runs"},
    {"training"},
    {"data", "models"},
    {"configuration"},
    {"plugins"},
    {
        "ensemble",
        "tracking",
        "attacks",
        "corruptions",
        "unforeseen",
        "config",
        "hookspecs",
        "launching",
        "measuring",
        "sourcing",
        "randomness",
        "accuracy",
        "arithmetic",
        "named",
        "naming",
        "files",
        "memory",
        "figures",
        "errors",
        "switches",
        "output",
        "cache",
        "threads",
    },
]
ENTRANCES = {"__init__", "api", "cli", "testing", "scaffold"}  # may call one another: `advss plugins check` does
DEPTH = {room: depth for depth, storey in enumerate(STOREYS) for room in storey}
GROUND = STOREYS[-1]


def _module(path: Path) -> str:
    return ".".join(path.relative_to(CORE.parent).with_suffix("").parts).removesuffix(".__init__")


FILES = {_module(path): path for path in CORE.rglob("*.py") if "templates" not in path.parts}


def _imported(path: Path) -> set[str]:
    """The modules of core that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in whole}
    return {name for name in found if name in FILES}


def _room(module: str) -> str:
    _, _, rest = module.partition(".")
    return rest.partition(".")[0] or "__init__"


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_go_down_only(module: str) -> None:
    own = _room(module)
    for imported in _imported(FILES[module]) - {"advss"}:
        other = _room(imported)
        beside = other == own or {own, other} <= GROUND or {own, other} <= ENTRANCES
        assert beside or DEPTH[own] < DEPTH[other], f"{module} imports {imported}"


def test_no_import_goes_round() -> None:
    graph = {name: _imported(path) - {name, "advss"} for name, path in FILES.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(FILES)


def test_every_room_has_a_storey() -> None:
    assert {_room(module) for module in FILES} <= set(DEPTH)
