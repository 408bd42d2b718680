"""What a run may be called, a plain file name; how it is named on a command line, and a figure in words."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from advss.errors import UsageError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+#-]*")
SHORT = 3  # letters of a figure's name that are an abbreviation
LONGEST = 200  # letters: a file system takes 255 bytes, MLflow 250, and names are lengthened to tell runs apart


def check_name(name: str) -> str:
    """Return ``name``.

    Raises:
        UsageError: it could leave the runs folder, or is no plain file name.
    """
    if not NAME.fullmatch(name) or ".." in name:
        raise UsageError(f"--name: '{name}' is no run name; use letters, digits and . _ - without '..' or separators")
    if len(name) > LONGEST:
        raise UsageError(f"--name: expected at most {LONGEST} letters, got {len(name)}: '{name[:20]}...'")
    return name


def as_typed(path: str | Path) -> str:
    """A file as a user types it here, short and quoted for the shell: what a message says to type must work."""
    whole, here = Path(path), Path.cwd()
    return shlex.quote(str(whole.relative_to(here) if whole.is_relative_to(here) else whole))


def in_words(name: str) -> str:
    """The name of a figure as people read it: ``TA``, ``RA`` and ``ECE``, and words of what is longer."""
    return name.upper() if len(name) <= SHORT else name.replace("_", " ")
