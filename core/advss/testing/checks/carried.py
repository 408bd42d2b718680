"""What a defense carries from step to step."""

from __future__ import annotations

import torch
from torch import Tensor

from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Defense
from advss.testing.asked import UNSEEDED, unseeded
from advss.testing.defended import attacked, defense_of, loss_at, makers, new_draws
from advss.testing.subject import Subject
from advss.testing.verdicts import as_in_training, expect
from advss.training.carried import carried_on, carries, hand_over, trained_on
from advss.training.form import check_replays


def what_it_carries_is_of_the_inputs_form(subject: Subject) -> None:
    """Nothing, or a finite tensor for each input, which follows from the gradients alone; the old ones are left."""
    as_in_training(check_replays, defense_of(subject).replays)
    if not carries(defense_of(subject)):
        return
    for make, where in makers():
        objective = make()
        hand_over(objective.carried, defense_of(subject), objective)
        before = tuple(t.clone() for t in objective.carried)
        found = _carried(defense_of(subject), objective)
        for place, t in enumerate(found):
            expect(t.isfinite().all(), f"what carry() gives for input {place} is not finite {where}")
            expect(
                t.dtype == objective.inputs[place].dtype,
                f"carry() returns {t.dtype} for {objective.inputs[place].dtype} {where}",
            )
        expect(
            all(map(torch.equal, before, objective.carried)),
            f"carry() changes objective.carried in place {where}; return new tensors",
        )
        again = make()
        hand_over(again.carried, defense_of(subject), again)
        expect(
            all(map(torch.equal, found, _carried(defense_of(subject), again))),
            f"carry() gives another result for the same gradients {where}; draw in attack() from its generator",
        )


def _carried(defense: Defense, objective: TaskObjective) -> tuple[Tensor, ...]:
    """What a step carries to the next."""
    draws = new_draws()
    inputs = trained_on(attacked(defense, objective, draws), defense)
    loss_at(defense, objective, inputs, draws).total.backward()  # type: ignore[no-untyped-call]
    with unseeded() as drawn:
        found = as_in_training(carried_on, defense, objective, inputs)
    expect(not drawn, f"carry() draws from {''.join(drawn[:1])}{UNSEEDED}")
    return found
