"""What tests of several rooms share: a tiny encoder, a batch of random images, tiny runs and signals."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded, and for the programs that tests start
import pytest
import torch

import advss
from advss.config import Choice, EvalSettings, RunConfig, StageSettings
from advss.configuration.resolve import resolve, to_yaml
from advss.evaluations.planned import Planned
from advss.files import write_bytes
from advss.hookspecs import Batch, DataFacts
from advss.models.encoder import TimmEncoder, build_encoder
from advss.runs import curves, diversity, opened
from advss.threads import own_cores
from advss.training.checkpoints import load_checkpoint
from advss.training.reporting import Silent

PATIENCE_S = 240.0
FACTS = DataFacts(images=40, side=32, channels=3, classes=4)
TINY = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Whole folders are tested on up to four cores; for a file or a test another process would only take its start."""
    asked = [Path(one.partition("::")[0]) for one in config.args]
    return min(4, len(own_cores())) if all(one.is_dir() for one in asked) else 0


@pytest.fixture(scope="session", autouse=True)
def _undrawn() -> Iterator[None]:
    """A run's curves are blank files and its answers not drawn, as drawing takes longer than a tiny run.

    Who calls what draws curves has it draw; for pictures of answers there is the fixture ``drawing``.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((curves, "draw_curves"), (diversity, "draw_diversity")):
            patch.setattr(opened, name, _blank(module, getattr(module, name)))
        patch.setattr(Planned, "drawn", lambda plan, measured: {})
        yield


DRAWN = Planned.drawn


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are drawn after all."""
    monkeypatch.setattr(Planned, "drawn", DRAWN)


def _blank(module: ModuleType, draw: Callable[[Path, Path], list[Path]]) -> Callable[[Path, Path], list[Path]]:
    def drawn(journal: Path, folder: Path) -> list[Path]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_drawn", lambda *args: None)
            patch.setattr(module, "save_figure", _save_blank)
            return draw(journal, folder)

    return drawn


def _save_blank(figure: None, path: Path) -> tuple[Path, Path]:
    files = path, path.with_suffix(".svg")
    for file in files:
        write_bytes(file, b"")
    return files


@pytest.fixture
def encoder() -> TimmEncoder:
    """A ResNet-18 with a block a stage and 16 channels, in train mode, the same in every test."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_encoder("resnet18", TINY, FACTS, mean=[0.5] * 3, std=[0.25] * 3)


@pytest.fixture
def batch() -> Batch:
    """Four random images of 32 pixels, with labels among 4 and places among 40."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(4, 3, 32, 32, generator=generator)
    return Batch(x, x.clone(), torch.arange(4) * 5, torch.arange(4))


Settings = Callable[..., RunConfig]

BACKBONE = Choice("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]})
TASKS: dict[str, dict[str, Any]] = {"selfie": {"layers": 1, "heads": 2}, "rotation": {}, "jigsaw": {"permutations": 5}}
STAGE = StageSettings(epochs=1, batch_size=32, lr=0.05, clip=5.0, weight_decay=5e-4)
EVALUATION = EvalSettings(steps=2, valid_steps=1, limit=20)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Makes the configuration of a tiny run on 80 digits of 16 pixels: 2 steps an epoch."""

    def make(
        pretext: str = "rotation",
        defense: str = "pgd",
        finetune: str = "full",
        finetune_defense: str = "",
        *,
        stage: dict[str, Any] | None = None,
        **more: Any,
    ) -> RunConfig:
        tasks = pretext.split(",") if pretext != "none" else []
        attack: dict[str, dict[str, Any]] = {"pgd": {"steps": 1}}
        both = replace(STAGE, **(stage or {}))
        final = finetune_defense or defense
        config = RunConfig(
            pretext=tuple(Choice(name, TASKS[name], name) for name in tasks),
            defense=Choice(defense, attack.get(defense, {})),
            finetune=Choice(finetune),
            finetune_defense=Choice(final, attack.get(final, {})),
            data=Choice("digits"),
            backbone=BACKBONE,
            pretraining=both,
            finetuning=both,
            evaluation=EVALUATION,
            evaluate=(Choice("pgd", {}, "pgd"),),
            limit=80,
            size=16,
            name="run",
            device="cpu",
            memory_format="contiguous",
            runs_dir=tmp_path / "runs",
            tracking=False,
        )
        return replace(config, **more)

    return make


@pytest.fixture(scope="session")
def three_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs a, b (of another width) and c (of another seed): classifiers of 100 digits, most right."""
    folder = tmp_path_factory.mktemp("three") / "runs"
    for name, seed, width in (("a", 0, 16), ("b", 0, 24), ("c", 1, 16)):
        advss.fit(
            pretext="none",
            defense="none",
            backbone={"resnet18": {"layers": [1, 1, 1, 1], "channels": [width] * 4}},
            finetune_epochs=10,
            finetune_batch_size=10,
            finetune_lr=0.03,
            finetune_optimizer="adamw",
            finetune_schedule="onecycle",
            eval_valid_steps=1,
            eval_eps=2 / 255,
            eval_step_size=1 / 255,
            eval_steps=2,
            eval_restarts=2,
            eval_batch_size=40,
            name=name,
            seed=seed,
            runs_dir=str(folder),
            device="cpu",
            memory_format="contiguous",
            tracking=False,
            data_limit=100,
        )
    return folder


@pytest.fixture
def runs(three_runs: Path, tmp_path: Path) -> Path:
    """A copy of the three runs for one test."""
    return Path(shutil.copytree(three_runs, tmp_path / "runs"))


class Stopper(Silent):
    """A reporter that sends this process SIGTERM at one moment of a run: ("pretrain", "step", 3)."""

    def __init__(self, stage: str, event: str, number: int) -> None:
        self.at = (stage, event, number)
        self.stage = ""

    def start(self, stage: str, *, steps: int, done: int, epochs: int, unit: str = "step") -> None:
        self.stage = stage
        self._maybe("start", done)

    def step(self, *, step: int, images: int, metrics: Mapping[str, float]) -> None:
        self._maybe("step", step)

    def epoch(self, *, epoch: int, epochs: int, metrics: Mapping[str, float]) -> None:
        self._maybe("epoch", epoch)

    def _maybe(self, event: str, number: int) -> None:
        if (self.stage, event, number) == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def stopper() -> type[Stopper]:
    return Stopper


@pytest.fixture
def tensors() -> Callable[[RunConfig, str, str], dict[str, torch.Tensor]]:
    """The tensors of a run's checkpoint, by stage and "best" or "last"."""

    def load(config: RunConfig, stage: str, which: str) -> dict[str, torch.Tensor]:
        assert config.name is not None
        return load_checkpoint(config.runs_dir / config.name / stage / f"{which}.safetensors").tensors

    return load


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """The lines on stderr since the last look, but for those that every run begins with: recipe, name and data."""
    usual = ("recipe ", "starting ", "data ", "pretrain-data ")

    def lines() -> list[str]:
        return [line for line in capsys.readouterr().err.splitlines() if not line.startswith(usual)]

    return lines


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """What a test draws from the global generator hangs on no test before it."""
    torch.manual_seed(20)  # that no test chooses itself


@pytest.fixture
def heard() -> Iterator[None]:
    """SIGHUP and SIGINT as at a terminal, here and in programs that are started: who runs the tests may ignore them."""
    usual: dict[signal.Signals, Any] = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


Stored = Callable[..., Path]


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    """Writes the folder of a finished run as ``advss fit`` leaves it, its tensors bytes that nobody trained.

    What is said beside its name stands in result.json.
    """

    def write(name: str, **said: Any) -> Path:
        folder = tmp_path / "runs" / name
        for stage in ("pretrain", "finetune"):
            for which in ("best", "best.previous", "last", "last.previous"):
                tensors = f"{name} {stage} {which}".encode()
                write_bytes(folder / stage / f"{which}.safetensors", tensors)
                manifest = {"sha256": hashlib.sha256(tensors).hexdigest(), "good": True, "data": STORED_DATA}
                own = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
                write_bytes(folder / stage / f"{which}.json", json.dumps({**manifest, "manifest_sha256": own}).encode())
        config = resolve({"pretext": "rotation", "name": name}, environ={})
        write_bytes(folder / "config.yaml", to_yaml(config).encode())
        write_bytes(folder / "metrics.jsonl", b'{"kind": "run", "stage": "", "time": 1.7e9, "id": "0"}\n')
        write_bytes(folder / "result.json", json.dumps({**STORED_RESULT, "name": name, **said}).encode())
        return folder

    return write


STORED_DATA = {"classes": ["a", "b"]} | {part: {"images": 40, "sha256": part * 9} for part in ("train", "test")}
STORED_RESULT: dict[str, Any] = {
    "command": "fit",
    "status": "finished",
    "pretext": ["rotation"],
    "defense": "pgd",
    "finetune": {"scheme": "full", "defense": "pgd"},
    "data": "digits",
    "pretrain_data": None,
    "backbone": "resnet18",
    "seed": 3,
    "ta": 0.9,
    "ra": 0.4,
    "epochs": {"pretrain": 5, "finetune": 4},
    "best_epochs": {"pretrain": 2, "finetune": 3},
    "seconds": {"pretrain": 7.0, "finetune": 6.0, "evaluate": 1.0},
}


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], Any]:
    """Waits for what another process does: what is said, as soon as it is true."""

    def found(said: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if it := said():
                return it
            time.sleep(0.02)
        raise AssertionError("it takes too long")

    return found
