"""A classifier is measured chunk by chunk: what is counted and kept, signals, and memory that runs out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from advss.config import Choice, EvalSettings
from advss.data.images import InMemory
from advss.data.splits import Part, part_tensors
from advss.errors import UsageError
from advss.evaluations.chunks import Kept, Measuring
from advss.evaluations.planned import planned
from advss.hookspecs import Evaluation
from advss.measuring import Answers, Victim
from advss.training.form import MisfitError
from advss.training.reporting import Silent
from advss.training.signals import Interrupted, StopRequest

Small = Callable[..., nn.Module]


def part(count: int, *, ones: int | None = None) -> Part:
    """Images of 4 pixels, the first of them of class 1."""
    images = torch.randint(256, (count, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    label = (torch.arange(count) < (count if ones is None else ones)).long()
    return Part(InMemory(images), torch.arange(count), label)


def how(stop: StopRequest | None = None, chunk: int = 4) -> Measuring:
    return Measuring(torch.device("cpu"), 0, chunk, Silent(), stop or StopRequest())


def answers(
    evaluation: Evaluation, model: nn.Module, images: Part, *, kept: Path | None = None, chunk: int = 4
) -> Answers:
    key = Kept(kept, {"a": 1})
    return how(chunk=chunk).answers(evaluation, Victim(model, classes="ab"), images, key, "x")


class Constant(nn.Module):
    """Says class 1 of any image, whatever is done to it."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.tensor([0.0, 1.0]).expand(len(x_BCHW), 2) + 0 * x_BCHW.sum((1, 2, 3))[:, None]


def test_constant_classifier_has_equal_ta_and_ra() -> None:
    plan, images = planned(Choice("pgd"), EvalSettings(steps=1)), part(10, ones=7)
    victim = plan.victim(Constant(), classes="ab")
    figures = plan.figures(plan.measured(victim, images, how(), Kept(None, {}), "x"))
    assert (figures["ta"]["accuracy"], figures["ra"]["accuracy"], figures["ra"]["images"]) == (0.7, 0.7, 10)


def test_examples_are_drawn_as_by_pgd_and_fell_what_it_fells() -> None:
    images, found = part(24, ones=12), []
    settings = EvalSettings(eps=0.01, step_size=0.005, steps=3, restarts=2)
    model = Narrow()
    for name in ("pgd", "examples"):
        plan = planned(Choice(name), settings)
        found.append(plan.measured(plan.victim(model, classes="ab"), images, how(), Kept(None, {}), "x").answers)
    by_pgd, by_examples = found
    x, clean = by_examples["x"], part_tensors(images)[0]
    assert all(torch.equal(by_pgd[name], by_examples[name]) for name in ("ta", "ra", "answer"))
    with torch.no_grad():
        assert torch.equal(model(x).argmax(1) == images.labels, by_examples["ra"])
        assert torch.equal(model(x).argmax(1), by_examples["attacked"])
        assert torch.equal(model(clean).argmax(1), by_examples["answer"])
    assert float((x - clean).abs().max()) <= 0.01 + 1e-6
    assert 0 < by_pgd["ra"].sum() < by_pgd["ta"].sum()


@pytest.mark.parametrize(
    ("options", "title"), [({}, "PGD-20 ×2 ℓ∞ 8/255"), ({"loss": "margin"}, "PGD-20 ×2 margin ℓ∞ 8/255")]
)
def test_pgds_title_names_a_loss_that_is_not_cross_entropy(options: dict[str, Any], title: str) -> None:
    assert planned(Choice("pgd", options), EvalSettings(restarts=2)).title == title


def test_a_loss_that_needs_more_classes_is_told_before_anything_is_measured() -> None:
    plan = planned(Choice("pgd", {"loss": "dlr"}), EvalSettings())
    with pytest.raises(UsageError, match="--evaluate pgd: loss dlr needs at least 3 classes, the model has 2"):
        plan.check(plan.victim(Constant(), classes="ab"))


class Counting(Constant):
    """Asks for an end in its third forward pass."""

    def __init__(self, stop: StopRequest) -> None:
        super().__init__()
        self.stop, self.passes = stop, 0

    def forward(self, x_BCHW: Tensor) -> Tensor:
        self.passes += 1
        if self.passes == 3:
            self.stop.number = 15
        return super().forward(x_BCHW)


def test_measuring_stops_within_an_attack() -> None:
    stop = StopRequest()
    model, plan = Counting(stop), planned(Choice("pgd"), EvalSettings(steps=20))
    with pytest.raises(Interrupted):
        plan.measured(plan.victim(model, classes="ab"), part(4), how(stop), Kept(None, {}), "x")
    assert model.passes == 3


class Drawing(Evaluation):
    """Two parts, each of which draws; counts what it measures and is killed at one of the parts."""

    name = "drawing"

    def __init__(self, *, fatal: int = 99) -> None:
        self.fatal, self.measured = fatal, list[tuple[str, int]]()

    def parts(self, classes: int) -> tuple[str, ...]:
        return ("first", "second")

    def measure_part(
        self, part: str, before: Answers, model: Victim, x_BCHW: Tensor, label_B: Tensor, generator: Generator
    ) -> Answers:
        if len(self.measured) == self.fatal:
            raise KeyboardInterrupt
        self.measured.append((part, len(x_BCHW)))
        drawn = torch.rand(len(x_BCHW), generator=generator)
        return {**before, part: drawn, "sum": x_BCHW.sum((1, 2, 3)) + before.get("first", torch.tensor(0.0))}


@pytest.mark.parametrize("fatal", range(6))
def test_after_a_kill_no_part_is_measured_twice_and_the_answers_are_the_same(tmp_path: Path, fatal: int) -> None:
    images, killed, again = part(10), Drawing(fatal=fatal), Drawing()
    with pytest.raises(KeyboardInterrupt):
        answers(killed, Constant(), images, kept=tmp_path)
    found = answers(again, Constant(), images, kept=tmp_path)
    whole = answers(Drawing(), Constant(), images)
    assert all(torch.equal(found[name], whole[name]) for name in ("first", "second", "sum"))
    assert list(found) == list(whole) == ["first", "sum", "second"]
    assert killed.measured + again.measured == [(p, n) for n in (4, 4, 2) for p in ("first", "second")]


def test_draws_of_a_chunk_do_not_hang_on_the_other_chunks() -> None:
    images = part(8)
    whole, second = answers(Drawing(), Constant(), images), images.select(torch.arange(4, 8))
    assert torch.equal(answers(Drawing(), Constant(), second)["first"], whole["first"][4:])


def test_what_was_kept_of_another_measurement_or_is_damaged_is_not_used(tmp_path: Path) -> None:
    Kept(tmp_path, {"a": 2}).write(0, 1, {"first": torch.zeros(4), "sum": torch.zeros(4)}, 0.0)
    one = Drawing()
    answers(one, Constant(), part(4), kept=tmp_path)
    assert len(one.measured) == 2
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    answers(one, Constant(), part(4), kept=tmp_path)
    assert len(one.measured) == 4


class Single(Drawing):
    """Measures each image on its own."""

    chunk = 1


def test_images_that_are_measured_one_by_one_are_kept_until_they_are_stored(tmp_path: Path) -> None:
    """What was measured of other images than those of a smaller measurement outlives it."""
    killed, few, rest = Single(fatal=9), Single(), Single()
    with pytest.raises(KeyboardInterrupt):
        answers(killed, Constant(), part(10), kept=tmp_path)
    some = part(10).select(torch.arange(2))
    answers(few, Constant(), some, kept=tmp_path)
    Kept(tmp_path, {"a": 1}).remove([0, 1])
    whole = answers(Single(), Constant(), part(10))
    found = answers(rest, Constant(), part(10), kept=tmp_path)
    assert (few.measured, len(rest.measured)) == ([], 2 * 2 + 1 + 2 * 5)
    assert torch.equal(found["sum"], whole["sum"])
    Kept(tmp_path, {"a": 1}).remove(range(10))
    assert not tmp_path.exists()


def test_of_rows_that_are_known_none_is_measured() -> None:
    images, one = part(3), Single()
    whole = answers(Single(), Constant(), images)
    rows = {place: {name: answer[place : place + 1] for name, answer in whole.items()} for place in (0, 2)}
    victim = Victim(Constant(), classes="ab")
    found = how().answers(one, victim, images, Kept(None, {}, rows), "x")
    assert one.measured == [("first", 1), ("second", 1)]
    assert all(torch.equal(found[name], whole[name]) for name in whole)


class Narrow(nn.Module):
    """A small network that has memory for 3 images, in passes forward or backward."""

    def __init__(self, *, forward: int = 99, backward: int = 99, gpu: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gpu = gpu
        self.layer, self.most, self.backward, self.passes = nn.Linear(48, 2), forward, backward, list[int]()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        self._hold(self.most, len(x_BCHW))
        logits_BK: Tensor = self.layer(x_BCHW.flatten(1))
        if logits_BK.requires_grad:
            logits_BK.register_hook(lambda gradient: self._hold(self.backward, len(gradient)))  # type: ignore[no-untyped-call]
        self.passes.append(len(x_BCHW))
        return logits_BK

    def _hold(self, most: int, count: int) -> None:
        if count > most:
            if self.gpu:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"
            )


@pytest.mark.parametrize("memory", [{"forward": 3}, {"backward": 3}, {"forward": 1}])
@pytest.mark.parametrize("gpu", [True, False])
def test_memory_that_runs_out_splits_passes_and_changes_no_answer(memory: dict[str, int], gpu: bool) -> None:
    plan, images, found = (
        planned(Choice("pgd"), EvalSettings(eps=0.01, step_size=0.005, steps=3)),
        part(24, ones=12),
        [],
    )
    for model in (Narrow(), Narrow(**memory, gpu=gpu)):
        victim = plan.victim(model, classes="ab")
        found.append(plan.measured(victim, images, how(chunk=8), Kept(None, {}), "x").answers)
    exact = [name for name, answer in found[0].items() if not answer.is_floating_point()]
    assert exact == ["ta", "ra", "answer", "attacked"]
    assert all(torch.equal(found[0][name], found[1][name]) for name in exact)
    torch.testing.assert_close(found[0], found[1])  # a product of other shape rounds otherwise
    assert 0 < found[0]["ra"].sum() < found[0]["ta"].sum()
    assert max(model.passes) <= 8


def test_another_error_is_no_lack_of_memory() -> None:
    class Failing(Constant):
        def forward(self, x_BCHW: Tensor) -> Tensor:
            raise RuntimeError(f"{len(x_BCHW)} images")

    plan = planned(Choice("clean"), EvalSettings())
    with pytest.raises(RuntimeError, match="4 images"):
        plan.measured(plan.victim(Failing(), classes="ab"), part(4), how(), Kept(None, {}), "x")


def test_memory_for_no_image_is_an_error() -> None:
    plan = planned(Choice("clean"), EvalSettings())
    with pytest.raises(torch.OutOfMemoryError):
        plan.measured(plan.victim(Narrow(forward=0), classes="ab"), part(4), how(), Kept(None, {}), "x")


class Twice(Evaluation):
    name = "twice"

    def measure(self, model: Victim, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        return {"ta": label_B == 0, "both": (both := torch.rand(len(label_B))), "again": both}


def test_two_answers_of_one_tensor_are_kept(tmp_path: Path) -> None:
    found = answers(Twice(), Constant(), part(4), kept=tmp_path)
    assert torch.equal(Kept(tmp_path, {"a": 1}).read(0, 1)[1]["again"], found["both"])


class Bad(Evaluation):
    name = "bad"

    def __init__(self, *, gives: object = None) -> None:
        self.gives = gives

    def measure(self, model: Victim, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        return self.gives  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        (None, "must return tensors by name, got NoneType"),
        ({}, "must return tensors by name, got dict"),
        ({"ra": 0.5}, "got float for 'ra'"),
        ({"label": torch.zeros(4)}, "an answer is called 'label', which core keeps beside the answers"),
        ({"ra": torch.zeros(3)}, "'ra' must have a row for each of the 4 images, got shape (3,)"),
    ],
)
def test_what_is_no_answer_is_said(gives: object, said: str) -> None:
    with pytest.raises(MisfitError) as refused:
        answers(Bad(gives=gives), Constant(), part(4))
    assert said in str(refused.value)


def test_bf16_is_in_passes_alone() -> None:
    seen: list[torch.dtype] = []

    class Watching(Narrow):
        def forward(self, x_BCHW: Tensor) -> Tensor:
            logits_BK = super().forward(x_BCHW)
            seen.append(logits_BK.dtype)
            return logits_BK

    victim = planned(Choice("pgd"), EvalSettings(precision="bf16")).victim(Watching(), classes="ab")
    assert victim(torch.rand(2, 3, 4, 4)).dtype == torch.float32
    assert seen == [torch.bfloat16]
