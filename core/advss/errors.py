"""Errors that a user can mend: one line that names the value, what was expected and the nearest right one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UsageError(ValueError):
    """Bad input. The command line prints it as one line and exits with code 2."""


LONGEST_LIST = 20  # names that a message lists; of more it says where they are


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error message: ``"; did you mean 'selfie'?"``, or the list of what there is."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    if len(names) > LONGEST_LIST:
        return "; see --help"
    return f"; known: {', '.join(names)}" if names else "; it has none"


@contextmanager
def of_flag(flag: str) -> Iterator[None]:
    """Within, an error that speaks of ``--data`` speaks of ``flag``: sources know not for which they are chosen."""
    try:
        yield
    except UsageError as error:
        error.args = (str(error).replace("--data", flag), *error.args[1:])
        raise
