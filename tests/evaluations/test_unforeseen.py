"""The evaluation ``unforeseen``: its parts and their cost, UAR, what it refuses, and what it draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advss.config import Choice, EvalSettings
from advss.data.images import InMemory
from advss.data.sources.cifar10c import CLASSES
from advss.data.sources.groups import wnids
from advss.data.splits import Part
from advss.evaluations.chunks import Kept, Measuring
from advss.evaluations.measurer import victim_of
from advss.evaluations.planned import planned
from advss.measuring import Measured, Victim
from advss.training.reporting import Silent
from advss.training.signals import StopRequest
from advss.unforeseen import FAMILIES
from advss_evaluations.unforeseen import Unforeseen

IMAGENET100 = tuple(wnids()[::10])


def as_trained(evaluation: Unforeseen, count: int, classes: Sequence[str], times: float = 1) -> Measured:
    """Answers of which as many are right as of the networks that ATA are of, or ``times`` as many."""
    found = {"ta": torch.ones(count, dtype=torch.bool)}
    for name, (attack, eps) in evaluation.points.items():
        own = evaluation.attacks[attack]
        right = round(count * own.ata[own.eps.index(eps)] / 100 * times)
        found[name] = torch.arange(count) < right
    return Measured(found, torch.zeros(count, dtype=torch.int64), torch.arange(count), tuple(classes))


@pytest.mark.parametrize(("side", "count", "classes"), [(32, 10_000, CLASSES), (224, 10_000, IMAGENET100)])
def test_a_model_with_the_accuracies_of_ata_has_a_uar_of_100(side: Any, count: int, classes: Sequence[str]) -> None:
    evaluation = Unforeseen(side=side)
    figures = evaluation.figures(as_trained(evaluation, count, classes))
    assert figures["uar"] == pytest.approx(100)
    assert [figures[f"uar_{name}"] for name in evaluation.attacks] == pytest.approx([100] * len(evaluation.attacks))
    assert figures["notes"] == []
    assert figures["summary"] == "TA 100.00 %; UAR 100.0"
    half = evaluation.figures(as_trained(evaluation, 100 * count, classes, times=0.5))
    assert half["uar"] == pytest.approx(50, abs=1e-3)


SUMS = {  # of the six ATA in the released files calibs.out, added up by a script
    32: {
        "pgd_linf": 401.29,
        "pgd_l2": 390.48,
        "fw_l1": 422.01,
        "jpeg_linf": 443.59,
        "jpeg_l2": 510.66,
        "jpeg_l1": 422.56,
        "elastic": 372.25,
    },
    224: {
        "pgd_linf": 362.84,
        "pgd_l2": 399.72,
        "fw_l1": 404.86,
        "jpeg_linf": 356.26,
        "jpeg_l2": 369.40,
        "jpeg_l1": 398.06,
        "elastic": 402.34,
        "fog": 449.58,
        "snow": 409.22,
        "gabor": 369.20,
    },
}


@pytest.mark.parametrize("side", [32, 224])
def test_ata_are_the_published_ones(side: int) -> None:
    found = {name: sum(own[side].ata) for name, own in FAMILIES["kang"].attacks.items() if own[side].ata}
    assert found == pytest.approx(SUMS[side], abs=0.005)


@pytest.mark.parametrize(
    ("options", "classes", "why"),
    [
        ({}, "0123456789", "accuracies on CIFAR-10 and on ImageNet-100"),
        ({"targeted": False}, CLASSES, "targeted attacks"),
        ({"steps": 10}, CLASSES, "published radii and steps"),
        ({"attacks": ("fog", "snow")}, CLASSES, "have no ATA at this side"),
    ],
)
def test_elsewhere_there_is_no_uar_and_it_is_said_why(
    options: dict[str, Any], classes: Sequence[str], why: str
) -> None:
    evaluation = Unforeseen(**options)
    right = torch.tensor([True, False])
    answers = dict.fromkeys(evaluation.parts(10), right)
    figures = evaluation.figures(Measured(answers, right.long(), right.long(), tuple(classes)))
    assert not [name for name in figures if name.startswith("uar")]
    assert why in figures["notes"][0]


def test_ua_has_the_mean_of_each_strength() -> None:
    evaluation = Unforeseen(family="ua", attacks=("wood", "snow", "gabor"), strength=("medium", "high"))
    count = {"medium": 6, "high": 2}
    answers = {name: torch.arange(10) < count.get(name.split("_")[-1], 9) for name in evaluation.parts(10)}
    answers["wood_high"] = torch.arange(10) < 5
    measured = Measured(answers, torch.zeros(10), torch.arange(10), tuple("0123456789"))
    figures = evaluation.figures(measured)
    assert figures["mean_medium"] == pytest.approx(0.6)
    assert figures["mean_high"] == pytest.approx(0.3)
    assert figures["notes"] == []
    assert figures["summary"] == "TA 90.00 %; mean medium 60.00 %; mean high 30.00 %"
    radar = evaluation.draw(measured)["radar"].axes[0]
    assert [tick.get_text() for tick in radar.get_xticklabels()] == ["wood", "snow", "gabor"]
    assert [heights(line) for line in radar.get_lines()] == [[60, 60, 60, 60], [50, 20, 20, 50]]


def heights(line: Any) -> list[float]:
    return list(line.get_ydata())


def test_one_figure_shows_all_attacks_beside_their_ata() -> None:
    evaluation = Unforeseen()
    figures = evaluation.draw(as_trained(evaluation, 10_000, CLASSES))
    assert [axes.get_title() for axes in figures["over-eps"].axes[:3]] == ["PGD ℓ∞", "PGD ℓ2", "Frank-Wolfe ℓ1"]
    own, ata = figures["over-eps"].axes[0].get_lines()
    assert heights(own)[1:] == pytest.approx(heights(ata))
    assert heights(figures["radar"].axes[0].get_lines()[0]) == pytest.approx([100] * 8)


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({}, 8_400),
        ({"side": 224}, 12_000),
        ({"family": "ua"}, 1_200),
        ({"family": "ua", "strength": ("medium",)}, 400),
        ({"family": "ua", "side": 224}, 2_220),
        ({"attacks": ("elastic",), "over_eps": (1, 2), "steps": 30}, 60),
    ],
)
def test_cost_in_passes(options: dict[str, Any], passes: int) -> None:
    assert Unforeseen(**options).passes(10) == passes


class Middle(nn.Module):
    """Which third of [0, 1] the mean is in, softly."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += torch.is_grad_enabled()
        return -30 * (x.mean((1, 2, 3))[:, None] - torch.tensor([0.1, 0.5, 0.9])) ** 2


def images(count: int) -> Part:
    x = (255 * torch.linspace(0, 1, count)[:, None, None, None]).expand(-1, 3, 32, 32).to(torch.uint8)
    return Part(InMemory(x), torch.arange(count), torch.arange(count) * 3 // count)


def test_the_cost_is_said_before_it_begins(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(Choice("unforeseen", {"attacks": ("elastic", "pgd_l2"), "steps": 3}), EvalSettings())
    model = Middle()
    how = Measuring(torch.device("cpu"), 0, 3, Silent(), StopRequest())
    measured = plan.measured(Victim(model, classes="abc"), images(6), how, Kept(None, {}), "evaluate unforeseen")
    said = capsys.readouterr().err
    assert said == "evaluate unforeseen: passes forward and backward of 6 images: 36 an image, 216 in all\n"
    assert model.passes == 36 * 2  # of two chunks
    assert list(measured.answers) == ["ta", *plan.evaluation.parts(3)[1:]]


def test_points_have_names_and_words() -> None:
    evaluation = Unforeseen(attacks=("jpeg_linf", "fw_l1"))
    assert list(evaluation.points)[:2] == ["jpeg_linf_0.03125", "jpeg_linf_0.0625"]
    assert evaluation.in_words("jpeg_linf_0.03125") == "JPEG ℓ∞ at eps 0.03125"
    assert evaluation.in_words("uar_fw_l1") == "UAR Frank-Wolfe ℓ1"
    assert evaluation.in_words("uar") == "UAR"
    assert Unforeseen(family="ua").in_words("wood_low") == "wood low"
    assert evaluation.title() == "2 unforeseen attacks, kang"
    assert Unforeseen(attacks=("fog",), targeted=False, steps=7).title() == "fog, kang, 7 steps, untargeted"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"attacks": ("jpeg_lin",)}, "attacks has none called 'jpeg_lin'; did you mean 'jpeg_linf'"),
        ({"attacks": ("fog", "fog")}, "each be named once, got fog 2 times"),
        ({"over_eps": (1.0,)}, "over_eps must be of one attack"),
        ({"attacks": ("fog",), "over_eps": (1.0, 1.0000001)}, "differ in their first six digits"),
        ({"strength": ("low",)}, "strength must be left out"),
        ({"family": "ua", "strength": ("lo",)}, "strength has none called 'lo'; did you mean 'low'"),
        ({"slips": ("fog",)}, "slips has none called 'fog'"),
        ({"steps": -1}, "steps must be at least 1"),
    ],
)
def test_options_that_say_nothing_sensible_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Unforeseen(**options)


def test_other_sides_are_refused_before_anything_is_measured() -> None:
    plan = planned(Choice("unforeseen"), EvalSettings())

    def victim(side: int) -> Victim:
        described = {"model": {"data": {"side": side}}}
        return victim_of(plan, Middle(), {"classes": ["a", "b", "c"], "members": [described, described]})

    plan.check(victim(32))
    with pytest.raises(ValueError, match="defined for images of 32 or 224 pixels, and these have 64"):
        plan.check(victim(64))
    with pytest.raises(ValueError, match="side must be 224, as the images have, got 32"):
        plan.check(victim(224))
    draws, x = torch.Generator(), torch.rand(2, 3, 16, 16)
    with pytest.raises(ValueError, match=r"expected images of shape \(3, 32, 32\), got \(3, 16, 16\)"):
        plan.evaluation.measure_part("elastic_1", {}, Victim(Middle(), classes="abc"), x, torch.zeros(2).long(), draws)
