"""Checkpoints that survive a pulled plug: safetensors and a JSON manifest with its sha256, nothing pickled.

``NAME.safetensors`` holds the tensors, ``NAME.json`` the rest; ``NAME.previous.*`` is the checkpoint before. A manifest
names the sha256 of its tensors and of itself. At every instant of a save one manifest on disk has a tensor file whose
sha256 it names, and loading looks for such a pair: new files are written and fsynced beside the old ones, the old
tensors are moved aside, the new ones take their place, then the manifests follow in the same order. What is moved aside
is whole; a checkpoint that is damaged, or that a killed process left half saved, is overwritten where it stands. So is
one that is not known to be good (its weights or validation loss are not finite, or not yet known), while the one before
it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor

from advss.errors import UsageError
from advss.files import saving, sync_folder, write_aside
from advss.output import tell

MANIFEST = ".json"
OWN_DIGEST = "manifest_sha256"  # a manifest's key for the sha256 of its other content


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name and the manifest that stood beside them."""

    tensors: dict[str, Tensor]
    manifest: dict[str, Any]
    path: Path


def save_checkpoint(
    path: Path, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any], *, good: bool = True
) -> None:
    """Write ``path`` (…/NAME.safetensors) and its manifest; keep what stood there as NAME.previous.

    Args:
        path: the place of the tensors.
        tensors: by name.
        manifest: what JSON has.
        good: whether it is known to be worth going back to; a good NAME.previous gives way to a good one only.

    Raises:
        UsageError: the files cannot be written (disk full, say); the checkpoint that stood there is intact.
    """
    data = save_bytes({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    text = _signed({**manifest, "good": good, "sha256": hashlib.sha256(data).hexdigest()})
    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        new = write_aside({path: data, path.with_suffix(MANIFEST): text})
        keep = _is_whole(path) and (_is_good(path) or not _is_good(_previous(path)))
        for place, written in new.items():
            if keep:
                place.replace(_previous(place))
            written.replace(place)
        sync_folder(path.parent)


def load_checkpoint(path: Path, *, warn: bool = True) -> Checkpoint:
    """The checkpoint at ``path``, or the one before it, with a warning, where the bytes are not those saved.

    Args:
        path: …/NAME.safetensors.
        warn: False where the same checkpoint is loaded once more, to look into its manifest.

    Raises:
        UsageError: there is none, or none whose sha256 is that of its manifest.
    """
    files = [p for p in (path, _previous(path)) if p.is_file()]
    manifests = [p for p in (path.with_suffix(MANIFEST), _previous(path.with_suffix(MANIFEST))) if p.is_file()]
    if not manifests or not files:
        raise UsageError(missing_part(path) or f"there is no checkpoint {path}")
    for manifest_path in manifests:
        manifest = _read_manifest(manifest_path)
        for file in files if "sha256" in manifest else ():
            data = file.read_bytes()
            if hashlib.sha256(data).hexdigest() != manifest["sha256"]:
                continue
            if warn and manifest_path != path.with_suffix(MANIFEST):
                _warn(f"checkpoint {path} is damaged or half saved; falling back to step {manifest.get('step')}")
            return Checkpoint(load_bytes(data), manifest, file)
    raise UsageError(f"checkpoint {path} is damaged: its sha256 is not its manifest's, and none before it is whole")


def missing_part(path: Path) -> str:
    """What to say where one of a checkpoint's two files is there without the other; else empty."""
    manifest = path.with_suffix(MANIFEST)
    there, gone = (path, manifest) if path.is_file() else (manifest, path)
    if not there.is_file() or gone.is_file():
        return ""
    return f"{gone} is missing: {there.name} and {gone.name} are one checkpoint; copy both"


def back_to_good(path: Path) -> dict[str, Any] | None:
    """Put the checkpoint before into the place of one that is not known to be good.

    Returns:
        The manifest of the good checkpoint that stands at ``path`` now; None where there is none, and nothing changed.
    """
    if not _is_good(path):
        if not _is_good(_previous(path)):
            return None
        for place in (path, path.with_suffix(MANIFEST)):
            _previous(place).replace(place)
        sync_folder(path.parent)
    return _read_manifest(path.with_suffix(MANIFEST))


def has_checkpoint(path: Path) -> bool:
    """Whether ``path`` or the checkpoint before it is there; tensors alone are what a kill left of the very first."""
    places = (path, path.with_suffix(MANIFEST))
    return all(place.is_file() or _previous(place).is_file() for place in places)


def is_whole(path: Path) -> bool:
    """Whether the checkpoint that stands at ``path`` itself, not the one before it, has the bytes that were saved."""
    digest = _read_manifest(path.with_suffix(MANIFEST)).get("sha256")
    return digest is not None and _digest(path) == digest


def _warn(line: str) -> None:
    tell(f"advss: warning: {line}")


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _is_whole(path: Path) -> bool:
    """Whether tensors and manifest stand at ``path`` and belong together.

    Where a save stopped between moving its two files, the tensors that the manifest names are first put back.
    """
    digest = _read_manifest(path.with_suffix(MANIFEST)).get("sha256")
    if digest is None:
        return False
    if _digest(path) != digest and _digest(_previous(path)) == digest:
        _previous(path).replace(path)
        return True
    return bool(_digest(path) == digest)


def _is_good(path: Path) -> bool:
    """Whether a checkpoint that was saved as a good one stands at ``path``, whole."""
    manifest = _read_manifest(path.with_suffix(MANIFEST))
    return bool(manifest.get("good")) and _digest(path) == manifest["sha256"]


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _signed(manifest: Mapping[str, Any]) -> bytes:
    """A manifest as JSON with a sha256 of its own content."""
    own = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    return json.dumps({**manifest, OWN_DIGEST: own}, indent=1).encode()


def _read_manifest(path: Path) -> dict[str, Any]:
    """A manifest; empty where there is none, or where its content is not the one saved."""
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    own = content.pop(OWN_DIGEST, None) if isinstance(content, dict) else None
    return content if own == hashlib.sha256(json.dumps(content).encode()).hexdigest() else {}


def taken(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Take out of ``tensors`` those whose names begin with ``prefix``, by what follows it."""
    return {name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}
