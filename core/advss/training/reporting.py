"""What training says while it runs, and to whom: a progress bar, lines in a log, or nobody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from advss.output import tell


class Reporter(Protocol):
    """Told of every stage, step and epoch; metrics by name: ``loss``, ``ta``, ``ra`` (``train/loss``, ``valid/ra``)."""

    def start(self, stage: str, *, steps: int, done: int, epochs: int, unit: str = "step") -> None:
        """A stage of ``steps`` optimiser steps begins, of which ``done`` were done before it was interrupted.

        ``unit`` is what is counted: a step, an image, or "" where a share of the whole is all that can be said.
        """

    def doing(self, what: str) -> None:
        """What the stage is at, in a few words; the steps that come are of it."""

    def step(self, *, step: int, images: int, metrics: Mapping[str, float]) -> None:
        """``step`` steps of the stage are done; the last one took in ``images`` images."""

    def epoch(self, *, epoch: int, epochs: int, metrics: Mapping[str, float]) -> None:
        """``epoch`` of ``epochs`` epochs are done and validated."""

    def finish(self) -> None:
        """The stage is over, or was interrupted."""

    def say(self, line: str) -> None:
        """A line for the user, such as a warning, beside the progress."""


class Silent:
    """No progress, for tests and for calls from Python; what must be said goes to stderr."""

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
        tell(line)
