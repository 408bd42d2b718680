"""The one trainer of every stage: epochs of steps, validation, checkpoints, and an end that loses nothing.

Each step is a function of (seed, stage, step): a run that was interrupted and resumed is, on a CPU, bit for bit the run
that was not.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from advss.ensemble.objective import TaskObjective
from advss.errors import UsageError
from advss.hookspecs import Loss
from advss.naming import as_typed
from advss.plugins.provenance import agrees, warn_of_other_versions
from advss.randomness import stream
from advss.tracking.tracker import Tracker
from advss.training.average import MovingAverage
from advss.training.carried import Carried, carried_on, hand_over, laid_out, trained_on
from advss.training.checkpoints import has_checkpoint, load_checkpoint, save_checkpoint, taken
from advss.training.divergence import DivergedError, all_finite, diverged, losses_finite, not_chosen
from advss.training.hooks import after_step, epoch_hooks
from advss.training.kept import Kept
from advss.training.members import by_member, member_stage
from advss.training.optimisation import (
    Schedule,
    make_optimizer,
    make_schedule,
    pack_optimizer,
    unpack_optimizer,
)
from advss.training.progress import Progress
from advss.training.reporting import Reporter
from advss.training.signals import Interrupted
from advss.training.work import Metrics, Modules, Work, set_trainable

MOST_BAD_STEPS = 3  # non-finite losses in a row after which training stops


class Trainer:
    """Trains one stage in ``folder`` (…/pretrain or …/finetune), going on from its last checkpoint if there is one."""

    def __init__(
        self,
        work: Work,
        *,
        folder: Path,
        tracker: Tracker,
        reporter: Reporter,
        checkpoint_minutes: float = 10.0,
        log_every: int = 10,
    ) -> None:
        self.work, self.tracker, self.reporter = work, tracker, reporter
        self.last, self.best = folder / "last.safetensors", folder / "best.safetensors"
        self.checkpoint_s, self.log_every = 60 * checkpoint_minutes, log_every
        self.steps_per_epoch = work.loader.steps_per_epoch
        self.progress = Progress()
        self.average = MovingAverage(work.modules, work.settings.ema) if work.settings.ema else None
        self.phase = -1
        self.optimizer: Optimizer
        self.schedule: Schedule
        self.bad_in_a_row = 0
        self.carried: Carried = ()  # by the defense, to the next step
        self._kept = Kept(work.modules)
        self._torn = False  # an update or the end of an epoch is half done
        self._saved_at = self._resumed_at = time.monotonic()

    # ---- the run
    def run(self) -> Progress:
        """Train to the last epoch.

        Raises:
            Interrupted: a signal came; the last checkpoint holds everything up to the last whole step.
            DivergedError: three non-finite losses in a row, or no good epoch; the last good checkpoint stands.
            Exception: of a plugin, of memory; the last checkpoint holds the state before the step that raised it.
        """
        self._restore()
        epochs, work = self.work.settings.epochs, self.work
        self.reporter.start(work.stage, steps=epochs * self.steps_per_epoch, done=self._step_number(), epochs=epochs)
        try:
            while self.progress.epoch < epochs:
                self._epoch()
        except Interrupted:
            self._put_back()
            self._save_last()
            raise
        except (Exception, SystemExit) as error:  # the latter is a plugin's: no signal comes so
            if not isinstance(error, DivergedError):
                self._rescue()
            raise
        finally:
            self.reporter.finish()
        if epochs and not self.progress.best_epoch:
            raise self._diverged(f"no epoch of {work.stage} had finite weights and a finite validation loss")
        return self.progress

    def _epoch(self) -> None:
        self._enter_phase()
        self._begin_epoch()
        while self.progress.batch < self.steps_per_epoch:
            self.work.stop.check()
            self._train_step()
            if time.monotonic() - self._saved_at > self.checkpoint_s:
                self._save_last()
        self.work.stop.check()
        self._end_epoch()

    def _begin_epoch(self) -> None:
        """The tasks' hooks before an epoch, where they have not run; what is broken off has not."""
        if self.progress.begun <= self.progress.epoch:
            self._kept.keep(frozen=True)
            epoch_hooks(self.work, self.progress.epoch, prepared=self.progress.begun > 0)
            self.progress.begun = self.progress.epoch + 1
            self._kept.done()

    def _end_epoch(self) -> None:
        progress, work = self.progress, self.work
        trained = {f"train/{name}": total / max(progress.counted, 1) for name, total in progress.sums.items()}
        validated = work.validate(self._kept_modules(), work.arithmetic)
        work.stop.check()  # as in a step
        self._torn = True
        metrics, epoch = trained | {f"valid/{name}": value for name, value in validated.items()}, progress.epoch + 1
        good = losses_finite(validated) and all_finite(work.modules, self._kept_modules(), self.optimizer)
        score = [-math.inf if math.isnan(part) else part for part in work.score(validated)] if good else []
        if progress.end_epoch(metrics, score):
            best = {"epoch": epoch, "metrics": metrics, "score": score}
            self._save(self.best, self._kept_modules().deployed(), best, good=True)
        if not good:
            self.reporter.say(not_chosen(work.stage, epoch, kept=progress.best_epoch > 0))
        self._save_last(good=good)
        self._torn = False
        self._track(self._step_number(), metrics, epoch=epoch)
        self.reporter.epoch(epoch=epoch, epochs=work.settings.epochs, metrics=metrics)

    def _enter_phase(self) -> None:
        starts = self.work.phase_starts()
        phase = max(i for i, start in enumerate(starts[:-1]) if start <= self.progress.epoch)
        if phase == self.phase:
            return
        self.phase, chosen, settings = phase, self.work.phases[phase], self.work.settings
        set_trainable(self.work.modules, chosen)
        self.optimizer = make_optimizer(settings, [dict(group) for group in chosen.groups])
        epochs = starts[phase + 1] - starts[phase]
        self.schedule = make_schedule(
            settings, self.optimizer, steps=epochs * self.steps_per_epoch, steps_per_epoch=self.steps_per_epoch
        )
        self._phase_start = starts[phase] * self.steps_per_epoch

    # ---- a step
    def _train_step(self) -> None:
        """One update of the weights: a step, or the next of its replays."""
        work, progress, step = self.work, self.progress, self._step_number()
        share = step / (work.settings.epochs * self.steps_per_epoch)
        batch = work.loader.batch(progress.epoch, progress.batch, progress=share)
        last = progress.replay + 1 == work.defense.replays
        self.schedule(step - self._phase_start)
        self._kept.keep()
        objective = work.objective(batch, step=step, replay=progress.replay)
        hand_over(self.carried, work.defense, objective)
        generator = stream(work.device, *objective.key, "defense")
        inputs = trained_on(work.defense.attack(objective, generator), work.defense)
        loss = work.defense.loss(objective, inputs, generator)
        work.stop.check()  # a plugin may have swallowed what was to stop it, and given anything
        logged = last and (step + 1) % self.log_every == 0
        measured = (objective.measured() or objective.measure(inputs)) if logged else {}  # before the weights move
        metrics = self._update(objective, inputs, loss)
        if metrics:
            after_step(work, objective, batch, inputs)
            if self.average is not None:
                self.average.update(work.modules, step=progress.updates)
        progress.count(metrics, last=last)
        self._kept.done()
        self._torn = False
        if metrics and last:
            self.reporter.step(step=step + 1, images=len(batch.x), metrics=metrics)
            if logged:
                self._log(step, metrics | {name: float(value) for name, value in measured.items()})

    def _update(self, objective: TaskObjective, inputs: tuple[Tensor, ...], loss: Loss) -> Metrics:
        """Step the optimiser; no metrics, and nothing changed, where loss or gradient is not finite."""
        self.optimizer.zero_grad(set_to_none=True)
        total = self.work.total(loss)
        total.backward()  # type: ignore[no-untyped-call]
        learning = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(learning, self.work.settings.clip or math.inf)
        names = ["loss", *loss.metrics, "gradient_norm"]
        values = torch.stack([t.detach().float() for t in (total, *loss.metrics.values(), norm)]).tolist()
        if not (math.isfinite(values[0]) and math.isfinite(values[-1])):
            self._skip()
            return {}
        carried = carried_on(self.work.defense, objective, inputs)
        self.bad_in_a_row, self._torn = 0, True
        self.optimizer.step()
        self.carried = carried
        self.progress.updates += 1
        return dict(zip(names, values, strict=True))

    def _skip(self) -> None:
        """Forget a step with a non-finite loss."""
        self._put_back()
        self.progress.skipped += 1
        self.bad_in_a_row += 1
        place = f"{self.work.stage} step {self._step_number()}"
        self.reporter.say(f"advss: warning: loss is not finite at {place}; step skipped")
        if self.bad_in_a_row >= MOST_BAD_STEPS:
            raise self._diverged(f"{MOST_BAD_STEPS} non-finite losses in a row at {place}")

    def _diverged(self, what: str) -> DivergedError:
        return diverged(what, stage=self.work.stage, settings=self.work.settings, last=self.last)

    def _put_back(self) -> None:
        """Forget a step or a hook that was broken off: its gradients, and what it left in buffers."""
        if self._kept.trying:
            self.optimizer.zero_grad(set_to_none=True)
            self._kept.put_back()

    def _rescue(self) -> None:
        """Save what stood before the step that raised an exception, where that can still be had."""
        if self._torn or not (step := self._step_number()):
            return
        with suppress(Exception):  # what stopped the training is worth more than what stops this
            self._put_back()
            self._save_last()
            if self.work.stop.number is None:  # else the request to stop is told, whatever a plugin made of it
                say = f"all that was learned is saved, and --resume {as_typed(self.last.parent.parent)} goes on"
                self.reporter.say(f"advss: {self.work.stage} stopped after step {step}; {say} from there")

    def _log(self, step: int, metrics: Metrics) -> None:
        rate = self.optimizer.param_groups[0]["lr"]
        logged = {f"step/{name}": value for name, value in metrics.items()} | {"step/lr": rate}
        self._track(step + 1, logged, epoch=self.progress.epoch + 1)

    def _track(self, step: int, metrics: Metrics, *, epoch: int) -> None:
        stage = self.work.stage
        self.tracker.metrics(stage, step, metrics, epoch=epoch)
        for key, own in by_member(metrics, self.work.modules.members).items():
            self.tracker.metrics(member_stage(stage, key), step, own, epoch=epoch)

    # ---- checkpoints
    def _step_number(self) -> int:
        return self.progress.epoch * self.steps_per_epoch + self.progress.batch

    def _kept_modules(self) -> Modules:
        """The modules that are validated and kept: the moving average where there is one."""
        return self.work.modules if self.average is None else self.average.modules

    def _save(self, path: Path, tensors: dict[str, Tensor], more: dict[str, Any], *, good: bool) -> None:
        versions = {"advss": version("advss"), "torch": torch.__version__, "plugins": self.work.plugins}
        manifest = {"step": self._step_number(), **versions, **self.work.manifest, **more}
        save_checkpoint(path, tensors, manifest, good=good)

    def _save_last(self, *, good: bool = False) -> None:
        """Save all that resuming needs; before its epoch is validated, nobody knows whether it is good."""
        now = time.monotonic()
        self.progress.seconds += now - self._resumed_at
        self._resumed_at = self._saved_at = now
        tensors = self.work.modules.named_state()
        groups: list[dict[str, Any]] = []
        if self.phase >= 0:
            packed, groups = pack_optimizer(self.optimizer)
            tensors |= {f"optimizer.{name}": t for name, t in packed.items()}
        if self.average is not None:
            tensors |= {f"average.{name}": t for name, t in self._kept_modules().named_state().items()}
        tensors |= {f"carried.{place}": t for place, t in enumerate(self.carried)}
        state = {"progress": asdict(self.progress), "phase": self.phase, "groups": groups}
        self._save(self.last, tensors, state, good=good)

    def _restore(self) -> None:
        if not has_checkpoint(self.last):
            return
        checkpoint = load_checkpoint(self.last)
        manifest, tensors = checkpoint.manifest, checkpoint.tensors
        for key, value in self.work.manifest.items():
            if not agrees(manifest.get(key), value):
                raise UsageError(f"checkpoint {checkpoint.path} is of another {key}: {manifest.get(key)}, not {value}")
        warn_of_other_versions(manifest.get("plugins"), what=f"checkpoint {checkpoint.path}")
        self.progress = Progress(**manifest["progress"])
        if has_checkpoint(self.best):
            self.progress.adopt(load_checkpoint(self.best).manifest)
        packed, averaged, carried = (taken(tensors, prefix) for prefix in ("optimizer.", "average.", "carried."))
        self.carried = laid_out(carried, self.work)
        self.work.modules.load_named_state(tensors, what=str(checkpoint.path))
        if self.average is not None:
            self.average.modules.load_named_state(averaged, what=f"{checkpoint.path} (average)")
        if packed and manifest["phase"] >= 0 and self.progress.epoch < self.work.settings.epochs:
            self._enter_phase()
            if self.phase == manifest["phase"]:
                unpack_optimizer(self.optimizer, packed, manifest["groups"])
