"""After an epoch: how many images are attacked, which, and in which arithmetic the network's passes are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advss.arithmetic import Arithmetic, Computed
from advss.cli.progress import reporter_for
from advss.config import EvalSettings, RunConfig
from advss.data.augmentation import Augment
from advss.data.images import InMemory
from advss.data.loader import Loader
from advss.data.splits import Part, open_splits
from advss.runs.folder import RunFolder
from advss.runs.session import Session
from advss.stages.finetune import finetune_work
from advss.stages.fit import fit
from advss.stages.pretrain import pretrain_work
from advss.stages.validation import ValidationImages, classifier_validation, validation_images
from advss.tracking.tracker import Tracker
from advss.training.reporting import Silent
from advss.training.signals import StopRequest
from advss.training.work import Modules, Work

Settings = Callable[..., RunConfig]
SessionOf = Callable[[RunConfig], Session]
CPU = torch.device("cpu")
LEVELS = (0, 80, 160, 240)  # the grey of each of four classes


@pytest.fixture
def session_of(tmp_path: Path) -> SessionOf:
    """A run of 200 digits, 20 of them to validate on, opened and not begun."""

    def make(config: RunConfig) -> Session:
        folder = RunFolder(tmp_path / "work")
        folder.path.mkdir(exist_ok=True)
        splits = open_splits("digits", {}, limit=200)
        tracker = Tracker(folder.path, name="work", enabled=False)
        return Session(config, folder, splits, CPU, tracker, Silent(), StopRequest())

    return make


def work_of(session: Session, stage: str) -> Work:
    return pretrain_work(session) if stage == "pretrain" else finetune_work(session, None)


@dataclass
class Passed:
    """A pass of a convolution: how many images, whether for their gradient, in which precision and layout."""

    images: int
    attacked: bool
    dtype: torch.dtype
    channels_last: bool


@contextmanager
def passes_of(modules: nn.Module) -> Iterator[list[Passed]]:
    """The passes of the first convolution within."""
    first, found = next(m for m in modules.modules() if isinstance(m, nn.Conv2d)), list[Passed]()

    def note(_: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        layout = given[0].is_contiguous(memory_format=torch.channels_last)
        found.append(Passed(len(out), given[0].requires_grad, out.dtype, layout))

    hook = first.register_forward_hook(note)
    yield found
    hook.remove()


def greys(count: int) -> Part:
    """Images of one grey each; every third is labelled as the class after its own."""
    label = torch.arange(count) % 4
    pixels = torch.tensor(LEVELS, dtype=torch.uint8)[label].view(-1, 1, 1, 1).expand(-1, 3, 4, 4).clone()
    return Part(InMemory(pixels), torch.arange(count), (label + (torch.arange(count) % 3 == 0)) % 4)


def loader(part: Part) -> Loader:
    return Loader(part, batch_size=5, device=CPU, augment=Augment(), key=("valid",))


class Nearest(nn.Module):
    """The class whose grey is the nearest."""

    def __init__(self) -> None:
        super().__init__()
        self.attacked = 0

    def forward(self, x_BCHW: Tensor) -> Tensor:
        self.attacked += len(x_BCHW) if x_BCHW.requires_grad else 0
        return -((x_BCHW.mean((1, 2, 3))[:, None] - torch.tensor(LEVELS) / 255) ** 2)


# ---------------------------------------------------------------- which images
def test_ra_is_over_the_attacked_images_and_ta_over_all() -> None:
    every, model = greys(24), Nearest()
    attacked = every.select(torch.tensor([1, 2, 4, 5, 6, 7]))  # one of the six is labelled wrong
    settings = EvalSettings(eps=0.01, step_size=0.01, valid_steps=3, batch_size=5)
    images = ValidationImages(loader(every), loader(attacked))
    validate = classifier_validation(images, settings, seed=0, adversarial=True, stop=StopRequest())
    measured = validate(Modules(model, {}, "finetune"), Arithmetic())
    assert (measured["ta"], measured["ra"]) == pytest.approx((2 / 3, 5 / 6))
    assert model.attacked == 3 * 5  # steps times those that are right


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_as_many_of_each_class_are_attacked(stage: str, settings: Settings, session_of: SessionOf) -> None:
    session = session_of(settings(evaluation=EvalSettings(valid_limit=10)))
    images = validation_images(session, session.config.pretraining, "pretrain" if stage == "pretrain" else "finetune")
    batches = [list(part.in_order(100)) for part in (images.every, images.attacked)]
    assert sorted(torch.cat([batch.label for batch in batches[1]]).tolist()) == list(range(10))
    every, some = (set(torch.cat([batch.index for batch in own]).tolist()) for own in batches)
    assert len(every) == 20
    assert some < every


@pytest.mark.parametrize("limit", [0, 20, 21])
def test_a_limit_of_none_or_of_more_than_there_are_takes_all(
    limit: int, settings: Settings, session_of: SessionOf
) -> None:
    session = session_of(settings(evaluation=EvalSettings(valid_limit=limit)))
    images = validation_images(session, session.config.finetuning, "finetune")
    assert len(images.attacked) == len(images.every) == 20


def test_pretraining_attacks_no_more_and_measures_all_clean(settings: Settings, session_of: SessionOf) -> None:
    limits, seen = (0, 10), []
    for limit in limits:
        work = work_of(session_of(settings(evaluation=EvalSettings(valid_limit=limit))), "pretrain")
        with passes_of(work.modules) as passes:
            seen.append((work.validate(work.modules, work.arithmetic), passes))
    (all_of_it, all_passes), (some, passes) = seen
    assert sum(p.images for p in all_passes if p.attacked) == 20  # in the defense's one step
    assert sum(p.images for p in passes if p.attacked) == 10
    assert some["clean/loss"] == all_of_it["clean/loss"]
    assert some["adversarial/loss"] != all_of_it["adversarial/loss"]


def test_an_epoch_measures_the_same_whichever_was_measured_before_it(settings: Settings, session_of: SessionOf) -> None:
    session = session_of(settings(evaluation=EvalSettings(valid_limit=10, valid_steps=2, eps=0.01)))
    work = work_of(session, "finetune")
    other = work_of(session_of(replace(session.config, seed=1)), "finetune").modules
    there = [work.validate(modules, work.arithmetic) for modules in (work.modules, other)]
    back = [work.validate(modules, work.arithmetic) for modules in (other, work.modules)]
    assert there == back[::-1]


# ---------------------------------------------------------------- in which arithmetic
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("float32", torch.float32)])
def test_every_pass_is_in_the_runs_precision(
    stage: str, precision: str, dtype: torch.dtype, settings: Settings, session_of: SessionOf
) -> None:
    session = session_of(settings(evaluation=EvalSettings(valid_limit=10, valid_steps=1), precision=precision))
    work = work_of(session, stage)
    with passes_of(work.modules) as passes:
        work.validate(work.modules, work.arithmetic)
    assert {p.dtype for p in passes} == {dtype}
    assert {p.attacked for p in passes} == {True, False}


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_images_are_in_the_works_layout(stage: str, settings: Settings, session_of: SessionOf) -> None:
    work = work_of(session_of(settings(evaluation=EvalSettings(valid_steps=1))), stage)
    work.memory_format = torch.channels_last
    with passes_of(work.modules) as passes:
        work.validate(work.modules, work.arithmetic)
    assert {p.channels_last for p in passes} == {True}


def test_the_cross_entropy_of_bf16_logits_is_in_float32() -> None:
    torch.manual_seed(0)
    trunk, part = nn.Sequential(nn.Flatten(), nn.Linear(48, 4)), greys(24)
    images = ValidationImages(loader(part), loader(part))
    validate = classifier_validation(images, EvalSettings(), seed=0, adversarial=False, stop=StopRequest())
    (batch,) = loader(part).in_order(24)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits_BK = trunk(batch.x)
    assert logits_BK.dtype == torch.bfloat16
    loss = validate(Modules(trunk, {}, "finetune"), Arithmetic(bf16=True))["clean/loss"]
    assert loss == pytest.approx(float(F.cross_entropy(logits_BK.double(), batch.label)), rel=1e-6)


def test_logits_come_back_in_float32_or_wider() -> None:
    x = torch.rand(2, 3, 4, 4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
    assert Computed(model, Arithmetic(bf16=True))(x).dtype == torch.float32
    assert Computed(model.double(), Arithmetic())(x.double()).dtype == torch.float64


@pytest.mark.parametrize(("limit", "said"), [(4, True), (0, False), (8, False)])
def test_it_is_said_that_ra_and_ta_are_of_other_images(
    settings: Settings, told: Callable[[], list[str]], limit: int, said: bool
) -> None:
    evaluation = EvalSettings(valid_limit=limit, valid_steps=1, steps=1, limit=4)
    fit(settings("none", evaluation=evaluation), reporter=reporter_for(quiet=True))
    line = "--eval-valid-limit 4: after each epoch RA is of 4 images, TA of all 8"
    assert (line in told()) == said
