"""Projected gradient ascent against closed forms on linear criteria, and the set it may not leave."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Generator, Tensor

from advss.attacks import Norm, Threat, maximise

Start = Literal["uniform", "gaussian", "none"]
NORMS = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
STAYING = 1e-30  # a step that no float32 or float64 near 1 is moved by: what comes back is the start
STARTS = pytest.mark.parametrize("start", ["uniform", "gaussian"])


def generator(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def images(*shape: int, low: float = 0.0, high: float = 1.0, seed: int = 1) -> Tensor:
    return torch.empty(shape).uniform_(low, high, generator=generator(seed))


def linear(weight: Tensor) -> Tensor:
    return torch.randn(weight.shape, generator=generator(2))


def distance(x: Tensor, clean: Tensor, norm: Norm) -> Tensor:
    delta = (x - clean).flatten(1).double()
    return torch.stack([row.norm({"linf": math.inf, "l2": 2, "l1": 1}[norm]) for row in delta])


class Recorder:
    """A linear criterion that keeps every point at which it was asked, the start first."""

    def __init__(self, weight: Tensor) -> None:
        self.weight, self.asked = weight, list[Tensor]()

    def __call__(self, inputs: tuple[Tensor, ...]) -> Tensor:
        self.asked.append(inputs[0].detach().clone())
        return (inputs[0] * self.weight).sum()


@NORMS
@STARTS
@pytest.mark.parametrize("where", ["inside", "black", "white"])
def test_start_and_iterates_stay_in_ball_and_box(norm: Norm, start: Start, where: str) -> None:
    clean = {"inside": images(6, 3, 8, 8), "black": torch.zeros(6, 3, 8, 8), "white": torch.ones(6, 3, 8, 8)}[where]
    criterion, eps = Recorder(linear(clean)), 0.1 if norm == "linf" else 0.8
    (last,) = maximise(
        criterion, (clean,), generator(), Threat(norm=norm, eps=eps, step_size=eps / 2, steps=6), start=start
    )
    assert len(criterion.asked) == 6
    for x in [*criterion.asked, last]:
        assert x.min() >= 0
        assert x.max() <= 1
        assert distance(x, clean, norm).max() <= eps + 1e-5  # 192 values in ℓ1, each rounded


@NORMS
def test_without_steps_the_start_comes_back_inside_ball_and_box(norm: Norm) -> None:
    clean = torch.cat([torch.zeros(4, 3, 8, 8), torch.ones(4, 3, 8, 8)])
    (start,) = maximise(Recorder(clean), (clean,), generator(), Threat(norm=norm, eps=0.3, step_size=STAYING, steps=1))
    assert start.min() >= 0
    assert start.max() <= 1
    assert 0 < distance(start, clean, norm).max() <= 0.3 + 1e-6


@NORMS
@pytest.mark.parametrize("eps", [0.0, 0.0005])
def test_a_gaussian_start_comes_back_into_a_ball_smaller_than_its_noise(norm: Norm, eps: float) -> None:
    clean = torch.cat([torch.zeros(2, 3, 8, 8), images(2, 3, 8, 8, low=0.4, high=0.6), torch.ones(2, 3, 8, 8)])
    (found,) = maximise(
        Recorder(clean), (clean,), generator(), Threat(norm=norm, eps=eps, step_size=STAYING, steps=1), start="gaussian"
    )
    assert found.min() >= 0
    assert found.max() <= 1
    reached = distance(found, clean, norm)
    assert reached.max() <= eps + 1e-6
    assert reached.min() >= 0.5 * eps


@NORMS
def test_without_a_start_of_its_own_the_first_point_is_the_image(norm: Norm) -> None:
    clean = images(3, 3, 8, 8)
    criterion = Recorder(linear(clean))
    maximise(criterion, (clean,), generator(), Threat(norm=norm, eps=0.1, step_size=0.1, steps=1), start="none")
    assert torch.equal(criterion.asked[0], clean)


def test_linf_reaches_the_optimum_of_a_linear_criterion_in_ball_and_box() -> None:
    clean, eps = images(5, 3, 8, 8), 0.2
    weight = linear(clean)
    (found,) = maximise(Recorder(weight), (clean,), generator(), Threat(norm="linf", eps=eps, step_size=0.05, steps=12))
    expected = (clean.double() + eps * weight.double().sign()).clamp(0, 1)
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=0)


def test_l2_reaches_the_optimum_of_a_linear_criterion() -> None:
    clean, eps = images(5, 3, 8, 8, low=0.4, high=0.6), 0.5
    weight = linear(clean)
    (found,) = maximise(Recorder(weight), (clean,), generator(), Threat(norm="l2", eps=eps, step_size=0.2, steps=200))
    wide = weight.double()
    expected = clean.double() + eps * wide / wide.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


def test_l2_spends_nothing_on_pixels_that_cannot_move() -> None:
    clean = torch.full((2, 1, 1, 4), 0.5)
    clean[..., 0] = 1.0
    weight = torch.tensor([5.0, 3.0, 4.0, 0.0]).expand_as(clean)
    (found,) = maximise(Recorder(weight), (clean,), generator(), Threat(norm="l2", eps=0.4, step_size=0.1, steps=400))
    assert torch.equal(found[..., 0], clean[..., 0])
    assert distance(found, clean, "l2").max() <= 0.4 + 1e-6
    gained = ((found - clean) * weight).flatten(1).sum(1)
    assert (gained > 0.6 * 0.4 * 5).all()  # 0.4·5 is the optimum with the first pixel fixed


def test_linf_start_is_uniform_in_the_ball() -> None:
    clean, eps = torch.full((200, 3, 16, 16), 0.5), 0.1
    (start,) = maximise(
        Recorder(clean), (clean,), generator(), Threat(norm="linf", eps=eps, step_size=STAYING, steps=1)
    )
    share = ((start - clean).double().flatten() / eps + 1) / 2  # uniform in [0, 1]
    counts = torch.histc(share, bins=20, min=0, max=1)
    expected = share.numel() / 20
    assert float(((counts - expected) ** 2 / expected).sum()) < 43.8  # chi², 19 degrees of freedom, p = .001


def test_l2_start_is_uniform_in_the_ball() -> None:
    """In d dimensions (radius / eps)^d is uniform in [0, 1], and each coordinate's mean is 0, its square's 1/(d+2)."""
    clean, eps, count = torch.full((20_000, 1, 2, 2), 0.5), 0.3, 20_000
    (start,) = maximise(Recorder(clean), (clean,), generator(), Threat(norm="l2", eps=eps, step_size=STAYING, steps=1))
    delta = (start - clean).double().flatten(1) / eps
    counts = torch.histc(delta.norm(dim=1) ** 4, bins=20, min=0, max=1)
    assert float(((counts - count / 20) ** 2 / (count / 20)).sum()) < 43.8
    torch.testing.assert_close(delta.mean(0), torch.zeros(4).double(), atol=4 / (6 * count) ** 0.5, rtol=0)
    torch.testing.assert_close(delta.square().mean(0), torch.full((4,), 1 / 6).double(), atol=0.006, rtol=0)


@NORMS
def test_a_gaussian_start_is_normal_about_the_image_with_deviation_one_thousandth(norm: Norm) -> None:
    """Φ of a normal deviate is uniform in [0, 1]."""
    clean = torch.full((200, 3, 16, 16), 0.5).double()
    (found,) = maximise(
        Recorder(clean), (clean,), generator(), Threat(norm=norm, eps=1, step_size=STAYING, steps=1), start="gaussian"
    )
    share = torch.special.ndtr((found - clean).flatten() / 0.001)
    counts, expected = torch.histc(share, bins=20, min=0, max=1), share.numel() / 20
    assert float(((counts - expected) ** 2 / expected).sum()) < 43.8


@NORMS
@STARTS
def test_the_start_is_a_function_of_the_generator(norm: Norm, start: Start) -> None:
    clean = images(2, 3, 8, 8)

    def begun(seed: int) -> Tensor:
        (found,) = maximise(
            Recorder(clean),
            (clean,),
            generator(seed),
            Threat(norm=norm, eps=0.1, step_size=STAYING, steps=1),
            start=start,
        )
        return found

    assert torch.equal(begun(3), begun(3))
    assert not torch.equal(begun(3), begun(4))


@NORMS
def test_each_of_several_inputs_has_a_ball_of_its_own(norm: Norm) -> None:
    clean = (images(2, 3, 8, 8, low=0.4, high=0.6), images(2, 1, 4, 4, low=0.4, high=0.6, seed=5))
    weights = tuple(linear(x) for x in clean)

    def criterion(inputs: tuple[Tensor, ...]) -> Tensor:
        return torch.stack([(x * w).sum() for x, w in zip(inputs, weights, strict=True)]).sum()

    found = maximise(criterion, clean, generator(), Threat(norm=norm, eps=0.1, step_size=0.05, steps=40))
    for x, at in zip(found, clean, strict=True):
        torch.testing.assert_close(distance(x, at, norm), torch.full((2,), 0.1).double(), atol=1e-6, rtol=0)


def test_l2_treats_each_image_of_a_batch_alone() -> None:
    clean = images(2, 3, 8, 8, low=0.4, high=0.6)
    weight = linear(clean)
    scaled = weight * torch.tensor([1e-3, 1e3]).view(2, 1, 1, 1)
    found = [
        maximise(Recorder(w), (clean,), generator(), Threat(norm="l2", eps=0.2, step_size=0.05, steps=5))[0]
        for w in (weight, scaled)
    ]
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=0)


@NORMS
@pytest.mark.parametrize("start", ["uniform", "gaussian", "none"])
def test_an_input_without_influence_stays_where_it_started(norm: Norm, start: Start) -> None:
    clean = (images(2, 3, 8, 8), images(2, 3, 8, 8, seed=5))

    def run(steps: int) -> Tensor:
        found = maximise(
            lambda inputs: inputs[0].sum(),
            clean,
            generator(),
            Threat(norm=norm, eps=0.1, step_size=0.05, steps=steps),
            start=start,
        )
        return found[1]

    assert torch.equal(run(4), run(1))
    assert torch.equal(run(4), clean[1]) == (start == "none")


@NORMS
def test_where_the_gradient_is_zero_the_input_stays(norm: Norm) -> None:
    clean = images(2, 3, 8, 8)
    (found,) = maximise(
        lambda inputs: (inputs[0] * 0).sum(),
        (clean,),
        generator(),
        Threat(norm=norm, eps=0.1, step_size=0.05, steps=3),
        start="none",
    )
    torch.testing.assert_close(found, clean, atol=1e-7, rtol=0)


@NORMS
def test_where_the_gradient_is_nan_the_image_stays_and_the_others_move_as_alone(norm: Norm) -> None:
    clean = images(3, 3, 8, 8, low=0.3, high=0.7).double()
    weight, factor = linear(clean).double(), torch.tensor([1.0, math.nan, 1.0]).double()
    threat = Threat(norm=norm, eps=0.1, step_size=0.05, steps=3)
    (found,) = maximise(
        lambda inputs: ((inputs[0] * weight).flatten(1).sum(1) * factor).sum(),
        (clean,),
        generator(),
        threat,
        start="none",
    )
    others = torch.tensor([0, 2])
    length, second = weight.flatten(1).norm(dim=1), weight.flatten(1).abs().topk(2).values[:, 1]
    top_two = weight.abs() >= second[:, None, None, None]  # a hundredth of 192, which the length is shared by
    way = {"linf": weight.sign(), "l2": weight / length[:, None, None, None], "l1": weight.sign() * top_two / 2}
    expected = clean + 0.1 * way[norm]
    assert torch.equal(found[1], clean[1])
    torch.testing.assert_close(found[others], expected[others], atol=1e-12, rtol=0)


@NORMS
def test_with_eps_0_the_image_comes_back(norm: Norm) -> None:
    clean = images(2, 3, 8, 8)
    (found,) = maximise(
        Recorder(linear(clean)), (clean,), generator(), Threat(norm=norm, eps=0.0, step_size=0.1, steps=3)
    )
    assert torch.equal(found, clean)


@NORMS
def test_results_are_detached_and_the_images_untouched(norm: Norm) -> None:
    clean = images(2, 3, 8, 8).requires_grad_()
    before = clean.detach().clone()
    (found,) = maximise(Recorder(before), (clean,), generator(), Threat(norm=norm, eps=0.1, step_size=0.1, steps=2))
    assert not found.requires_grad
    assert found.grad_fn is None
    assert clean.grad is None
    assert torch.equal(clean.detach(), before)
    with torch.no_grad():  # measuring code calls it so
        (again,) = maximise(Recorder(before), (clean,), generator(), Threat(norm=norm, eps=0.1, step_size=0.1, steps=2))
    assert torch.equal(found, again)


@NORMS
def test_the_layout_of_the_images_is_kept(norm: Norm) -> None:
    clean = images(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    (found,) = maximise(
        Recorder(linear(clean)), (clean,), generator(), Threat(norm=norm, eps=0.1, step_size=0.1, steps=2)
    )
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("scale", [1e-20, 1e-30, 1e30])
@NORMS
def test_a_gradient_leads_the_same_way_however_short_or_long(norm: Norm, scale: float) -> None:
    """The largest power of two that fits keeps every digit of a float32."""
    clean, exact = images(3, 3, 8, 8, low=0.3, high=0.7), 2.0 ** round(math.log2(scale))
    weight = linear(clean)
    threat = Threat(norm=norm, eps=0.1, step_size=0.05, steps=3)
    plain, scaled = (
        maximise(Recorder(w), (clean,), generator(), threat, start="none")[0] for w in (weight, weight * exact)
    )
    assert distance(scaled, clean, norm).min() > 0.09
    assert torch.equal(scaled, plain)


@NORMS
def test_each_image_has_a_radius_of_its_own(norm: Norm) -> None:
    """Far steps reach the border, and the border is what a threat of that radius reaches."""
    clean = images(3, 3, 8, 8, low=0.3, high=0.7)
    weight, radii = linear(clean), torch.tensor([0.0, 0.05, 0.2])

    def found(start: Start, *, eps: Tensor | None, threat_eps: float = 0.1) -> Tensor:
        threat = Threat(norm=norm, eps=threat_eps, step_size=0.1, steps=5)
        return maximise(Recorder(weight), (clean,), generator(), threat, start=start, eps=eps)[0]

    own = found("none", eps=radii)
    torch.testing.assert_close(distance(own, clean, norm), radii.double(), atol=1e-5, rtol=0)
    for place, radius in enumerate(radii.tolist()):
        assert torch.equal(own[place], found("none", eps=None, threat_eps=radius)[place])
    same = torch.full((3,), 0.1)
    torch.testing.assert_close(found("uniform", eps=same), found("uniform", eps=None), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match=r"expected one value an image, of shape \(3,\), got \(2,\)"):
        found("none", eps=radii[:2])


class Stops:
    """A linear criterion of two inputs, whose image b stops at the call ``at[b]``, counted from 0."""

    def __init__(self, at: list[int]) -> None:
        self.at, self.calls = torch.tensor(at), 0

    def __call__(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        self.calls += 1
        return torch.stack([x.sum() for x in inputs]).sum(), self.at == self.calls - 1


def test_what_stops_stays_in_all_its_inputs_and_the_others_go_on() -> None:
    clean = (torch.full((3, 1, 2, 2), 0.25), torch.full((3, 3, 4, 4), 0.5))
    threat = Threat(eps=0.25, step_size=2**-5, steps=4)
    criterion = Stops([0, 2, 9])  # the last never does
    found = maximise(criterion, clean, generator(), threat, start="none")
    for x, at in zip(found, clean, strict=True):
        steps = ((x - at) * 2**5).flatten(1)
        assert torch.equal(steps, torch.tensor([0.0, 2.0, 4.0])[:, None].expand_as(steps))
    assert criterion.calls == 4


def test_an_attack_is_over_when_all_images_have_stopped() -> None:
    criterion, clean = Stops([1, 0, 1]), torch.full((3, 1, 2, 2), 0.5)
    (found,) = maximise(criterion, (clean,), generator(), Threat(eps=0.25, step_size=2**-5, steps=50), start="none")
    assert criterion.calls == 2
    assert torch.equal((found - clean)[:, 0, 0, 0] * 2**5, torch.tensor([1.0, 0.0, 1.0]))


def test_what_stops_is_one_value_an_image() -> None:
    with pytest.raises(ValueError, match=r"expected one value an image, of shape \(3,\), got \(2,\)"):
        maximise(Stops([0, 2]), (torch.rand(3, 1, 2, 2),), generator(), Threat(), start="none")


class Square:
    """The first pixel alone, within 0.3 of where it was: a ball of somebody else's."""

    def __init__(self, clean: Tensor) -> None:
        self.clean = clean

    def start(self, generator: Generator) -> Tensor:
        return self.inside(torch.rand(self.clean.shape, generator=generator))

    def ascend(self, x: Tensor, gradient: Tensor) -> Tensor:
        return self.inside(x + 0.25 * gradient.sign())

    def inside(self, x: Tensor) -> Tensor:
        x = x.where(torch.arange(x[0].numel()).view(x.shape[1:]) == 0, self.clean)
        return x.clamp(self.clean - 0.3, self.clean + 0.3).clamp(0, 1)


@pytest.mark.parametrize("start", ["uniform", "gaussian", "none"])
def test_an_attack_keeps_to_a_ball_of_somebody_elses(start: Start) -> None:
    clean = images(4, 1, 2, 2)
    (found,) = maximise(
        lambda inputs: inputs[0].sum(), (clean,), generator(), Threat(steps=3), start=start, ball=Square
    )
    expected = clean.clone()
    expected[:, 0, 0, 0] = (clean[:, 0, 0, 0] + 0.3).clamp(max=1)
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=0)
