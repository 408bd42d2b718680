"""Label smoothing (Szegedy et al. 2016, section 7), an option that all schemes here have."""

from __future__ import annotations


def check_label_smoothing(share: float) -> float:
    """``share``, where it leaves the right class any weight.

    Raises:
        ValueError: it is not in [0, 1).
    """
    if not 0 <= share < 1:  # nan too
        raise ValueError(f"label_smoothing must be in [0, 1), got {share}")
    return share
