"""The kinds of plugins: their hooks, the flags that choose them, and what messages call them."""

from __future__ import annotations

from typing import Literal, get_args

Kind = Literal["pretext", "defense", "finetune", "evaluation", "launcher", "data"]
KINDS: tuple[Kind, ...] = get_args(Kind)
HOOKS: dict[str, Kind] = {
    "advss_pretext_tasks": "pretext",
    "advss_defenses": "defense",
    "advss_finetune_schemes": "finetune",
    "advss_evaluations": "evaluation",
    "advss_launchers": "launcher",
    "advss_datasets": "data",
}
FLAGS: dict[Kind, str] = {kind: f"--{kind}" for kind in KINDS} | {"evaluation": "--evaluate"}
LABELS: dict[str, str] = {
    "pretext": "pretext task",
    "defense": "defense",
    "finetune": "fine-tuning scheme",
    "evaluation": "evaluation",
    "launcher": "launcher",
    "data": "data source",
    "backbone": "backbone",  # of a plugin, by way of timm's registry
}
TAKEN: dict[Kind, tuple[str, ...]] = {  # names that mean something else in --pretext, --finetune-tail and --evaluate
    "pretext": ("none", "auto", "fresh"),
    "evaluation": ("none",),
}


def one(kind: str) -> str:
    """A kind with its article: ``a defense``."""
    label = LABELS[kind]
    return f"{'an' if label[0] in 'aeiou' else 'a'} {label}"


def options_prefix(kind: Kind, name: str) -> str:
    """What stands before an option of a plugin on the line: ``--defense.``, or of an evaluation ``--pgd.``."""
    return f"--{name}." if kind == "evaluation" else f"{FLAGS[kind]}."


def base_of(kind: Kind) -> type:
    """The class of the contract that plugins of a kind are made of."""
    from advss.hookspecs import DataSource, Defense, Evaluation, FinetuneScheme, Launcher, PretextTask

    return {
        "pretext": PretextTask,
        "defense": Defense,
        "finetune": FinetuneScheme,
        "evaluation": Evaluation,
        "launcher": Launcher,
        "data": DataSource,
    }[kind]
