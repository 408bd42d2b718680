"""What a task's methods leave as they find it: random state that is nobody's, and what others are given too."""

from __future__ import annotations

from advss.testing.ready import Ready, ready
from advss.testing.subject import Subject
from advss.testing.verdicts import BrokenError


def it_draws_from_torch_alone(subject: Subject) -> None:
    """Python's and NumPy's random state is seeded by no run, so that nothing of it repeats, or resumes as it was."""
    for said in _asked_everything(subject).drawn:
        raise BrokenError(said)


def what_it_is_given_is_left_alone(subject: Subject) -> None:
    """Inputs and batches are other members' too; views() has a check of its own."""
    for said in _asked_everything(subject).altered:
        raise BrokenError(f"{said}, which other tasks and passes are given too; work on a clone")


def _asked_everything(subject: Subject) -> Ready:
    """A task of which each method was called as in training."""
    it = ready(subject)
    views = it.views()
    for asked in (it.loss, it.frozen, it.after_step):
        asked(views)
    it.loss(views, asked="attacked")
    return it
