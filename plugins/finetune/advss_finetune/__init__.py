"""The fine-tuning schemes that come with advss, one file each."""

from __future__ import annotations

from advss.hookspecs import FinetuneScheme, hookimpl

advss_api = (1, 0)


@hookimpl
def advss_finetune_schemes() -> list[type[FinetuneScheme]]:
    """Partial and full fine-tuning, and full fine-tuning beside an auxiliary rotation loss."""
    from advss_finetune.full import Full
    from advss_finetune.partial import Partial
    from advss_finetune.rotation_aux import RotationAux

    return [Partial, Full, RotationAux]
