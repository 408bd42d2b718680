"""What every unforeseen attack keeps: its base image, its bounds, its gradients, images apart, float64's losses."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Generator, Tensor, nn

from advss.plugins import registry
from advss.testing.checks.evaluations import it_works_on_another_device
from advss.testing.subject import Subject
from advss.unforeseen import FAMILIES, Attack, examples, wrong_class

Trained = tuple[nn.Module, Tensor, Tensor]
Make = Callable[..., Attack]
Array = NDArray[Any]


def array(x: Tensor) -> Array:
    """In float64."""
    found: Array = x.detach().double().numpy()
    return found


def watched(attack: Attack) -> list[Tensor]:
    """The variables at every step, as they come."""
    seen, apply = list[Tensor](), attack.apply

    def told(z: Tensor, step: int) -> Tensor:
        seen.append(z.detach().clone())
        return apply(z, step)

    attack.apply = told  # type: ignore[method-assign]
    return seen


def itself(x: Array) -> Array:
    return x


def pale(share: float) -> Callable[[Array], Array]:
    def made(x: Array) -> Array:
        grey = np.tensordot(x, [0.2126, 0.7152, 0.0722], (1, 0))[:, None]
        return np.clip((1 - share) * x + share * np.maximum(x, 1.5 * grey + 0.5), 0, 1)

    return made


def halved_chroma(x: Array) -> Array:
    to = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    y, *chroma = np.moveaxis(255 * x, 1, -1).dot(to.T).transpose(3, 0, 1, 2)
    small = [plane.reshape(-1, 16, 2, 16, 2).mean((2, 4)) for plane in chroma]
    blue, red = (np.kron(plane, np.ones((2, 2))) for plane in small)
    rgb = np.stack([y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue], 1)
    return np.clip(rgb / 255, 0, 1)


def read(x: Array, rows: Array, columns: Array, mode: str) -> Array:
    at = np.meshgrid(rows, columns, indexing="ij")
    return np.stack([[ndimage.map_coordinates(plane, at, order=1, mode=mode) for plane in image] for image in x])


def zoomed(x: Array) -> Array:
    place = (np.linspace(-1, 1, 32) + 1) * 16 - 0.5
    return read(x, place, place, "grid-constant")


def moved(x: Array) -> Array:
    return read(x, np.arange(32) - 0.5, np.arange(32) - 0.5, "reflect")


def ringed(x: Array) -> Array:
    line = (np.arange(32) - 16) / 16
    return x * np.abs(np.sin(np.pi * 5 * np.hypot(*np.meshgrid(line, line)))) ** 0.125


BASES: dict[str, Callable[[Array], Array]] = {
    **{f"kang {name}": itself for name in ("pgd_linf", "pgd_l2", "fw_l1", "elastic", "gabor")},
    **{f"kang jpeg_{norm}": halved_chroma for norm in ("linf", "l2", "l1")},
    "kang fog": lambda x: x / x.max((2, 3), keepdims=True),
    "kang snow": pale(0.25),
    **{f"ua {name}": itself for name in ("gabor", "pixel", "jpeg")},
    "ua snow": pale(0.15),
    "ua elastic": zoomed,
    "ua wood": ringed,
    "ua glitch": moved,
}


def test_nothing_is_left_of_an_attack_at_eps_0_but_its_base_image(which: str, make: Make, trained: Trained) -> None:
    model, x, label = trained
    made = examples(attack := make(which, x, eps=0, steps=2), model, label, targeted=False)
    if which == "ua wood":  # where the sine is 0, its eighth root is that of the rounding
        smooth = ringed(np.ones((1, 3, 32, 32))) > 0.4
        np.testing.assert_allclose(array(made)[:, smooth[0]], ringed(array(x))[:, smooth[0]], atol=3e-5)
        return
    if which in BASES:
        np.testing.assert_allclose(array(made), BASES[which](array(x)), atol=3e-5)
        return
    assert which == "ua kaleidoscope"
    mask: Any = attack
    outside = ~mask.rim_B1SS & ~(mask.inside_BNSS > 0).any(1, keepdim=True)
    assert 0.5 < outside.double().mean() < 0.95
    assert torch.equal(made[outside.expand_as(x)], x[outside.expand_as(x)])
    assert made[mask.rim_B1SS.expand_as(x)].eq(0).all()


@pytest.mark.parametrize(
    ("which", "slip"),
    [("kang jpeg_linf", "jpeg-chroma"), ("ua elastic", "elastic-zoom"), ("ua glitch", "glitch-shift")],
)
def test_without_a_slip_eps_0_leaves_the_image(which: str, slip: str, make: Make, colours: Tensor) -> None:
    attack = make(which, colours, eps=0, slips=())
    torch.testing.assert_close(attack.apply(attack.start(), 1), colours, atol=2e-6, rtol=0)
    attack = make(which, colours, eps=0, slips=(slip,))
    assert (attack.apply(attack.start(), 1) - colours).abs().max() > 0.01


def norm(z: Tensor, p: float) -> Tensor:
    length: Tensor = z.flatten(1).norm(p=p, dim=1)
    return length


def box(z: Tensor, low: float, high: float) -> bool:
    return bool(z.min() >= low - 1e-6 and z.max() <= high + 1e-6)


def ball(z: Tensor, p: float, eps: float) -> bool:
    return bool((norm(z, p) <= eps * (1 + 1e-5) + 1e-7).all())


LINF = [f"ua {name}" for name in ("gabor", "jpeg", "wood", "glitch", "kaleidoscope")]
BOUNDS: dict[str, Callable[[Any, Tensor, float], bool]] = {
    "kang pgd_linf": lambda a, z, eps: ball(z - a.x, torch.inf, eps / 255) and box(z, 0, 1),
    "kang pgd_l2": lambda a, z, eps: ball(z - a.x, 2, eps / 255) and box(z, 0, 1),
    "kang fw_l1": lambda a, z, eps: ball(z, 1, eps * 3072 / 255) and box(a.x + z, 0, 1),
    "kang jpeg_linf": lambda a, z, eps: ball(z, torch.inf, eps),
    "kang jpeg_l2": lambda a, z, eps: ball(z, 2, eps) and box(z, -2, 2),
    "kang jpeg_l1": lambda a, z, eps: ball(z, 1, eps) and box(z, -2.05, 2.05),
    "kang elastic": lambda a, z, eps: ball(z, torch.inf, eps * 2 / 32),
    "kang fog": lambda a, z, eps: box(z, 0, 1),
    "kang gabor": lambda a, z, eps: box(z, -1, 1) and not z[~a.drawn].any(),
    "kang snow": lambda a, z, eps: box(z, 0, 1) and box(F.avg_pool2d(z, 8), 0, 0.2),
    "ua snow": lambda a, z, eps: ball(z, 2, eps),
    "ua elastic": lambda a, z, eps: ball(z, 2, eps),
    "ua pixel": lambda a, z, eps: ball(z, 2, eps) and box(z, 0, 1),
    **{which: lambda a, z, eps: ball(z, torch.inf, eps) for which in LINF},
}
AT_FIRST = ("kang fw_l1", "kang snow")  # whose start keeps them not yet
AT_LAST = ("kang snow",)  # whose last step is not brought back


def test_variables_keep_their_bounds_and_move_for_every_image(which: str, make: Make, trained: Trained) -> None:
    model, x, label = trained
    family, name = which.split()
    eps = FAMILIES[family].attacks[name][32].eps[1]
    attack = make(which, x, eps=eps, steps=4)
    attack.step_size *= 3  # so that the bounds are reached
    seen = watched(attack)
    made = examples(attack, model, label, targeted=False)
    for step, z in enumerate(seen):
        if not (step == 0 and which in AT_FIRST) and not (step == attack.steps and which in AT_LAST):
            assert BOUNDS[which](attack, z, eps), step
    assert len(seen) == 5
    assert (seen[0] != seen[1]).flatten(1).any(1).all()
    assert made.min() >= -1e-6
    assert made.max() <= 1 + 1e-6


class Smooth(nn.Module):
    """Images to 4 logits, without a kink."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(4, 3 * 16 * 16, generator=Generator().manual_seed(1)) / 8
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(F.avg_pool2d(x - 0.5, 2).flatten(1) @ self.get_buffer("weight").T.to(x.dtype))


def test_gradients_are_the_slopes_of_the_loss(which: str, make: Make, colours: Tensor) -> None:
    if which == "kang gabor":
        pytest.skip("its factors have no gradient, as published")
    attack, label = make(which, colours.double()), torch.arange(5) % 4
    z = attack.start() * 0.99 + (0.01 if which == "ua wood" else 0)  # off the sine's zeros, where there is no slope
    way = torch.randn(z.shape, generator=Generator().manual_seed(2), dtype=torch.float64)
    way = way * (z != 0) if which in ("ua snow", "ua gabor") else way

    def loss(z: Tensor) -> Tensor:
        return F.cross_entropy(Smooth()(attack.apply(z, 1)), label, reduction="none")

    (gradient,) = torch.autograd.grad(loss(z.requires_grad_()).sum(), z)
    slope = (loss(z.detach() + 1e-7 * way) - loss(z.detach() - 1e-7 * way)) / 2e-7
    expected = (gradient * way).flatten(1).sum(1)
    assert (expected.abs() > 1e-9).all()
    torch.testing.assert_close(slope.detach(), expected, rtol=2e-3, atol=2e-6)


def test_losses_of_all_steps_are_those_of_float64(which: str, make: Make, trained: Trained) -> None:
    model, x, label = trained
    losses = list[Tensor]()

    class Told(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = model(images)
            losses.append(F.cross_entropy(logits.detach(), label))
            return logits

    attack = make(which, x, steps=5)
    seen = watched(attack)
    examples(attack, Told(), label, targeted=False)
    again, exact = make(which, x.double(), steps=5), deepcopy(model).double()
    for step, loss in enumerate(losses):
        found = F.cross_entropy(exact(again.apply(seen[step].double(), step)), label)
        close = 5e-3 if which == "ua wood" else 1e-4  # the eighth root of a sine that is nearly 0
        torch.testing.assert_close(loss.double(), found, rtol=close, atol=1e-5)


def test_an_image_does_not_hang_on_the_others(which: str, make: Make, trained: Trained) -> None:
    model, x, label = trained
    others = torch.cat([x[:1], x[5:6], 1 - x[2:4], x[7:8]])
    one, other = (examples(make(which, images, steps=3), model, label[:5], targeted=True) for images in (x[:5], others))
    torch.testing.assert_close(one[0], other[0], atol=1e-5, rtol=0)
    assert not torch.equal(one[1], other[1])


def test_draws_are_the_generators(which: str, make: Make, trained: Trained) -> None:
    model, x, label = trained
    state = torch.get_rng_state()
    first, again = (examples(make(which, x[:3], steps=2), model, label[:3], targeted=False) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(state, torch.get_rng_state())
    one, other = (make(which, x[:3], seed=seed).start() for seed in (0, 1))
    assert torch.equal(one, other) == (which == "ua wood")  # which alone draws nothing


@pytest.mark.parametrize("family", list(FAMILIES))
def test_they_work_on_another_device(family: str) -> None:
    plugin = next(one for one in registry().found.plugins if (one.kind, one.name) == ("evaluation", "unforeseen"))
    attacks = tuple(FAMILIES[family].attacks)
    strength = ("low",) if family == "ua" else ()
    subject = Subject(plugin, {"family": family, "attacks": attacks, "strength": strength, "steps": 1})
    it_works_on_another_device(subject)


def test_fog_of_the_whole_chunk_hangs_on_the_others(make: Make, colours: Tensor) -> None:
    together = make("kang fog", colours, slips=("fog-chunk",))
    alone = make("kang fog", colours)
    z = alone.start()
    z[1:] = 0.5
    assert not torch.allclose(together.apply(z, 0)[1:], alone.apply(z, 0)[1:])
    z[1:] = z[:1]
    torch.testing.assert_close(together.apply(z, 0), alone.apply(z, 0))


def test_a_wrong_class_is_each_of_the_others_alike() -> None:
    label = torch.arange(4).repeat(3000)
    drawn = wrong_class(label, 4, Generator().manual_seed(0))
    counts = torch.stack([(drawn[label == own] == other).sum() for own in range(4) for other in range(4)]).view(4, 4)
    assert counts.diag().eq(0).all()
    assert (counts[~torch.eye(4, dtype=torch.bool)] - 1000).abs().max() < 120  # 4.6 standard deviations


def test_aimed_attacks_descend_to_their_class(make: Make, trained: Trained) -> None:
    model, x, label = trained
    aim = wrong_class(label, 10, Generator().manual_seed(0))
    with torch.no_grad():
        losses = [
            F.cross_entropy(model(made), aim)
            for made in (x, examples(make("kang pgd_linf", x, eps=32, steps=20), model, aim, targeted=True))
        ]
    assert losses[1] < losses[0] / 2
    assert losses[0] > 10


def test_accuracy_falls_as_eps_grows(which: str, make: Make, trained: Trained) -> None:
    model, x, label = trained
    family, name = which.split()
    own = FAMILIES[family].attacks[name][32]
    largest = own.eps[-1] * (5 if which == "ua gabor" else 1)  # which moves hardly any answer about so easy images
    steps = 40 if family == "kang" else own.steps
    right = [
        int(
            (
                model(examples(make(which, x, eps=eps, steps=steps), model, label, targeted=False)).argmax(1) == label
            ).sum()
        )
        for eps in (0, largest)
    ]
    assert right[1] < right[0]
