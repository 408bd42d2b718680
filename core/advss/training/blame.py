"""What goes wrong in a plugin before training, as one line that names it; nothing else is disguised as its fault."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from advss.errors import UsageError
from advss.plugins.blame import culprit
from advss.plugins.faults import said_by
from advss.plugins.provenance import Record, suspects
from advss.training.form import MisfitError
from advss.training.signals import Interrupted


@contextmanager
def blaming(stage: str, records: Sequence[Record]) -> Iterator[None]:
    """Within, what a third party's plugin raises becomes one line; everything else passes as it is.

    Args:
        stage: what the line begins with.
        records: the plugins that may be called, as :func:`advss.plugins.provenance.used_by` gives them.

    Raises:
        UsageError: which plugin raised what, where in its own files, and what to do next.
    """
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit, Interrupted, UsageError):
        raise
    except BaseException as error:  # SystemExit too: no plugin ends the program
        found = culprit(error, suspects(records))
        if found is None or found.suspect.ours:
            raise
        raise UsageError(f"{stage}: {found.line(error)}") from error


@contextmanager
def fitting(stage: str, plugin: Any, records: Sequence[Record]) -> Iterator[None]:
    """Within, what ``plugin`` gave is checked; what is not of its form becomes one line that names the plugin.

    Raises:
        UsageError: which plugin gave what, and what to do next.
    """
    try:
        yield
    except MisfitError as error:
        own = next((s for s in suspects(records) if s.offered is type(plugin)), None)
        line = own.misses(str(error)) if own else f"{plugin.name}: {error}"
        raise UsageError(f"{stage}: {line}") from error


def refused(error: ValueError, records: Sequence[Record]) -> str:
    """What a plugin that cannot work says in a ValueError, and where it is a third party's that says it."""
    if isinstance(error, UsageError):
        return str(error)
    found = culprit(error, suspects(records))
    text = " ".join(str(error).split()) or said_by(error).removesuffix(": ")
    return f"{text} ({found.place})" if found and found.place and not found.suspect.ours else text
