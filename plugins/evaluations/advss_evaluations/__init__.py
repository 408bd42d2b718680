"""The evaluations that come with advss, one file each."""

from __future__ import annotations

from advss.hookspecs import Evaluation, hookimpl

advss_api = (1, 0)


@hookimpl
def advss_evaluations() -> list[type[Evaluation]]:
    """Accuracy clean, under PGD and over its strength, AutoAttack and unforeseen attacks, certified; examples."""
    from advss_evaluations.autoattack import AutoAttack
    from advss_evaluations.certify import Certify
    from advss_evaluations.clean import Clean
    from advss_evaluations.corruptions import Corruptions
    from advss_evaluations.examples import Examples
    from advss_evaluations.gallery import Gallery
    from advss_evaluations.pgd import PGD
    from advss_evaluations.strength import Strength
    from advss_evaluations.unforeseen import Unforeseen

    return [Clean, PGD, AutoAttack, Certify, Corruptions, Examples, Gallery, Strength, Unforeseen]
