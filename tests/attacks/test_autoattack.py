"""AutoAttack fells what the released code fells, one attack after another, and says what it cannot be trusted with."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
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
from advss_evaluations import autoattack
from advss_evaluations.autoattack import PIECES, AutoAttack

Trained = tuple[nn.Module, Tensor, Tensor]
Narrowing = Callable[[nn.Module], nn.Module]
NAMES = {"linf": "Linf", "l2": "L2", "l1": "L1"}
THREATS: dict[str, tuple[Norm, float, int]] = {  # radius and APGD's steps
    "standard linf": ("linf", 0.17, 20),
    "standard l2": ("l2", 0.7, 5),
    "standard l1": ("l1", 1.2, 5),
    "plus linf": ("linf", 0.17, 20),
    "rand linf": ("linf", 0.17, 20),
}


def shortened(patch: pytest.MonkeyPatch, steps: int, queries: int) -> None:
    """Few steps, and queries of a piece."""
    patch.setattr(autoattack, "APGD", partial(APGD, steps=steps))
    patch.setattr(autoattack, "FAB", partial(FAB, steps=min(5, steps)))
    patch.setattr(autoattack, "QUERIES", queries)


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    shortened(monkeypatch, 4, 3)


short = pytest.mark.usefixtures("_short")


def images(sturdy: Trained, count: int = 100) -> Part:
    """The digits, which are whole sixteenths, in the 255ths of a source."""
    return Part(InMemory((255 * sturdy[1][:count]).round().byte()), torch.arange(count), sturdy[2][:count].clone())


def measured(
    model: nn.Module, part: Part, *, classes: int = 10, kept: Path | None = None, eps: float = 0.1, **options: Any
) -> tuple[dict[str, Any], Answers]:
    """Figures and answers, in chunks of 40 images."""
    plan = planned(Choice("autoattack", {"eps": eps, **options}), EvalSettings())
    how = Measuring(torch.device("cpu"), 0, 40, Silent(), StopRequest())
    victim = plan.victim(model, classes=[str(k) for k in range(classes)])
    plan.check(victim)
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
    model: nn.Module, x: Tensor, label: Tensor, threat: tuple[Norm, float, int], version: Any, patch: pytest.MonkeyPatch
) -> tuple[dict[str, float], Tensor]:
    """Their accuracy after each attack, and which images they felled; Square by 50 queries."""
    norm, eps, steps = NAMES[threat[0]], *threat[1:]
    other = Released(model, norm=norm, eps=eps, version=version, seed=0)
    other.square = WholeChunk(model, norm=norm, eps=eps, seed=0, n_queries=50, resc_schedule=False)
    other.square.x, other.square.draws = x, generator("square")
    other.fab.n_iter = 5
    for apgd in (other.apgd, other.apgd_targeted):
        apgd.n_iter = apgd.n_iter_orig = steps
        apgd.n_iter_2, apgd.n_iter_min, apgd.size_decr = (max(1, steps * share // 100) for share in (22, 6, 3))
    for attack, name in ((other.apgd, "apgd"), (other.apgd_targeted, "apgd-t"), (other.fab, "fab")):
        with_draws(attack, x, generator(name), patch)
    accuracies: dict[str, float] = {}
    patch.setattr(checks, "check_square_sr", lambda found, logger: accuracies.update(found))
    made, _ = other.run_standard_evaluation(x, label, batch_size=len(x))
    return accuracies, (made != x).flatten(1).any(1)


def generator(attack: str) -> Generator:
    return Generator().manual_seed(len(attack))


@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.slow] * ("plus" in case)) for case in THREATS])
def test_each_attack_fells_as_many_as_the_released_codes_and_all_the_same_images(
    sturdy: Trained, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model, x, label), version, threat = sturdy, case.split()[0], THREATS[case]
    shortened(monkeypatch, threat[2], 5)
    evaluation = AutoAttack(version=version, norm=threat[0], eps=threat[1])  # type: ignore[arg-type]
    draws = {attack: generator(attack) for attack in ("apgd", "apgd-t", "fab", "square")}
    draws["apgd-ce"] = draws["apgd-dlr"] = draws["apgd"]
    victim, answers = Victim(model, classes="0123456789"), dict[str, Tensor]()
    for part in evaluation.parts(10):
        own = draws.get(part.split("/")[0], Generator())
        answers = dict(evaluation.measure_part(part, answers, victim, x, label, own))
    expected, fell = released(model, x, label, threat, version, monkeypatch)

    counts = [int((answers["felled_by"] == place).sum()) for place in range(len(evaluation.attacks))]
    ours = [(100 - total) / 100 for total in itertools.accumulate(counts)]
    assert dict(zip(["clean", *evaluation.attacks], [1.0, *ours], strict=True)) == pytest.approx(expected)
    assert torch.equal(answers["felled_by"] >= 0, fell)
    assert 20 < fell.sum() < 80
    assert sum(count > 0 for count in counts) >= 2


# ---------------------------------------------------------------- parts, kills, memory


def attacks_of(parts: Sequence[str]) -> dict[str, int]:
    return dict(Counter(part.split("/")[0] for part in parts))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"apgd-ce": 1, "apgd-t": 9, "fab-t": 9, "square": 10}),
        ({"norm": "l1"}, {"apgd-ce": 5, "apgd-t": 5, "fab-t": 9, "square": 10}),
        (
            {"version": "plus"},
            {"apgd-ce": 5, "apgd-dlr": 5, "fab": 5, "square": 10, "apgd-t": 9, "fab-t": 9},
        ),
        ({"version": "rand"}, {"apgd-ce": 1, "apgd-dlr": 1}),
        ({"version": "custom", "attacks": ("square", "fab")}, {"square": 10, "fab": 1}),
    ],
    ids=str,
)
def test_versions_have_the_published_attacks_restarts_and_targets(
    options: dict[str, Any], expected: dict[str, int]
) -> None:
    parts = AutoAttack(**options).parts(10)
    assert list(attacks_of(parts).items()) == [("checks", 1), *expected.items()]
    assert len(set(parts)) == len(parts)


def test_square_has_the_published_queries_in_all() -> None:
    assert autoattack.QUERIES * PIECES == 5000


class Mortal(AutoAttack):
    """Killed after every part."""

    def measure_part(self, part: str, *given: Any) -> Answers:
        if self.done:
            raise KeyboardInterrupt
        self.done = True
        return super().measure_part(part, *given)

    done = False


@short
@pytest.mark.parametrize("version", ["standard", "plus"])
def test_killed_after_every_part_it_gives_the_same_answers(sturdy: Trained, tmp_path: Path, version: Any) -> None:
    how = Measuring(torch.device("cpu"), 0, 40, Silent(), StopRequest())
    victim, part, options = (
        Victim(sturdy[0], classes="0123456789"),
        images(sturdy, 60),
        {"version": version, "eps": 0.15},
    )
    whole = how.answers(AutoAttack(**options), victim, part, Kept(None, {}), "x")
    kills, found = 0, None
    while found is None:
        with suppress(KeyboardInterrupt):
            found = how.answers(Mortal(**options), victim, part, Kept(tmp_path, {}), "x")
        kills += found is None
    assert kills == 2 * len(AutoAttack(version=version).parts(10)) - 1
    assert set(found) == set(whole) == {"ta", "ra", "felled_by", "flags"}
    assert all(torch.equal(found[name], whole[name]) for name in whole)
    assert len(set(whole["felled_by"].tolist())) > 2


@short
def test_memory_that_runs_out_changes_no_answer(sturdy: Trained, narrow: Narrowing) -> None:
    (_, whole), (_, split) = (measured(model, images(sturdy, 45), eps=0.17) for model in (sturdy[0], narrow(sturdy[0])))
    assert all(torch.equal(whole[name], split[name]) for name in whole)


# ---------------------------------------------------------------- figures


@short
def test_figures_are_of_the_answers_and_accuracy_never_rises(sturdy: Trained) -> None:
    part = images(sturdy)
    part.labels[:7] = (part.labels[:7] + 1) % 10
    figures, answers = measured(sturdy[0], part, eps=0.15)
    felled = answers["felled_by"]
    assert answers["ta"].tolist() == [False] * 7 + [True] * 93
    assert torch.equal(answers["ra"], felled == -1)
    assert torch.equal(answers["ta"], felled != -2)
    attacks = ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert figures["felled"] == {attack: int((felled == place).sum()) for place, attack in enumerate(attacks)}
    curve = [figures["ta"]["accuracy"], *figures["cumulated"].values()]
    assert list(figures["cumulated"]) == attacks
    assert curve == sorted(curve, reverse=True)
    assert curve[-1] == figures["ra"]["accuracy"] < curve[0] == 0.93


@short
@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
def test_a_sound_model_is_not_doubted(sturdy: Trained, version: str) -> None:
    figures, _ = measured(sturdy[0], images(sturdy), version=version)
    assert (figures["doubts"], figures["notes"]) == ([], [])


class Changed(nn.Module):
    def __init__(self, model: nn.Module, change: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.change = model, change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.model, x)


def noisy(model: nn.Module, x: Tensor) -> Tensor:
    logits: Tensor = model(x + 0.01 * torch.randn_like(x))
    return logits


def probabilities(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).softmax(1)  # type: ignore[no-any-return]


def stepped(model: nn.Module, x: Tensor) -> Tensor:
    logits: Tensor = model((64 * x).round() / 64)
    return logits


def own_gradients(model: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        torch.autograd.grad(model(leaf).sum(), leaf)
    logits: Tensor = model(x)
    return logits


@short
@pytest.mark.parametrize(
    ("change", "doubt", "line"),
    [
        (
            noisy,
            "randomness",
            "the answers for 100 of 100 images change from pass to pass: say --autoattack.version rand",
        ),
        (probabilities, "softmax", "the model gives probabilities"),
        (stepped, "zero-gradients", "the gradient is zero or not finite for "),
        (own_gradients, "gradients-inside", "the model takes gradients in its own forward pass"),
    ],
)
def test_a_model_with_a_fault_is_doubted(
    sturdy: Trained, change: Callable[[nn.Module, Tensor], Tensor], doubt: str, line: str
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        figures, _ = measured(
            Changed(sturdy[0], change), images(sturdy), version="custom", attacks=["apgd-ce"], eps=0.01
        )
    assert figures["doubts"] == [doubt]
    (said,) = figures["notes"]
    assert said.startswith(line)


@short
def test_rand_does_not_wonder_at_random_answers(sturdy: Trained) -> None:
    figures, _ = measured(Changed(sturdy[0], noisy), images(sturdy, 40), version="rand")
    assert figures["doubts"] == []


def test_square_below_attacks_that_see_no_gradient_is_doubted(sturdy: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    shortened(monkeypatch, 4, 10)
    figures, _ = measured(
        Changed(sturdy[0], stepped), images(sturdy), version="custom", attacks=["apgd-ce", "square"], eps=0.2
    )
    gap = figures["cumulated"]["apgd-ce"] - figures["cumulated"]["square"]
    assert gap > 0.02
    assert figures["doubts"] == ["zero-gradients", "square"]
    assert f"took {100 * gap:.2f} points of accuracy" in figures["notes"][1]


def test_an_example_that_is_right_when_asked_again_does_not_count(
    sturdy: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong about everything in one of the passes, the last of the attack alone."""
    shortened(monkeypatch, 1, 1)
    passes = iter(range(1000))
    wrong = 5 + 1 + 1 + 1 + 1 + 1  # checks: answers, gradients inside, zero ones; APGD: the images, start and step

    def once(model: nn.Module, x: Tensor) -> Tensor:
        logits: Tensor = model(x)
        return -logits if next(passes) == wrong - 1 else logits

    part = images(sturdy, 40)
    _, answers = measured(Changed(sturdy[0], once), part, version="custom", attacks=["apgd-ce"], eps=1e-4)
    assert answers["ra"].all()
    assert next(passes) == wrong + 1  # the examples were asked about again


# ---------------------------------------------------------------- classes and options


@short
@pytest.mark.parametrize(
    ("classes", "ran", "note"),
    [
        (
            2,
            ["apgd-ce", "fab-t", "square"],
            "the model has 2 classes: without apgd-t, which needs 4; fab-t aims at 1 wrong ones, not 9",
        ),
        (
            3,
            ["apgd-ce", "fab-t", "square"],
            "the model has 3 classes: without apgd-t, which needs 4; fab-t aims at 2 wrong ones, not 9",
        ),
        (
            5,
            ["apgd-ce", "apgd-t", "fab-t", "square"],
            "the model has 5 classes: apgd-t aims at 4 wrong ones, not 9; fab-t aims at 4 wrong ones, not 9",
        ),
    ],
)
def test_few_classes_are_attacked_by_what_can_be_and_the_rest_is_said(
    sturdy: Trained, classes: int, ran: list[str], note: str
) -> None:
    part = images(sturdy)
    part = part.select((part.labels < classes).nonzero()[:, 0])
    few = Changed(sturdy[0], lambda model, x: model(x)[:, :classes])
    figures, answers = measured(few, part, classes=classes, eps=0.3 if classes < 5 else 0.2)
    assert list(figures["cumulated"]) == ran
    assert figures["notes"] == [note]
    assert 0 < figures["ra"]["accuracy"] < figures["ta"]["accuracy"]
    assert answers["felled_by"].max() < 4


@pytest.mark.parametrize(("classes", "attacks"), [(1, ["square"]), (3, ["apgd-t"])])
def test_a_model_of_too_few_classes_for_any_attack_is_refused(
    sturdy: Trained, classes: int, attacks: list[str]
) -> None:
    line = rf"--evaluate autoattack: {attacks[0]} needs at least . classes, the model has {classes}"
    with pytest.raises(UsageError, match=line):
        measured(sturdy[0], images(sturdy, 5), classes=classes, version="custom", attacks=attacks)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"attacks": ["square"]}, "--autoattack.attacks must be left out, got square: version standard has its own"),
        ({"version": "custom"}, "--autoattack.attacks must be said for version custom, of apgd-ce, apgd-dlr"),
        (
            {"version": "custom", "attacks": ["apgd-c"]},
            "--autoattack.attacks has none called 'apgd-c'; did you mean 'apgd-ce'?",
        ),
        (
            {"version": "custom", "attacks": ["fab", "fab"]},
            "--autoattack.attacks must each be named once",
        ),
        ({"version": "strong"}, "--autoattack.version: expected standard | plus | rand | custom, got 'strong'"),
        ({"eps": 8}, "--autoattack.eps must be at most 1 for linf, got 8"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_in_one_line(options: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as error:
        planned(Choice("autoattack", options), EvalSettings())
    assert str(error.value).startswith(line)


@pytest.mark.parametrize(
    ("options", "title"),
    [
        ({}, "AutoAttack standard ℓ∞ 8/255"),
        ({"version": "plus", "norm": "l2"}, "AutoAttack plus ℓ2 0.5"),
        ({"version": "custom", "attacks": ["apgd-ce", "fab"]}, "AutoAttack custom (apgd-ce, fab) ℓ∞ 8/255"),
    ],
)
def test_the_title_says_which_version_was_run(options: dict[str, Any], title: str) -> None:
    assert planned(Choice("autoattack", options), EvalSettings()).title == title
