"""What every stage of one run shares: configuration, folder, data, device, tracker, reporter and stop request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advss.config import Choice, DataFlag, RunConfig, StageSettings
from advss.configuration.resolve import plain
from advss.data.augmentation import Augment
from advss.data.fingerprint import PARTS, PartName
from advss.data.loader import Loader
from advss.data.splits import UNWATCHED, Part, Splits, open_splits
from advss.data.watch import Watch
from advss.errors import UsageError, of_flag
from advss.files import write_json
from advss.hookspecs import Batch, Defense
from advss.models.pretrained import Weights
from advss.models.spec import ModelSpec
from advss.output import forgiving_output
from advss.plugins.provenance import used
from advss.plugins.registry import build
from advss.runs.attended import attended
from advss.runs.folder import RunFolder
from advss.runs.lock import writing
from advss.tracking.journal import Status, What
from advss.tracking.tracker import Tracker
from advss.training.blame import blaming
from advss.training.checkpoints import has_checkpoint, load_checkpoint
from advss.training.crowding import watched_cores
from advss.training.divergence import DivergedError
from advss.training.first_batch import check_runs, trial
from advss.training.layout import FORMATS, choose_format
from advss.training.members import tracked_stages
from advss.training.progress import Progress
from advss.training.reporting import Reporter
from advss.training.signals import Interrupted, StopRequest
from advss.training.trainer import Trainer
from advss.training.work import Work, set_trainable


@dataclass
class Session:
    """One run, opened."""

    config: RunConfig
    folder: RunFolder
    splits: Splits
    device: torch.device
    tracker: Tracker
    reporter: Reporter
    stop: StopRequest
    pretrain_splits: Splits | None = None  # where others are pretrained on than ``splits``
    weights: Weights | None = None  # that the backbone starts from, where they are not random
    named: bool = False  # whether the user has been told the run's folder

    @property
    def bf16(self) -> bool:
        """Whether forward passes of training and its validation run in bfloat16."""
        precision = self.config.precision
        return precision == "bf16" or (
            precision == "auto" and self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        )

    def loader(self, part: Part, settings: StageSettings, stage: str) -> Loader:
        """Batches of a part as the stage's settings say."""
        return Loader(
            part,
            batch_size=settings.batch_size,
            device=self.device,
            augment=Augment(crop=settings.crop, flip=settings.flip, area=settings.resized_crop),
            key=(self.config.seed, stage),
            epoch_steps=settings.epoch_steps,
        )

    def seen_by(self, stage: str) -> Splits:
        """The images of a stage: fine-tuning sees those that have a label."""
        return self.splits.labelled if stage == "finetune" else self.pretrain_splits or self.splits

    def everything(self, settings: StageSettings, stage: str) -> Iterable[Batch]:
        """Every image to train on, then those to validate on without their labels; not augmented, as often as asked."""
        return _Everything(self, settings, self.seen_by(stage))

    @property
    def first_tensors(self) -> Mapping[str, Tensor] | None:
        """What the backbone starts from, by timm's names; None is random weights."""
        return self.weights.tensors if self.weights else None

    def spec(self, branches: tuple[str, ...], stage: str) -> ModelSpec:
        """The encoder that the configuration asks for, for a stage's data; normalised as its weights ask for."""
        backbone, splits, weights = self.config.architecture, self.seen_by(stage), self.weights
        options = plain(backbone.options) | (dict(weights.options) if weights else {})
        mean, std = (weights and weights.mean) or splits.mean, (weights and weights.std) or splits.std
        return ModelSpec(backbone.name, options, splits.facts, mean, std, branches, self.seen_by("pretrain").side)

    def train(self, work: Work) -> Progress:
        """Try a stage's work, choose its layout and train it, or go on training it.

        Raises:
            UsageError: it cannot run on this backbone and data.
            Interrupted: a signal came; everything up to that step is saved.
        """
        work.manifest["data"] = self.seen_by(work.stage).fingerprint.to_json()
        if work.stage == "pretrain" and self.pretrain_splits:
            work.manifest["finetune_data"] = self.splits.fingerprint.to_json()
        work.manifest["weights"] = self.weights.described() if self.weights else None
        check_runs(work)
        with blaming(work.stage, work.plugins):
            self.settle_layout(work)
        if not self.named:  # not before: a run that cannot begin leaves no folder to name
            self.reporter.say(f"run {self.folder.path}")
            self.named = True
        self.tracker.begin()
        trainer = Trainer(
            work,
            folder=self.folder.path / work.stage,
            tracker=self.tracker,
            reporter=self.reporter,
            checkpoint_minutes=self.config.checkpoint_minutes,
            log_every=self.config.log_every,
        )
        with ExitStack() as stack:  # not before: nor is a stage tracked that cannot begin
            for stage in tracked_stages(work.stage, work.modules.members):
                stack.enter_context(tracked(self.tracker, stage))
            stack.enter_context(self.stop.wins())
            try:
                return trainer.run()
            except DivergedError as error:
                if not has_checkpoint(self.folder.best(work.stage)):
                    self.record(diverged=str(error))
                raise

    def settle_layout(self, work: Work) -> None:
        """Put the modules into the memory layout that is asked for, or for ``auto`` the faster.

        A run keeps the layout it was begun in, through its stages and where it is resumed: its numbers stay the same.
        """
        begun = [last for stage in (work.stage, "pretrain") if has_checkpoint(last := self.folder.last(stage))]
        chosen: str = self.config.memory_format
        if begun:
            chosen = load_checkpoint(begun[0], warn=False).manifest["memory_format"]
        elif chosen == "auto":
            chosen = self._faster_layout(work)
        work.memory_format = FORMATS[chosen]
        work.manifest["memory_format"] = chosen
        work.modules.to(memory_format=work.memory_format)

    def _faster_layout(self, work: Work) -> str:
        set_trainable(work.modules, work.phases[0])
        backbone, batch = self.config.architecture, work.settings.batch_size
        return choose_format(
            lambda memory_format: trial(work, memory_format),
            modules=work.modules,
            network=(backbone.name, plain(backbone.options), f"{batch} x {self.seen_by(work.stage).side} px"),
            device=self.device,
            bf16=work.bf16,
        )

    def record(self, **content: Any) -> dict[str, Any]:
        """Merge ``content`` into result.json and return the whole."""
        with writing(self.folder.path):
            result = self.folder.read_result() | content
            write_json(self.folder.result, result)
        return result


@dataclass(frozen=True)
class _Everything:
    session: Session
    settings: StageSettings
    splits: Splits

    def __iter__(self) -> Iterator[Batch]:
        size, splits = self.settings.batch_size, self.splits
        for part in (splits.train, splits.valid):
            for batch in self.session.loader(part, self.settings, "hooks").in_order(size):
                self.session.stop.check()
                label = batch.label if part is splits.train else torch.full_like(batch.label, -1)
                yield replace(batch, label=label)


def open_data(
    config: RunConfig, parts: Sequence[PartName] = PARTS, watch: Watch = UNWATCHED, flag: DataFlag = "data"
) -> Splits:
    """The images that a run is of, or these parts of them; ``watch`` is told of reading them."""
    chosen, seed = config.chosen(flag), config.dividing_seed
    data = chosen.data
    with of_flag(f"--{flag}"), blaming(f"--{flag} {data.name}", used("data", data)):
        size = {"limit": chosen.limit, "size": chosen.size, "resize": chosen.resize}
        return open_splits(data.name, data.options, **size, seed=seed, parts=parts, watch=watch)


def build_defense(choice: Choice, *, flag: str = "--defense.") -> Defense:
    """The defense that was chosen."""
    defense = build("defense", choice, flag=flag)
    assert isinstance(defense, Defense)
    return defense


def described(choice: Choice) -> dict[str, Any]:
    """A choice as it stands in a manifest."""
    return {"name": choice.name, "options": plain(choice.options)}


@contextmanager
def followed(
    folder: Path, *, tracking: bool, what: What = "run", lasts: Callable[[], bool] = lambda: True
) -> Iterator[tuple[Tracker, StopRequest]]:
    """What is done in a folder within the context is tracked, can be stopped, and ends in MLflow as it ended here.

    ``what`` is done, of a run; ``lasts`` says whether the folder is there to stay, whatever comes.
    """
    status: Status = "FAILED"
    with attended(folder), StopRequest() as stop, forgiving_output(), watched_cores():
        tracker = Tracker(folder, name=folder.name, enabled=tracking, what=what, lasts=lasts)
        try:
            with stop.wins():
                yield tracker, stop
            status = "FINISHED"
        except Interrupted as stopped:
            status, stopped.run = "KILLED", str(folder)
            raise
        finally:
            tracker.finish(status)


@contextmanager
def tracked(tracker: Tracker, stage: str) -> Iterator[None]:
    """A stage is tracked as begun within the context, and after it as it ended."""
    tracker.start_stage(stage)
    try:
        yield
    except Interrupted:
        tracker.end_stage(stage, status="KILLED")
        raise
    except BaseException:
        tracker.end_stage(stage, status="FAILED")
        raise
    tracker.end_stage(stage, status="FINISHED")


def choose_device(asked: str) -> torch.device:
    """``auto`` is cuda when there is one, else cpu.

    Raises:
        UsageError: the device does not exist here.
    """
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device: '{asked}' cannot be used here ({reason}); use cpu or auto") from error
    return device
