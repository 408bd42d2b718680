"""Memory that runs out, which PyTorch says in several ways."""

from __future__ import annotations

NO_MEMORY = ("OutOfMemoryError", "out of memory", "can't allocate memory")  # the last on CPUs, in a RuntimeError


def ran_out(error: RuntimeError) -> bool:
    """Whether a pass failed for want of memory, so that one of fewer images may not."""
    return any(words in f"{type(error).__name__}: {error}" for words in NO_MEMORY)
