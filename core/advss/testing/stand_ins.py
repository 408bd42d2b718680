"""What a plugin is tried on: a small encoder, six images, and two small tasks for defenses.

B batch, C channels, H W the image's sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from advss.hookspecs import Batch, DataFacts, Encoder, Loss, PretextTask, Views, accuracy
from advss.models.encoder import use_branches
from advss.randomness import global_stream, stream

B = 6  # no multiple of the number of classes
FACTS = DataFacts(images=4 * B, side=32, channels=3, classes=4)
WIDTH = 48  # divisible by the usual numbers of attention heads


class SmallEncoder(Encoder):
    """Three convolutions with BatchNorm in train mode, (B, 3, H, W) -> (B, 48, H/4, W/4); the same at every call."""

    def __init__(self, branches: Sequence[str] = ("main",)) -> None:
        super().__init__()
        self.channels, self.features, self.multiple, self.data = WIDTH, WIDTH, 1, FACTS
        self._branches = tuple(branches)
        with global_stream("cpu", "encoder"):
            stages = nn.Sequential(*_stage(3, 16, stride=1), *_stage(16, 32, stride=2), *_stage(32, WIDTH, stride=2))
        self.stages = use_branches(stages, self._branches)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Feature map (B, 48, H/4, W/4) of images in [0, 1]."""
        features: Tensor = self.stages((x_BCHW - 0.5) / 0.25)
        return features

    def tail(self) -> nn.Module:
        """A fresh last stage: one more convolution, and the mean over space."""
        tail = nn.Sequential(*_stage(WIDTH, WIDTH, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return use_branches(tail, self._branches)


def _stage(given: int, made: int, *, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(given, made, 3, stride, padding=1, bias=False), nn.BatchNorm2d(made), nn.ReLU()]


def every_batch() -> Iterator[Batch]:
    """Every image of the pretended data set once, in order, not augmented."""
    x = torch.rand(FACTS.images, FACTS.channels, FACTS.side, FACTS.side, generator=stream("cpu", "images"))
    x = x * torch.linspace(0.1, 1, FACTS.images).view(-1, 1, 1, 1)  # dark to bright, so that losses differ
    index = torch.arange(FACTS.images)
    for place in range(0, FACTS.images, B):
        part = slice(place, place + B)
        yield Batch(x[part], x[part].clone(), index[part], index[part] % FACTS.classes)


def one_batch() -> Batch:
    """A batch of B of these images, out of order, whose augmented images are mirrored."""
    x, raw, index, label = (torch.cat(parts) for parts in zip(*map(_fields, every_batch()), strict=True))
    chosen = torch.randperm(FACTS.images, generator=stream("cpu", "order"))[:B]
    return Batch(x[chosen].flip(3), raw[chosen], index[chosen], label[chosen], progress=0.25)


def _fields(batch: Batch) -> tuple[Tensor, ...]:
    return batch.x, batch.raw, batch.index, batch.label


class Mirror(PretextTask):
    """Has the image been mirrored? With dropout, so that modes and random streams matter.

    Args:
        logits: whether it gives them, as divergences need.
        labels: whether it gives them too, as margins need.
    """

    name = "mirror"

    def __init__(self, *, logits: bool = True, labels: bool = True) -> None:
        super().__init__()
        self.logits, self.told = logits, labels and logits

    def build(self, encoder: Encoder) -> None:
        """Dropout and a linear layer on the mean of the feature map."""
        self.drop, self.head = nn.Dropout(0.2), nn.Linear(encoder.channels, 2)

    def views(self, batch: Batch, generator: Generator) -> Views:
        """The images, half of them mirrored."""
        label = torch.randint(2, (len(batch.x),), generator=generator, device=batch.x.device)
        return Views((torch.where(label.view(-1, 1, 1, 1) == 1, batch.x.flip(3), batch.x),), {"label": label})

    def loss(self, encoder: Encoder, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        """Cross-entropy; without logits where the option says so."""
        logits = self.head(self.drop(encoder(inputs[0]).mean((2, 3)))).float()
        label = targets["label"]
        said, told = (logits,) if self.logits else (), (label,) if self.told else ()
        return Loss(F.cross_entropy(logits, label), said, {"accuracy": accuracy(logits, label)}, labels=told)


class TwoSizes(Mirror):
    """The same of an image and of its middle: two inputs of different sizes."""

    name = "two-sizes"

    def views(self, batch: Batch, generator: Generator) -> Views:
        """The images of :class:`Mirror`, and their middle."""
        views = super().views(batch, generator)
        quarter = FACTS.side // 4
        (x,) = views.inputs
        return Views((x, x[:, :, quarter:-quarter, quarter:-quarter]), views.targets)

    def loss(self, encoder: Encoder, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        """Both losses added."""
        whole, middle = (Mirror.loss(self, encoder, (x,), targets) for x in inputs)
        labels = whole.labels + middle.labels
        return Loss(whole.value + middle.value, whole.logits + middle.logits, whole.metrics, labels=labels)
