"""Metrics of an ensemble, divided among its members: each has a tracked run of its own below the stage's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def member_stage(stage: str, key: str) -> str:
    """The tracked stage of a member, such as ``pretrain/rotation``."""
    return f"{stage}/{key}"


def tracked_stages(stage: str, keys: Iterable[str]) -> list[str]:
    """The stage as it is tracked, and those of its members where it has several."""
    members = list(keys)
    return [stage, *(member_stage(stage, key) for key in members if len(members) > 1)]


def by_member(metrics: Mapping[str, float], keys: Iterable[str]) -> dict[str, dict[str, float]]:
    """Each member's metrics under the names that they have where it trains alone.

    ``valid/adversarial/rotation/accuracy`` is ``valid/adversarial/accuracy`` of ``rotation``. A stage of one task has
    no members.
    """
    members: dict[str, dict[str, float]] = {key: {} for key in keys}
    if len(members) < 2:
        return {}
    for name, value in metrics.items():
        words = name.split("/")
        place = 2 if words[0] == "valid" else 1  # whatever a member is called, train and clean too
        if len(words) > place + 1 and words[place] in members:
            members[words[place]]["/".join([*words[:place], *words[place + 1 :]])] = value
    return members
