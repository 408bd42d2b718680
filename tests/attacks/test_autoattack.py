"""AutoAttack fells what the released code fells, one attack after another, and says what it cannot be trusted with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from advss_evaluations import autoattack
from advss_evaluations.autoattack import PIECES, AutoAttack
from pyautoattack import AutoAttack as Released
from pyautoattack import checks
from pyautoattack.square import SquareAttack
from torch import Generator, Tensor, nn

from advss.attacks import Norm
from advss.attacks.apgd import APGD
from advss.attacks.fab import FAB
from advss.config import Choice, EvalSettings
from advss.data.images import InMemory
from advss.data.splits import Part
from advss.errors import UsageError
from advss.evaluations.chunks import Kept, Measuring
from advss.evaluations.planned import planned
from advss.measuring import Answers, Victim
from advss.training.reporting import Silent
from advss.training.signals import StopRequest

Trained = tuple[nn.Module, Tensor, Tensor]
NAMES = {"linf": "Linf", "l2": "L2", "l1": "L1"}
THREATS: list[tuple[Norm, float]] = [("linf", 0.13), ("l2", 0.8), ("l1", 1.5)]


def shortened(patch: pytest.MonkeyPatch, steps: int, queries: int) -> None:
    patch.setattr(autoattack, "APGD", partial(APGD, steps=steps))
    patch.setattr(autoattack, "FAB", partial(FAB, steps=steps))
    patch.setattr(autoattack, "QUERIES", queries)


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps and queries."""
    shortened(monkeypatch, 5, 3)


short = pytest.mark.usefixtures("_short")


def images(sturdy: Trained, count: int = 100) -> Part:
    """The digits, which are whole sixteenths, in the 255ths of a source."""
    return Part(InMemory((255 * sturdy[1][:count]).round().byte()), torch.arange(count), sturdy[2][:count])


def measured(
    model: nn.Module, part: Part, *, classes: int = 10, kept: Path | None = None, eps: float = 0.1, **options: Any
) -> tuple[dict[str, Any], Answers]:
    """Figures and answers, in chunks of 40 images."""
    plan = planned(Choice("autoattack", {"eps": eps, **options}), EvalSettings())
    how = Measuring(torch.device("cpu"), 0, 40, Silent(), StopRequest())
    victim = plan.victim(model, classes=[str(k) for k in range(classes)])
    found = plan.measured(victim, part, how, Kept(kept, {}), "x")
    return plan.figures(found), found.answers


# ---------------------------------------------------------------- the released code


class WholeChunk(SquareAttack):  # type: ignore[misc]
    """Theirs, of which all that is drawn is drawn for the whole chunk by a generator."""

    x: Tensor
    draws: Generator
    place: Tensor

    def check_shape(self, x: Tensor) -> Tensor:
        found, same = places(x, self.x)
        if same:  # what it is called with first in each query
            self.place = found
        return x

    def perturb(self, x: Tensor, y: Tensor) -> Tensor:
        self.place = places(x, self.x)[0]
        made: Tensor = super().perturb(x, y)
        return made

    def random_int(self, low: int = 0, high: int = 1, shape: tuple[int, ...] = (1,)) -> Tensor:
        return (low + (high - low) * torch.rand(shape, generator=self.draws)).long()

    def random_choice(self, shape: list[int]) -> Tensor:
        number = torch.rand([len(self.x), *shape[1:]] if len(shape) == 4 else shape, generator=self.draws)
        return (2 * (number[self.place] if len(shape) == 4 else number) - 1).sign()


def places(some: Tensor, x: Tensor) -> tuple[Tensor, bool]:
    """Where these images are among all, and whether they are among them."""
    distance = (some.flatten(1)[:, None] - x.flatten(1)).abs().amax(2)
    nearest = distance.min(1)
    return nearest.indices, bool((nearest.values == 0).all())


def with_draws(attack: Any, x: Tensor, draws: Generator, patch: pytest.MonkeyPatch) -> None:
    """Each run of an APGD or FAB of theirs that starts at noise starts at noise drawn for the whole chunk."""
    name = "decr_eps_pgd" if getattr(attack, "use_largereps", False) else "attack_single_run"
    run, draw = getattr(attack, name), torch.rand if attack.norm == "Linf" else torch.randn

    def run_by_draws(left: Tensor, *given: Any, use_rand_start: bool = True, **more: Any) -> Any:
        noise = draw(x.shape, generator=draws)[places(left, x)[0]] if use_rand_start else None
        given_start = {"use_rand_start": use_rand_start} if more else {}
        with pytest.MonkeyPatch.context() as inner:
            for kind in ("rand", "randn", "randn_like"):
                inner.setattr(torch, kind, lambda like: noise)
            return run(left, *given, **given_start, **more)

    patch.setattr(attack, name, run_by_draws)


def released(
    model: nn.Module, x: Tensor, label: Tensor, threat: tuple[Norm, float], version: Any, patch: pytest.MonkeyPatch
) -> tuple[dict[str, float], Tensor]:
    """Their accuracy after each attack, and which images they felled; by 5 steps and 50 queries."""
    norm, eps = NAMES[threat[0]], threat[1]
    other = Released(model, norm=norm, eps=eps, version=version, seed=0)
    other.square = WholeChunk(model, norm=norm, eps=eps, seed=0, n_queries=50, resc_schedule=False)
    other.square.x, other.square.draws = x, generator("square")
    for attack in (other.apgd, other.apgd_targeted, other.fab):
        attack.n_iter = attack.n_iter_orig = 5
    for apgd in (other.apgd, other.apgd_targeted):
        apgd.n_iter_2, apgd.n_iter_min, apgd.size_decr = 1, 1, 1
    for attack, name in ((other.apgd, "apgd"), (other.apgd_targeted, "apgd-t"), (other.fab, "fab")):
        with_draws(attack, x, generator(name), patch)
    accuracies: dict[str, float] = {}
    patch.setattr(checks, "check_square_sr", lambda found, logger: accuracies.update(found))
    made, _ = other.run_standard_evaluation(x, label, batch_size=len(x))
    return accuracies, (made != x).flatten(1).any(1)


def generator(attack: str) -> Generator:
    return Generator().manual_seed(len(attack))


@pytest.mark.parametrize(
    ("version", "threat"),
    [
        ("standard", ("linf", 0.13)),
        ("standard", ("l2", 0.7)),
        ("standard", ("l1", 1.2)),
        ("plus", ("linf", 0.13)),
        ("rand", ("linf", 0.13)),
    ],
)
def test_each_attack_fells_as_many_as_the_released_codes_and_all_the_same_images(
    sturdy: Trained, version: Any, threat: tuple[Norm, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, label = sturdy
    shortened(monkeypatch, 5, 5)
    evaluation = AutoAttack(version=version, norm=threat[0], eps=threat[1])
    draws = {attack: generator(attack) for attack in ("apgd", "apgd-t", "fab", "square")}
    draws["apgd-ce"] = draws["apgd-dlr"] = draws["apgd"]
    victim, answers = Victim(model, classes="0123456789"), dict[str, Tensor]()
    for part in evaluation.parts(10):
        own = draws.get(part.split("/")[0], Generator())
        answers = dict(evaluation.measure_part(part, answers, victim, x, label, own))
    expected, fell = released(model, x, label, threat, version, monkeypatch)

    counts = [int((answers["felled_by"] == place).sum()) for place in range(len(evaluation.attacks))]
    ours = [(100 - total) / 100 for total in itertools.accumulate(counts)]
    print(counts)
    assert dict(zip(["clean", *evaluation.attacks], [1.0, *ours], strict=True)) == pytest.approx(expected)
    assert torch.equal(answers["felled_by"] >= 0, fell)
    assert 20 < fell.sum() < 80
    assert sum(count > 0 for count in counts) >= 2
