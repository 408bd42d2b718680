"""What a check comes to: the plugin keeps the contract, breaks it, may not mean what it does, or cannot be asked."""

from __future__ import annotations

import inspect
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import torch

from advss.testing.subject import Subject
from advss.training.form import MisfitError

Outcome = Literal["passed", "warned", "failed", "unchecked"]
T = TypeVar("T")


class BrokenError(AssertionError):
    """The plugin does not keep the contract; the message says with which value, and what to do."""


class UncheckedError(Exception):
    """This cannot be asked of the plugin; the message says why."""


class DoubtError(Exception):
    """The contract allows it, and it is perhaps not meant; the message says what to look at."""


@dataclass(frozen=True)
class Check:
    """One fact that holds for every plugin; ``ask`` raises :class:`BrokenError` where it does not."""

    name: str
    ask: Callable[[Subject], None]


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check; the message is empty and the error None where it passed."""

    check: str
    outcome: Outcome
    message: str
    seconds: float
    error: BaseException | None = None
    told: str = ""  # the check that has said the same before, and whose name is the message


def expect(holds: object, message: str) -> None:
    """Raise :class:`BrokenError` unless ``holds``."""
    if not holds:
        raise BrokenError(message)


def as_in_training(check: Callable[..., T], *given: object) -> T:
    """Ask a check of what ``fit`` is given, of :mod:`advss.training.form`; it fails in the same words here."""
    try:
        return check(*given)
    except MisfitError as error:
        raise BrokenError(str(error)) from error


class Told:
    """What has been said of a plugin, so that each cause is told once."""

    def __init__(self) -> None:
        self._first: dict[tuple[Outcome, str], str] = {}

    def once(self, verdict: Verdict) -> Verdict:
        """The verdict, or where an earlier one has its outcome and message, one that names that check instead."""
        first = self._first.setdefault((verdict.outcome, verdict.message), verdict.check)
        if not verdict.message or first == verdict.check:
            return verdict
        return replace(verdict, message=f"as above: '{first}'", told=first)


def judge(check: Check, subject: Subject) -> Verdict:
    """Ask one check; whatever else a plugin raises, KeyboardInterrupt apart, is a failure of that check.

    What it prints goes to stderr: stdout is for the verdicts, as JSON too.
    """
    began = time.perf_counter()
    failed: BaseException | None = None
    outcome: Outcome = "passed"
    message = ""
    try:
        with torch.random.fork_rng([]), _one_thread(), redirect_stdout(sys.stderr):
            check.ask(subject)
    except KeyboardInterrupt:
        raise
    except UncheckedError as reason:
        outcome, message = "unchecked", str(reason)
    except DoubtError as doubt:
        outcome, message = "warned", str(doubt)
    except BaseException as error:
        outcome, failed = "failed", error
        said = str(error) if isinstance(error, BrokenError) else f"it raised {type(error).__name__}: {error}"
        message = said.removesuffix(": ") + _place(error, subject)
    return Verdict(check.name, outcome, " ".join(message.split()), time.perf_counter() - began, failed)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The networks are so small that a second thread only waits for the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _place(error: BaseException, subject: Subject) -> str:
    """Where in the plugin's own package it came from, as `` (flip.py, line 31)``; empty where it did not."""
    home = Path(inspect.getfile(subject.plugin.offered))
    while (home.parent / "__init__.py").is_file():
        home = home.parent
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(home)]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
