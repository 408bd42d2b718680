"""The defenses that come with advss, one file each."""

from __future__ import annotations

from advss.hookspecs import Defense, hookimpl

advss_api = (1, 0)


@hookimpl
def advss_defenses() -> list[type[Defense]]:
    """Standard training and PGD adversarial training."""
    from advss_defenses.none import NoDefense
    from advss_defenses.pgd import PGD

    return [NoDefense, PGD]
