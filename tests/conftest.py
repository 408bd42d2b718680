"""What tests of several rooms share: a tiny encoder and a batch of random images."""

from __future__ import annotations

import pytest
import torch

from advss.hookspecs import Batch, DataFacts
from advss.models.encoder import TimmEncoder, build_encoder

FACTS = DataFacts(images=40, side=32, channels=3, classes=4)
TINY = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}

torch.set_num_threads(1)  # the networks of tests are so small that a second thread only waits for the first


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
