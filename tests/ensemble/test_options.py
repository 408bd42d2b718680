"""Where the diversity term counts, with which sign, how often, and in whose pixels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from advss.ensemble.columns import ImagePixels, check_same_shape, own_pixels
from advss.ensemble.diversity import Diversity, described, gram, log_det
from advss.ensemble.objective import TaskObjective
from advss.errors import UsageError
from advss.hookspecs import Batch, Loss, Task, Views


class Turned(Task):
    """Softmax regression on the pixels of an image turned by ``turn``·90°: its input gradient is Wᵀ(p - onehot) / B."""

    def __init__(self, turn: int, seed: int = 0) -> None:
        super().__init__()
        self.turn = turn
        self.weight = nn.Parameter(torch.randn(3, 16, generator=torch.Generator().manual_seed(seed)))

    def views(self, batch: Batch, generator: Generator) -> Views:
        return Views((batch.x.rot90(self.turn, (2, 3)),), {"label": batch.label})

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        return Loss(F.cross_entropy(inputs[0].flatten(1) @ self.weight.T, targets["label"]))

    def gradient(self, x: Tensor, label: Tensor) -> Tensor:
        """The input gradient by its closed form, times B."""
        weight = self.weight.detach().double()
        excess = (x.double().flatten(1) @ weight.T).softmax(1) - F.one_hot(label, 3)
        return (excess @ weight).view_as(x)


@pytest.fixture
def images() -> Batch:
    x = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    return Batch(x, x, torch.arange(5), torch.arange(5) % 3)


def objective_of(tasks: list[Turned], images: Batch, *, pixels: bool = False, **weights: Any) -> TaskObjective:
    x = images.x.clone().requires_grad_()
    keyed = {f"task{i}": task for i, task in enumerate(tasks)}
    traced = {
        key: task.views(Batch(x, x, images.index, images.label), torch.Generator()) for key, task in keyed.items()
    }
    views = tuple(Views((v.inputs[0].detach(),), v.targets) for v in traced.values())
    back = ImagePixels(x, traced) if pixels else None
    return TaskObjective(nn.Identity(), keyed, views, stage="pretrain", key=(0,), pixels=back, **weights)


def penalty(objective: TaskObjective) -> float:
    return float(torch.as_tensor(objective(objective.inputs).penalty).detach())


# ---------------------------------------------------------------- place, sign, every
@pytest.mark.parametrize(
    ("place", "sign", "attack", "loss"),
    [
        ("both", "plus", 0.3, 0.3),
        ("both", "minus", 0.3, -0.3),
        ("attack", "plus", 0.3, 0.0),
        ("attack", "minus", 0.3, 0.0),
        ("loss", "plus", 0.0, 0.3),
        ("loss", "minus", 0.0, -0.3),
    ],
)
def test_an_attack_always_ascends_the_term_and_training_takes_its_sign(
    place: Any, sign: Any, attack: float, loss: float
) -> None:
    diversity = Diversity(0.3, place, sign)
    assert (diversity.in_attack(0), diversity.in_loss(0)) == (attack, loss)


def test_it_counts_at_every_kth_step() -> None:
    diversity = Diversity(0.3, every=3)
    assert [diversity.in_attack(step) for step in range(5)] == [0.3, 0.0, 0.0, 0.3, 0.0]
    assert [diversity.in_loss(step) for step in range(5)] == [0.3, 0.0, 0.0, 0.3, 0.0]


def test_the_weight_in_an_attack_and_in_the_loss_are_two(images: Batch) -> None:
    plain = penalty(objective_of([Turned(0), Turned(0, 1)], images, diversity=1.0))
    objective = objective_of([Turned(0), Turned(0, 1)], images, diversity=0.5, loss_diversity=-0.25)
    assert penalty(objective) == pytest.approx(-0.25 * plain, rel=1e-6)
    with objective.attacking():
        assert penalty(objective) == pytest.approx(0.5 * plain, rel=1e-6)
    assert penalty(objective) == pytest.approx(-0.25 * plain, rel=1e-6)


@pytest.mark.parametrize(("attack", "loss"), [(0.5, 0.0), (0.0, 0.5)])
def test_where_its_weight_is_0_the_term_is_not_computed(attack: float, loss: float, images: Batch) -> None:
    objective = objective_of([Turned(0), Turned(0, 1)], images, diversity=attack, loss_diversity=loss)
    assert isinstance(objective(objective.inputs).penalty, Tensor) == (loss != 0)
    with objective.attacking():
        assert isinstance(objective(objective.inputs).penalty, Tensor) == (attack != 0)


# ---------------------------------------------------------------- image pixels
def test_in_image_pixels_gradients_are_turned_back(images: Batch) -> None:
    tasks = [Turned(1), Turned(0, 1), Turned(2, 2)]
    columns = []
    for task in tasks:
        own = task.gradient(images.x.rot90(task.turn, (2, 3)), images.label)
        columns.append(own.rot90(-task.turn, (2, 3)).flatten(1) / own.flatten(1).norm(dim=1, keepdim=True))
    G = torch.stack(columns, 2)
    expected = torch.logdet(G.mT @ G + 1e-5 * torch.eye(3, dtype=torch.float64)).mean()
    found = penalty(objective_of(tasks, images, pixels=True, diversity=1.0))
    assert found == pytest.approx(float(expected), rel=1e-4)
    assert abs(found - penalty(objective_of(tasks, images, diversity=1.0))) > 1e-2


def test_a_task_on_turned_images_with_turned_weights_is_parallel_in_image_pixels_only(images: Batch) -> None:
    one, other = Turned(0), Turned(1)
    with torch.no_grad():
        other.weight.copy_(one.weight.view(3, 4, 4).rot90(1, (1, 2)).reshape(3, 16))
    parallel = float(torch.tensor([[1 + 1e-5, 1], [1, 1 + 1e-5]], dtype=torch.float64).logdet())
    assert penalty(objective_of([one, other], images, pixels=True, diversity=1.0)) == pytest.approx(parallel, rel=1e-2)
    assert penalty(objective_of([one, other], images, diversity=1.0)) > parallel + 5


def test_in_image_pixels_the_term_is_differentiable_by_inputs_and_weights(images: Batch) -> None:
    objective = objective_of([Turned(1), Turned(0, 1)], images, pixels=True, diversity=1.0)
    inputs = tuple(x.clone().requires_grad_() for x in objective.inputs)
    weight = objective.parameters()["members.@task0.weight"]
    gradients = torch.autograd.grad(torch.as_tensor(objective(inputs).penalty), [*inputs, weight])
    place = (2, 0, 1, 3)
    values = []
    for move in (1e-2, -1e-2):
        moved = inputs[0].detach().clone()
        moved[place] += move
        values.append(float(torch.as_tensor(objective((moved, inputs[1])).penalty).detach()))
    assert float(gradients[0][place]) == pytest.approx((values[0] - values[1]) / 2e-2, rel=2e-2, abs=1e-4)
    assert gradients[2].abs().sum() > 0


def test_views_without_a_derivative_by_the_image_are_refused(images: Batch) -> None:
    with pytest.raises(UsageError, match="the views of blind have no derivative by the images; use task"):
        ImagePixels(images.x.clone().requires_grad_(), {"blind": Views((torch.ones(5, 1, 4, 4),))})


def test_gradients_of_two_shapes_cannot_be_compared_in_their_own_pixels() -> None:
    small, large = torch.ones(2, 1, 2, 2), torch.ones(2, 1, 4, 4)
    with pytest.raises(UsageError, match=r"one, input 0 \(2, 1, 2, 2\) and one, input 1 .* --diversity-pixels image"):
        own_pixels("one", [small, large])
    with pytest.raises(UsageError, match=r"a \(2, 1, 2, 2\) and b \(2, 1, 4, 4\) differ in shape"):
        check_same_shape({"a": small, "b": large})


# ---------------------------------------------------------------- what is logged
def test_cosines_are_those_of_the_gradients(images: Batch) -> None:
    tasks = [Turned(0), Turned(0, 1)]
    one, other = (task.gradient(images.x, images.label).flatten(1) for task in tasks)
    cosine = F.cosine_similarity(one, other)
    measured = objective_of(tasks, images).measure((images.x, images.x))
    assert float(measured["cosine:task0/task1"]) == pytest.approx(float(cosine.mean()), abs=1e-6)
    assert float(measured["abs_cosine:task0/task1"]) == pytest.approx(float(cosine.abs().mean()), abs=1e-6)
    expected = torch.log((1 + 1e-5) ** 2 - cosine**2).mean()
    assert float(measured["diversity"]) == pytest.approx(float(expected), abs=1e-5)


def test_measuring_leaves_no_gradient_and_one_member_has_nothing_to_compare(images: Batch) -> None:
    objective = objective_of([Turned(0), Turned(0, 1)], images)
    objective.measure(objective.inputs)
    assert all(p.grad is None and p.requires_grad for p in objective.root.parameters())
    assert objective_of([Turned(0)], images).measure((images.x,)) == {}


def test_the_training_loss_keeps_what_it_measured_and_an_attack_does_not(images: Batch) -> None:
    objective = objective_of([Turned(0), Turned(0, 1)], images, diversity=0.5)
    with objective.attacking():
        objective(objective.inputs)
    assert objective.measured() == {}
    found = float(torch.as_tensor(objective(objective.inputs).penalty).detach())
    assert float(objective.measured()["diversity"]) == pytest.approx(found / 0.5, rel=1e-6)


def test_every_pair_of_members_is_named_once() -> None:
    gradients = [torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    names = set(described(["a", "b", "c"], gram(gradients)))
    pairs = {f"{kind}:{pair}" for kind in ("cosine", "abs_cosine") for pair in ("a/b", "a/c", "b/c")}
    assert names == {"diversity", *pairs}
    assert float(described(["a", "b", "c"], gram(gradients))["diversity"]) == float(log_det(gram(gradients)))
