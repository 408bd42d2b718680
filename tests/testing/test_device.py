from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from advss.hookspecs import Batch, Defense, Encoder, Loss, Objective, Views
from advss.testing.checks.defenses import defense_works, it_works_on_another_device
from advss.testing.checks.device import Place, Pretended, a_task_works_on_another_device, everywhere, task_works
from advss.testing.elsewhere import PLACE, Elsewhere, ElsewhereGenerator, lies_there, send
from advss.testing.stand_ins import Mirror, TwoSizes, one_batch
from advss.testing.subject import Subject
from advss.testing.suite import OF_KIND
from advss.testing.verdicts import BrokenError, UncheckedError, Verdict

Ask = Callable[..., Verdict]
Offer = Callable[..., Subject]
Targets = dict[str, Tensor]


class Drawn(Mirror):
    """Views that :meth:`drawn` makes."""

    def views(self, batch: Batch, generator: Generator) -> Views:
        return Views((self.drawn(batch, generator),), super().views(batch, generator).targets)

    def drawn(self, batch: Batch, generator: Generator) -> Tensor:
        raise NotImplementedError


class CudaCall(Drawn):
    def drawn(self, batch: Batch, generator: Generator) -> Tensor:
        return batch.x.cuda()


class CudaWord(Drawn):
    def drawn(self, batch: Batch, generator: Generator) -> Tensor:
        return batch.x.to("cuda")


class CudaIfAvailable(Drawn):
    def drawn(self, batch: Batch, generator: Generator) -> Tensor:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return batch.x * torch.ones(3, 1, 1, device=device)


class NoDevice(Drawn):
    def drawn(self, batch: Batch, generator: Generator) -> Tensor:
        return batch.x * torch.tensor([0.5, 0.5, 0.5]).view(3, 1, 1)


class DrawnOnTheCpu(Drawn):
    def drawn(self, batch: Batch, generator: Generator) -> Tensor:
        return batch.x[torch.randperm(len(batch.x), generator=generator)]


class Numpy(Drawn):
    def drawn(self, batch: Batch, generator: Generator) -> Tensor:
        return torch.from_numpy(batch.x.numpy()).to(batch.x.device)


class PlainTensor(Mirror):
    """A constant that does not move with the task."""

    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.scale = torch.full((3, 1, 1), 0.5)

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        return super().loss(encoder, (inputs[0] * self.scale,), targets)


class PlainList(Mirror):
    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.heads = [nn.Linear(encoder.channels, 2)]

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        return Loss(F.cross_entropy(self.heads[0](encoder(inputs[0]).mean((2, 3))), targets["label"]))


class Prepares(Mirror):
    """Gathers on the CPU in prepare()."""

    def prepare(self, encoder: Encoder, data: Iterable[Batch], generator: Generator) -> None:
        found = torch.zeros(3)
        for batch in data:
            found += batch.x.mean((0, 2, 3))


class Steps(Mirror):
    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.teacher: Tensor
        self.register_buffer("teacher", torch.zeros(16))

    def after_step(self, encoder: Encoder, batch: Batch, inputs: tuple[Tensor, ...], views: Views) -> None:
        self.teacher.lerp_(torch.ones(16), 0.1)


BROKEN = [
    (CudaCall, r"\.cuda\(\) goes to the current GPU whatever the run's device is; use .to\(x.device\)"),
    (CudaWord, r"to\(\) names the device 'cuda'; take it from a tensor"),
    (CudaIfAvailable, r"mul\(\) mixes a tensor on the run's device, of shape \(6, 3, 32, 32\), with one on the CPU"),
    (NoDevice, r"mul\(\) mixes .* of shape \(3, 1, 1\); make new tensors where the inputs lie \(device=x.device\)"),
    (DrawnOnTheCpu, r"randperm\(\) draws on the CPU from a generator on the run's device"),
    (Numpy, r"\.numpy\(\) of a tensor on the run's device; a GPU's tensor needs .cpu\(\) first"),
    (PlainTensor, r"mul\(\) mixes .*register what is kept \(register_buffer"),
    (PlainList, r"linear\(\) mixes"),
    (Prepares, r"add_\(\) mixes|__iadd__\(\) mixes"),
    (Steps, r"lerp_\(\) mixes"),
]


@pytest.mark.parametrize(("offered", "message"), BROKEN, ids=[case[0].__name__ for case in BROKEN])
def test_a_task_tied_to_a_device_is_caught(ask: Ask, offered: type, message: str) -> None:
    verdict = ask(offered, a_task_works_on_another_device)
    assert verdict.outcome == "failed"
    assert re.search(message, verdict.message), verdict.message
    assert re.search(r"\(test_device.py, line \d+\)$", verdict.message)


class CpuNoise(Defense):
    """Adds noise that it draws where no input is."""

    name = "cpu-noise"

    def attack(self, objective: Objective, generator: Generator) -> tuple[Tensor, ...]:
        return tuple((x + 0.1 * torch.randn(x.shape)).clamp(0, 1) for x in objective.inputs)


class Child(Defense):
    """Draws from a copy of the generator, as one that wraps another may."""

    name = "child"

    def attack(self, objective: Objective, generator: Generator) -> tuple[Tensor, ...]:
        own = generator.clone_state()
        return tuple((x + torch.rand(x.shape, generator=own, device=x.device)).clamp(0, 1) for x in objective.inputs)


class OwnGenerator(Drawn):
    def drawn(self, batch: Batch, generator: Generator) -> Tensor:
        own = torch.Generator(batch.x.device)
        return batch.x * torch.rand(len(batch.x), 1, 1, 1, generator=own, device=batch.x.device)


def test_what_needs_a_real_gpu_is_not_judged(ask: Ask) -> None:
    verdict = ask(OwnGenerator, a_task_works_on_another_device)
    assert verdict.outcome == "unchecked"
    assert verdict.message.startswith("it asks for a GPU that is only pretended (")


def test_a_defense_tied_to_a_device_is_caught(ask: Ask) -> None:
    verdict = ask(CpuNoise, it_works_on_another_device)
    assert "add() mixes" in verdict.message


def test_a_defense_may_draw_from_a_copy_of_the_generator(ask: Ask) -> None:
    assert ask(Child, it_works_on_another_device).message == ""


class Copies(Mirror):
    """Looks through deep copies, and through a layer of its own making where the data lie."""

    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.teacher = copy.deepcopy(encoder).requires_grad_(False)

    def prepare(self, encoder: Encoder, data: Iterable[Batch], generator: Generator) -> None:
        first = next(iter(data)).x
        copy.deepcopy(self.head)(copy.deepcopy(encoder)(first).mean((2, 3)))
        nn.Linear(3, 2, device=first.device)(first.mean((2, 3)))

    def before_epoch(self, encoder: Encoder, data: Iterable[Batch], generator: Generator) -> None:
        self.teacher = copy.deepcopy(encoder).requires_grad_(False)

    def after_step(self, encoder: Encoder, batch: Batch, inputs: tuple[Tensor, ...], views: Views) -> None:
        self.teacher(inputs[0])


@pytest.mark.parametrize("fact", OF_KIND["pretext"])
def test_copies_of_modules_are_no_fault(ask: Ask, fact: Callable[[Subject], None]) -> None:
    assert ask(Copies, fact).message == ""


@pytest.mark.parametrize("offered", [Mirror, TwoSizes])
def test_what_is_asked_on_a_gpu_runs_on_a_real_device(offer: Offer, offered: type) -> None:
    task_works(offer(offered), Place(torch.device("cpu")))


def test_what_is_asked_of_a_defense_on_a_gpu_runs_on_a_real_device(offer: Offer) -> None:
    defense_works(offer(Child), Place(torch.device("cpu")))


def test_a_place_moves_everything() -> None:
    place = Place(torch.device("meta"))
    module = nn.BatchNorm2d(3)
    place.move_module(module)
    batch = place.batch(one_batch())
    views = place.views(Views((batch.x,), {"label": torch.zeros(6)}))
    everything = [*module.state_dict().values(), batch.x, batch.raw, batch.index, batch.label, *views.inputs]
    assert {t.device.type for t in [*everything, *views.targets.values()]} == {"meta"}


@pytest.mark.parametrize(("there", "asked"), [(False, ["Pretended"]), (True, ["Pretended", "Place"])])
def test_a_real_gpu_is_asked_where_there_is_one(monkeypatch: pytest.MonkeyPatch, there: bool, asked: list[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    tried: list[str] = []

    def works(place: Place) -> None:
        tried.append(type(place).__name__)
        if isinstance(place, Pretended):
            raise UncheckedError("needs a GPU")

    with nullcontext() if there else pytest.raises(UncheckedError):
        everywhere(works)
    assert tried == asked


# ---------------------------------------------------------------- the pretended device itself
def there(*shape: int) -> Tensor:
    x = torch.rand(shape)
    send(x)
    return x


class Flipped(torch.autograd.Function):
    """The identity with its gradient turned over."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


SOUND: dict[str, Callable[[Tensor], Tensor]] = {
    "a new tensor with the device": lambda x: x + torch.zeros(2, 3, device=x.device),
    "zeros_like": lambda x: x + torch.zeros_like(x),
    "new_zeros": lambda x: x + x.new_zeros(3),
    "a number": lambda x: x * torch.tensor(2.0) + 1,
    "a CPU index": lambda x: x[torch.arange(2)],
    "a boolean mask": lambda x: x[x > 0.5],
    "a moved constant": lambda x: x * torch.tensor([1.0, 2.0, 3.0]).to(x),
    "a moved constant, by name": lambda x: x * torch.tensor([1.0, 2.0, 3.0]).to(device="cuda:1"),
    "torch.tensor with the device": lambda x: x * torch.tensor([1.0, 2.0, 3.0], device=x.device),
    "an in-place write": lambda x: torch.empty_like(x).copy_(torch.rand(2, 3)),
    "values read": lambda x: x * float(x.sum()) * x[0, 0].item() * len(x.tolist()),
    "there and back": lambda x: x.cpu().mul(torch.ones(3)).to(x.device),
    "a split and a cat": lambda x: torch.cat([*x.chunk(2), *x.unbind()[:1]] if x.ndim < 2 else list(x.chunk(2))),
    "a device context": lambda x: _in_context(x),
    "a drawn permutation": lambda x: x[torch.randperm(2, generator=ElsewhereGenerator(), device=x.device)],
    "noise in place": lambda x: x + torch.empty_like(x).normal_(generator=ElsewhereGenerator()),
    "autograd": lambda x: torch.autograd.grad((y := x.clone().requires_grad_()).square().sum(), y)[0] + x,
    "a function of its own": lambda x: Flipped.apply(x.clone().requires_grad_()) + x,
    "a module that is moved": lambda x: nn.Linear(3, 3).to(x.device)(x),
    "an operator": lambda x: torch.ops.aten.relu(x) + x,
}


def _in_context(x: Tensor) -> Tensor:
    with x.device:
        return x + torch.ones(3)


@pytest.mark.parametrize("use", SOUND.values(), ids=SOUND.keys())
def test_what_a_gpu_allows_stays_there(use: Callable[[Tensor], Tensor]) -> None:
    with Elsewhere():
        found = use(there(2, 3))
        assert found.device == PLACE
        assert found.is_cuda
        assert not found.is_cpu
        assert found.get_device() == 1


def test_values_are_those_of_the_cpu() -> None:
    x = torch.rand(2, 3)
    expected = x @ x.T
    send(x)
    with Elsewhere():
        assert (x @ x.T).tolist() == expected.tolist()


REFUSED: dict[str, Callable[[Tensor], object]] = {
    "a sum": lambda x: x + torch.ones(3),
    "a list": lambda x: torch.stack([x[0], torch.ones(3)]),
    "a stacked number": lambda x: torch.stack([x[0, 0], torch.tensor(1.0)]),
    "a condition": lambda x: torch.where(torch.ones(3) > 0, x, x),
    "an index of a CPU tensor": lambda x: torch.ones(2)[(x[0, :2] > 2).long()],
    "a loss": lambda x: F.cross_entropy(x, torch.tensor([0, 1])),
    "a module that is not moved": lambda x: nn.Linear(3, 3)(x),
    "after cpu()": lambda x: x + x.cpu(),
    "the first GPU": lambda x: torch.zeros(3, device="cuda:0"),
    "a GPU by number": lambda x: x.to(0),
    "another GPU's generator": lambda x: torch.empty_like(x).normal_(generator=torch.Generator()),
}


@pytest.mark.parametrize("use", REFUSED.values(), ids=REFUSED.keys())
def test_what_a_gpu_refuses_is_refused(use: Callable[[Tensor], object]) -> None:
    with Elsewhere(), pytest.raises(BrokenError):
        use(there(2, 3))


def test_what_torch_func_hides_is_not_judged() -> None:
    with Elsewhere():
        x = there(2, 3)
        hidden = torch.func.vmap(torch.square)(x)
        with pytest.raises(UncheckedError, match=r"it uses torch\.func"):
            x.add(hidden)


def test_outside_nothing_is_pretended() -> None:
    x = there(2)
    assert lies_there(x)
    assert x.device == torch.device("cpu")
    assert (x + torch.ones(2)).device == torch.device("cpu")
