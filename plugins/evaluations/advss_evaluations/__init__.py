"""The evaluations that come with advss, one file each."""

from __future__ import annotations

from advss.hookspecs import Evaluation, hookimpl

advss_api = (1, 0)


@hookimpl
def advss_evaluations() -> list[type[Evaluation]]:
    """Accuracy on clean images, under PGD, and certified; the examples that PGD makes."""
    from advss_evaluations.certify import Certify
    from advss_evaluations.clean import Clean
    from advss_evaluations.examples import Examples
    from advss_evaluations.pgd import PGD

    return [Clean, PGD, Certify, Examples]
