"""Reading ahead of what is asked for, in a thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

DEPTH = 4  # batches read ahead


class Ahead:
    """Calls ``read`` for the positions after the one asked for, so that they are ready in their turn.

    Args:
        read: from a position to its tensor; called in a thread, its errors are raised when the position is asked for.
        end: the first position that does not exist; None reads on without end.
    """

    def __init__(self, read: Callable[[int], Tensor], *, end: int | None = None) -> None:
        self._read = read
        self._end = end
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="advss-ahead")
        self._pending: dict[int, Future[Tensor]] = {}

    def __call__(self, position: int) -> Tensor:
        """What ``read(position)`` gives; any order works, rising by one is quick, and so is the same again."""
        last = position + DEPTH if self._end is None else min(position + DEPTH, self._end - 1)
        wanted = range(position, last + 1)
        for stale in [pending for pending in self._pending if pending not in wanted]:
            self._pending.pop(stale).cancel()
        for ahead in wanted:
            if ahead not in self._pending:
                self._pending[ahead] = self._thread.submit(self._read, ahead)
        return self._pending[position].result()
