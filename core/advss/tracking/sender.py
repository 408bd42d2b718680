"""The background thread that sends the journal to MLflow while training writes it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from advss.tracking.replay import Replay

PERIOD_S = 2.0  # between two looks at the journal
RETRY_S = 15.0  # after a failure; doubled by each further one
LONGEST_RETRY_S = 300.0


class Sender(threading.Thread):
    """Replays the journal every two seconds until closed; ``report`` hears of each failure as one line.

    A daemon: the interpreter does not wait for it, whatever a server does.
    """

    def __init__(self, folder: Path, *, uri: str, report: Callable[[str], None]) -> None:
        super().__init__(name="advss-mlflow", daemon=True)
        self._folder, self._uri, self._report = folder, uri, report
        self._replay: Replay | None = None
        self._closing = threading.Event()
        self._complete = False

    def run(self) -> None:
        """Send, rest, repeat; once more after :meth:`close`."""
        last, retry_s = False, RETRY_S
        while not last:
            last = self._closing.is_set()
            if self._send():
                wait_s, retry_s = PERIOD_S, RETRY_S
            else:
                wait_s, retry_s = retry_s, min(2 * retry_s, LONGEST_RETRY_S)
            self._closing.wait(wait_s)

    def close(self, *, wait_s: float) -> bool:
        """Send what is left, for at most ``wait_s`` seconds; True when MLflow has everything."""
        self._closing.set()
        self.join(wait_s)
        return self._complete and not self.is_alive()

    def _send(self) -> bool:
        """One attempt; whether MLflow could be reached."""
        self._complete = False
        try:
            self._replay = self._replay or Replay(self._folder, uri=self._uri)
            self._replay.send()
        except Exception as error:  # training outlives whatever MLflow raises; it is reported, and sent later
            self._report(one_line(error))
            return False
        if self._replay.refused:
            self._report(self._replay.refused[0])
        self._complete = not self._replay.refused
        return True


def one_line(error: Exception, *, length: int = 200) -> str:
    """What an exception says, as one line of bounded length; the operating system's word where that is the cause."""
    root: BaseException = error
    while (deeper := root.__cause__ or root.__context__) is not None:
        root = deeper
    text = " ".join(str(root if isinstance(root, OSError) else error).split()) or type(error).__name__
    return text if len(text) <= length else f"{text[:length]}..."
