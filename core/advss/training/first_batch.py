"""A stage tried on its first batch, so that what cannot work, or a plugin that is broken, fails before any training."""

from __future__ import annotations

import torch

from advss.ensemble.objective import TaskObjective
from advss.errors import UsageError
from advss.hookspecs import Loss
from advss.plugins.blame import culprit, of_the_machine
from advss.plugins.faults import one_line, said_by
from advss.plugins.provenance import suspects
from advss.randomness import stream
from advss.training.blame import blaming, fitting
from advss.training.carried import carried_on, carries, hand_over, trained_on
from advss.training.form import check_attack, check_loss, check_parameters, check_replays, check_views, require
from advss.training.work import Work


def check_runs(work: Work) -> None:
    """Try the stage's tasks and its defense on the first batch; buffers are left as found.

    Raises:
        UsageError: naming the plugins and what went wrong.
    """
    before = [b.clone() for b in work.modules.buffers()]
    without: dict[str, list[str]] = {}
    try:
        with blaming(work.stage, work.plugins):
            _check_views(work)
            without |= _check_losses(work)
            passes(work)
    except UsageError as error:
        for what, tasks in without.items():  # a defense cannot know which of several tasks has none
            if what in str(error):
                raise UsageError(f"{error} (without {what}: {', '.join(tasks)})") from error
        raise
    except (RuntimeError, ValueError, IndexError, KeyError, AssertionError) as error:
        raise UsageError(_unexplained(work, error)) from error
    finally:
        for buffer, was in zip(work.modules.buffers(), before, strict=True):
            buffer.copy_(was)


def trial(work: Work, memory_format: torch.memory_format) -> None:
    """One training step's passes in a layout; parameters, statistics and gradients are left as found."""
    work.modules.to(memory_format=memory_format)
    before, work.memory_format = work.memory_format, memory_format
    loss = passes(work)
    work.memory_format = before
    loss.total.backward()  # type: ignore[no-untyped-call]
    work.modules.zero_grad(set_to_none=True)


def passes(work: Work) -> Loss:
    """The defense's loss on the stage's first batch, after its attack; running statistics do not move."""
    objective = _objective(work)
    hand_over((), work.defense, objective)
    generator = torch.Generator(work.device).manual_seed(0)
    with objective.holding_statistics():
        before = [x._version for x in objective.inputs]
        inputs = work.defense.attack(objective, generator)
        with fitting(work.stage, work.defense, work.plugins):
            check_attack(inputs, objective.inputs, noise=work.defense.noise)
            unchanged = before == [x._version for x in objective.inputs]
            require(unchanged, "attack() changes objective.inputs in place; work on x.clone()")
        inputs = trained_on(inputs, work.defense)
        loss = work.defense.loss(objective, inputs, generator)
        with fitting(work.stage, work.defense, work.plugins):
            check_loss(loss)
            check_replays(work.defense.replays)
            if carries(work.defense):
                loss.total.backward(inputs=inputs, retain_graph=True)  # type: ignore[no-untyped-call]
                carried_on(work.defense, objective, inputs)
    return loss


def _objective(work: Work) -> TaskObjective:
    return work.objective(work.loader.batch(0, 0, progress=0.0), step=0)


def _check_views(work: Work) -> None:
    """Each task's parameters and views, before an objective takes them for what they should be."""
    batch = work.loader.batch(0, 0, progress=0.0)
    for key, task in work.modules.tasks().items():
        with torch.no_grad():
            views = task.views(batch, stream(work.device, work.seed, work.stage, 0, key, "views"))
        with fitting(work.stage, task, work.plugins):
            check_parameters(task, work.modules)
            check_views(views)


def _check_losses(work: Work) -> dict[str, list[str]]:
    """Each task's loss at its own views and what it freezes, before a defense takes them for what they should be.

    Returns:
        The tasks without logits and without labels, where there are any.
    """
    objective, tasks, without = _objective(work), work.modules.tasks(), dict[str, list[str]]()
    with objective.holding_statistics():
        for key, task in tasks.items():
            loss = objective.member(key)
            with fitting(work.stage, task, work.plugins):
                check_loss(loss)
            for what in ("logits", "labels"):
                if not getattr(loss, what):
                    without.setdefault(what, []).append(key)
    with objective.attacking():
        for key, task in tasks.items():
            with fitting(work.stage, task, work.plugins):
                check_views(objective.views[key], by="freeze()")
    return without


def _unexplained(work: Work, error: Exception) -> str:
    """The line of what no third party's plugin raised: a built-in one cannot do this here, or PyTorch."""
    tasks, found = ", ".join(work.modules.tasks()), culprit(error, suspects(work.plugins))
    who = f"{tasks} cannot run"
    if found and found.suspect.label == "defense":
        who = f"{found.suspect.label} {found.suspect.called} cannot run with {tasks}"
    elif found and found.suspect.offered in [type(task) for task in work.modules.tasks().values()]:
        who = f"{found.suspect.called} cannot run"
    reason = " ".join(str(error).split()) or one_line(said_by(error)).removesuffix(":")
    advice = "" if of_the_machine(error) else "".join(dict.fromkeys(s.advice for s in suspects(work.plugins)))
    return f"{work.stage}: {who} on this backbone and data: {reason}{advice}"
