"""The headline of a run: TA and RA of its classifier, and whether it has learnt anything."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from advss.attacks.evaluation import answered
from advss.data.splits import Part, part_tensors
from advss.evaluations.chance import against_chance
from advss.runs.session import Session

Headline = dict[str, Any]
LEARNT = (
    "ta_all",
    "test_images",
    "chance",
    "largest_class",
    "most_answered",
    "doubt",
)  # of all test images, unattacked


def learnt(model: nn.Module, session: Session) -> Headline:
    """TA over all test images of a session, and what :mod:`advss.evaluations.chance` says of it."""
    test, size = session.splits.test, session.config.evaluation.batch_size
    model = model.to(session.device)
    with session.stop.asked_by(model):
        answer_N = answered(model, partial(read_images, test, session.device), len(test), size)
    ta = share(answer_N == test.labels)
    return {"ta": ta, "ta_all": ta, "test_images": len(test)} | against_chance(
        answer_N, test.labels, session.splits.classes
    )


def headline_of(known_by: Mapping[str, Any], content: Mapping[str, Any]) -> Headline:
    """TA and RA of the same images, from a measurement with an RA: what it is known by, its ``title`` and figures."""
    ra, ta = content["figures"]["ra"], content["figures"].get("ta")
    return {
        "ra": ra["accuracy"],
        "ra_interval": ra["interval"],
        "ra_images": ra["images"],
        "ra_attack": {"evaluation": known_by["evaluation"], "title": content["title"], **known_by["options"]},
        **({"ta": ta["accuracy"]} if ta else {}),
    }


def share(chosen_N: Tensor) -> float:
    """Of the images, those chosen: (N,) bool to a number from 0 to 1."""
    return float(chosen_N.double().mean())


def read_images(part: Part, device: torch.device, start: int, end: int) -> Tensor:
    """The images at the places from ``start`` to before ``end``; only these are decoded and held."""
    x, _ = part_tensors(part.select(torch.arange(start, end)))
    return x.to(device)
