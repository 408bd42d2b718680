"""advss: adversarial self-supervised pretraining and fine-tuning of image classifiers.

``fit``, ``evaluate``, ``study``, ``load_model``, ``load_encoder`` and ``load_data`` are the Python side of the command
line; plugins are written against :mod:`advss.hookspecs`. Importing this package imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advss.api import evaluate, fit, load_data, load_encoder, load_model, study

__all__ = ["evaluate", "fit", "load_data", "load_encoder", "load_model", "study"]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__", "hookspecs"])


def __getattr__(name: str) -> Any:
    if name in __all__:
        from advss.threads import settle

        settle()  # before torch is loaded
        from advss import api

        return getattr(api, name)
    if name == "__version__":
        from importlib.metadata import version

        return version("advss")
    raise AttributeError(f"module 'advss' has no attribute '{name}'")
