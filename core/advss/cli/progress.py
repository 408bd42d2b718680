"""Progress of training: one bar a stage on a terminal, one line an epoch in a log, or nothing; always on stderr."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from importlib.util import find_spec

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from advss.output import forgiving_output
from advss.training.reporting import Reporter

MEMBERS = 2  # slashes in a metric's name from which on it is a member's, such as clean/rotation/accuracy
EVERY_S = 5.0  # at least, between two lines of one stage
RECENT = 20  # steps over which the speed is averaged


def reporter_for(*, quiet: bool, console: Console | None = None, of: str = "") -> Reporter:
    """The reporter that suits where stderr goes; ``of`` stands before what it says of stages."""
    console = console or Console(stderr=True)
    if quiet:
        return Quiet(console)
    # without widgets a notebook shows no bar, and rich warns of it at every step
    bar = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
    return Bar(console, of) if bar else Lines(console, of)


class Quiet:
    """Says what must be said, and no progress."""

    def __init__(self, console: Console, of: str = "") -> None:
        self.console, self.of = console, of

    def start(self, stage: str, *, steps: int, done: int, epochs: int, unit: str = "step") -> None:
        """Say nothing."""

    def doing(self, what: str) -> None:
        """Say nothing."""

    def step(self, *, step: int, images: int, metrics: Mapping[str, float]) -> None:
        """Say nothing."""

    def epoch(self, *, epoch: int, epochs: int, metrics: Mapping[str, float]) -> None:
        """Say nothing."""

    def finish(self) -> None:
        """Say nothing."""

    def say(self, line: str) -> None:
        """Print the line."""
        with forgiving_output():  # called from Python, the streams are as strict as Python's
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class Lines(Quiet):
    """One line a stage and one an epoch, for logs; in what has no epochs one from time to time."""

    def start(self, stage: str, *, steps: int, done: int, epochs: int, unit: str = "step") -> None:
        """Name the stage."""
        self.stage, self.steps, self.done, self.epochs = f"{self.of}{stage}", steps, done, epochs
        self.unit, self.what, self.images, self.began = unit, "", 0, time.monotonic()
        self.said = self.began
        length = f": {epochs} epochs of {steps // epochs:,} steps" if epochs > 1 else ""
        begun = f", from {unit} {done:,}" if unit else f", {_share(done, steps)} done before"
        self.say(f"{self.stage}{length}{begun if done else ''}")

    def doing(self, what: str) -> None:
        """Stand beside how far it is."""
        self.what = what

    def step(self, *, step: int, images: int, metrics: Mapping[str, float]) -> None:
        """Count the images; say how far it is, the seldomer the longer it takes."""
        self.images += images
        now = time.monotonic()
        if self.epochs == 1 and now - self.said > max(EVERY_S, (now - self.began) / 5) and step < self.steps:
            self.said = now
            left_s = (now - self.began) * (self.steps - step) / max(step - self.done, 1)
            counted = f"{step:,} of {self.steps:,}{' images' * (self.unit == 'image')}"
            far = counted if self.unit else f"{_share(step, self.steps)} done"
            self.say(f"{self.stage}: {', '.join(filter(None, [self.what, far]))}, {_lasting(left_s)} left")

    def epoch(self, *, epoch: int, epochs: int, metrics: Mapping[str, float]) -> None:
        """Say how the epoch went: the loss, what validation measured, and the time of both together.

        Of an ensemble the whole's metrics, and the members' accuracies averaged.
        """
        seconds = time.monotonic() - self.began
        valid = {n.removeprefix("valid/"): v for n, v in metrics.items() if n.startswith("valid/")}
        said = [f"{n} {v:.4g}" for n, v in valid.items() if n.count("/") < MEMBERS]
        if len(said) < len(valid):
            said.append(_accuracies(metrics))
        loss = [f"loss {metrics['train/loss']:.4g}"] if "train/loss" in metrics else []
        speed = f"{self.images / max(seconds, 1e-9):,.0f} images/s"
        self.say("  ".join([f"{self.stage} {epoch}/{epochs}", *loss, *said, speed, f"{seconds:.1f} s"]))
        self.images, self.began = 0, time.monotonic()


class Bar(Quiet):
    """A bar with loss, TA, RA (in pretraining: the tasks' own accuracies), images a second and the time left."""

    def __init__(self, console: Console, of: str = "") -> None:
        super().__init__(console, of)
        self.progress: Progress | None = None

    def start(self, stage: str, *, steps: int, done: int, epochs: int, unit: str = "step") -> None:
        """Draw the bar."""
        wide = self.console.width >= 100
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn() if wide and unit else TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[measured]}"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=self.console,
            expand=True,
        )
        self.stage, self.unit, self.loss, self.accuracies = f"{self.of}{stage}", unit, "", ""
        self.recent = deque([(time.monotonic(), 0)], maxlen=RECENT)
        self.task = self.progress.add_task(self.stage, total=steps, completed=done, measured="", speed="")
        self.progress.start()

    def doing(self, what: str) -> None:
        """Show it."""
        if self.progress is not None:
            self.accuracies = what
            self.progress.update(self.task, measured=what)

    def step(self, *, step: int, images: int, metrics: Mapping[str, float]) -> None:
        """Move the bar."""
        if self.progress is None:
            return
        if "loss" in metrics:
            self.loss = f"loss {metrics['loss']:.3f} "
        self.recent.append((time.monotonic(), images))
        seconds = self.recent[-1][0] - self.recent[0][0]
        seen = sum(count for _, count in list(self.recent)[1:])
        speed = f"{seen / max(seconds, 1e-9):,.0f}/s" if self.unit else ""
        self.progress.update(self.task, completed=step, speed=speed, measured=self.loss + self.accuracies)

    def epoch(self, *, epoch: int, epochs: int, metrics: Mapping[str, float]) -> None:
        """Show what validation measured."""
        if self.progress is None:
            return
        self.accuracies = _accuracies(metrics)
        description = f"{self.stage} {epoch}/{epochs}"
        self.progress.update(self.task, description=description, measured=self.loss + self.accuracies)

    def finish(self) -> None:
        """Leave the bar as it stands."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


def _share(done: int, of: int) -> str:
    return f"{100 * done / of:.0f} %"


def _lasting(seconds: float) -> str:
    """A time: ``12 s``, ``12 min``, ``2.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _accuracies(metrics: Mapping[str, float]) -> str:
    """TA and RA, or the pretext tasks' clean and adversarial accuracy averaged over members, as far as measured."""
    if "valid/ta" in metrics:
        known = {"TA": [metrics["valid/ta"]], "RA": [metrics["valid/ra"]] if "valid/ra" in metrics else []}
    else:
        accuracies = [(name, value) for name, value in metrics.items() if name.endswith("accuracy")]
        known = {
            word: [value for name, value in accuracies if name.startswith(f"valid/{part}/")]
            for word, part in (("acc", "clean"), ("adv", "adversarial"))
        }
    return " ".join(f"{word} {sum(values) / len(values):.3f}" for word, values in known.items() if values)
