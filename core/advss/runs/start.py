"""What a pretraining checkpoint gives to whoever goes on from it: the encoder, and a task's last stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from advss.errors import UsageError
from advss.models.encoder import keep_branch
from advss.models.spec import ModelSpec
from advss.plugins.provenance import warn_of_other_versions
from advss.training.checkpoints import Checkpoint, load_checkpoint


@dataclass(frozen=True)
class Start:
    """The weights that one goes on from: the encoder's, and a last stage's where the task had one."""

    spec: ModelSpec
    encoder: dict[str, Tensor]
    tail: dict[str, Tensor] | None


def read_start(path: Path, tail: str = "auto") -> Start:
    """What a pretraining checkpoint gives to fine-tuning, its several BatchNorm branches brought down to one.

    Args:
        path: the checkpoint.
        tail: whose last stage, as ``--finetune-tail``.

    Raises:
        UsageError: the file is no whole pretraining checkpoint, or has no such last stage.
    """
    checkpoint = load_checkpoint(path)
    manifest = checkpoint.manifest
    check_kind(manifest, path)
    warn_of_other_versions(manifest.get("plugins"), what=f"checkpoint {path}")
    return start_of(checkpoint, choose_start(manifest["starts"], tail))


def check_kind(manifest: Mapping[str, Any], path: Path) -> None:
    """Raise UsageError where a manifest is none of pretraining."""
    if manifest.get("kind") != "pretrain":
        raise UsageError(f"{path} is a checkpoint of '{manifest.get('kind')}'; fine-tuning starts from pretraining")


def start_of(checkpoint: Checkpoint, start: Mapping[str, str]) -> Start:
    """The weights of one member of a pretraining checkpoint, which ``start``, an entry of its "starts", describes."""
    encoder = _under("encoder.", checkpoint.tensors)
    last_stage = _under(start["tail"], checkpoint.tensors) if start["tail"] else None
    return Start(
        ModelSpec.from_json(checkpoint.manifest["model"]),
        keep_branch(encoder, start["branch"]),
        keep_branch(last_stage, start["branch"]) if last_stage is not None else None,
    )


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def choose_start(starts: dict[str, dict[str, str]], wanted: str) -> dict[str, str]:
    """The member whose branch and last stage are fine-tuned.

    Args:
        starts: of the members in the order in which they were named.
        wanted: a member's key; ``auto``, the first that has a last stage; ``fresh``, the first, without its last stage.

    Raises:
        UsageError: there is no such member, or it has no last stage.
    """
    first = next(iter(starts.values()))
    if wanted == "fresh":
        return first | {"tail": ""}
    owners = {key: start for key, start in starts.items() if start["tail"]}
    if wanted == "auto":
        return next(iter(owners.values()), first)
    if wanted not in owners:
        reason = "has no last stage of its own" if wanted in starts else "is no pretext task of this run"
        raise UsageError(f"--finetune-tail {wanted}: {wanted} {reason}; choose {', '.join([*owners, 'fresh'])} or auto")
    return owners[wanted]
