"""Folders of runs as their files say them, written by hand: no model is trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save

PGD = {"eps": 0.1, "norm": "linf", "steps": 20}
Run = Callable[..., Path]


@pytest.fixture
def measured() -> Callable[..., dict[str, Any]]:
    """Writes a measurement into a run's folder."""
    return _measured


def _measured(folder: Path, right: dict[str, Sequence[bool]], **said: Any) -> dict[str, Any]:
    """Write a measurement of PGD, with the answers; returns what result.json says of it."""
    count = len(next(iter(right.values())))
    options = PGD | said.pop("options", {})
    key = hashlib.sha256(json.dumps([options, count]).encode()).hexdigest()[:12]
    file = f"evaluations/pgd-{key}.json"
    answers = {name: np.array(one, bool) for name, one in right.items()}
    data = save({**answers, "index": np.arange(count) + said.pop("first", 0), "label": np.zeros(count, np.int64)})
    content = {
        "evaluation": "pgd",
        "title": "PGD-20 ℓ∞ 0.1",
        "options": options,
        "images": {"data": said.pop("data", "d" * 64), "count": count, "chunk": 256},
        "checkpoint": "c",
        "answers_sha256": hashlib.sha256(data).hexdigest(),
        "figures": {
            **{n: {"accuracy": float(np.mean(one)), "interval": [0, 1], "images": count} for n, one in right.items()},
            **said,
        },
    }
    (folder / "evaluations").mkdir(exist_ok=True)
    (folder / file).write_text(json.dumps(content))
    (folder / file).with_suffix(".safetensors").write_bytes(data)
    return {**content, "file": file}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Writes runs/NAME: its seed, its answers under PGD, and what more its measurement, result and settings say."""
    monkeypatch.chdir(tmp_path)

    def write(
        name: str,
        right: dict[str, Sequence[bool]] | None = None,
        *,
        seed: int = 0,
        result: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
        **said: Any,
    ) -> Path:
        folder = tmp_path / "runs" / name
        (folder / "finetune").mkdir(parents=True)
        settings = {"pretext": "none", "finetune-lr": 0.1, "name": name, "seed": seed} | (config or {})
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        lines = [_record("run", id=name, name=name, experiment="advss", what="run")]
        for epoch, ra in ((1, 0.2), (2, 0.4), (3, 0.3)):
            values = {"valid/ta": 0.5 + epoch / 10, "valid/ra": ra}
            lines.append(_record("metrics", stage="finetune", step=epoch * 4, epoch=epoch, values=values))
        (folder / "metrics.jsonl").write_text("".join(lines))
        for ending in ("json", "safetensors"):
            (folder / "finetune" / f"best.{ending}").write_text('{"torch": "2.99", "advss": "0.9"}')
        found: dict[str, Any] = {"name": name, "status": "finished", "command": "fit", "seed": seed, "best_epoch": 2}
        found |= {"seconds": {"finetune": 8.0}, "epochs": {"finetune": 3}, "plugins": []}
        if right:
            one = _measured(folder, right, **said)
            found |= {"evaluation": one, "evaluations": {"pgd": one}, "ta": 0.5, "ra": 0.5}
        (folder / "result.json").write_text(json.dumps(found | (result or {})))
        return folder

    return write


def _record(kind: str, *, stage: str = "", **more: Any) -> str:
    return json.dumps({"kind": kind, "stage": stage, "time": 1.0, **more}) + "\n"
