"""Whether a classifier has learnt anything: its clean answers against chance and against the largest class.

Every measurement of a classifier holds it: of one alone, smoothed, averaged, or attacked by others' examples.

Letters: N test images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from scipy.stats import binomtest
from torch import Tensor

from advss.attacks.evaluation import NO_ANSWER

LEVEL = 0.05  # of the one-sided exact test against always answering the largest class
SELDOM = 0.1  # answers other than the most frequent, as a share of how often they would be right


def against_chance(answer_N: Tensor, label_N: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """What result.json says of chance.

    Args:
        answer_N: what :func:`advss.attacks.evaluation.answered` says of the images, unperturbed; below 0 where it is no
            class, a smoothed classifier that abstains too.
        label_N: their labels.
        classes: names of the K classes.

    Returns:
        ``chance``, 1/K; ``largest_class``, the labels' most frequent, and ``most_answered``, the answers', each a
        ``name`` and a ``share`` of the images, the latter null where nothing is answered; ``doubt``, one line where the
        classifier answers one class for nearly all images, is no better than always answering the largest class (the
        exact binomial test at ``LEVEL``), or gives logits that are not finite; else null, as where so few images
        could not tell even if all were right.
    """
    known_N = answer_N[answer_N >= 0]
    found = {
        "chance": 1 / len(classes),
        "largest_class": _most(label_N, len(label_N), classes),
        "most_answered": _most(known_N, len(label_N), classes) if len(known_N) else None,
    }
    return {**found, "doubt": _doubt(answer_N, label_N, classes, found)}


def _most(class_N: Tensor, of: int, classes: Sequence[str]) -> dict[str, Any]:
    counts_K = torch.bincount(class_N, minlength=len(classes))
    return {"name": classes[int(counts_K.argmax())], "share": int(counts_K.max()) / of}


def _doubt(answer_N: Tensor, label_N: Tensor, classes: Sequence[str], found: dict[str, Any]) -> str | None:
    count, silent = len(label_N), int((answer_N == NO_ANSWER).sum())
    if silent:
        return (
            f"the logits of {_percent(silent / count)} of the {count} test images are not finite: they count as wrong"
        )
    most, largest = found["most_answered"], found["largest_class"]
    its_share = float((label_N == classes.index(most["name"])).double().mean()) if most else 0.0
    if most and its_share < 1 and 1 - most["share"] <= SELDOM * (1 - its_share):
        return (
            f"the model answers '{most['name']}' for {_percent(most['share'])} of the {count} test images, "
            f"of which {_percent(its_share)} are"
        )
    hits, could_tell = int((answer_N == label_N).sum()), largest["share"] ** count <= LEVEL
    if could_tell and binomtest(hits, count, largest["share"], alternative="greater").pvalue > LEVEL:
        return (
            f"TA {_percent(hits / count)} on {count} test images is no better than chance: "
            f"'{largest['name']}' for all of them would have {_percent(largest['share'])}"
        )
    return None


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"
