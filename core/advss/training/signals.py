"""Ctrl-C and SIGTERM as a request that the trainer answers between two steps, with a checkpoint."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupted(Exception):  # noqa: N818 - a request that was met, not an error
    """Training stopped on request, after a checkpoint; ``exit_code`` is 143 for SIGTERM and 130 for Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number
        self.run = ""  # folder of the run that was stopped, for the message


class StopRequest:
    """Context in which the first SIGINT or SIGTERM is only noted; a second Ctrl-C exits at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None and number == signal.SIGINT:
            os._exit(128 + number)
        self.number = number

    def check(self) -> None:
        """Raise :class:`Interrupted` when a signal has come."""
        if self.number is not None:
            raise Interrupted(self.number)
