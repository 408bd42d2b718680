"""Options of evaluations that take what ``--eval-...`` says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advss.attacks.threat import USUAL
from advss.config import EvalSettings

SHARED = ("norm", "eps", "step_size", "steps", "top_share", "restarts", "loss")


def filled(options: Mapping[str, Any], settings: EvalSettings) -> dict[str, Any]:
    """All options of an evaluation, those that are None and called as one of ``--eval-...`` as that says.

    Beside a norm of its own, lengths that are not said are the norm's usual ones, not those of ``--eval-norm``.
    """
    norm = options.get("norm") or settings.norm
    shared = {name: getattr(settings, name) for name in SHARED}
    if norm != settings.norm:
        shared |= dict.fromkeys(USUAL["l1"]) | dict(USUAL[norm])
    return {name: shared.get(name) if value is None else value for name, value in options.items()}
