"""Unforeseen attacks: not bounded by an ℓp ball of pixels, or by one that no training had in mind.

Kang et al. 2019 (arXiv 1908.08016) and ImageNet-UA (Kaufmann et al. 2023, the second version of the same paper), as in
their released code: github.com/ddkang/advex-uar, fd9e0ef, and github.com/centerforaisafety/adversarial-corruptions,
772509b. Every attack ascends the loss over variables of its own, from which it makes images.
"""

from __future__ import annotations

from advss.unforeseen.attack import Attack, examples, wrong_class
from advss.unforeseen.published import FAMILIES, FOLLOWED, SIDES, SLIPS, STRENGTHS, Family, Published

__all__ = [
    "FAMILIES",
    "FOLLOWED",
    "SIDES",
    "SLIPS",
    "STRENGTHS",
    "Attack",
    "Family",
    "Published",
    "examples",
    "wrong_class",
]
