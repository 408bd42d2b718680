"""The objective: sums, the diversity term, dropout's streams, other parameters, and what an attack leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from advss.ensemble.columns import input_gradients, own_pixels
from advss.ensemble.diversity import gram, log_det
from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Encoder, Loss

Make = Callable[..., TaskObjective]


def direct(objective: TaskObjective) -> list[Tensor]:
    """Each member's loss at the clean inputs, asked of the task itself."""
    trunk = objective.root.trunk
    pairs = zip(objective.members.values(), objective.views.values(), strict=True)
    return [task.loss(trunk, views.inputs, views.targets).value for task, views in pairs]


def test_one_member_is_the_task_itself(make: Make) -> None:
    objective = make()
    loss = objective(objective.inputs)
    assert torch.equal(loss.value, direct(objective)[0])
    assert torch.equal(loss.total, loss.value)
    assert set(loss.metrics) == {"accuracy"}


def test_the_value_of_several_members_is_the_sum_of_theirs(make: Make) -> None:
    objective = make(3)
    loss = objective(objective.inputs)
    expected = sum(float(value.detach()) for value in direct(objective))
    assert float(loss.value.detach()) == pytest.approx(expected, rel=1e-6)
    assert len(loss.logits) == 3
    assert set(loss.metrics) == {f"flip{i}/{name}" for i in range(3) for name in ("accuracy", "loss")}
    assert not any(metric.requires_grad for metric in loss.metrics.values())


def test_the_order_of_members_does_not_matter(make: Make) -> None:
    one, other = make(3, drop=0.5, diversity=0.1), make(3, drop=0.5, diversity=0.1, turn=True)
    values = [o(o.inputs).total.detach() for o in (one, other)]
    torch.testing.assert_close(values[0], values[1], atol=1e-6, rtol=1e-6)


def test_the_diversity_term_is_the_weighted_log_det_of_the_members_gradients(make: Make) -> None:
    objective = make(2, diversity=0.3)
    inputs = tuple(x.clone().requires_grad_() for x in objective.inputs)
    loss = objective(inputs)
    gradients: list[Tensor] = []
    pairs = zip(objective.members.values(), objective.views.values(), strict=True)
    for (task, views), x in zip(pairs, inputs, strict=True):
        gradients += torch.autograd.grad(task.loss(objective.root.trunk, (x,), views.targets).value, x)
    torch.testing.assert_close(torch.as_tensor(loss.penalty).detach(), 0.3 * log_det(gram(gradients)))
    torch.testing.assert_close(loss.total.detach(), loss.value.detach() + 0.3 * log_det(gram(gradients)))


def test_the_diversity_term_reaches_parameters_and_inputs(make: Make) -> None:
    objective = make(2, diversity=1.0)
    inputs = tuple(x.clone().requires_grad_() for x in objective.inputs)
    penalty = objective(inputs).penalty
    assert isinstance(penalty, Tensor)
    weight = objective.parameters()["trunk.net.conv1.weight"]
    for gradient in torch.autograd.grad(penalty, [*inputs, weight]):
        assert gradient.abs().sum() > 0


def test_without_penalty_the_diversity_term_is_left_out(make: Make) -> None:
    with_term, without = make(2, diversity=0.5), make(2)
    loss = with_term(with_term.inputs, penalty=False)
    assert loss.penalty == 0.0
    assert torch.equal(loss.value, without(without.inputs).value)


def test_with_a_weight_of_0_loss_and_gradients_are_the_same_bits(make: Make) -> None:
    results = []
    for objective in (make(2, diversity=0.0), make(2)):
        loss = objective(objective.inputs)
        gradients = torch.autograd.grad(loss.total, list(objective.parameters().values()), allow_unused=True)
        results.append([loss.total, *[g for g in gradients if g is not None]])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_the_diversity_term_is_there_without_gradients_too(make: Make) -> None:
    objective = make(2, diversity=0.5)
    with torch.no_grad():
        measured = objective(objective.inputs).total
    trained = make(2, diversity=0.5)
    torch.testing.assert_close(measured.detach(), trained(trained.inputs).total.detach())


def test_bf16_is_close_to_float32_and_comes_back_as_float32(make: Make) -> None:
    narrow, wide = make(2, diversity=0.1, bf16=True), make(2, diversity=0.1)
    loss = narrow(narrow.inputs)
    assert loss.value.dtype == torch.float32
    assert all(logits.dtype == torch.float32 for logits in loss.logits)
    torch.testing.assert_close(loss.value.detach(), wide(wide.inputs).value.detach(), atol=0.02, rtol=0.02)


def test_labels_stand_beside_their_logits_and_weights_too(make: Make) -> None:
    objective = make(2)
    objective.members["flip1"].loss = weighted(objective.members["flip1"].loss)  # type: ignore[method-assign]
    loss = objective(objective.inputs)
    even = torch.arange(len(objective.inputs[0])) % 2
    assert [label.tolist() for label in loss.labels] == [even.tolist(), (1 - even).tolist()]
    assert loss.weights == (1.0, 0.25)


def test_without_one_members_labels_there_are_none(make: Make) -> None:
    objective = make(2)
    told = objective.members["flip1"].loss
    objective.members["flip1"].loss = lambda *what: replace(told(*what), labels=())  # type: ignore[method-assign]
    loss = objective(objective.inputs)
    assert loss.labels == ()
    assert len(loss.logits) == 2


def weighted(loss: Callable[..., Loss]) -> Callable[..., Loss]:
    return lambda *what: replace(loss(*what), weights=(0.25,))


def test_the_same_key_and_call_give_the_same_dropout(make: Make) -> None:
    one, other = make(drop=0.5), make(drop=0.5)
    torch.manual_seed(1)
    first = one(one.inputs).value
    torch.manual_seed(2)
    assert torch.equal(first, other(other.inputs).value)


def test_another_call_step_or_member_gives_another_dropout(make: Make) -> None:
    objective = make(drop=0.5)
    later = make(drop=0.5, step=1)
    values = {float(v.detach()) for v in (objective(objective.inputs).value, objective(objective.inputs).value)}
    values.add(float(later(later.inputs).value.detach()))
    assert len(values) == 3


def test_members_draw_dropouts_of_their_own(make: Make) -> None:
    one = make(drop=0.5)
    (task,), (views,) = one.members.values(), one.views.values()
    twice = TaskObjective(one.root.trunk, {"a": task, "b": task}, (views, views), stage="pretrain", key=(0,))
    metrics = twice(twice.inputs).metrics
    assert metrics["a/loss"] != metrics["b/loss"]


def test_the_global_generator_is_left_as_found(make: Make) -> None:
    objective = make(2, drop=0.5)
    before = torch.get_rng_state()
    with objective.attacking():
        objective(objective.inputs)
    assert torch.equal(torch.get_rng_state(), before)


def test_parameters_are_those_that_train(make: Make) -> None:
    objective = make(2)
    objective.root.members["flip1"].requires_grad_(False)
    found = {id(p) for p in objective.parameters().values()}
    expected = [*objective.root.trunk.parameters(), *objective.root.members["flip0"].parameters()]
    assert found == {id(p) for p in expected}


def test_at_other_parameters_the_objective_is_that_of_a_network_with_them(make: Make) -> None:
    objective = make(2)
    clean = objective(objective.inputs).value
    moved = {name: (p.detach() + 0.05).requires_grad_() for name, p in objective.parameters().items()}
    with objective.at(moved):
        there = objective(objective.inputs).value
    assert torch.equal(objective(objective.inputs).value, clean)
    gradients = torch.autograd.grad(there, list(moved.values()))
    assert all(g.abs().sum() > 0 for g in gradients)
    with torch.no_grad():
        for name, p in objective.parameters().items():
            p.copy_(moved[name])
    torch.testing.assert_close(objective(objective.inputs).value, there)


def test_at_nests_and_parameters_are_the_values_in_force(make: Make) -> None:
    """What wraps a defense that perturbs parameters is seen by it: w + v first, then u on w + v."""
    objective = make(2)
    names = list(objective.parameters())
    v = {name: 0.1 * p.cos() for name, p in objective.parameters().items()}
    u = {name: 0.05 * p.sin() for name, p in objective.parameters().items()}
    with objective.at({name: p + v[name] for name, p in objective.parameters().items()}):
        only = {name: p + u[name] for name, p in objective.parameters().items() if name != names[-1]}
        with objective.at(only):
            assert list(objective.parameters()) == names
            nested = objective(objective.inputs).value
    whole = {name: p + v[name] + (0 if name == names[-1] else u[name]) for name, p in objective.parameters().items()}
    with objective.at(whole):
        torch.testing.assert_close(nested, objective(objective.inputs).value)
    assert not torch.isclose(nested, objective(objective.inputs).value)


def test_at_is_undone_when_something_raises(make: Make) -> None:
    objective = make()
    clean = objective(objective.inputs).value
    zeros = {name: torch.zeros_like(p) for name, p in objective.parameters().items()}
    with pytest.raises(RuntimeError, match="inside"), objective.at(zeros):
        raise RuntimeError("inside")
    assert torch.equal(objective(objective.inputs).value, clean)


def standing(objective: TaskObjective) -> tuple[list[bool], list[bool], list[bool]]:
    modules = list(objective.root.modules())
    tracked = [m.track_running_stats for m in modules if isinstance(m, torch.nn.BatchNorm2d)]
    return [m.training for m in modules], [p.requires_grad for p in objective.root.parameters()], tracked


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("raises", [False, True])
def test_attacking_leaves_modes_flags_statistics_and_gradients_as_found(
    make: Make, encoder: Encoder, mode: str, raises: bool
) -> None:
    objective = make(2, drop=0.5)
    next(encoder.parameters()).requires_grad_(False)
    next(m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)).eval()
    objective(objective.inputs).value.backward()  # type: ignore[no-untyped-call]
    gradients = [None if p.grad is None else p.grad.clone() for p in objective.root.parameters()]
    state = {name: t.clone() for name, t in objective.root.state_dict().items()}
    before = standing(objective)
    try:
        with objective.attacking("train" if mode == "train" else "eval"):
            assert not any(p.requires_grad for p in objective.root.parameters())
            assert mode == "train" or not any(m.training for m in objective.root.modules())
            objective(tuple(x.clone().requires_grad_() for x in objective.inputs)).value.backward()  # type: ignore[no-untyped-call]
            if raises:
                raise RuntimeError("inside")
    except RuntimeError:
        assert raises
    assert standing(objective) == before
    assert all(torch.equal(t, state[name]) for name, t in objective.root.state_dict().items())
    for p, gradient in zip(objective.root.parameters(), gradients, strict=True):
        assert (p.grad is None and gradient is None) or torch.equal(torch.as_tensor(p.grad), torch.as_tensor(gradient))


def test_in_train_mode_the_attack_sees_the_batchs_statistics_as_training_does(make: Make) -> None:
    objective = make()
    with objective.attacking("train"):
        attacked = objective(objective.inputs).value
    torch.testing.assert_close(attacked, objective(objective.inputs).value.detach())


def test_holding_statistics_survives_a_nan(make: Make, encoder: Encoder) -> None:
    objective = make()
    state = {name: t.clone() for name, t in encoder.state_dict().items()}
    with objective.holding_statistics():
        objective((objective.inputs[0] * torch.nan,))
    assert all(torch.equal(t, state[name]) for name, t in encoder.state_dict().items())
    objective(objective.inputs)
    assert not all(torch.equal(t, state[name]) for name, t in encoder.state_dict().items())


def test_an_input_without_influence_adds_nothing_to_the_column() -> None:
    x, unused = torch.tensor([3.0], requires_grad=True), torch.tensor([5.0], requires_grad=True)
    gradients = input_gradients((x**2).sum(), (x, unused), differentiable=True)
    assert torch.equal(own_pixels("task", gradients), torch.tensor([6.0]))
