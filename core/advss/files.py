"""Files that are whole or not there: written beside their place, on disk, and only then moved into it.

Imports as little as it can: shell completion waits for it.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from advss.errors import UsageError


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically; errors as of :func:`write_text`."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a file of JSON; empty where there is none that can be read."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def write_text(path: Path, text: str) -> None:
    """Write text atomically, in UTF-8; errors as of :func:`write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: whole or not at all.

    Raises:
        UsageError: it cannot be written; what stood there is intact.
    """
    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # evaluating locks nothing, so two processes may write the same file at once
        (written,) = write_aside({path: content}, ending=f"{os.getpid()}-{threading.get_ident()}.new").values()
        try:
            written.replace(path)
        finally:
            written.unlink(missing_ok=True)
        sync_folder(path.parent)


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turn an OSError while saving into one line that names the file and says that the old one is intact."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"cannot save {path}: {reason}; what was saved before is intact") from error


def write_aside(contents: Mapping[Path, bytes], *, ending: str = "new") -> dict[Path, Path]:
    """Write each content to a new file ``.NAME.ENDING`` beside its place, on disk when this returns: place -> new file.

    What a killed process left under the same ending is overwritten.
    """
    new = {place: place.with_name(f".{place.name}.{ending}") for place in contents}
    try:
        for place, data in contents.items():
            new[place].unlink(missing_ok=True)  # a link would lead elsewhere, whoever put it there
            with new[place].open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
    except OSError:
        for written in new.values():
            written.unlink(missing_ok=True)
        raise
    return new


def sync_folder(folder: Path) -> None:
    """Return once what was moved into the folder is on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
