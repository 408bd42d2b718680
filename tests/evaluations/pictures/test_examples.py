"""What stands on a page of examples: the images, the change by its factor, and what is said of each."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from advss.evaluations.pictures import Page, draw_examples
from advss.evaluations.pictures.examples import magnified
from advss.figures import save_figure


def page(count: int = 2, *, channels: int = 3, side: int = 8) -> Page:
    """Cats that are right and called dogs when attacked."""
    x = torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0))
    changed = x + torch.linspace(-1, 1, side) * 8 / 255
    sure = torch.tensor([[0.93, 0.07]]).expand(count, 2)
    attacked = torch.tensor([[0.29, 0.71]]).expand(count, 2)
    return Page(x, changed, torch.zeros(count, dtype=torch.int64), sure, attacked, ("cat", "dog"), "run: PGD-20")


def panels(one: Page) -> list[Any]:
    return draw_examples(one).axes


def test_the_line_below_tells_class_probability_and_right_or_wrong() -> None:
    assert [text.get_text() for text in draw_examples(page()).texts[1:]] == ["✓ cat 0.93 → ✗ dog 0.71"] * 2


def test_an_answer_that_is_not_finite_is_none() -> None:
    silent = dataclasses.replace(page(1), attacked=torch.full((1, 2), torch.nan))
    assert draw_examples(silent).texts[1].get_text() == "✓ cat 0.93 → ✗ no answer"


def test_panels_are_the_image_its_change_and_the_example() -> None:
    one = page(1)
    first, second, third = (axes.images[0].get_array() for axes in panels(one))
    expected = one.x[0].permute(1, 2, 0)
    assert torch.equal(torch.from_numpy(first), expected)
    assert torch.equal(torch.from_numpy(third), one.examples[0].permute(1, 2, 0).clamp(0, 1))
    across = torch.linspace(0, 1, 8).view(1, 8, 1).expand(8, 8, 3)
    torch.testing.assert_close(torch.from_numpy(second), across, atol=1e-5, rtol=0)


def test_titles_are_the_label_and_the_factor() -> None:
    titles = [axes.get_title() for axes in draw_examples(page(1)).axes]
    assert titles == ["cat", "change × 15.9", "attacked"]  # 0.5 / (8/255)


def test_no_change_is_grey() -> None:
    still = dataclasses.replace(page(1), examples=page(1).x)
    middle = panels(still)[1]
    assert middle.get_title() == "no change"
    assert set(middle.images[0].get_array().flatten().tolist()) == {0.5}


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_change_spans_half(sign: int) -> None:
    shown, factor = magnified(sign * torch.tensor([[[0.02, 0.0, -0.01]]]))
    assert factor == pytest.approx(25)
    torch.testing.assert_close(shown, 0.5 + sign * torch.tensor([[[0.5, 0.0, -0.25]]]))


@pytest.mark.parametrize(("side", "interpolation"), [(32, "none"), (64, "none"), (96, "auto")])
def test_small_images_keep_the_edges_of_their_pixels(side: int, interpolation: str) -> None:
    shown = panels(page(1, side=side))[0].images[0]
    assert shown.get_interpolation() == interpolation


def test_images_of_one_channel_are_grey() -> None:
    shown = panels(page(1, channels=1))[0].images[0]
    assert (shown.get_array().shape, shown.get_cmap().name, shown.get_clim()) == ((8, 8), "gray", (0, 1))


@pytest.mark.parametrize("count", [1, 4, 12])
def test_up_to_twelve_images_are_a_page(count: int, tmp_path: Path) -> None:
    figure = draw_examples(page(count))
    assert len(figure.axes) == 3 * count
    assert figure.get_suptitle() == "run: PGD-20"
    assert all(file.stat().st_size for file in save_figure(figure, tmp_path / "examples.png"))


def test_panels_lie_on_the_page_and_apart() -> None:
    boxes = [axes.get_position() for axes in draw_examples(page(5)).axes]
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 1 and box.y1 <= 1 for box in boxes)
    assert not any(a.overlaps(b) for place, a in enumerate(boxes) for b in boxes[:place])


@pytest.mark.parametrize("count", [0, 13])
def test_other_numbers_are_an_error(count: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 12 images, not {count}"):
        draw_examples(page(count))


def test_long_names_are_shortened() -> None:
    long = dataclasses.replace(page(1), classes=("a_very_long_class_name_one", "a_very_long_class_name_two"))
    assert draw_examples(long).texts[1].get_text() == "✓ a_very_…name_one 0.93 → ✗ a_very_…name_two 0.71"
