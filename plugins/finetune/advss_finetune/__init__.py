"""The fine-tuning schemes that come with advss, one file each."""

from __future__ import annotations

from advss.hookspecs import FinetuneScheme, hookimpl

advss_api = (1, 0)


@hookimpl
def advss_finetune_schemes() -> list[type[FinetuneScheme]]:
    """Partial and full fine-tuning."""
    from advss_finetune.full import Full
    from advss_finetune.partial import Partial

    return [Partial, Full]
