"""The tasks that come with advss never look at labels."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from advss.hookspecs import Batch, PretextTask
from advss.models.encoder import TimmEncoder
from advss.plugins.registry import registry

OWN = [
    plugin.offered for plugin in registry().found.plugins if plugin.kind == "pretext" and plugin.distribution == "advss"
]


@pytest.mark.parametrize("task", OWN, ids=lambda task: str(task.name))
def test_the_loss_hangs_on_no_label(task: type[PretextTask], encoder: TimmEncoder, batch: Batch) -> None:
    torch.manual_seed(0)
    made = task()
    made.build(encoder)
    losses = []
    for label in (batch.label, torch.full_like(batch.label, -1)):
        views = made.views(dataclasses.replace(batch, label=label), torch.Generator().manual_seed(0))
        losses.append(made.eval().loss(encoder.eval(), views.inputs, views.targets).value)
    assert torch.equal(*losses)
