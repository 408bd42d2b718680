"""The form of what stands in result.json, where commands that read it count on one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Kind = type | tuple[type, ...]

TEXT, NUMBER, NONE = str, (int, float), type(None)
FORM: Mapping[str, Kind] = {
    **dict.fromkeys(("name", "status", "command", "defense", "data", "backbone"), TEXT),
    **dict.fromkeys(("source", "source_sha256", "doubt", "pretrain_data"), (TEXT, NONE)),
    **dict.fromkeys(("ta", "ra", "ta_all", "ra_images", "test_images", "best_epoch"), (*NUMBER, NONE)),
    **dict.fromkeys(("pretext", "members", "subsets"), list),
    **dict.fromkeys(
        ("finetune", "evaluations", "epochs", "seconds", "best_epochs", "best_metrics", "skipped_steps"), dict
    ),
    **dict.fromkeys(("ra_attack", "evaluation", "weights"), (dict, NONE)),
}
WITHIN: Mapping[str, Mapping[str, Kind]] = {  # what must stand there
    "finetune": {"scheme": TEXT, "defense": TEXT},
    "evaluation": {"file": TEXT, "checkpoint": TEXT, "evaluation": TEXT},
    "ra_attack": {"evaluation": TEXT, "title": TEXT},
}
OF_STAGES = ("epochs", "seconds")  # a number by stage


def misfit(content: Any) -> str:
    """What is not as it should be in what was read from result.json; empty where all is."""
    if not isinstance(content, dict):
        return f"it is {type(content).__name__}, not a mapping"
    wrong = [key for key, kind in FORM.items() if key in content and not isinstance(content[key], kind)]
    for key, form in WITHIN.items():
        inner = content.get(key)
        if isinstance(inner, dict):
            wrong += [f"{key}.{name}" for name, kind in form.items() if not isinstance(inner.get(name), kind)]
    for key in OF_STAGES:
        stages = content.get(key)
        if isinstance(stages, dict):
            wrong += [f"{key}.{name}" for name, value in stages.items() if not isinstance(value, NUMBER)]
    return f"{wrong[0]} is none that advss writes" if wrong else ""
