"""What the built-in evaluations answer, and what their numbers and pictures are of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from advss.attacks import Threat, pgd
from advss.config import Choice, EvalSettings
from advss.data.images import InMemory
from advss.data.splits import Part
from advss.errors import UsageError
from advss.evaluations.chunks import Kept, Measuring
from advss.evaluations.pictures import calibration_error
from advss.evaluations.planned import Planned, planned
from advss.measuring import Measured, Victim
from advss.training.reporting import Silent
from advss.training.signals import StopRequest
from advss_evaluations.gallery import Gallery
from advss_evaluations.strength import Strength

COUNT = 60
THREAT = Threat(eps=8 / 255, step_size=2 / 255, steps=5)
SETTINGS = EvalSettings(eps=THREAT.eps, step_size=THREAT.step_size, steps=THREAT.steps)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, 4)).eval()


@pytest.fixture
def images(model: nn.Module) -> Part:
    """Random images with the label that the model gives them, but for every tenth."""
    x = torch.randint(256, (COUNT, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        label = model(x.float() / 255).argmax(1)
    label[::10] = (label[::10] + 1) % 4
    return Part(InMemory(x), torch.arange(COUNT), label)


def found(plan: Planned, model: nn.Module, images: Part) -> Measured:
    how = Measuring(torch.device("cpu"), 0, 256, Silent(), StopRequest())
    return plan.measured(plan.victim(model, classes="abcd"), images, how, Kept(None, {}), "x")


def draws() -> Generator:
    return torch.Generator().manual_seed(3)


def unit(images: Part) -> Tensor:
    return images.images.read(torch.arange(len(images))).float() / 255


def test_classes_and_accuracies_of_pgd_agree(model: nn.Module, images: Part) -> None:
    answers = found(planned(Choice("pgd"), SETTINGS), model, images).answers
    assert torch.equal(answers["ta"], answers["answer"] == images.labels)
    assert torch.equal(answers["ra"], answers["attacked"] == images.labels)
    assert answers["ta"].float().mean() == 0.9
    assert 0 < answers["ra"].sum() < answers["ta"].sum()
    assert answers["answer"].dtype == answers["attacked"].dtype == torch.int64


def test_confidences_of_pgd_are_the_largest_probabilities_of_images_and_examples(
    model: nn.Module, images: Part
) -> None:
    plan = planned(Choice("pgd"), SETTINGS).evaluation
    answers = plan.measure(Victim(model, classes="abcd"), unit(images), images.labels, draws())
    examples = pgd.PGD()(model, unit(images), images.labels, THREAT, draws()).examples_BCHW
    for name, x in (("confidence", unit(images)), ("attacked_confidence", examples)):
        with torch.no_grad():
            expected = model(x).softmax(1).amax(1)
        assert answers[name].dtype == torch.float32
        torch.testing.assert_close(answers[name], expected)


@pytest.mark.parametrize(("name", "kinds"), [("clean", {"ece": ""}), ("pgd", {"ece": "", "attacked_ece": "attacked_"})])
def test_calibration_errors_are_of_the_answers(
    name: str, kinds: dict[str, str], model: nn.Module, images: Part
) -> None:
    plan = planned(Choice(name), SETTINGS)
    measured = found(plan, model, images)
    figures = plan.figures(measured)
    for error, prefix in kinds.items():
        right = measured.answers["ra" if prefix else "ta"]
        assert figures[error] == calibration_error(measured.answers[f"{prefix}confidence"], right)


def test_the_attack_is_named_in_the_pictures_of_pgd(model: nn.Module, images: Part, drawing: None) -> None:
    plan = planned(Choice("pgd"), SETTINGS)
    figures = plan.drawn(found(plan, model, images))
    assert [axes.get_title() for axes in figures["confusion"].axes][:2] == ["clean", "PGD-5 ℓ∞ 8/255"]


def test_the_gallery_shows_twelve_images_and_what_pgd_makes_of_them(model: nn.Module, images: Part) -> None:
    plan = planned(Choice("gallery"), SETTINGS)
    measured = found(plan, model, images)
    assert len(measured.label) == 12
    assert plan.figures(measured) == {}
    x, examples = measured.answers["x"], measured.answers["examples"]
    assert torch.equal(x, unit(images)[measured.index])
    assert 0 < float((examples - x).abs().max()) <= THREAT.eps + 1e-6
    with torch.no_grad():
        torch.testing.assert_close(measured.answers["clean"], model(x).softmax(1))
        torch.testing.assert_close(measured.answers["attacked"], model(examples).softmax(1))


def test_the_gallery_attacks_images_that_are_wrong_unperturbed_too(model: nn.Module, images: Part) -> None:
    wrong = images.select(torch.arange(0, COUNT, 10))
    answers = found(planned(Choice("gallery"), SETTINGS), model, wrong).answers
    changed = (answers["examples"] != answers["x"]).flatten(1).any(1)
    assert changed.any()
    assert not (answers["attacked"].argmax(1) == wrong.labels).any()


def test_the_gallery_is_drawn(model: nn.Module, images: Part, drawing: None) -> None:
    plan = planned(Choice("gallery"), SETTINGS)
    (figure,) = plan.drawn(found(plan, model, images)).values()
    assert len(figure.axes) == 36
    assert figure.get_suptitle() == "PGD-5 ℓ∞ 8/255"
    assert Gallery(steps=5).title() == "gallery of PGD-5 ℓ∞ 8/255"


def test_each_point_of_the_strength_is_an_attack_of_its_own(model: nn.Module, images: Part) -> None:
    evaluation = Strength(eps=8 / 255, steps=4, over_eps=(4 / 255, 8 / 255), over_steps=(1, 4))
    victim, before = Victim(model, classes="abcd"), dict[str, Tensor]()
    expected = {"eps_0.01569": (4 / 255, 4), "eps_0.03137": (8 / 255, 4), "steps_1": (8 / 255, 1)}
    assert list(evaluation.parts(4)) == ["ta", *expected]
    for part in evaluation.parts(4):
        before = dict(evaluation.measure_part(part, before, victim, unit(images), images.labels, draws()))
    for name, (eps, steps) in expected.items():
        plan = planned(Choice("pgd", {"eps": eps, "steps": steps, "step_size": 2.5 * eps / steps}), SETTINGS)
        alone = plan.evaluation.measure(victim, unit(images), images.labels, draws())
        assert torch.equal(before[name], alone["ra"])
        assert torch.equal(before["ta"], alone["ta"])


def test_the_curves_are_the_accuracies(model: nn.Module, images: Part) -> None:
    plan = planned(Choice("strength", {"over_eps": (8 / 255, 0.5), "over_steps": (1, 5)}), SETTINGS)
    figures = plan.figures(found(plan, model, images))
    ra = {name: one["accuracy"] for name, one in figures.items() if isinstance(one, dict)}
    assert figures["over_eps"] == [[0.0, ra["ta"]], [8 / 255, ra["eps_0.03137"]], [0.5, ra["eps_0.5"]]]
    assert figures["over_steps"] == [[0, ra["ta"]], [1, ra["steps_1"]], [5, ra["eps_0.03137"]]]
    assert ra["ta"] > ra["eps_0.03137"] > ra["eps_0.5"]
    ta, at_eps = (f"{100 * ra[name]:.2f} %" for name in ("ta", "eps_0.03137"))
    assert figures["summary"].startswith(f"TA {ta}, RA at 8/255 {at_eps}; ")


def test_figures_have_titles_that_people_read(model: nn.Module, images: Part) -> None:
    plan = planned(Choice("strength", {"over_eps": (4 / 255, 0.1), "over_steps": (1,)}), SETTINGS)
    assert plan.titles(plan.figures(found(plan, model, images))) == {
        "ta": "TA",
        "eps_0.01569": "RA at 4/255",
        "eps_0.1": "RA at 0.1",
        "steps_1": "RA after 1 step",
    }


def test_a_model_that_nothing_moves_is_told(images: Part, drawing: None) -> None:
    class Deaf(nn.Module):
        def forward(self, x_BCHW: Tensor) -> Tensor:
            return torch.eye(4)[(255 * x_BCHW).round().sum((1, 2, 3)).long() % 4] + 0 * x_BCHW.sum()

    x = unit(images)
    labelled = Part(images.images, images.index, (255 * x).round().sum((1, 2, 3)).long() % 4)
    plan = planned(Choice("strength", {"over_eps": (0.001,), "over_steps": ()}), SETTINGS)
    measured = found(plan, Deaf(), labelled)
    (note,) = plan.figures(measured)["notes"]
    assert note.startswith("RA is still 100 % at eps 0.001: gradients may be masked")
    assert list(plan.drawn(measured)) == ["curve"]


@pytest.mark.parametrize(
    ("norm", "eps", "expected"),
    [
        ("linf", 8 / 255, [2 / 255, 4 / 255, 8 / 255, 16 / 255, 32 / 255, 64 / 255, 0.5]),
        ("linf", 1.0, [0.25, 0.5, 1.0]),
        ("l2", 0.5, [0.125, 0.25, 0.5, 1, 2, 4, 8, 16]),
        ("l1", 12.0, [3, 6, 12, 24, 48, 96, 192, 256]),
    ],
)
def test_radii_go_by_doublings_to_where_every_answer_should_fall(norm: Any, eps: float, expected: list[float]) -> None:
    assert list(Strength(norm=norm, eps=eps).over_eps) == pytest.approx(expected)


@pytest.mark.parametrize(("steps", "expected"), [(1, (1, 2)), (20, (1, 5, 10, 20, 40))])
def test_the_last_number_of_steps_is_a_doubling(steps: int, expected: tuple[int, ...]) -> None:
    assert Strength(steps=steps).over_steps == expected


def test_a_loss_that_needs_more_classes_is_refused(model: nn.Module) -> None:
    plan = planned(Choice("strength", {"loss": "dlr"}), SETTINGS)
    with pytest.raises(ValueError, match="loss dlr needs at least 3 classes"):
        plan.evaluation.check(Victim(model, classes="ab"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"eps": 0}, "--strength.eps must be above 0"),
        ({"over_eps": (8.0,)}, "--strength.over_eps must be at most 1 for linf, got 8.0: pixels are in [0, 1]"),
        ({"over_eps": (0.1, 0.1)}, "--strength.over_eps must differ in their first four digits, got 0.1, 0.1"),
        ({"over_steps": (0,)}, "--strength.over_steps must be at least 1, got 0"),
        ({"images": -1}, "--strength.images must be at least 1, got -1"),
    ],
)
def test_strengths_that_are_none_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        planned(Choice("strength", options), EvalSettings())
    assert said in str(refused.value)
