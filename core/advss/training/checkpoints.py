"""Checkpoints that survive a pulled plug: safetensors and a JSON manifest with its sha256, nothing pickled.

``NAME.safetensors`` holds the tensors, ``NAME.json`` the rest; ``NAME.previous.*`` is the checkpoint before. At every
instant of a save one manifest on disk has a tensor file whose sha256 it names, and loading looks for such a pair:
new files are written and fsynced beside the old ones, the old tensors are moved aside, the new ones take their place,
then the manifests follow in the same order.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor

from advss.errors import UsageError

TENSORS, MANIFEST = ".safetensors", ".json"


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name and the manifest that stood beside them."""

    tensors: dict[str, Tensor]
    manifest: dict[str, Any]
    path: Path


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> None:
    """Write ``path`` (…/NAME.safetensors) and its manifest; keep what stood there as NAME.previous.

    Raises:
        UsageError: the files cannot be written (disk full, say); the checkpoint that stood there is intact.
    """
    data = save_bytes({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    text = json.dumps({**manifest, "sha256": hashlib.sha256(data).hexdigest()}, indent=1).encode()
    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        new_tensors, new_manifest = _write(path, data), _write(path.with_suffix(MANIFEST), text)
        for new, place in ((new_tensors, path), (new_manifest, path.with_suffix(MANIFEST))):
            if place.exists():
                place.replace(_previous(place))
            new.replace(place)
        _sync_folder(path.parent)


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at ``path``, or the one before it, with a warning, where the bytes are not those saved.

    Raises:
        UsageError: there is none, or none whose sha256 is that of its manifest.
    """
    files = [p for p in (path, _previous(path)) if p.is_file()]
    manifests = [p for p in (path.with_suffix(MANIFEST), _previous(path.with_suffix(MANIFEST))) if p.is_file()]
    if not manifests or not files:
        raise UsageError(f"there is no checkpoint {path} with its manifest {path.stem}{MANIFEST}")
    digests: dict[Path, str] = {}
    for manifest_path in manifests:
        manifest = _read_manifest(manifest_path)
        for file in files:
            data = file.read_bytes()
            digest = digests.setdefault(file, hashlib.sha256(data).hexdigest())
            if manifest.get("sha256") != digest:
                continue
            if manifest_path != path.with_suffix(MANIFEST):
                _warn(f"checkpoint {path} is damaged (sha256 differs); falling back to step {manifest.get('step')}")
            return Checkpoint(load_bytes(data), manifest, file)
    raise UsageError(f"checkpoint {path} is damaged: its sha256 is not its manifest's, and none before it is whole")


def has_checkpoint(path: Path) -> bool:
    """Whether ``path`` or the checkpoint before it is there."""
    return path.is_file() or _previous(path).is_file()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically: whole or not at all."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text atomically: whole or not at all."""
    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, text.encode()).replace(path)
        _sync_folder(path.parent)


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turn an OSError while saving into one line that names the file and says that the old one is intact."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"cannot save {path}: {reason}; what was saved before is intact") from error


def _warn(line: str) -> None:
    print(f"advss: warning: {line}", file=sys.stderr)


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _write(path: Path, data: bytes) -> Path:
    new = path.with_name(f".{path.name}.new")
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        new.unlink(missing_ok=True)
        raise
    return new


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
