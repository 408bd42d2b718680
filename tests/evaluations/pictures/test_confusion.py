"""Confusion matrices against counting by hand, and what the figure says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from advss.evaluations.pictures import draw_confusion
from advss.evaluations.pictures.confusion import MOST_CONFUSED, confusion
from advss.figures import save_figure

CLASSES = ("cat", "dog", "owl")
LABELS = torch.tensor([0, 0, 0, 0, 1, 1])
CLEAN = torch.tensor([0, 0, 0, 1, 1, 1])
ATTACKED = torch.tensor([1, 1, 0, -2, 2, 1])  # one without an answer


def texts(panel: int, answers: dict[str, Tensor]) -> dict[tuple[float, float], str]:
    axes = draw_confusion(answers, LABELS, CLASSES).axes[panel]
    return {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}


def test_counts_by_hand() -> None:
    found = confusion({"clean": CLEAN, "attacked": ATTACKED}, LABELS, CLASSES)
    assert found["clean"].counts.tolist() == [[3, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]]
    assert found["attacked"].counts.tolist() == [[1, 2, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert found["clean"].columns == ["cat", "dog", "owl", "none"]


def test_rows_are_per_cent_and_one_without_images_is_empty() -> None:
    percent = confusion({"clean": CLEAN}, LABELS, CLASSES)["clean"].percent
    assert percent[:2].tolist() == [[75, 25, 0], [0, 100, 0]]
    assert percent[2].isnan().all()


def test_the_figure_shows_per_cent_by_darkness_and_counts_by_number() -> None:
    figure: Any = draw_confusion({"clean": CLEAN, "attacked": ATTACKED}, LABELS, CLASSES)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["clean", "attacked"]
    assert figure.axes[1].images[0].get_array()[0].tolist() == [25, 50, 0, 25]
    assert texts(1, {"clean": CLEAN, "attacked": ATTACKED}) == {
        (0, 0): "1",
        (0, 1): "2",
        (0, 3): "1",
        (1, 1): "1",
        (1, 2): "1",
    }


def test_without_a_missing_answer_there_is_no_column_for_it() -> None:
    assert confusion({"clean": CLEAN}, LABELS, CLASSES)["clean"].columns == list(CLASSES)


@pytest.mark.parametrize(("classes", "numbers"), [(12, True), (13, False), (100, False)])
def test_numbers_stand_where_there_is_room(classes: int, numbers: bool) -> None:
    labels = torch.arange(classes)
    figure = draw_confusion({"clean": labels}, labels, [f"class {i}" for i in labels])
    assert bool(figure.axes[0].texts) == numbers
    assert len(figure.axes[0].get_yticklabels()) == classes


def test_many_classes_are_their_most_confused_ones_and_the_others_together() -> None:
    labels = torch.arange(150).repeat(2)
    answers = labels.clone()
    answers[[3, 153]] = 149  # class 3 is never right, and twice called 149
    answers[7] = -2
    found = confusion({"clean": labels, "attacked": answers}, labels, [f"c{i}" for i in range(150)])["attacked"]
    assert len(found.rows) == MOST_CONFUSED
    assert {"c3", "c7", "c149"} <= set(found.rows)
    assert found.columns == [*found.rows, "other", "none"]
    assert found.counts[found.rows.index("c3"), found.columns.index("c149")] == 2
    assert found.counts[found.rows.index("c7"), -1] == 1
    assert found.counts.sum(1).tolist() == [2] * MOST_CONFUSED


def test_answers_of_a_class_that_is_not_shown_are_other() -> None:
    labels = torch.arange(150).repeat_interleave(30)
    answers = labels.clone()
    for shown in range(MOST_CONFUSED):
        answers[30 * shown : 30 * shown + 25] = torch.arange(100, 125)  # as little as once each
    found = confusion({"clean": answers}, labels, [f"c{i}" for i in range(150)])["clean"]
    assert found.rows == [f"c{i}" for i in range(MOST_CONFUSED)]
    assert found.counts[:, -1].tolist() == [25] * MOST_CONFUSED


def test_the_title_says_that_classes_are_left_out() -> None:
    labels = torch.arange(150)
    figure = draw_confusion({"clean": labels}, labels, [f"c{i}" for i in labels])
    assert figure.get_suptitle() == "the 20 of 150 classes that are most confused, 150 images"


def test_one_image_of_classes_with_strange_names_is_drawn(tmp_path: Path) -> None:
    one = torch.tensor([1])
    figure = draw_confusion(
        {"clean": one, "attacked": one - 3}, one, ["a$x^$b", "a_very_long_class_name_of_some_breed"]
    )
    assert all(file.stat().st_size for file in save_figure(figure, tmp_path / "confusion.png"))
