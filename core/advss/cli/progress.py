"""Progress of training: one bar a stage on a terminal, one line an epoch in a log, or nothing; always on stderr."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from advss.training.reporting import Reporter

SHOWN = ("loss", "ta", "ra")


def reporter_for(*, quiet: bool, console: Console | None = None) -> Reporter:
    """The reporter that suits where stderr goes."""
    console = console or Console(stderr=True)
    if quiet:
        return Quiet(console)
    return Bar(console) if console.is_terminal else Lines(console)


class Quiet:
    """Says what must be said, and no progress."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def start(self, stage: str, *, steps: int, done: int, epochs: int) -> None:
        """Say nothing."""

    def step(self, *, step: int, images: int, metrics: Mapping[str, float]) -> None:
        """Say nothing."""

    def epoch(self, *, epoch: int, epochs: int, metrics: Mapping[str, float]) -> None:
        """Say nothing."""

    def finish(self) -> None:
        """Say nothing."""

    def say(self, line: str) -> None:
        """Print the line."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class Lines(Quiet):
    """One line a stage and one an epoch, for logs."""

    def start(self, stage: str, *, steps: int, done: int, epochs: int) -> None:
        """Name the stage."""
        self.stage, self.images, self.began = stage, 0, time.monotonic()
        self.say(f"{stage}: {_count(epochs, 'epoch')}, {_count(steps - done, 'step')}{' left' if done else ''}")

    def step(self, *, step: int, images: int, metrics: Mapping[str, float]) -> None:
        """Count the images."""
        self.images += images

    def epoch(self, *, epoch: int, epochs: int, metrics: Mapping[str, float]) -> None:
        """Say how the epoch went: every metric, the speed of training and validation together."""
        seconds = time.monotonic() - self.began
        said = [f"{name} {value:.4g}" for name, value in metrics.items()]
        speed = f"{self.images / max(seconds, 1e-9):,.0f} images/s"
        self.say("  ".join([f"{self.stage} {epoch}/{epochs}", *said, speed, f"{seconds:.1f} s"]))
        self.images, self.began = 0, time.monotonic()


class Bar(Quiet):
    """A bar with loss, TA, RA, images a second and the time left."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.progress: Progress | None = None

    def start(self, stage: str, *, steps: int, done: int, epochs: int) -> None:
        """Draw the bar."""
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%") if self.console.width < 100 else MofNCompleteColumn(),
            TextColumn("{task.fields[shown]}"),
            _Speed(),
            TimeRemainingColumn(compact=True),
            console=self.console,
            expand=True,
        )
        self.stage, self.known = stage, dict[str, float]()
        self.task = self.progress.add_task(
            stage, total=steps, completed=done, shown="", images=0, began=time.monotonic()
        )
        self.progress.start()

    def step(self, *, step: int, images: int, metrics: Mapping[str, float]) -> None:
        """Move the bar."""
        if self.progress is not None:
            self.known |= {name: value for name, value in metrics.items() if name == "loss"}
            seen = self.progress.tasks[0].fields["images"] + images
            self.progress.update(self.task, completed=step, images=seen, shown=_shown(self.known))

    def epoch(self, *, epoch: int, epochs: int, metrics: Mapping[str, float]) -> None:
        """Show the epoch's TA and RA."""
        if self.progress is not None:
            validated = {name.rpartition("/")[2]: value for name, value in metrics.items()}
            self.known |= {name: validated[name] for name in ("ta", "ra") if name in validated}
            self.progress.update(self.task, description=f"{self.stage} {epoch}/{epochs}", shown=_shown(self.known))

    def finish(self) -> None:
        """Leave the bar as it stands."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


class _Speed(ProgressColumn):
    """Images a second since the bar was drawn."""

    def render(self, task: Task) -> Text:
        seconds = time.monotonic() - task.fields["began"]
        return Text(f"{task.fields['images'] / max(seconds, 1e-9):,.0f} img/s")


def _shown(known: Mapping[str, float]) -> str:
    words = {"loss": "{:.3f}", "ta": "TA {:.3f}", "ra": "RA {:.3f}"}
    return " ".join(words[name].format(known[name]).removeprefix("") for name in SHOWN if name in known)


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
