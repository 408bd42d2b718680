"""What an evaluation says, writes and draws of what it has measured, and how --eval-... reaches it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from advss.attacks import Threat
from advss.config import EvalSettings
from advss.configuration.resolve import plain
from advss.errors import UsageError
from advss.evaluations.form import accuracies, checked_figures, checked_passes, checked_words
from advss.evaluations.intervals import numbers
from advss.figures import save_figure
from advss.hookspecs import Evaluation
from advss.plugins.measured import SHARED, filled
from advss.plugins.options import convert, options_of
from advss.testing.measured import chunk_for, evaluation_of, measured, parts_of
from advss.testing.subject import Subject
from advss.testing.verdicts import BrokenError, as_in_training, expect

FILE = re.compile(r"[\w.+-]+")  # of a figure's name, in a file's
L2 = Threat(norm="l2", eps=0.25, step_size=0.05, steps=2)
OTHER = EvalSettings(norm="l2", eps=L2.eps, step_size=L2.step_size, steps=2, restarts=2, loss="margin")


def its_counts_are_whole_numbers(subject: Subject) -> None:
    """``most`` and ``chunk``, of the class or set from options, and ``passes()``."""
    evaluation = evaluation_of(subject)
    for name in ("most", "chunk"):
        count = getattr(evaluation, name)
        whole = isinstance(count, int) and not isinstance(count, bool) and count >= 0
        expect(whole, f"{name} is {count!r:.40}; give a whole number of images, 0 for no number of its own")
    as_in_training(checked_passes, evaluation.passes(len(chunk_for(subject).victim.classes)))


def its_title_is_one_line(subject: Subject) -> None:
    """It stands in tables, in result.json and in MLflow."""
    title: Any = evaluation_of(subject).title()
    expect(isinstance(title, str) and title.strip(), f"title() returns {title!r:.40}; return a few words")
    expect("\n" not in title and len(title) <= 80, f"title() returns {title!r:.100}; say it in one short line")


def options_take_what_the_line_says_of_every_attack(subject: Subject) -> None:
    """``--eval-eps`` and its like are put in the place of None, under ℓ∞ and under another norm."""
    open_ones = [o for o in options_of(subject.plugin.offered) if o.name in SHARED and o.default is None]
    for settings in (EvalSettings(), OTHER):
        options = filled(subject.completed(), settings)
        for option in open_ones:
            _expect_taken(option, options[option.name], flag=f"--eval-{option.name.replace('_', '-')}")
        try:
            evaluation_of(subject, settings).title()
        except UsageError as error:
            expect("\n" not in str(error), f"it refuses --eval-norm {settings.norm} in several lines; say it in one")


def _expect_taken(option: Any, value: Any, *, flag: str) -> None:
    try:
        convert(option, value, flag=flag)
    except UsageError as error:
        raise BrokenError(
            f"option '{option.name}' has the default None, so it is given what {flag} says, and is annotated "
            f"{option.type}: {error}; annotate it as that, or give it a default of its own"
        ) from error


def its_figures_are_json(subject: Subject) -> None:
    """Beside the accuracies in the file of the measurement; by an object that has measured nothing itself."""
    one = measured(evaluation_of(subject), chunk_for(subject))
    found = as_in_training(checked_figures, evaluation_of(subject).figures(one), accuracies(one.answers))
    try:
        json.dumps(plain(found, other=_refused), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BrokenError(
            f"what figures() returns cannot be written as JSON ({error}); give finite numbers, text, tensors, "
            "lists and dicts"
        ) from error


def its_figures_and_parts_have_words(subject: Subject) -> None:
    """Tables say them in place of a figure's name, progress in place of a part's; of any name there may be."""
    chunk = chunk_for(subject)
    one, evaluation = measured(evaluation_of(subject), chunk), evaluation_of(subject)
    figures = numbers(plain(evaluation.figures(one), other=str))
    for name in (*accuracies(one.answers), *figures, *filter(None, parts_of(evaluation, chunk))):
        as_in_training(checked_words, evaluation.in_words(name), name)


def _refused(value: object) -> object:
    raise TypeError(f"a {type(value).__name__}")


def its_pictures_can_be_saved(subject: Subject) -> None:
    """Matplotlib figures by a name that a file may have; by an object that has measured nothing itself."""
    if type(evaluation_of(subject)).draw is Evaluation.draw:
        return
    drawn: Any = evaluation_of(subject).draw(measured(evaluation_of(subject), chunk_for(subject)))
    expect(hasattr(drawn, "items"), f"draw() returns {type(drawn).__name__}; return figures by name")
    with TemporaryDirectory() as folder:
        for name, figure in drawn.items():
            named = isinstance(name, str) and FILE.fullmatch(name)
            expect(named, f"draw() calls a figure {name!r:.40}; its name is part of a file's: letters, digits, - and _")
            expect(hasattr(figure, "savefig"), f"draw()['{name}'] is {type(figure).__name__}; give a matplotlib Figure")
            save_figure(figure, Path(folder) / f"{name}.png")
