"""The whole contract between advss and its plugins: a plugin author reads this file and no other.

A distribution joins by one entry point in the group ``advss`` that names a module implementing any of the six hooks at
the end of this file. A hook takes nothing and returns classes; the keyword-only, typed parameters of a class's
``__init__`` are its options on the command line, in YAML and in the help. An option may be another defense, as in
``base: Defense | str = "pgd"``: an installed one's name or ``{name: {option: value}}``, on the line ``--defense.base
trades --defense.base.trades.beta 3``; core builds it, ``__init__`` is always given the :class:`Defense` itself. ``eps``
and ``step_size`` beside a ``norm`` may be ``float | None = None``: core puts in what is usual for the norm.
Letters: B batch, C channels, H W the image's sides, h w the feature map's, K classes, N images of a set, S a side.

One idea carries it: a pretext task, an ensemble of M tasks with its diversity term, and a classifier are all one
:class:`Objective` over a tuple of inputs; a defense turns it into a training loss, and so composes with each.
Randomness comes from the ``generator`` passed in; dropout and initialisation use torch's global one, seeded by core.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pluggy
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from advss.accuracy import accuracy as accuracy  # of logits (..., K) for labels (...), as a metric
from advss.launching import Launcher as Launcher  # who runs the jobs of a study; its file holds all that belongs to it
from advss.measuring import Evaluation as Evaluation  # what is measured of a classifier; likewise
from advss.named import BranchNorm as BranchNorm  # BranchNorm({"main": norm, "attacked": norm}) in a task's head
from advss.named import branch as branch  # ``with branch("attacked", encoder, self):`` it answers wherever there is one
from advss.sourcing import DataSource as DataSource  # images; likewise
from advss.sourcing import Split as Split

API = (1, 0)  # a plugin module may say `advss_api = (1, 0)`; one that needs a newer major is refused
hookspec, hookimpl = pluggy.HookspecMarker("advss"), pluggy.HookimplMarker("advss")


@dataclass(frozen=True)
class DataFacts:
    """What is known of the data before training: number of images, side in pixels, channels, classes (0: no labels)."""

    images: int
    side: int
    channels: int = 3
    classes: int = 0


@dataclass(frozen=True)
class Batch:
    """One batch of B images on the run's device, the same for every member of an ensemble."""

    x: Tensor  # (B, C, H, W) float32 in [0, 1], augmented once
    raw: Tensor  # (B, C, H, W) float32 in [0, 1], before augmentation, for tasks that bring their own
    index: Tensor  # (B,) int64, place among the training images, the validation part included
    label: Tensor  # (B,) int64; -1 where there is none
    progress: float = 0.0  # share of the stage done, in [0, 1)


@dataclass(frozen=True)
class Views:
    """What a task makes of a batch."""

    inputs: tuple[Tensor, ...]  # each in [0, 1]; each may be perturbed, in a ball of its own
    targets: dict[str, Tensor] = field(default_factory=dict)  # all else, never perturbed


@dataclass(frozen=True)
class Loss:
    """What an objective says of its inputs."""

    value: Tensor  # scalar, float32
    logits: tuple[Tensor, ...] = ()  # each (B, ..., K) float32, for divergences; empty where any task has none
    metrics: dict[str, Tensor] = field(default_factory=dict)  # scalars without gradient; "accuracy" selects epochs
    penalty: Tensor | float = 0.0  # the weighted diversity term, kept apart
    labels: tuple[Tensor, ...] = ()  # beside each logits, (B, ...) int64: what they should rank first; -1: none
    weights: tuple[float, ...] = ()  # beside each logits, of their loss, a mean over B, in ``value``; empty: 1 each

    @property
    def total(self) -> Tensor:
        """What is minimised over parameters and maximised over inputs: value + penalty."""
        return self.value + self.penalty


class Encoder(nn.Module, ABC):
    """θ_p, shared by all tasks: normalisation, stem, and every stage but the last ("stem to stage 3")."""

    channels: int  # width of the feature map that forward() returns
    features: int  # width of the vector that tail() ends in
    multiple: int  # sides of inputs must be multiples of this: 1 for convolutions, the patch size for a ViT
    data: DataFacts  # what the encoder was made for

    @abstractmethod
    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Feature map (B, channels, h, w) of images in [0, 1]; smaller sides than the data's are allowed."""

    @abstractmethod
    def tail(self) -> nn.Module:
        """A last stage of the caller's own, norm and pooling, (B, channels, h, w) -> (B, features): as initialised."""


class Classifier(nn.Module, ABC):
    """Encoder, last stage and linear head: images in [0, 1] (B, C, H, W) -> logits (B, K)."""

    encoder: Encoder
    tail: nn.Module
    head: nn.Linear

    @abstractmethod
    def fresh(self) -> list[nn.Parameter]:
        """θ_f, what trains on what was loaded: the head, a last stage that no task had, a stem that no weights fit.

        None of an encoder that is random as a whole (P1). Known by identity: a renamed parameter stays what it is.
        """


class Task(nn.Module):
    """Views and a loss; its own parameters and buffers are θ_pc, and what build() freezes never trains.

    In the hooks, the last three methods, encoder and task are in eval mode, without gradients, and the encoder is left
    alone; ``data`` is every image, not augmented, those to validate on with label -1. Losses are finite before them.
    """

    def views(self, batch: Batch, generator: Generator) -> Views:
        """What is fed to :meth:`loss`, a function of the batch, the task's buffers and the generator alone."""
        raise NotImplementedError

    def freeze(self, encoder: Any, views: Views) -> Views:
        """Called once before an attack, without gradients: compute into ``targets`` what no perturbation changes."""
        return views

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        """The loss at ``inputs``, which stand where ``views().inputs`` stood; mean over the batch."""
        raise NotImplementedError

    def attacked(self, encoder: Any, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        """What is ascended within ``attacking()``, if not :meth:`loss`; with logits and labels where that has them."""
        return self.loss(encoder, inputs, targets)

    def prepare(self, encoder: Any, data: Iterable[Batch], generator: Generator) -> None:
        """Once before the first epoch: fill buffers that build() sized."""

    def before_epoch(self, encoder: Any, data: Iterable[Batch], generator: Generator) -> None:
        """Before each epoch: clusters, core sets."""

    def after_step(self, encoder: Any, batch: Batch, inputs: tuple[Tensor, ...], views: Views) -> None:
        """After each optimiser step, on ``inputs`` in the place of ``views.inputs``: queues, centres, teachers."""


class PretextTask(Task):
    """A self-supervised task. Make its heads in :meth:`build`; ``self.tail = encoder.tail()`` if it has a stage 4."""

    name: ClassVar[str]
    branches: ClassVar[tuple[str, ...]] = ("main",)  # BatchNorm branches; the first is the one that is fine-tuned
    tail: nn.Module | None  # fine-tuning starts from it where there is one

    def __init__(self) -> None:
        super().__init__()
        self.register_module("tail", None)  # a class attribute would hide the module that build() sets

    def build(self, encoder: Encoder) -> None:
        """Make the heads, for ``encoder.channels``, ``.features`` and ``.data``; ValueError where it cannot work."""


class Objective(ABC):
    """All that a defense sees: one loss over a tuple of inputs. Core makes it."""

    inputs: tuple[Tensor, ...]  # the unperturbed inputs of all members in order
    index: Tensor  # (B,) int64, the images' places among the training images, the validation part included
    stage: Literal["pretrain", "finetune"]  # for options whose default differs by stage
    progress: float  # share of the stage's training done, in [0, 1); 1 where it is validated
    carried: tuple[Tensor, ...] = ()  # what :meth:`Defense.carry` gave last, zeros at first; () where it is validated

    @abstractmethod
    def __call__(self, inputs: tuple[Tensor, ...], *, penalty: bool = True) -> Loss:
        """Sum of the members' losses at ``inputs``, plus the diversity term unless ``penalty`` is false."""

    @abstractmethod
    def attacking(self, mode: Literal["train", "eval"] = "train") -> AbstractContextManager[None]:
        """Within: no parameter gradients, statistics held, freeze() done, modules as they train or all in eval mode."""

    @abstractmethod
    def holding_statistics(self) -> AbstractContextManager[None]:
        """BatchNorm's running statistics do not move within."""

    @abstractmethod
    def parameters(self) -> dict[str, Tensor]:
        """The parameters that train, by name; within :meth:`at`, the values given there."""

    @abstractmethod
    def at(self, parameters: dict[str, Tensor]) -> AbstractContextManager[None]:
        """Within, the parameters have these values, by name; gradients reach them, the others stay. Contexts nest."""


class Defense:
    """Turns an objective into a training loss, by default the standard one; around another it takes over its flags."""

    name: ClassVar[str]
    adversarial: bool = True  # stages under it choose their epoch by robust accuracy, else by clean accuracy
    noise: float = 0.0  # standard deviation of the Gaussian noise it trains on, pixels in [0, 1]: certificates need it
    replays: int = 1  # training steps in a row on the views of a batch

    def attack(self, objective: Objective, generator: Generator) -> tuple[Tensor, ...]:
        """Detached inputs to train on, as many as ``objective.inputs``; keep nothing on self from step to step."""
        return objective.inputs

    def loss(self, objective: Objective, inputs: tuple[Tensor, ...], generator: Generator) -> Loss:
        """What is minimised, at what attack() returned; advss.errors.UsageError where needed logits are missing."""
        return objective(inputs)

    def carry(self, objective: Objective, inputs: tuple[Tensor, ...], grads: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """``carried`` of the next step, one for each input and of its shape, from the training loss's gradients."""
        return ()


@dataclass(frozen=True)
class Phase:
    """A part of fine-tuning. ``groups`` as for torch optimisers, ``lr_scale`` allowed; all other parameters stand."""

    share: float  # of the stage's epochs
    groups: list[dict[str, Any]]


class FinetuneScheme(Task):
    """What of a classifier trains, and on which loss: by default cross-entropy. Here ``encoder`` is the classifier."""

    name: ClassVar[str]
    label_smoothing: float = 0.0  # of the loss: the share of each label that is spread over all classes

    def build(self, classifier: Classifier) -> None:
        """Make extra heads, as modules of this scheme."""

    def phases(self, classifier: Classifier) -> list[Phase]:
        """Which parameters train for which share of the epochs; a subtree with none stands in eval, statistics too."""
        raise NotImplementedError

    def deployed(self, classifier: Classifier) -> dict[str, Tensor]:
        """The state dict of a classifier without build() that answers as this one does: what is kept and validated."""
        return classifier.state_dict()

    def views(self, batch: Batch, generator: Generator) -> Views:
        """The images and their labels."""
        return Views((batch.x,), {"label": batch.label})

    def loss(self, encoder: Classifier, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        """Cross-entropy of the classifier's logits, to labels smoothed by ``label_smoothing``."""
        logits_BK, label = encoder(inputs[0]).float(), targets["label"]
        value = F.cross_entropy(logits_BK, label, label_smoothing=self.label_smoothing)
        return Loss(value, (logits_BK,), {"accuracy": accuracy(logits_BK, label)}, labels=(label,))


@hookspec
def advss_pretext_tasks() -> list[type[PretextTask]]:  # type: ignore[empty-body]
    """Return the pretext tasks of this distribution."""


@hookspec
def advss_defenses() -> list[type[Defense]]:  # type: ignore[empty-body]
    """Return the defenses of this distribution."""


@hookspec
def advss_finetune_schemes() -> list[type[FinetuneScheme]]:  # type: ignore[empty-body]
    """Return the fine-tuning schemes of this distribution."""


@hookspec
def advss_datasets() -> list[type[DataSource]]:  # type: ignore[empty-body]
    """Return the data sources of this distribution."""


@hookspec
def advss_evaluations() -> list[type[Evaluation]]:  # type: ignore[empty-body]
    """Return the evaluations of this distribution."""


@hookspec
def advss_launchers() -> list[type[Launcher]]:  # type: ignore[empty-body]
    """Return the launchers of this distribution."""
