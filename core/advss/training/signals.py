"""Ctrl-C and other signals as a request that is answered between two passes of a network, with a checkpoint.

Queues send SIGTERM or SIGUSR2 before they take a job's machine away.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command line catches Interrupted, and does not wait for torch
    from torch import nn

HEARD = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2") if hasattr(signal, name))


class Interrupted(BaseException):
    """Work stopped on request, after a checkpoint; ``exit_code`` is 128 and the signal's number: 130 for Ctrl-C.

    No Exception, so that a plugin's ``except Exception`` does not swallow it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number
        self.run = ""  # folder of the run that was stopped, for the message


class StopRequest:
    """Context in which the first SIGINT, SIGTERM, SIGHUP or SIGUSR2 is only noted; a second Ctrl-C exits at once.

    A signal that is ignored as the context begins stays ignored: SIGHUP under nohup, SIGINT in a shell's background.
    The request stands until the context ends: whoever swallows :class:`Interrupted` meets it again.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in HEARD:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # None: not Python's, and could not be put back
                    self._before[number] = before
                    signal.signal(number, self._note)
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

    @contextmanager
    def wins(self) -> Iterator[None]:
        """Within, what is raised after a signal has come is :class:`Interrupted`, whatever a plugin made of it."""
        try:
            yield
        except BaseException as error:
            if self.number is None or isinstance(error, Interrupted):
                raise
            raise Interrupted(self.number) from error

    @contextmanager
    def asked_by(self, model: nn.Module) -> Iterator[None]:
        """Within, every forward pass of ``model`` checks first, an attack is many of them; and the request wins."""
        hook = model.register_forward_pre_hook(lambda module, inputs: self.check())
        try:
            with self.wins():
                yield
        finally:
            hook.remove()
