"""What all unforeseen attacks share: variables, images made of them, and the ascent.

Letters: B images of a chunk, C H W their channels and sides, S the side of a square one, K classes, L
layers, k the side of a kernel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from scipy.fft import next_fast_len
from torch import Generator, Tensor, nn

from advss.attacks.balls import by_image
from advss.attacks.passes import gradient_by


class Attack(ABC):
    """An attack on the images of one chunk: variables z, with a row an image, and how images are made of them.

    Whatever else it draws, such as the shapes of flakes, it draws once, when it is made.

    Args:
        x_BCHW: square RGB images in [0, 1].
        eps: bound of the variables, in the attack's published unit.
        steps: of the ascent.
        step_size: of one step, in the variables' unit.
        generator: of all draws, on the images' device.
    """

    def __init__(self, x_BCHW: Tensor, *, eps: float, steps: int, step_size: float, generator: Generator) -> None:
        self.x, self.eps, self.steps, self.step_size = x_BCHW.detach(), eps, steps, step_size
        self.generator, self.side = generator, x_BCHW.shape[-1]

    @abstractmethod
    def start(self) -> Tensor:
        """The variables at first (B, ...), drawn."""

    @abstractmethod
    def apply(self, z: Tensor, step: int) -> Tensor:
        """Images (B, C, H, W) of the variables after ``step`` steps."""

    def project(self, z: Tensor) -> Tensor:
        """The variables brought back into their bounds."""
        return z.clamp(-self.eps, self.eps)

    def ascend(self, z: Tensor, gradient: Tensor, step: int) -> Tensor:
        """The variables after step number ``step``, from 0: along the gradient's sign, then into the bounds."""
        return self.project(z + self.step_size * gradient.sign())

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform draws, the same numbers in any dtype of the images."""
        drawn = torch.empty(shape, device=self.x.device).uniform_(low, high, generator=self.generator)
        return drawn.to(self.x.dtype)

    def whole(self, *shape: int, below: int) -> Tensor:
        """Whole numbers from 0 to before ``below``, int64."""
        return torch.randint(below, shape, device=self.x.device, generator=self.generator)


def examples(attack: Attack, model: nn.Module, class_B: Tensor, *, targeted: bool) -> Tensor:
    """The images after the last step (B, C, H, W), detached; the loss is the cross-entropy.

    Args:
        attack: on the images.
        model: images to logits (B, K).
        class_B: what the images are driven away from; ``targeted``, towards.
        targeted: the loss is descended.
    """
    z, sign = attack.start(), -1 if targeted else 1
    for step in range(attack.steps):
        z = z.detach().requires_grad_()
        with torch.enable_grad():
            loss_B = sign * F.cross_entropy(model(attack.apply(z, step)), class_B, reduction="none")
            gradient = gradient_by(loss_B, z)  # an image's own: those of a mean would hang on the chunk's size
        with torch.no_grad():
            z = attack.ascend(z.detach(), gradient, step)
    with torch.no_grad():
        return attack.apply(z, attack.steps)


def wrong_class(label_B: Tensor, classes: int, generator: Generator) -> Tensor:
    """A class of each image other than its own, uniform among them."""
    aside_B = torch.randint(classes - 1, label_B.shape, device=label_B.device, generator=generator)
    return (label_B + 1 + aside_B) % classes


def within_l2(z: Tensor, radius: float) -> Tensor:
    """Each image's variables, shortened to ``radius`` where they are longer."""
    length_B = z.flatten(1).norm(dim=1).clamp_min(1e-12)
    return z * by_image((radius / length_B).clamp_max(1), z)


def laid(planes_BLSS: Tensor, kernels_BLkk: Tensor) -> Tensor:
    """Kernels laid at each place of planes, times the plane's value there, added up over L: (B, S, S).

    As ``conv2d`` has it, since all kernels here look the same upside down; by Fourier transforms, as they are large.
    """
    side, size = planes_BLSS.shape[-1], kernels_BLkk.shape[-1]
    length = next_fast_len(side + size - 1, real=True)
    waves = torch.fft.rfft2(planes_BLSS, (length, length)) * torch.fft.rfft2(kernels_BLkk, (length, length))
    first = size // 2
    whole: Tensor = torch.fft.irfft2(waves.sum(1), (length, length))
    return whole[..., first : first + side, first : first + side]


def snowy(x_BCHW: Tensor, share: float) -> Tensor:
    """Images on their way to a pale grey, by ``share``, as both attacks by snow have them under the flakes."""
    red, green, blue = x_BCHW.unbind(1)
    grey_B1HW = (0.2126 * red + 0.7152 * green + 0.0722 * blue)[:, None]
    return (1 - share) * x_BCHW + share * torch.maximum(x_BCHW, 1.5 * grey_B1HW + 0.5)
