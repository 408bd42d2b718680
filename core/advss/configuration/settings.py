"""Settings by flag: names, types and ranges of everything in a run's configuration that is no component."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from advss.config import EvalSettings, RunConfig, StageSettings
from advss.errors import UsageError
from advss.naming import check_name
from advss.plugins.options import Option, convert, options_of

COMPONENTS = ("pretext", "defense", "finetune", "finetune-defense", "data", "pretrain-data", "backbone", "evaluate")
SEVERAL = ("pretext", "evaluate")  # of these any number may be chosen, none too
OF_DATA = {  # settings that stand among the options of a source
    "limit": "data.limit",
    "size": "data.size",
    "resize": "data.resize",
    "pretrain_data_limit": "pretrain-data.limit",
    "pretrain_data_size": "pretrain-data.size",
    "pretrain_data_resize": "pretrain-data.resize",
}
Section = Literal["pretrain", "finetune", "eval", "run"]


@dataclass(frozen=True)
class Setting:
    """One flag that is not a component's."""

    section: Section
    option: Option

    @property
    def flag(self) -> str:
        """As on the command line, without the leading hyphens."""
        if self.section == "run" and self.option.name in OF_DATA:
            return OF_DATA[self.option.name]
        prefix = "" if self.section == "run" else f"{self.section}-"
        return prefix + self.option.name.replace("_", "-")


def _settings() -> dict[str, Setting]:
    nested = {"pretraining", "finetuning", "evaluation"} | {c.replace("-", "_") for c in COMPONENTS}
    run = [Setting("run", o) for o in options_of(RunConfig) if o.name not in nested]
    stages = [Setting(s, o) for s in ("pretrain", "finetune") for o in options_of(StageSettings)]
    return {s.flag: s for s in [*run, *stages, *(Setting("eval", o) for o in options_of(EvalSettings))]}


SETTINGS = _settings()
MEASURING = tuple(f for f in SETTINGS if f.startswith("eval-") and not f.startswith("eval-valid-"))  # a trained model


def python_keyword(flag: str) -> str:
    """A flag as Python writes it: ``data.limit`` is ``data_limit``."""
    return flag.replace("-", "_").replace(".", "_")


def nearest_flag(flag: str, known: Iterable[str], *, write: Callable[[str], str] = str) -> str:
    """The end of an error message about an unknown flag: of both stages, where only the stage is missing.

    Args:
        flag: what was said.
        known: flags that there are.
        write: how the user writes a flag.
    """
    names = list(known)
    of_stages = [name for name in names if name in (f"pretrain-{flag}", f"finetune-{flag}")]
    close = of_stages or get_close_matches(flag, sorted(names), n=1, cutoff=0.6)
    meant = " or ".join(f"'{write(name)}'" for name in close)
    return f"; did you mean {meant}?" if close else "; see --help"


Rule = tuple[str, Callable[[Any], bool]]


def _at_least(low: float) -> Rule:
    return f"at least {low}", lambda value: value >= low


ABOVE_0: Rule = ("above 0", lambda value: value > 0)
SHARE: Rule = ("in [0, 1)", lambda value: 0 <= value < 1)
INCREASING: Rule = ("epochs in increasing order", lambda v: all(a < b for a, b in zip((0, *v), v, strict=False)))
DEVICE: Rule = ("auto, cpu, cuda or cuda:N", lambda v: bool(re.fullmatch(r"auto|cpu|cuda(:\d+)?", v)))
STAGE_RULES: Mapping[str, Rule] = {
    "epochs": _at_least(0),
    "batch_size": _at_least(1),
    "epoch_steps": _at_least(0),
    "lr": ABOVE_0,
    "momentum": SHARE,
    "weight_decay": _at_least(0),
    "warmup_steps": _at_least(0),
    "warmup_lr": _at_least(0),
    "min_lr": _at_least(0),
    "milestones": INCREASING,
    "clip": _at_least(0),
    "ema": SHARE,
    "crop": _at_least(0),
    "resized_crop": SHARE,
}
RULES: Mapping[Section, Mapping[str, Rule]] = {
    "pretrain": STAGE_RULES,
    "finetune": STAGE_RULES,
    "eval": {
        "restarts": _at_least(1),
        "limit": _at_least(0),
        "batch_size": _at_least(1),
        "valid_limit": _at_least(0),
    },
    "run": {
        "diversity": _at_least(0),
        "diversity_every": _at_least(1),
        **dict.fromkeys(OF_DATA, _at_least(0)),
        "seed": _at_least(0),
        "split_seed": _at_least(0),
        "device": DEVICE,
        "checkpoint_minutes": ABOVE_0,
        "log_every": _at_least(1),
    },
}


def typed_setting(flag: str, value: Any, *, origin: str) -> Any:
    """The value of a setting in its type and range.

    Args:
        flag: a key of ``SETTINGS``.
        value: text or a YAML value.
        origin: what the setting is called in an error message, such as ``--seed`` or ``ADVSS_SEED``.

    Raises:
        UsageError: it is of another type or out of range.
    """
    setting = SETTINGS[flag]
    result = convert(setting.option, value, flag=origin)
    if isinstance(result, float) and not math.isfinite(result):
        raise UsageError(f"{origin}: expected a finite number, got {value}")
    rule = RULES[setting.section].get(setting.option.name)
    if rule and result is not None and not rule[1](result):
        raise UsageError(f"{origin}: must be {rule[0]}, got {value}")
    if flag == "name" and result is not None:
        check_name(result)
    return result
