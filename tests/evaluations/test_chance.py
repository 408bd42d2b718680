"""What is said of models that have learnt nothing, against figures worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from advss.attacks.evaluation import NO_ANSWER
from advss.evaluations.chance import against_chance
from advss.models.smoothed import ABSTAIN

CLASSES = ("cat", "dog", "owl")
BALANCED = torch.arange(3).repeat(20)  # 60 labels, 20 of each


def doubt(answer_N: Tensor, label_N: Tensor = BALANCED) -> str | None:
    said: str | None = against_chance(answer_N, label_N, CLASSES)["doubt"]
    return said


def right(hits: int) -> Tensor:
    """Answers of which so many are right, and all classes are answered about as often."""
    return torch.cat([BALANCED[:hits], (BALANCED[hits:] + 1) % 3])


def test_chance_the_largest_class_and_the_most_answered_are_in_the_result() -> None:
    labels = torch.tensor([0, 1, 1, 1, 2, 2, 2, 2])
    found = against_chance(torch.tensor([0, 1, 1, 1, 2, 2, 1, 1]), labels, CLASSES)
    assert found["chance"] == pytest.approx(1 / 3)
    assert found["largest_class"] == {"name": "owl", "share": 0.5}
    assert found["most_answered"] == {"name": "dog", "share": 0.625}


def test_one_class_for_all_images_is_said() -> None:
    said = doubt(torch.ones(60, dtype=torch.int64))
    assert said == "the model answers 'dog' for 100 % of the 60 test images, of which 33.33 % are"


def test_one_class_for_nearly_all_images_is_said_and_for_many_not() -> None:
    answers = torch.ones(60, dtype=torch.int64)
    answers[:3] = 2
    assert "answers 'dog' for 95 % of the 60" in (doubt(answers) or "")
    assert doubt(torch.cat([BALANCED[:40], torch.ones(20, dtype=torch.int64)])) is None  # 46.67 % right


def test_no_better_than_chance_is_judged_by_the_exact_binomial_test() -> None:
    """P[X >= 26] = 0.0680 and P[X >= 27] = 0.0397 for X of Binomial(60, 1/3): summed by hand, one hit decides."""
    assert doubt(right(27)) is None
    said = "TA 43.33 % on 60 test images is no better than chance: 'cat' for all of them would have 33.33 %"
    assert doubt(right(26)) == said


def test_a_large_class_is_what_must_be_beaten() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    answers = labels.clone()
    answers[:9], answers[90:99] = 1, 0  # 82 % right, where 'cat' alone would be right about 90 %
    assert "no better than chance: 'cat' for all of them would have 90 %" in (doubt(answers, labels) or "")
    assert doubt(labels, labels) is None  # 'cat' for 90 %, and rightly


def test_logits_that_are_not_finite_are_said() -> None:
    answers = BALANCED.clone()
    answers[:6] = NO_ANSWER
    assert doubt(answers) == "the logits of 10 % of the 60 test images are not finite: they count as wrong"
    assert against_chance(torch.full((60,), NO_ANSWER), BALANCED, CLASSES)["most_answered"] is None


def test_abstaining_is_no_class_and_no_logit_that_is_not_finite() -> None:
    said = "TA 0 % on 60 test images is no better than chance: 'cat' for all of them would have 33.33 %"
    found = against_chance(torch.full((60,), ABSTAIN), BALANCED, CLASSES)
    assert (found["most_answered"], found["doubt"]) == (None, said)


def test_nothing_is_said_of_so_few_images_that_none_could_be_better_than_chance() -> None:
    assert doubt(torch.tensor([0, 1]), torch.tensor([0, 1])) is None  # 2 of 2 right: P = 1/4
    assert doubt(torch.tensor([1, 1, 1]), torch.tensor([1, 1, 1])) is None  # one class, and rightly
