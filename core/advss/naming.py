"""What a run may be called, a plain file name, and how it is named on a command line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from advss.errors import UsageError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+#-]*")
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
