"""Distributions made up in a temporary folder, found as installed ones are."""

from __future__ import annotations

import itertools
import shlex
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from advss.cli.main import main
from advss.plugins import forget
from advss.switches import switch_off

Install = Callable[..., str]
Run = Callable[..., int]
FLIP = """
    import torch
    import torch.nn.functional as F
    from torch import nn

    from advss.hookspecs import Loss, PretextTask, Views, accuracy, hookimpl

    class Flip(PretextTask):
        "Was the image mirrored?"

        name = "flip"

        def __init__(self):
            super().__init__()

        def build(self, encoder):
            self.tail = encoder.tail()
            self.head = nn.Linear(encoder.features, 2)

        def views(self, batch, generator):
            flipped = (batch.x.new_empty(len(batch.x)).uniform_(0, 1, generator=generator) < 0.5).long()
            x = batch.x.where(flipped[:, None, None, None] == 0, batch.x.flip(3))
            return Views((x,), {"flipped": flipped})

        def loss(self, encoder, inputs, targets):
            logits = self.head(self.tail(encoder(inputs[0]))).float()
            value = F.cross_entropy(logits, targets["flipped"])
            return Loss(value, (logits,), {"accuracy": accuracy(logits, targets["flipped"])})

    @hookimpl
    def advss_pretext_tasks():
        return [Flip]
"""
TINY = shlex.split(
    "--backbone resnet18 --backbone.layers [1,1,1,1] --backbone.channels [8,8,8,8] --data.limit 60 --data.size 16 "
    "--pretrain-epochs 1 --pretrain-batch-size 40 --memory-format contiguous --tracking false"
)
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _fresh_discovery(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for variable in ("ADVSS_DISABLE_PLUGINS", "ADVSS_STRICT_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    switch_off(())
    forget()
    yield
    switch_off(())
    forget()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution of one module. Returns the module's name; ``target`` follows it in the entry point."""

    def install_one(name: str, code: str, *, version: str = "2.5", entry: str = "plugin", target: str = "") -> str:
        module = f"fake_plugin_{next(_numbers)}"
        folder = tmp_path / module
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[advss]\n{entry} = {module}{target}\n")
        (folder / f"{module}.py").write_text(textwrap.dedent(code))
        monkeypatch.syspath_prepend(folder)
        return module

    return install_one


@pytest.fixture
def flip() -> str:
    """A module with a pretext task, as a third party writes one."""
    return FLIP


@pytest.fixture
def run(install: Install, tmp_path: Path) -> Run:
    """Install a plugin and train with it; returns the exit status."""

    def fit(code: str, *words: str, name: str = "flip") -> int:
        install("their-plugin", code)
        where = ["--runs-dir", str(tmp_path / "runs")]
        return main(["fit", "--pretext", name, "--defense", "none", *where, *TINY, *words])

    return fit


@pytest.fixture
def fails(run: Run, tmp_path: Path, told: Callable[[], list[str]]) -> Callable[..., str]:
    """As ``run``, of what fails before any training; returns what was said on stderr."""

    def fail(code: str, *words: str, name: str = "flip") -> str:
        assert run(code, *words, name=name) == 2
        assert not list((tmp_path / "runs").glob("*"))
        return "".join(f"{line}\n" for line in told())

    return fail
