"""What the pages of docs/ say can be typed can be typed, in their order, and what they show is what is printed."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

import advss
from advss.cli.arguments import sort_words
from advss.cli.check import DISCOVERED
from advss.cli.commands import COMMANDS
from advss.cli.main import main
from advss.plugins import Kind, forget, registry
from advss.studies.definition import read_definition
from advss.studies.grid import cells_of
from advss.testing.subject import find
from advss.testing.suite import checks_of
from advss.testing.verdicts import judge

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
GUIDE = "write-a-pretext-task.md"
BLOCK = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.M | re.S)
ELLIPSIS = "..."
KINDS: dict[str, Kind] = {
    "defenses.md": "defense",
    "finetune.md": "finetune",
    "evaluations.md": "evaluation",
    "launchers.md": "launcher",
}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language ("" for commands), the file that it is, and its text."""

    language: str
    file: str
    text: str


def blocks(page: str) -> list[Block]:
    return [Block(*match) for match in BLOCK.findall((DOCS / page).read_text())]


def commands(page: str) -> list[list[str]]:
    """The words after ``advss`` of every command of a page."""
    lines = [line for block in blocks(page) if not block.language for line in block.text.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("advss ")]


def shown(page: str, command: str) -> list[str]:
    """The lines that a page shows right below a command, without those that stand for others."""
    every = blocks(page)
    (place,) = [n for n, block in enumerate(every) if block.text.splitlines()[-1:] == [command]]
    assert every[place + 1].language == "text"
    return [line.rstrip() for line in every[place + 1].text.splitlines() if line != ELLIPSIS]


@pytest.fixture
def followed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A page whose packages have been written and installed, its files put where it says."""
    page: str = request.param
    before = set(sys.modules)
    for variable in [name for name in os.environ if name.startswith("ADVSS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    forget()
    for words in commands(page):
        if words[:2] == ["plugins", "new"]:
            assert main(words) == 0
            monkeypatch.syspath_prepend(_installed(tmp_path / words[2]))
    for example in re.findall(r"^pip install \./(examples/\S+)$", (DOCS / page).read_text(), re.M):
        monkeypatch.syspath_prepend(_installed(shutil.copytree(ROOT / example, tmp_path / example)))
    files = {tmp_path / block.file: block.text for block in blocks(page) if block.file}
    whole = [path.parent for path in files if path.name == "pyproject.toml" and not path.exists()]
    for path, text in files.items():
        new = any(path.is_relative_to(folder) for folder in whole)
        assert new or path.is_file(), f"{page} replaces {path}, which is not there"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for folder in whole:
        monkeypatch.syspath_prepend(_installed(folder))
    forget()
    assert not [fault for fault in registry().found.faults if fault.distribution != "advss"]
    yield page
    for module in [name for name in sys.modules if name.startswith("advss_") and name not in before]:
        del sys.modules[module]
    for name in [name for name in timm.list_models() if timm.model_entrypoint(name).__module__.startswith("advss_")]:
        timm.models._registry._clear_model_entries(name)
        del timm.models._registry._model_entrypoints[name]
    forget()


def _installed(folder: Path) -> Path:
    """Make the metadata that pip would make of a package's pyproject.toml; where they lie."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / "src" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = [f"{name} = {module}" for name, module in project["entry-points"]["advss"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[advss]", *points, ""]))
    return folder / "src"


def on(*pages: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("followed", pages, indirect=True)


# ---------------------------------------------------------------- every page
@on(*PAGES)
def test_its_commands_can_be_typed(followed: str) -> None:
    for words in commands(followed):
        command = next(name for length in (2, 1) if (name := " ".join(words[:length])) in COMMANDS)
        sort_words(words[len(command.split()) :], COMMANDS[command].grammar)


@on(*(page for page in PAGES if any(words[0] == "fit" for words in commands(page))))
def test_its_runs_resolve(followed: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands(followed):
        refused = words[0] == "fit" and "advss: error" in "".join(_below(followed, words))
        if words[0] == "fit" and "--resume" not in words:
            asked = [word for word in words if word != "--print-config"]
            assert main([*asked, "--print-config"]) == (2 if refused else 0), capsys.readouterr().err


def _below(page: str, words: list[str]) -> list[str]:
    command = shlex.join(["advss", *words])
    every = blocks(page)
    places = [n for n, block in enumerate(every[:-1]) if block.text.splitlines()[-1:] == [command]]
    return every[places[0] + 1].text.splitlines() if places else []


@on(*(page for page in PAGES if any(block.language == "yaml" for block in blocks(page))))
def test_its_yaml_configures_a_run_or_a_study(
    followed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for block in blocks(followed):
        if block.language == "yaml":
            (tmp_path / "file.yaml").write_text(block.text)
            if block.text.startswith("fixed:"):
                assert cells_of(read_definition(tmp_path / "file.yaml"))
                continue
            assert main(["fit", "--config", "file.yaml", "--print-config"]) == 0, capsys.readouterr().err


@on(*(page for page in PAGES if any(block.language == "python" for block in blocks(page))))
def test_its_python_can_be_compiled(followed: str) -> None:
    for block in blocks(followed):
        if block.language == "python":
            compile(block.text, followed, "exec")


@on(*KINDS)
def test_its_class_keeps_the_contract_that_discovery_asks(followed: str) -> None:
    code = next(block.text for block in blocks(followed) if block.language == "python")
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    (offered,) = [thing for thing in namespace.values() if isinstance(thing, type) and "name" in thing.__dict__]
    generated = registry().find(KINDS[followed], vars(offered)["name"])
    assert offered.__mro__[1] is generated.__mro__[1]


# ---------------------------------------------------------------- packages that a page has whole
TINY = "--data.limit 40 --pretext none --finetune-epochs 1 --finetune-batch-size 18 --eval-steps 1 --eval-valid-steps 1"
NARROW = "--backbone resnet18 --backbone.layers [1,1,1,1] --backbone.channels [8,8,8,8]"
QUIETLY = "--device cpu --memory-format contiguous --tracking false --quiet --name it"


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """The files that the page of data sources reads: images of 8 pixels of three classes."""
    generator = np.random.default_rng(0)
    (tmp_path / "flowers").mkdir()
    for split, count in (("train", 48), ("test", 12)):
        images = generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        labels, classes = np.arange(count) % 3, np.array(["aster", "iris", "lily"])
        np.savez(tmp_path / "flowers" / f"{split}.npz", images=images, labels=labels, classes=classes)
    return tmp_path / "flowers"


@on("data.md")
def test_the_data_source_keeps_the_contract(followed: str, flowers: Path) -> None:
    (subject,) = find("npz", kind="data", options={"root": str(flowers)})
    verdicts = [judge(check, subject) for check in checks_of("data")]
    assert [(verdict.check, verdict.message) for verdict in verdicts if verdict.outcome != "passed"] == []


@on("data.md")
def test_the_data_sources_own_test_passes(followed: str, flowers: Path, tmp_path: Path) -> None:
    (path,) = [tmp_path / block.file for block in blocks(followed) if "tests/" in block.file]
    shutil.move(flowers, path.parent / "flowers")
    namespace: dict[str, Any] = {"__file__": str(path)}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    (cases,) = namespace["test_contract"].pytestmark
    assert len(cases.args[1]) == len(checks_of("data"))
    for case in cases.args[1]:
        namespace["test_contract"](*case)


@on("data.md")
def test_a_run_trains_on_the_data_source(followed: str, flowers: Path, tmp_path: Path) -> None:
    assert main(shlex.split(f"fit --data npz --data.root flowers {TINY} {NARROW} {QUIETLY}")) == 0
    result = json.loads((tmp_path / "runs" / "it" / "result.json").read_text())
    record = {"kind": "data", "name": "npz", "distribution": "advss-npz", "version": "0.1.0"}
    assert record in result["plugins"]
    images, labels = advss.load_data("it")
    stored = np.load(flowers / "test.npz")
    assert np.array_equal((images * 255).round().byte().permute(0, 2, 3, 1).numpy(), stored["images"])
    assert labels.tolist() == stored["labels"].tolist()


@on("data.md")
@pytest.mark.parametrize("spoil", ["remove", "cut", "array"])
def test_the_data_source_says_what_it_cannot_read(
    followed: str, flowers: Path, spoil: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = flowers / "test.npz"
    content = path.read_bytes()
    path.unlink()
    if spoil == "cut":
        path.write_bytes(content[:100])
    elif spoil == "array":
        np.savez(path, images=np.zeros(1))
    assert main(shlex.split(f"fit --data npz --data.root flowers {TINY} {NARROW} {QUIETLY}")) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"advss: error: --data.root {flowers}: cannot read labels of {path} (")


@on("backbones.md")
def test_a_run_trains_the_backbone(followed: str) -> None:
    assert main(shlex.split(f"fit --backbone resnet10_thin {TINY} {QUIETLY}")) == 0
    assert advss.load_model("it")(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


# ---------------------------------------------------------------- the guide
@on(GUIDE)
def test_the_guide_installs_what_it_has_written(followed: str, tmp_path: Path) -> None:
    (folder,) = {words[2] for words in commands(followed) if words[:2] == ["plugins", "new"]}
    lines = "".join(block.text for block in blocks(followed) if not block.language).splitlines()
    assert f"pip install -e {folder}" in lines
    (entry_point,) = [block.text for block in blocks(followed) if block.language == "toml"]
    assert entry_point in (tmp_path / folder / "pyproject.toml").read_text()


def test_the_guide_shows_what_a_new_package_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (words,) = [words for words in commands(GUIDE) if words[:2] == ["plugins", "new"]]
    main(words)
    assert capsys.readouterr().out.splitlines() == shown(GUIDE, shlex.join(["advss", *words]))


@on(GUIDE)
@pytest.mark.parametrize("command", ["advss plugins list", "advss plugins show odd-cell"])
def test_the_guide_shows_what_a_command_prints(
    command: str, followed: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    capsys.readouterr()
    assert main(shlex.split(command)[1:]) == 0
    printed = [line.rstrip() for line in capsys.readouterr().out.replace(f"{tmp_path}/", "").splitlines()]
    for line in shown(followed, command):
        assert line in printed


@on(GUIDE)
def test_the_guides_bad_value_is_refused_in_the_words_that_it_shows(
    followed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (words,) = [w for w in commands(followed) if "advss: error" in "".join(_below(followed, w))]
    assert main(words) == 2
    assert capsys.readouterr().err.splitlines() == _below(followed, words)


@on(GUIDE)
def test_the_guides_own_test_passes(followed: str, tmp_path: Path) -> None:
    (path,) = [tmp_path / block.file for block in blocks(followed) if "tests/" in block.file]
    namespace: dict[str, Any] = {"__name__": "test_of_the_guide"}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    (own,) = [namespace[name] for name in namespace if name.startswith("test_") and name != "test_contract"]
    own()
    module = importlib.import_module("advss_odd_cell")
    assert namespace["OddCellTask"] is module.OddCellTask


@on(GUIDE)
def test_the_guides_task_keeps_the_contract(followed: str) -> None:
    (subject,) = find("odd-cell", kind="pretext", options=None)
    alone = [check for check in checks_of("pretext") if not check.name.startswith("it trains")]
    verdicts = [judge(check, subject) for check in alone]
    assert [(verdict.check, verdict.message) for verdict in verdicts if verdict.outcome != "passed"] == []
    assert len(verdicts) > 20


def test_the_guide_shows_checks_that_there_are() -> None:
    lines = [line.removeprefix("✓ ") for line in shown(GUIDE, "advss plugins check odd-cell") if line.startswith("✓ ")]
    assert len(lines) > 10
    assert set(lines) <= {check.name for check in checks_of("pretext")} | {DISCOVERED}
