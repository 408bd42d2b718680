"""Unforeseen attacks (Kang et al. 2019; ImageNet-UA 2023): accuracy over eps, and UAR where it is defined.

UAR of an attack is 100 times the sum of the accuracies over its six radii over that of the ATA, accuracies of networks
that were adversarially trained against each (Kang et al., section 3.3). Letters: B images of a chunk, N of a
measurement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Generator, Tensor

from advss.attacks.evaluation import answers
from advss.attacks.threat import length_text, whole
from advss.data.sources.cifar10c import CLASSES as CIFAR10
from advss.data.sources.groups import wnids
from advss.errors import did_you_mean
from advss.evaluations.pictures import OverEps, draw_over_eps, draw_radar
from advss.hookspecs import Evaluation
from advss.measuring import Answers, Measured, Victim
from advss.unforeseen import FAMILIES, FOLLOWED, SIDES, SLIPS, STRENGTHS, Published, examples, wrong_class

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLEAN = "ta"
WORDS = {"pgd": "PGD", "fw": "Frank-Wolfe", "jpeg": "JPEG", "linf": "ℓ∞", "l2": "ℓ2", "l1": "ℓ1"}


class Unforeseen(Evaluation):
    """Accuracy under attacks that no training had in mind, each at several radii; UAR for CIFAR-10 and ImageNet-100.

    Args:
        family: kang, ten attacks of Kang et al. 2019; ua, the eight core attacks of ImageNet-UA.
        attacks: which of them; of none said, all, but for those of kang that have no ATA at 32 pixels.
        side: of the images in pixels, 32 or 224: the attacks have constants and radii for no other.
        strength: of ua alone, which radii: low, medium, high; of none said, all.
        over_eps: radii in the place of the published ones, in the attack's own unit; of one attack alone.
        steps: of each attack; 0 is as published.
        targeted: towards a wrong class that is drawn; null is as published, of kang alone.
        slips: what is followed of the released code that it may not have meant; see the documentation.
        images: that are attacked at most, as many of each class; 0 is all.
    """

    name = "unforeseen"

    def __init__(  # noqa: PLR0913 - each is an option
        self,
        *,
        family: Literal["kang", "ua"] = "kang",
        attacks: tuple[str, ...] = (),
        side: Literal[32, 224] = 32,
        strength: tuple[str, ...] = (),
        over_eps: tuple[float, ...] = (),
        steps: int = 0,
        targeted: bool | None = None,
        slips: tuple[str, ...] = FOLLOWED,
        images: int = 200,
    ) -> None:
        self.family, self.side = family, side
        known = {name: sides[side] for name, sides in FAMILIES[family].attacks.items()}
        usual = [name for name, own in known.items() if own.ata or family == "ua"]
        self.attacks = {name: known[name] for name in _of("attacks", attacks, known) or usual}
        if strength and (family != "ua" or over_eps):
            raise ValueError("strength must be left out, it is of family ua with its published radii")
        self.strength = _of("strength", strength, STRENGTHS) or STRENGTHS
        if over_eps and len(self.attacks) != 1:
            raise ValueError("over_eps must be of one attack, say which by attacks: each has a unit of its own")
        self.over_eps = over_eps
        self.steps = whole("steps", steps) if steps else 0
        self.targeted = FAMILIES[family].targeted if targeted is None else targeted
        self.slips = _of("slips", slips, SLIPS)
        self.most = whole("images", images) if images else 0
        if len({f"{eps:g}" for eps in over_eps}) < len(over_eps):
            raise ValueError(f"over_eps must differ in their first six digits, got {', '.join(map(str, over_eps))}")

    @property
    def points(self) -> dict[str, tuple[str, float]]:
        """What is measured: attack and radius, by a name such as ``pgd_linf_8``, of ua ``wood_low``."""
        return {
            f"{name}_{label}": (name, eps)
            for name, own in self.attacks.items()
            for label, eps in self._radii(own).items()
        }

    def _radii(self, own: Published) -> dict[str, float]:
        """Radii by what they are called."""
        if self.family == "ua" and not self.over_eps:
            by_strength = dict(zip(STRENGTHS, own.eps, strict=True))
            return {label: by_strength[label] for label in self.strength}
        return {f"{eps:g}": eps for eps in self.over_eps or own.eps}

    def title(self) -> str:
        """``7 unforeseen attacks, kang``."""
        which = next(iter(self.attacks)) if len(self.attacks) == 1 else f"{len(self.attacks)} unforeseen attacks"
        steps = f", {self.steps} steps" if self.steps else ""
        aimed = ", targeted" if self.targeted else ", untargeted"
        return f"{which}, {self.family}{steps}" + (aimed if self.targeted != FAMILIES[self.family].targeted else "")

    def check(self, model: Victim) -> None:
        """ValueError where the images have another side."""
        if model.side and model.side not in SIDES:
            raise ValueError(f"its attacks are defined for images of 32 or 224 pixels, and these have {model.side}")
        if model.side and model.side != self.side:
            raise ValueError(f"side must be {model.side}, as the images have, got {self.side}")

    def passes(self, classes: int) -> int:
        """A step each, at every radius."""
        return sum((self.steps or self.attacks[name].steps) for name, _ in self.points.values())

    def parts(self, classes: int) -> Sequence[str]:
        """Each attack at each radius, and before them none."""
        return (CLEAN, *self.points)

    def measure_part(
        self, part: str, before: Answers, model: Victim, x_BCHW: Tensor, label_B: Tensor, generator: Generator
    ) -> Answers:
        """Which images are right after one attack more; those that are wrong unperturbed are attacked, too."""
        if part == CLEAN:
            with torch.no_grad():
                return {CLEAN: answers(model(x_BCHW)) == label_B}
        name, eps = self.points[part]
        own, shape = self.attacks[name], (3, self.side, self.side)
        if x_BCHW.shape[1:] != shape:
            raise ValueError(f"expected images of shape {shape}, got {tuple(x_BCHW.shape[1:])}")
        towards_B = wrong_class(label_B, len(model.classes), generator) if self.targeted else label_B
        attack = own.on(x_BCHW, eps, generator, steps=self.steps or own.steps, slips=self.slips)
        made_BCHW = examples(attack, model, towards_B, targeted=self.targeted)
        with torch.no_grad():
            return {**before, part: answers(model(made_BCHW)) == label_B}

    def figures(self, measured: Measured) -> dict[str, Any]:
        """``uar`` and that of each attack where there are ATA; of ua the mean accuracy at each strength."""
        means, uar = self._means(measured), self._uar(measured)
        notes = []
        if self.family == "kang" and not uar:
            notes.append(f"no UAR: {self._why_none(measured)}")
        figures = {**means, **{f"uar_{name}": value for name, value in uar.items()}}
        if uar:
            figures["uar"] = sum(uar.values()) / len(uar)
        return {**figures, "summary": self._summary(measured, figures), "notes": notes}

    def in_words(self, name: str) -> str:
        """``PGD ℓ∞ at eps 8``, ``wood low``, ``UAR elastic``."""
        if name in self.points:
            attack, eps = self.points[name]
            label = name.removeprefix(f"{attack}_")
            return f"{_words(attack)} {label if label in STRENGTHS else f'at eps {length_text(eps)}'}"
        if name.startswith("uar_"):
            return f"UAR {_words(name.removeprefix('uar_'))}"
        return super().in_words(name)

    def draw(self, measured: Measured) -> Mapping[str, Figure]:
        """Accuracy over eps of each attack, and from three attacks on a radar of UAR, or of mean accuracy."""
        uar = self._uar(measured)
        curves = [
            OverEps(_words(name), self._radii(own), self._by_eps(measured, name), own.ata if name in uar else ())
            for name, own in self.attacks.items()
        ]
        figures = {"over-eps": draw_over_eps(curves, measured.answers[CLEAN])}
        if len(self.attacks) > 2:
            figures["radar"] = draw_radar(self._radar(measured, uar), "UAR" if uar else "accuracy, %")
        return figures

    def _radar(self, measured: Measured, uar: Mapping[str, float]) -> dict[str, dict[str, float]]:
        """Lines of the radar: of ua one a strength."""
        if uar:
            return {"": {_words(name): value for name, value in uar.items()}}
        shares = {name: [100 * share for share in self._shares(measured, name)] for name in self.attacks}
        if self.family == "ua":
            return {
                label: {_words(name): shares[name][place] for name in shares}
                for place, label in enumerate(self.strength)
            }
        return {"mean over eps": {_words(name): sum(values) / len(values) for name, values in shares.items()}}

    def _by_eps(self, measured: Measured, attack: str) -> list[Tensor]:
        """Which images are right, at each radius."""
        return [measured.answers[point] for point, (name, _) in self.points.items() if name == attack]

    def _shares(self, measured: Measured, attack: str) -> list[float]:
        return [float(right_N.double().mean()) for right_N in self._by_eps(measured, attack)]

    def _means(self, measured: Measured) -> dict[str, float]:
        """Over the attacks, at each strength."""
        if self.family != "ua" or self.over_eps:
            return {}
        by_attack = [self._shares(measured, name) for name in self.attacks]
        return {
            f"mean_{label}": sum(shares) / len(shares)
            for label, shares in zip(self.strength, zip(*by_attack, strict=True), strict=True)
        }

    def _uar(self, measured: Measured) -> dict[str, float]:
        """By attack, in percent; none of what is not measured as its ATA were."""
        if self._why_none(measured):
            return {}
        return {
            name: 100 * 100 * sum(self._shares(measured, name)) / sum(own.ata)
            for name, own in self.attacks.items()
            if own.ata
        }

    def _why_none(self, measured: Measured) -> str:
        """Why there is no UAR; empty where there is one."""
        own = {32: CIFAR10, 224: tuple(wnids()[::10])}[self.side]
        if sorted(name.lower() for name in measured.classes) != sorted(own):
            return "it is defined by accuracies on CIFAR-10 and on ImageNet-100"
        if self.family != "kang" or self.over_eps or self.steps or not self.targeted:
            return "it is of targeted attacks with their published radii and steps"
        return "" if any(one.ata for one in self.attacks.values()) else "these attacks have no ATA at this side"

    def _summary(self, measured: Measured, figures: Mapping[str, float]) -> str:
        """TA, and what comes nearest to one number."""
        told = [f"TA {100 * float(measured.answers[CLEAN].double().mean()):.2f} %"]
        if "uar" in figures:
            told.append(f"UAR {figures['uar']:.1f}")
        elif figures:
            told += [f"{self.in_words(name)} {100 * value:.2f} %" for name, value in figures.items()]
        else:
            lows = {name: min(self._shares(measured, name)) for name in self.attacks}
            worst = min(lows, key=lows.__getitem__)
            told.append(f"least under {_words(worst)}, {100 * lows[worst]:.2f} %")
        return "; ".join(told)


def _words(attack: str) -> str:
    return " ".join(WORDS.get(word, word) for word in attack.split("_"))


def _of(option: str, said: Sequence[str], known: Mapping[str, Any] | Sequence[str]) -> tuple[str, ...]:
    """What was said, each once.

    Raises:
        ValueError: one is not known, or stands twice.
    """
    for one in said:
        if one not in known:
            raise ValueError(f"{option} has none called '{one}'{did_you_mean(one, known)}")
        if list(said).count(one) > 1:
            raise ValueError(f"{option} must each be named once, got {one} {list(said).count(one)} times")
    return tuple(said)
