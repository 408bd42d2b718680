"""Pictures of what a classifier answers: from tensors to figures, nothing measured and nothing written.

:func:`advss.figures.save_figure` writes them. Where answers of several kinds are drawn beside one another, "clean" and
"attacked", the first kind has the first look.
"""

from advss.evaluations.pictures.answered import calibration_errors, draw_answers
from advss.evaluations.pictures.by_class import draw_by_class
from advss.evaluations.pictures.confusion import draw_confusion
from advss.evaluations.pictures.corruptions import draw_corruptions
from advss.evaluations.pictures.examples import Page, draw_examples
from advss.evaluations.pictures.radar import OverEps, draw_over_eps, draw_radar
from advss.evaluations.pictures.reliability import calibration_error, draw_reliability
from advss.evaluations.pictures.strength import Curve, draw_strength, sanity, verdict

__all__ = [
    "Curve",
    "OverEps",
    "Page",
    "calibration_error",
    "calibration_errors",
    "draw_answers",
    "draw_by_class",
    "draw_confusion",
    "draw_corruptions",
    "draw_examples",
    "draw_over_eps",
    "draw_radar",
    "draw_reliability",
    "draw_strength",
    "sanity",
    "verdict",
]
