"""Weights that a backbone starts from, timm's own or those of a file, fitted by timm to a run's images.

They are fitted once, as the run begins, and kept in its folder: nothing is fetched again.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor

from advss.config import BackboneStart
from advss.errors import UsageError, did_you_mean
from advss.hookspecs import DataFacts
from advss.models.encoder import Backbone, backbone_of
from advss.models.weights import check_fits

PREFIX_TOKENS = ("cls_token", "reg_token")  # of a ViT: they do not fit in a map, so that the encoder has none
RESAMPLED = ("pos_embed", "patch_embed.proj.weight")  # of a ViT, for images and patches of other sides


@dataclass(frozen=True)
class Weights:
    """What a backbone starts from.

    Attributes:
        tensors: of the whole network, by timm's names; of a stem that is replaced for small images, and of heads, none
        origin: a file, or timm's name for them
        sha256: of the file, or of timm's tensors as one
        mean: of the images that they were trained on, pixels in [0, 1]; None where timm does not know
        std: likewise
        options: of the architecture, that they ask for beside those said
    """

    tensors: Mapping[str, Tensor]
    origin: str
    sha256: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    options: Mapping[str, Any]

    def described(self) -> dict[str, Any]:
        """All but the tensors, in plain values."""
        lists = {"mean": self.mean and list(self.mean), "std": self.std and list(self.std)}
        return {"origin": self.origin, "sha256": self.sha256, **lists, "options": dict(self.options)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], described: Mapping[str, Any]) -> Weights:
        """The weights again, from their tensors and what :meth:`described` gave."""
        mean, std = (described[name] and tuple(described[name]) for name in ("mean", "std"))
        return cls(tensors, described["origin"], described["sha256"], mean, std, described["options"])


def read_weights(start: BackboneStart, name: str, options: Mapping[str, Any], data: DataFacts) -> Weights:
    """The weights that a new run starts from.

    Args:
        start: a file, or timm's.
        name: of the model, with timm's tag or without.
        options: of the architecture.
        data: the images, which decide the stem and the patches.

    Raises:
        UsageError: they cannot be read or fetched, or are of another architecture.
    """
    architecture = name.partition(".")[0]
    known = _known(name)
    backbone = backbone_of(architecture, options, data)
    state, origin, sha256 = _read(start.weights) if start.weights else _fetched(name)
    wanted = _asked_for(state, options) if backbone.family.patches else {}
    backbone = backbone_of(architecture, {**options, **wanted}, data)
    what = f"--backbone.weights {start.weights}" if start.weights else f"--backbone.pretrained: {origin}"
    tensors = _fitted(backbone, state, what)
    mean, std = (known.mean, known.std) if known and len(known.mean) == data.channels else (None, None)
    return Weights(tensors, origin, sha256, mean, std, wanted)


def _known(name: str) -> Any:
    """What timm knows of the images that a model's weights were trained on; None where it has none."""
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        architecture, _, tag = name.partition(".")
        tags = [known.partition(".")[2] for known in timm.models.get_arch_pretrained_cfgs(architecture)]
        raise UsageError(f"--backbone {name}: timm has no weights {tag}{did_you_mean(tag, tags)}") from error


def _read(path: Path) -> tuple[dict[str, Tensor], str, str]:
    try:
        data = path.read_bytes()
        return load_bytes(data), str(path), hashlib.sha256(data).hexdigest()
    except OSError as error:
        raise UsageError(f"--backbone.weights {path}: cannot read it: {error.strerror}") from error
    except SafetensorError as error:
        how = "save a state dict of timm's by safetensors.torch.save_file"
        raise UsageError(f"--backbone.weights {path}: is no safetensors file; {how}") from error


def _fetched(name: str) -> tuple[dict[str, Tensor], str, str]:
    """The weights that timm has for a name, from its cache or the network."""
    try:
        with _hub_silent():
            net: Any = timm.create_model(name, pretrained=True)
    except Exception as error:  # timm's, of a hub's client or of the network
        reason = " ".join(str(error).split()) or type(error).__name__
        fix = "fetch them where they can be had, and give --backbone.weights FILE"
        raise UsageError(f"--backbone.pretrained: timm gives no weights for {name}: {reason}; {fix}") from error
    state = net.state_dict()
    known = net.pretrained_cfg
    origin = ".".join(filter(None, [known.get("architecture"), known.get("tag")])) or name
    return state, f"timm's {origin}", hashlib.sha256(save_bytes(state)).hexdigest()


@contextmanager
def _hub_silent() -> Iterator[None]:
    """Every address that the hub's client tries, and every wait, is a line of its own; the error says it in one."""
    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _asked_for(state: Mapping[str, Tensor], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a ViT that its weights ask for: a norm before pooling, where they have no other."""
    return {"fc_norm": False} if "norm.weight" in state and "fc_norm" not in options else {}


def _fitted(backbone: Backbone, state: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """The tensors as timm fits them to images: patches and their positions resampled, channels summed."""
    net = backbone.create()
    kept, own = _of_patches(_without_heads(state, net)), net.state_dict()
    try:
        check_fits(own | {name: kept[name] for name in _adapted(net) if name in kept and name in own}, kept, what=what)
    except UsageError as error:
        if not backbone.options:
            raise
        said = " ".join(f"--backbone.{name} {value}" for name, value in backbone.options.items())
        fix = f"the backbone is {backbone.name} with {said}; say --backbone NAME, of the model that they are of"
        raise UsageError(f"{error} ({fix})") from error
    source = {"state_dict": kept, "custom_load": False}
    fitted = backbone.create(pretrained=True, pretrained_cfg_overlay=source).state_dict()
    return {name: tensor for name, tensor in fitted.items() if not name.startswith(backbone.fresh)}


def _adapted(net: Any) -> list[str]:
    """Names of the tensors whose shape timm fits to the images."""
    return [*RESAMPLED, *(f"{name}.weight" for name in _listed(net.pretrained_cfg.get("first_conv")))]


def _without_heads(state: Mapping[str, Tensor], net: Any) -> dict[str, Tensor]:
    heads = tuple(f"{name}." for name in _listed(net.pretrained_cfg.get("classifier")))
    return {name: tensor for name, tensor in state.items() if not name.startswith(heads)}


def _listed(names: str | Sequence[str] | None) -> Sequence[str]:
    return [names] if isinstance(names, str) else names or []


def _of_patches(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without those of tokens that are no patches, and their positions, which timm puts first."""
    kept = {name: tensor for name, tensor in state.items() if name not in PREFIX_TOKENS}
    positions, tokens = kept.get("pos_embed"), sum(state[n].shape[1] for n in PREFIX_TOKENS if n in state)
    if positions is not None and math.isqrt(positions.shape[1]) ** 2 != positions.shape[1]:
        kept["pos_embed"] = positions[:, tokens:]
    return kept
