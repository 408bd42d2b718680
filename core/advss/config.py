"""What one run is told: plain values, no torch, equal whether it comes from flags, YAML or Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from advss.attacks.threat import Norm, Threat, whole

Precision = Literal["auto", "float32", "bf16"]
MemoryFormat = Literal["auto", "contiguous", "channels_last"]


DataFlag = Literal["data", "pretrain-data"]


@dataclass(frozen=True)
class Choice:
    """A component by name with its options: a plugin, a data source or a backbone.

    ``key`` tells members apart ("selfie", "selfie#2"); ``name`` is what was asked for, ``options`` what was said.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    key: str = ""


@dataclass(frozen=True)
class BackboneStart:
    """What a backbone starts from in place of random weights: options of it beside those that timm takes.

    Attributes:
        pretrained: timm's weights for it (a tag, as in resnet18.a1_in1k, says which), fetched once, as the run begins
        weights: a file of its tensors by timm's names, as safetensors
    """

    pretrained: bool = False
    weights: Path | None = None


def paths_in(value: Any) -> tuple[Path, ...]:
    """The paths that an option's value is: one, or a list of them."""
    several = tuple(value) if isinstance(value, list | tuple) else (value,)
    return several if all(isinstance(one, Path) for one in several) else ()


def change_paths(value: Any, change: Callable[[Path], Path]) -> Any:
    """An option's value, each path that it is changed."""
    changed = [change(path) for path in paths_in(value)]
    return value if not changed else changed[0] if isinstance(value, Path) else type(value)(changed)


@dataclass(frozen=True)
class StageSettings:
    """Optimisation of one stage; on the command line each has the prefix ``--pretrain-`` or ``--finetune-``.

    Attributes:
        epochs: passes over the training part, each validated; 0 skips the stage
        epoch_steps: fewest optimiser steps of an epoch, which of few images is several passes; 0 is one pass
        batch_size: images a step
        optimizer: SGD or AdamW
        lr: peak learning rate
        momentum: of SGD
        nesterov: Nesterov's momentum
        weight_decay: of all parameters, biases and norms included
        schedule: of the learning rate, stepped after each optimiser step; onecycle ignores the warm-up
        warmup_steps: optimiser steps of linear warm-up (cosine, multistep, constant)
        warmup_lr: learning rate at the first warm-up step
        min_lr: learning rate at the end of the cosine
        milestones: epochs at which multistep multiplies the learning rate by 0.1
        clip: largest norm of the gradient; 0 does not clip
        ema: decay of the moving average of the weights that is validated and kept, less while the stage is young; 0
            keeps the weights
        crop: padding in pixels of the random crop; 0 does not crop
        flip: horizontal flips
        resized_crop: least share of the area that a random resized crop shows, such as 0.08; 0 does not crop so
    """

    epochs: int
    batch_size: int
    epoch_steps: int = 0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 3e-4
    schedule: Literal["cosine", "onecycle", "multistep", "constant"] = "cosine"
    warmup_steps: int = 0
    warmup_lr: float = 0.01
    min_lr: float = 0.0
    milestones: tuple[int, ...] = ()
    clip: float = 0.0
    ema: float = 0.0
    crop: int = 0
    flip: bool = False
    resized_crop: float = 0.0


@dataclass(frozen=True)
class EvalSettings:
    """The attack that measures RA; flags ``--eval-...``.

    Attributes:
        norm: shape of the ball
        eps: radius of the ball, pixels in [0, 1]; null is the norm's usual one, 8/255, 0.5 or 12
        step_size: length of one ascent step, pixels in [0, 1]; null is the norm's usual one, 2/255, 0.1 or
            2.4
        steps: ascent steps
        top_share: of l1 alone, the share of the coordinates that one step moves; null is 0.01
        restarts: random starts; an image counts as robust when it withstands all
        loss: what ascends: cross-entropy, the margin, or the difference of logits ratio
        limit: measure this many of the test images, as many of each class, whatever the seed; 0 takes all
        batch_size: images that are measured together and share draws; passes are split where memory runs out
        valid_steps: steps of the attack on the validation images after each epoch
        valid_limit: attack this many of the validation images after each epoch, as many of each class, the same after
            every epoch; 0 takes all
        precision: of the networks' arithmetic while they are measured

    Raises:
        ValueError: a value that makes no attack, or a length in 0...255; its option's name comes first
    """

    norm: Norm = "linf"
    eps: float | None = None
    step_size: float | None = None
    steps: int = 20
    top_share: float | None = None
    restarts: int = 1
    loss: Literal["ce", "margin", "dlr"] = "ce"
    limit: int = 0
    batch_size: int = 256
    valid_steps: int = 10
    valid_limit: int = 0
    precision: Literal["float32", "bf16"] = "float32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", self.threat.eps)
        object.__setattr__(self, "step_size", self.threat.step_size)
        object.__setattr__(self, "top_share", self.threat.top_share)
        whole("valid_steps", self.valid_steps)

    @property
    def threat(self) -> Threat:
        """What the test images are attacked with."""
        return Threat(
            norm=self.norm, eps=self.eps, step_size=self.step_size, steps=self.steps, top_share=self.top_share
        )


@dataclass(frozen=True)
class RunConfig:
    """One run, resolved.

    Attributes:
        pretext: the tasks that pretrain together; none is P1
        defense: of pretraining
        finetune: what trains, and on which loss
        finetune_defense: of fine-tuning
        data: the images
        pretrain_data: other images to pretrain on; none is the same
        evaluate: what is measured on the test images; the first that has an RA is the headline
        backbone: a timm model
        pretraining: optimisation of pretraining
        finetuning: optimisation of fine-tuning
        evaluation: the attack that measures RA
        diversity: weight of the diversity term of an ensemble, eq. (4); 0 is the plain average
        diversity_in: the term counts in the attack, in the training loss, or in both (released)
        diversity_sign: of the term in the training loss; plus, as eq. (3), pulls gradients together, minus apart
        diversity_every: the term counts at every so many optimiser steps
        diversity_pixels: compare gradients in each task's own pixels (released) or in the image's
        ensemble_loss: members' losses are summed in training, eq. (3), or averaged (released)
        finetune_tail: last stage to fine-tune from: a task of --pretext, fresh, or auto, the first task that has one
        limit: keep that many training and at most that many test images; 0 keeps all
        size: side in pixels that images are brought to; 0 leaves them as they are, which must then be of one side
        resize: side in pixels that images are brought to before their centre of --data.size is taken, 256 for 224; what
            random resized crops are taken of; 0 is --data.size
        pretrain_data_limit: keep that many of the images of --pretrain-data; 0 keeps all
        pretrain_data_size: side in pixels that the images of --pretrain-data are brought to; 0 leaves them as they are
        pretrain_data_resize: as resize, of the images of --pretrain-data
        seed: of every random stream
        split_seed: of what is validated on and of what limits keep; default: as seed, with --from as the pretraining
        name: of the run and its folder; made from the date and the choices when absent
        precision: of the networks' arithmetic; auto is bf16 where a GPU has it, else float32
        device: auto, cpu, cuda, cuda:1; auto is cuda where there is one
        memory_format: of images and weights; auto measures which is faster, once on a machine
        runs_dir: folder of the run folders
        checkpoint_minutes: minutes between checkpoints within an epoch
        log_every: optimiser steps between logged training metrics
        tracking: send the journal to MLflow
    """

    pretext: tuple[Choice, ...]
    defense: Choice
    finetune: Choice
    finetune_defense: Choice
    data: Choice
    backbone: Choice
    pretraining: StageSettings
    finetuning: StageSettings
    evaluation: EvalSettings = EvalSettings()
    evaluate: tuple[Choice, ...] = ()
    pretrain_data: Choice | None = None
    diversity: float = 0.0
    diversity_in: Literal["both", "attack", "loss"] = "both"
    diversity_sign: Literal["plus", "minus"] = "plus"
    diversity_every: int = 1
    diversity_pixels: Literal["task", "image"] = "task"
    ensemble_loss: Literal["sum", "mean"] = "sum"
    finetune_tail: str = "auto"
    limit: int = 0
    size: int = 0
    resize: int = 0
    pretrain_data_limit: int = 0
    pretrain_data_size: int = 0
    pretrain_data_resize: int = 0
    seed: int = 0
    split_seed: int | None = None
    name: str | None = None
    precision: Precision = "float32"
    device: str = "auto"
    memory_format: MemoryFormat = "auto"
    runs_dir: Path = Path("runs")
    checkpoint_minutes: float = 10.0
    log_every: int = 10
    tracking: bool = True

    @property
    def dividing_seed(self) -> int:
        """The seed of what is validated on and of what limits keep."""
        return self.seed if self.split_seed is None else self.split_seed

    def chosen(self, flag: DataFlag) -> RunConfig:
        """Itself, with the images of a flag as its ``data``."""
        if flag == "data" or self.pretrain_data is None:
            return self
        limit, size, resize = self.pretrain_data_limit, self.pretrain_data_size, self.pretrain_data_resize
        return replace(self, data=self.pretrain_data, limit=limit, size=size, resize=resize)

    @property
    def start(self) -> BackboneStart | None:
        """The weights that the backbone starts from; None is random ones."""
        own = {field.name for field in fields(BackboneStart)}
        start = BackboneStart(**{name: value for name, value in self.backbone.options.items() if name in own})
        return start if start.pretrained or start.weights else None

    @property
    def architecture(self) -> Choice:
        """The backbone without what it starts from: what is built again wherever the run's weights are loaded."""
        own = {field.name for field in fields(BackboneStart)}
        options = {name: value for name, value in self.backbone.options.items() if name not in own}
        name = self.backbone.name.partition(".")[0] if self.start else self.backbone.name  # without timm's tag
        return Choice(name, options)
