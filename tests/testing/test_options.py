from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

from advss.hookspecs import (
    Batch,
    DataSource,
    Defense,
    Encoder,
    FinetuneScheme,
    Loss,
    Objective,
    PretextTask,
    Split,
    Views,
)
from advss.testing.checks import options
from advss.testing.stand_ins import Mirror
from advss.testing.subject import Subject
from advss.testing.verdicts import Verdict

Ask = Callable[..., Verdict]
FACTS = [
    options.its_distribution_is_found_without_fault,
    options.its_docstring_says_what_it_is,
    options.every_option_has_a_type,
    options.every_option_is_documented,
    options.every_default_is_of_its_type,
    options.its_options_pass_through_yaml,
    options.making_it_draws_nothing_and_makes_no_parameters,
    options.its_methods_are_named_as_in_the_contract,
    options.its_methods_take_what_core_gives,
]


class Sound(Mirror):
    """With options of several types.

    Args:
        width: of the head.
        places: a sequence.
        mode: a word.
    """

    def __init__(self, *, width: int = 3, places: tuple[int, ...] = (1, 2), mode: Literal["a", "b"] = "a") -> None:
        super().__init__()


class Undocumented(Mirror):
    pass


class Untyped(Mirror):
    """One option.

    Args:
        width: of the head.
    """

    def __init__(self, *, width: Any = 3) -> None:
        super().__init__()


class Unexplained(Mirror):
    """One option that the docstring leaves out."""

    def __init__(self, *, width: int = 3) -> None:
        super().__init__()


class WrongDefault(Mirror):
    """One option.

    Args:
        width: of the head.
    """

    def __init__(self, *, width: int = None) -> None:  # type: ignore[assignment]  # noqa: RUF013
        super().__init__()


class Colour(enum.Enum):
    RED = 1


class NoYaml(Mirror):
    """One option.

    Args:
        colour: of the head.
    """

    def __init__(self, *, colour: Colour = Colour.RED) -> None:
        super().__init__()


class TensorOption(Mirror):
    """One option.

    Args:
        weights: of the classes.
    """

    def __init__(self, *, weights: torch.Tensor | None = torch.ones(2)) -> None:  # noqa: B008
        super().__init__()


class EarlyHead(Mirror):
    """Makes its head where no seed is set."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Parameter(torch.zeros(3))


class EarlyDraw(Mirror):
    """Draws where no seed is set."""

    def __init__(self) -> None:
        super().__init__()
        self.order = torch.randperm(4)


class NumpyDraw(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.shift = np.random.rand()


class OtherParameters(Mirror):
    """Takes what core does not give."""

    def views(self, batch: Batch, generator: Generator, epoch: int) -> Views:  # type: ignore[override]
        return super().views(batch, generator)


class Misspelt(PretextTask):
    """Its head is never made."""

    name = "misspelt"

    def biuld(self, encoder: Encoder) -> None:
        self.head = nn.Linear(encoder.channels, 2)

    def views(self, batch: Batch, generator: Generator) -> Views:
        return Views((batch.x,))

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        return Loss(self.head(encoder(inputs[0]).mean((2, 3))).square().mean())


class NoLoss(PretextTask):
    """Has views alone, and a method that is nothing's namesake."""

    name = "no-loss"

    def views(self, batch: Batch, generator: Generator) -> Views:
        return Views((batch.x,))

    def turned(self) -> None:
        pass


class NoPhases(FinetuneScheme):
    """Trains nothing."""

    name = "no-phases"


class NoLabels(DataSource):
    """Has images alone."""

    name = "no-labels"

    def classes(self) -> tuple[str, ...]:
        return ("a", "b")

    def images(self, split: Split, places_B: Tensor) -> Tensor:
        return torch.zeros(len(places_B), 3, 8, 8, dtype=torch.uint8)


class MisspeltAttack(Defense):
    """Attacks nothing."""

    name = "misspelt"

    def atack(self, objective: Objective, generator: Generator) -> tuple[Tensor, ...]:
        return objective.inputs


NAMES = options.its_methods_are_named_as_in_the_contract
BROKEN = [
    (Misspelt, NAMES, r"class Misspelt has biuld\(\); did you mean build\(\)\?"),
    (MisspeltAttack, NAMES, r"class MisspeltAttack has atack\(\); did you mean attack\(\)\?"),
    (NoLoss, NAMES, r"class NoLoss has no loss\(\), for which there is no default"),
    (NoPhases, NAMES, r"class NoPhases has no phases\(\)"),
    (NoLabels, NAMES, r"class NoLabels has no labels\(\)"),
    (TensorOption, options.every_option_has_a_type, r"'weights' is annotated Tensor \| null, which cannot be typed or"),
    (TensorOption, options.every_default_is_of_its_type, "'weights' is annotated"),
    (TensorOption, options.its_options_pass_through_yaml, "'weights' is annotated"),
    (Undocumented, options.its_docstring_says_what_it_is, "class Undocumented has no docstring of its own"),
    (Untyped, options.every_option_has_a_type, "option 'width' is annotated Any; say what it takes"),
    (
        Unexplained,
        options.every_option_is_documented,
        "option 'width' is not documented; add 'width: ...' under 'Args:'",
    ),
    (WrongDefault, options.every_default_is_of_its_type, "option 'width' has the default None, which is no int"),
    (
        NoYaml,
        options.its_options_pass_through_yaml,
        r"do not come back from YAML \(--pretext\.colour: expected Colour, got 'Colour\.RED'\); use numbers, text",
    ),
    (
        EarlyHead,
        options.making_it_draws_nothing_and_makes_no_parameters,
        r"__init__ makes the parameter 'early'; make it in build\(\)",
    ),
    (
        EarlyDraw,
        options.making_it_draws_nothing_and_makes_no_parameters,
        r"__init__ draws from torch's global generator.*draw in build\(\)",
    ),
    (
        NumpyDraw,
        options.making_it_draws_nothing_and_makes_no_parameters,
        "__init__ draws from NumPy's random state, which no run seeds",
    ),
    (
        OtherParameters,
        options.its_methods_take_what_core_gives,
        r"views\(self, batch.* does not take \(self, batch, generator\) in order",
    ),
]


@pytest.mark.parametrize("fact", FACTS)
def test_a_sound_plugin_passes(ask: Ask, fact: Callable[[Subject], None]) -> None:
    assert ask(Sound, fact).message == ""


@pytest.mark.parametrize(
    ("offered", "fact", "message"), BROKEN, ids=[f"{case[0].__name__}-{case[1].__name__}" for case in BROKEN]
)
def test_it_is_caught(ask: Ask, offered: type, fact: Callable[[Subject], None], message: str) -> None:
    verdict = ask(offered, fact)
    assert verdict.outcome == "failed"
    assert re.search(message, verdict.message), verdict.message
