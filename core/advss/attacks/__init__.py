"""Attacks: maximise an objective over its inputs, inside a ball and inside [0, 1]."""

from advss.attacks.gradient import Norm, maximise

__all__ = ["Norm", "maximise"]
