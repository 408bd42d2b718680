"""Plugins with one mistake each: ``advss fit`` ends in one line that names the plugin, the place and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from advss.plugins.blame import Suspect, culprit, home_of

Install = Callable[..., str]
Run = Callable[..., int]
Fails = Callable[..., str]
CRITERION = 'targets["flipped"])\n'
ADVICE = "; `advss plugins check flip` says whether it keeps the contract"
RAISES = {  # what is in the text -> what is there instead, what is raised, and the line that raises it
    "KeyError in build": ("self.tail = encoder.tail()", "{}['nothing']", "KeyError: 'nothing'", "{}['nothing']"),
    "no words": (
        "self.tail = encoder.tail()",
        "assert not encoder",
        "AssertionError at `assert not encoder`",
        "assert",
    ),
    "cuda in views": ("x = batch.x.where", "batch.x.to('nosuch:0'); x = batch.x.where", "RuntimeError: ", "'nosuch:0'"),
    "exit": ("self.tail = encoder.tail()", "raise SystemExit(0)", "SystemExit: 0", "raise SystemExit"),
    "signature": (
        "def build(self, encoder):",
        "def build(self):",
        "TypeError: Flip.build() takes 1",
        "def build(self)",
    ),
    "unknown target": (CRITERION, 'targets["fliped"])\n', "KeyError: 'fliped'", 'targets["fliped"])\n'),
    "in __init__": ("super().__init__()", "super().__init__(); 1 / 0", "ZeroDivisionError: division", "1 / 0"),
    "no method": ("def build(", "def biuld(", "AttributeError", "self.tail(encoder"),
}


@pytest.mark.parametrize("mistake", RAISES)
def test_what_a_task_raises_is_one_line_with_its_place(fails: Fails, flip: str, mistake: str) -> None:
    before, after, said, source = RAISES[mistake]
    code = flip.replace(before, after, 1)
    line = fails(code)
    assert line.count("\n") == 1
    assert f"the pretext task flip (their-plugin 2.5) raised {said}" in line
    number = code[: code.index(source)].count("\n") + 1
    assert re.search(rf" \(fake_plugin_\d+\.py, line {number}\){re.escape(ADVICE)}\n$", line), line


PAIR = """
    from dataclasses import dataclass

    import torch

    from advss.hookspecs import Defense, FinetuneScheme, Phase, hookimpl

    @dataclass(frozen=True, kw_only=True)
    class Shield(Defense):
        "Trains at the images."

        name = "shield"

        def attack(self, objective, generator):
            return objective.inputs

        def loss(self, objective, inputs, generator):
            return objective(inputs)

    class Head(FinetuneScheme):
        "The last layer alone."

        name = "head"

        def phases(self, classifier):
            return [Phase(1.0, [{"params": list(classifier.fresh())}])]

    @hookimpl
    def advss_defenses():
        return [Shield]

    @hookimpl
    def advss_finetune_schemes():
        return [Head]
"""
PAIRS = {  # what is in the text -> what is there instead, and what is said of which plugin
    "attack raises": (
        "return objective.inputs",
        "return objective.nothing",
        "defense shield (their-plugin 2.5) raised Attr",
    ),
    "attack gives a tensor": (
        "return objective.inputs",
        "return objective.inputs[0]",
        "shield (their-plugin 2.5): attack() ret",
    ),
    "attack gives a part": (
        "return objective.inputs",
        "return tuple(x[1:] for x in objective.inputs)",
        "attack() returns tensors of shapes [(31, 3, 16, 16)] for objective.inputs of shapes [(32, 3, 16, 16)]",
    ),
    "attack gives a graph": (
        "return objective.inputs",
        "return tuple(x.clone().requires_grad_() for x in objective.inputs)",
        "attack() returns an input with a graph; return x.detach()",
    ),
    "attack leaves [0, 1]": (
        "return objective.inputs",
        "return tuple(x * 0 + 2 for x in objective.inputs)",
        "attack() returns values from 2 to 2; clamp to [0, 1]",
    ),
    "attack in place": (
        "return objective.inputs",
        "return tuple(x.clamp_(0, 1) for x in objective.inputs)",
        "attack() changes objective.inputs in place; work on x.clone()",
    ),
    "one input for two": (
        "return objective(inputs)",
        "return objective(inputs + inputs)",
        "raised ValueError: the objective takes a tuple like objective.inputs, of shapes [(32, 3, 16, 16)]; it was "
        "given [(32, 3, 16, 16), (32, 3, 16, 16)] (",
    ),
    "an input alone": ("return objective(inputs)", "return objective(inputs[0])", "; it was given Tensor ("),
    "a share of text": (
        "Phase(1.0",
        "Phase('0.5'",
        "phases() gives a phase the share '0.5'; give a number above 0",
    ),
    "a share below 0": (
        "Phase(1.0",
        "Phase(-1",
        "phases() gives a phase the share -1; give a number above 0",
    ),
    "an unknown key": (
        '"params": list(classifier.fresh())',
        '"params": list(classifier.fresh()), "lr_scal": 2',
        "phases() gives a group the unknown key 'lr_scal'; did you mean 'lr_scale'?",
    ),
    "a parameter twice": (
        '"params": list(classifier.fresh())',
        '"params": list(classifier.fresh()) * 2',
        "phases() gives a phase that names a parameter twice; name each once",
    ),
    "names for parameters": (
        "list(classifier.fresh())",
        "['head']",
        "gives 'head' among the parameters of ",
    ),
    "loss is a tensor": (
        "return objective(inputs)",
        "return objective(inputs).value",
        "(their-plugin 2.5): loss() returns T",
    ),
    "defense's loss raises": (
        "return objective(inputs)",
        "raise LookupError",
        "raised LookupError at `raise LookupError` (",
    ),
    "phases raises": (
        "return [Phase",
        "1 / 0; return [Phase",
        "fine-tuning scheme head (their-plugin 2.5) raised ZeroDivis",
    ),
    "phases is empty": ("return [Phase", "return [] and [Phase", "phases() returns empty list; return [Phase("),
    "parameters alone": (
        '[{"params": list(classifier.fresh())}]',
        "classifier.fresh()",
        "phases() gives a group that is Par",
    ),
}


@pytest.mark.parametrize("mistake", PAIRS)
def test_a_defense_and_a_scheme_are_told_apart(fails: Fails, mistake: str) -> None:
    before, after, said = PAIRS[mistake]
    words = ["--defense", "shield", "--finetune", "head", "--pretrain-epochs", "1"]
    line = fails(PAIR.replace(before, after, 1), *words, name="none")
    assert said in line
    assert line.count("\n") == 1


def test_what_a_defense_asks_of_an_ensemble_wrongly_is_its_fault(fails: Fails) -> None:
    code = PAIR.replace("return objective(inputs)", "return objective(inputs[:1])")
    line = fails(code, "--defense", "shield", name="jigsaw,rotation")
    assert "the defense shield (their-plugin 2.5) raised ValueError: the objective takes a tuple" in line


def test_the_task_without_logits_is_named_beside_the_defense_that_needs_them(fails: Fails, flip: str) -> None:
    line = fails(flip.replace("(logits,), {", "(), {"), "--defense", "trades", name="flip,rotation")
    assert line.startswith("advss: error: defense trades needs logits to compare")
    assert line.endswith("(without logits: flip)\n")


SOURCE = """
    import torch

    from advss.hookspecs import DataSource, hookimpl

    class Noise(DataSource):
        "Two classes of noise."

        name = "noise"

        def classes(self):
            return ("a", "b")

        def labels(self, split):
            return torch.arange(80) % 2

        def images(self, split, places_B):
            return torch.full((len(places_B), 3, 16, 16), 7, dtype=torch.uint8) / None

    @hookimpl
    def advss_datasets():
        return [Noise]
"""


def test_a_data_source_is_named(fails: Fails) -> None:
    line = fails(SOURCE, "--data", "noise", name="rotation")
    assert "--data noise: the data source noise (their-plugin 2.5) raised TypeError: unsupported operand" in line


@pytest.mark.parametrize(
    "what", ["MemoryError", "OSError(28, 'No space left on device')", "RuntimeError('CUDA out of memory. Tried to')"]
)
def test_a_full_machine_is_no_ones_fault(run: Run, what: str, flip: str) -> None:
    code = flip.replace("self.tail = encoder.tail()", f"raise {what}")
    with pytest.raises((MemoryError, OSError, RuntimeError)):  # as it would without a plugin
        run(code)


def test_ctrl_c_in_a_plugin_ends_the_program_as_ever(run: Run, flip: str) -> None:
    assert run(flip.replace("self.tail = encoder.tail()", "raise KeyboardInterrupt")) == 130


def test_of_several_plugins_on_the_way_the_last_is_meant(install: Install, flip: str) -> None:
    task = import_module(install("one", flip)).Flip
    other = import_module(install("two", flip.replace("encoder.tail()", "encoder.broken()"))).Flip
    suspects = [Suspect("pretext task", n, n, "1.0", home_of(t) or Path(), t) for n, t in (("a", task), ("b", other))]

    class Through:
        def tail(self) -> None:
            other().build(self)

    with pytest.raises(AttributeError) as raised:
        task().build(Through())
    found = culprit(raised.value, suspects)
    assert found is not None
    assert (found.suspect.called, found.source) == ("b", "self.tail = encoder.broken()")


def test_what_no_plugin_was_on_the_way_to_is_no_plugins(install: Install, flip: str) -> None:
    task = import_module(install("one", flip)).Flip
    suspects = [Suspect("pretext task", "a", "a", "1.0", home_of(task) or Path(), task)]
    with pytest.raises(AttributeError) as raised:
        object().nothing  # type: ignore[attr-defined]  # noqa: B018
    assert culprit(raised.value, suspects) is None


def test_the_whole_traceback_can_be_had(fails: Fails, flip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVSS_DEBUG", "1")
    said = fails(flip.replace("self.tail = encoder.tail()", "1 / 0"))
    assert said.startswith("Traceback (most recent call last):")
    assert "\nZeroDivisionError: division by zero\n" in said
    assert "\nadvss: error: pretrain: the pretext task flip" in said
