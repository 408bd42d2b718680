"""What is published of each attack: radii, steps, constants by side, and the accuracies that UAR is measured by.

Kang et al.: advex_uar/analysis/calibrations/*/calibs.out. ImageNet-UA: models.sh, models/*/*_config.py and
attacks/attack_params_*.conf.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Generator, Tensor

from advss.unforeseen.attack import Attack
from advss.unforeseen.elastic import Elastic, ElasticUA
from advss.unforeseen.fog import Fog
from advss.unforeseen.gabor import Gabor, GaborUA
from advss.unforeseen.jpeg import JPEGL1, JPEGL2, JPEGUA, JPEGLinf
from advss.unforeseen.kaleidoscope import Kaleidoscope
from advss.unforeseen.pixel import Glitch, Pixel
from advss.unforeseen.pixels import PGDL2, FrankWolfeL1, PGDLinf
from advss.unforeseen.snow import Snow, SnowUA
from advss.unforeseen.wood import Wood

SIDES = (32, 224)  # of CIFAR-10 and ImageNet: others have no constants
STRENGTHS = ("low", "medium", "high")
OWN_STEP = 0.0022360  # of fog, gabor and snow of Kang et al., whatever eps and steps


@dataclass(frozen=True)
class Published:
    """One attack at one side.

    Attributes:
        make: the class.
        eps: radii, in the attack's unit.
        steps: of the ascent.
        step_size: of one; None is eps over the root of the steps.
        ata: accuracies in percent of networks that are adversarially trained against each radius; empty: none known.
        constants: arguments of the class.
        slips: what the released code may not have meant, by the name of its option: argument of the class.
    """

    make: type[Attack]
    eps: tuple[float, ...]
    steps: int = 200
    step_size: float | None = None
    ata: tuple[float, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    slips: Mapping[str, str] = field(default_factory=dict)

    def on(self, x_BCHW: Tensor, eps: float, generator: Generator, *, steps: int, slips: Collection[str]) -> Attack:
        """The attack on images (B, 3, S, S), with so many steps and those of its slips that are named."""
        step_size = eps / math.sqrt(steps) if self.step_size is None else self.step_size
        said = {argument: name in slips for name, argument in self.slips.items()}
        return self.make(
            x_BCHW, eps=eps, steps=steps, step_size=step_size, generator=generator, **self.constants, **said
        )


@dataclass(frozen=True)
class Family:
    """Attacks that were published together.

    Attributes:
        attacks: by name, at each side.
        targeted: towards a class that is drawn, not away from the image's own.
    """

    attacks: Mapping[str, Mapping[int, Published]]
    targeted: bool


# what the released code may not have meant: those that are followed without being named come first
SLIPS = {
    "jpeg-chroma": "jpeg of kang halves the chroma of the image, whatever eps",
    "jpeg-first": "jpeg of kang takes its first gradient elsewhere than where it is",
    "elastic-zoom": "elastic of ua enlarges the image without any flow",
    "glitch-shift": "glitch of ua moves the image by half a pixel without any slip",
    "fog-chunk": "fog of kang is scaled by the extremes of the whole chunk",
    "gabor-places": "gabor of kang changes the places that were not drawn",
}
FOLLOWED = ("jpeg-chroma", "jpeg-first", "elastic-zoom", "glitch-shift")

_JPEG = {"jpeg-chroma": "chroma", "jpeg-first": "first"}
_FOG = (128.0, 256.0, 512.0, 2048.0, 4096.0, 8192.0)
_GABOR = (6.25, 12.5, 25.0, 400.0, 800.0, 1600.0)
_SNOW = (0.0625, 0.125, 0.25, 2.0, 4.0, 8.0)
_KANG_32 = {
    "pgd_linf": Published(PGDLinf, (1, 2, 4, 8, 16, 32), ata=(90.95, 87.80, 81.59, 71.34, 46.50, 23.11)),
    "pgd_l2": Published(PGDL2, (40, 80, 160, 320, 640, 2560), ata=(90.06, 86.40, 79.60, 67.26, 49.89, 17.27)),
    "fw_l1": Published(
        FrankWolfeL1,
        (0.0634766, 0.1269531, 0.2539063, 0.5078125, 2.03125, 8.125),
        ata=(92.23, 90.02, 83.24, 73.83, 47.36, 35.33),
    ),
    "jpeg_linf": Published(
        JPEGLinf, (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1), ata=(89.75, 87.03, 83.12, 78.56, 69.71, 35.42), slips=_JPEG
    ),
    "jpeg_l2": Published(JPEGL2, (0.25, 0.5, 1, 2, 4, 8), ata=(92.18, 90.99, 88.42, 85.84, 81.25, 71.98), slips=_JPEG),
    "jpeg_l1": Published(
        JPEGL1, (2, 8, 64, 256, 512, 1024), ata=(91.42, 88.06, 80.21, 68.86, 56.33, 37.68), slips=_JPEG
    ),
    "elastic": Published(Elastic, (0.125, 0.25, 0.5, 1, 2, 8), ata=(87.38, 81.26, 72.09, 58.22, 45.45, 27.85)),
    "fog": Published(Fog, _FOG, step_size=OWN_STEP, slips={"fog-chunk": "together"}),
    "gabor": Published(Gabor, _GABOR, step_size=OWN_STEP, slips={"gabor-places": "swapped"}),
    "snow": Published(Snow, _SNOW, step_size=OWN_STEP),
}
_KANG_224 = {  # radii and ATA
    "pgd_linf": ((1, 2, 4, 8, 16, 32), (84.64, 82.12, 76.24, 66.90, 40.06, 12.88)),
    "pgd_l2": ((150, 300, 600, 1200, 2400, 4800), (85.02, 83.50, 79.60, 72.56, 59.14, 19.90)),
    # published as sums of all values
    "fw_l1": (
        tuple(total / (3 * 224**2) for total in (9562.5, 19125, 76500, 153000, 306000, 612000)),
        (84.38, 82.74, 76.26, 68.90, 56.44, 36.14),
    ),
    "jpeg_linf": ((0.0625, 0.125, 0.25, 0.5, 1, 2), (85.04, 83.24, 79.32, 72.76, 34.80, 1.10)),
    "jpeg_l2": ((8, 16, 32, 64, 128, 256), (84.78, 82.46, 78.94, 72.32, 47.46, 3.44)),
    "jpeg_l1": ((256, 1024, 4096, 16384, 65536, 131072), (84.76, 81.76, 76.22, 67.10, 46.38, 41.84)),
    "elastic": ((0.25, 0.5, 2, 4, 8, 16), (85.88, 83.18, 78.06, 75.64, 57.04, 22.54)),
    "fog": (_FOG, (85.82, 83.84, 78.98, 68.40, 67.88, 64.66)),
    "gabor": (_GABOR, (84.02, 79.84, 79.84, 66.22, 44.68, 14.60)),
    "snow": (_SNOW, (84.02, 81.14, 77.70, 65.62, 59.54, 41.20)),
}


def _ua(
    make: type[Attack], eps: tuple[float, ...], *at: tuple[int, float, Mapping[str, Any]], **more: Any
) -> Mapping[int, Published]:
    """An attack of ImageNet-UA: its steps, step size and constants at each side; the radii at 224 where they differ."""
    of_224, slips = more.get("of_224", eps), more.get("slips", {})
    return {
        side: Published(make, radii, steps, step_size, constants=constants, slips=slips)
        for side, radii, (steps, step_size, constants) in zip(SIDES, (eps, of_224), at, strict=True)
    }


FAMILIES: Mapping[str, Family] = {
    "kang": Family(
        {
            name: {32: own, 224: replace(own, eps=_KANG_224[name][0], ata=_KANG_224[name][1])}
            for name, own in _KANG_32.items()
        },
        targeted=True,
    ),
    "ua": Family(
        {
            "gabor": _ua(
                GaborUA,
                (0.02, 0.03, 0.04),
                (80, 0.0025, {"waves": 3}),
                (100, 0.0003125, {"waves": 5}),
                of_224=(0.02, 0.04, 0.06),
            ),
            "snow": _ua(
                SnowUA,
                (3, 4, 5),
                (20, 0.2, {"flake": 3, "grid": 10, "blur": 1}),
                (100, 0.1, {"flake": 15, "grid": 15, "blur": 3}),
                of_224=(10, 15, 25),
            ),
            "pixel": _ua(Pixel, (1, 5, 10), (60, 1, {"size": 4}), (100, 1, {"size": 16}), of_224=(3, 5, 10)),
            "jpeg": _ua(JPEGUA, (1 / 255, 3 / 255, 6 / 255), (50, 0.0024, {}), (80, 0.0024, {})),
            "elastic": _ua(
                ElasticUA,
                (0.1, 0.25, 0.5),
                (30, 0.006, {"factor": 2}),
                (100, 0.003, {"factor": 32}),
                slips={"elastic-zoom": "zoom"},
            ),
            "wood": _ua(
                Wood,
                (0.03, 0.05, 0.1),
                (70, 0.000625, {"rings": 5, "resolution": 16}),
                (80, 0.005, {"rings": 4, "resolution": 32}),
            ),
            "glitch": _ua(
                Glitch,
                (0.03, 0.05, 0.1),
                (60, 0.0025, {"lines": 16}),
                (90, 0.005, {"lines": 56}),
                of_224=(0.03, 0.05, 0.07),
                slips={"glitch-shift": "shift"},
            ),
            "kaleidoscope": _ua(
                Kaleidoscope,
                (0.05, 0.1, 0.15),
                (30, 0.005, {"shapes": 5, "size": 4, "seen": 0.2}),
                (90, 0.005, {"shapes": 40, "size": 15, "seen": 0.1}),
            ),
        },
        targeted=False,
    ),
}
