"""The defenses that come with advss, one file each."""

from __future__ import annotations

from advss.hookspecs import Defense, hookimpl

advss_api = (1, 0)


@hookimpl
def advss_defenses() -> list[type[Defense]]:
    """Standard training, adversarial training by PGD, TRADES and fast FGSM, and training on Gaussian noise."""
    from advss_defenses.fgsm_rs import FGSMRS
    from advss_defenses.none import NoDefense
    from advss_defenses.pgd import PGD
    from advss_defenses.smoothing import Smoothing
    from advss_defenses.trades import Trades

    return [NoDefense, PGD, Trades, FGSMRS, Smoothing]
