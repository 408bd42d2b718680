"""What a stage's settings say of augmentation reaches its batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from advss.config import StageSettings
from advss.configuration.resolve import resolve
from advss.data.splits import open_splits
from advss.runs.folder import RunFolder
from advss.runs.session import Session
from advss.tracking.tracker import Tracker
from advss.training.reporting import Silent
from advss.training.signals import StopRequest

PLAIN = StageSettings(epochs=1, batch_size=16)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """A run of 100 digits of 24 pixels in the middle of 32, opened and not begun."""
    config = resolve({"data.size": 24, "data.resize": 32}, environ={})
    splits = open_splits("digits", {}, limit=100, size=24, resize=32)
    tracker = Tracker(tmp_path, name="work", enabled=False)
    return Session(config, RunFolder(tmp_path), splits, torch.device("cpu"), tracker, Silent(), StopRequest())


def test_nothing_said_augments_nothing(session: Session) -> None:
    batch = session.loader(session.splits.train, PLAIN, "finetune").batch(0, 0, progress=0.0)
    assert torch.equal(batch.x, batch.raw)


@pytest.mark.parametrize("said", [{"crop": 4}, {"flip": True}, {"resized_crop": 0.3}], ids=str)
def test_each_setting_changes_the_images_and_not_what_they_are_made_of(session: Session, said: dict[str, int]) -> None:
    settings = replace(PLAIN, **said)  # type: ignore[arg-type]
    batch = session.loader(session.splits.train, settings, "finetune").batch(0, 0, progress=0.0)
    plain = session.loader(session.splits.train, PLAIN, "finetune").batch(0, 0, progress=0.0)
    assert torch.equal(batch.raw, plain.raw)
    assert batch.x.shape == plain.x.shape == (16, 3, 24, 24)
    assert not torch.equal(batch.x, plain.x)


def test_images_to_validate_on_are_centres_whatever_is_said(session: Session) -> None:
    settings = replace(PLAIN, resized_crop=0.3, flip=True)
    batch = next(session.loader(session.splits.valid, settings, "valid").in_order(10))
    whole = open_splits("digits", {}, limit=100, size=32).valid
    assert torch.equal(batch.x, whole.images.read(torch.arange(10))[..., 4:28, 4:28] / 255)
