"""AutoAttack: attacks without a step size, one after another, each on what still stands (Croce and Hein 2020, 2021).

The versions are those of the released code (github.com/fra31/auto-attack, a392200). Letters: B images of a chunk, N of
a measurement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from advss.attacks import Norm, Threat
from advss.attacks.apgd import APGD
from advss.attacks.fab import FAB
from advss.attacks.flags import FLAGS, flags
from advss.attacks.passes import Part, Passes
from advss.attacks.square import Square
from advss.errors import did_you_mean
from advss.hookspecs import Evaluation
from advss.measuring import Answers, Measured, Victim

VERSIONS: Mapping[str, tuple[str, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
LEAST_CLASSES = {"apgd-ce": 2, "apgd-dlr": 3, "apgd-t": 4, "fab": 2, "fab-t": 2, "square": 2}
TARGETED = ("apgd-t", "fab-t")
CHECKS = "checks"
PIECES, QUERIES = 10, 500  # of Square's one run: its parts, and the queries of each
STANDS, WRONG = -1, -2  # felled_by of an image that stands, and of one that is wrong unperturbed
BELOW = 0.002  # Square takes more than this share of the images from all others
LINES = {
    "randomness": "the answers for {} of {} images change from pass to pass: say --autoattack.version rand",
    "softmax": "the model gives probabilities, of which gradients vanish where it is sure: measure it without softmax",
    "gradients-inside": "the model takes gradients in its own forward pass, which AutoAttack is not made for: "
    "RA may be too high",
    "zero-gradients": "the gradient is zero or not finite for {} of {} images, which APGD and FAB then cannot attack: "
    "RA may be too high",
    "square": "Square, which needs no gradients, took {:.2f} points of accuracy that the other attacks left: "
    "gradients mislead, RA may be too high",
}


class AutoAttack(Evaluation):
    """Accuracy under AutoAttack: APGD, FAB and Square, and which of them felled each image.

    Args:
        version: standard; plus, with more restarts and untargeted attacks; rand, for a model whose answers are random;
            custom, the attacks said.
        attacks: of custom alone, in order: apgd-ce, apgd-dlr, apgd-t, fab, fab-t, square; each with the restarts,
            targets, steps and queries of standard.
        norm: shape of the ball around each image; null is --eval-norm.
        eps: its radius, pixels in [0, 1]; null is --eval-eps.
    """

    name = "autoattack"

    def __init__(
        self,
        *,
        version: Literal["standard", "plus", "rand", "custom"] = "standard",
        attacks: tuple[str, ...] = (),
        norm: Norm | None = None,
        eps: float | None = None,
    ) -> None:
        self.version, self.threat = version, Threat(norm=norm or "linf", eps=eps)
        self.attacks = VERSIONS[version] if version != "custom" else _chosen(attacks)
        if version != "custom" and attacks:
            raise ValueError(f"attacks must be left out, got {','.join(attacks)}: version {version} has its own")

    def title(self) -> str:
        """``AutoAttack standard ℓ∞ 8/255``."""
        attacks = f" ({', '.join(self.attacks)})" if self.version == "custom" else ""
        return f"AutoAttack {self.version}{attacks} {self.threat}"

    def check(self, model: Victim) -> None:
        """ValueError where no attack is left for so few classes."""
        classes = len(model.classes)
        if not self._fitting(classes):
            least = min(LEAST_CLASSES[attack] for attack in self.attacks)
            raise ValueError(f"{', '.join(self.attacks)} needs at least {least} classes, the model has {classes}")

    def parts(self, classes: int) -> Sequence[str]:
        """Checks, and every restart or target of each attack: ``apgd-ce/1``, ``apgd-t/1``, ``apgd-t/2``."""
        fitting = self._fitting(classes)
        return (CHECKS, *(f"{attack}/{run}" for attack in fitting for run in range(1, 1 + self._runs(attack, classes))))

    def measure_part(
        self, part: str, before: Answers, model: Victim, x_BCHW: Tensor, label_B: Tensor, generator: Generator
    ) -> Answers:
        """Which images are right and which still stand, ``felled_by`` a place in ``attacks``, and the flags raised."""
        if part == CHECKS:
            right_B, flags_B4 = flags(model, x_BCHW, label_B, self.threat, generator)
            fell_B = torch.where(right_B, STANDS, WRONG)
            return {"ta": right_B, "ra": right_B, "felled_by": fell_B, "flags": flags_B4}
        attack, run = part.split("/")
        found, stands_B = dict(before), before["ra"]
        best = found.pop("best", None)  # of Square, from piece to piece
        if stands_B.any():
            given = model, x_BCHW, label_B, self.threat, generator
            if attack == "square":
                square, done = Square(queries=QUERIES), QUERIES * (int(run) - 1)
                made, best = square.piece(*given, standing_B=stands_B, best_BCHW=best, done=done)
            else:
                made = self._attack(attack, int(run))(*given, standing_B=stands_B)
            felled_B = _wrong(model, x_BCHW, made, label_B)
            found["ra"] = stands_B & ~felled_B
            found["felled_by"] = found["felled_by"].where(~felled_B, self.attacks.index(attack))
        if attack == "square" and int(run) < PIECES and best is not None:
            found["best"] = best
        return found

    def figures(self, measured: Measured) -> dict[str, Any]:
        """By attack how many images fell and the accuracy after it; what was left out, and what makes RA doubtful."""
        classes, count, felled_N = len(measured.classes), len(measured.label), measured.answers["felled_by"]
        felled = {a: int((felled_N == place).sum()) for place, a in enumerate(self.attacks)}
        stand, cumulated = int((felled_N != WRONG).sum()), dict[str, float]()
        for attack in self._fitting(classes):
            stand -= felled[attack]
            cumulated[attack] = stand / count
        doubts = self._doubts(measured.answers["flags"], cumulated)
        notes = [*self._left_out(classes), *doubts.values()]
        return {"felled": felled, "cumulated": cumulated, "doubts": list(doubts), "notes": notes}

    def in_words(self, name: str) -> str:
        """``apgd-t 3``: the third target of it."""
        return "checks of gradients" if name == CHECKS else super().in_words(name).replace("/", " ")

    def _fitting(self, classes: int) -> list[str]:
        return [attack for attack in self.attacks if classes >= LEAST_CLASSES[attack]]

    def _runs(self, attack: str, classes: int) -> int:
        """Restarts, targets or pieces."""
        sparse = self.threat.norm == "l1" and self.version in ("standard", "custom")
        if attack == "square":
            return PIECES
        if attack in TARGETED:
            return min(5 if sparse and attack == "apgd-t" else 9, classes - 1)
        return 5 if self.version == "plus" or (sparse and attack == "apgd-ce") else 1

    def _attack(self, attack: str, run: int) -> Part:
        averaged = 20 if self.version == "rand" else 1
        match attack:
            case "apgd-ce":
                return APGD(loss="ce", averaged=averaged)
            case "apgd-dlr":
                return APGD(loss="dlr", averaged=averaged)
            case "apgd-t":
                return APGD(loss="targeted", targets=(run,))
            case "fab":
                return FAB(targeted=False, random_start=run > 1)
            case _:
                return FAB(targets=(run,))

    def _left_out(self, classes: int) -> list[str]:
        out = [f"{a}, which needs {LEAST_CLASSES[a]}" for a in self.attacks if a not in self._fitting(classes)]
        some = [a for a in self._fitting(classes) if a in TARGETED and self._runs(a, classes) < self._runs(a, 10)]
        aims = [f"{a} aims at {self._runs(a, classes)} wrong ones, not {self._runs(a, 10)}" for a in some]
        said = [f"without {one}" for one in out] + aims
        return [f"the model has {classes} classes: {'; '.join(said)}"] if said else []

    def _doubts(self, flags_N4: Tensor, cumulated: Mapping[str, float]) -> dict[str, str]:
        """What makes RA doubtful: its name, and a line."""
        counts = dict(zip(FLAGS, flags_N4.sum(0).tolist(), strict=True))
        raised = [flag for flag, count in counts.items() if count]
        if counts["softmax"] < len(flags_N4):  # one image's logits may look so
            raised = [flag for flag in raised if flag != "softmax"]
        if self.version == "rand":
            raised = [flag for flag in raised if flag != "randomness"]
        doubts = {flag: LINES[flag].format(counts[flag], len(flags_N4)) for flag in raised}
        others = [accuracy for attack, accuracy in cumulated.items() if attack != "square"]
        if "square" in cumulated and others and (gap := min(others) - cumulated["square"]) > BELOW:
            doubts["square"] = LINES["square"].format(100 * gap)
        return doubts


def _chosen(attacks: tuple[str, ...]) -> tuple[str, ...]:
    """Those of custom."""
    if not attacks:
        raise ValueError(f"attacks must be said for version custom, of {', '.join(LEAST_CLASSES)}")
    for attack in attacks:
        if attack not in LEAST_CLASSES:
            raise ValueError(f"attacks has none called '{attack}'{did_you_mean(attack, LEAST_CLASSES)}")
        if attacks.count(attack) > 1:
            raise ValueError(f"attacks must each be named once, got {attack} {attacks.count(attack)} times")
    return attacks


def _wrong(model: Victim, x_BCHW: Tensor, made_BCHW: Tensor, label_B: Tensor) -> Tensor:
    """Which examples differ from their image and are wrong once more, which an answer by chance is not."""
    wrong_B = (made_BCHW != x_BCHW).flatten(1).any(1)
    if wrong_B.any():  # a network need not take none
        wrong_B[wrong_B.clone()] = ~Passes(model).right(made_BCHW[wrong_B], label_B[wrong_B])
    return wrong_B
