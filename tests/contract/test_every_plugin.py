"""What the contract asks of a plugin, asked of every one that is installed, by whomever."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
import yaml
from torch import Generator, Tensor

from advss import hookspecs
from advss.config import Choice
from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Batch, Defense, Encoder, FinetuneScheme, Loss, PretextTask, Task, Views
from advss.models.classifier import ImageClassifier
from advss.models.encoder import TimmEncoder
from advss.plugins import KINDS, Kind, complete, options_of, registry
from advss.plugins.discovery import HOOKS, Plugin
from advss.plugins.options import convert
from advss.randomness import global_stream
from advss.training.work import set_trainable

BuildTask = Callable[..., PretextTask]
MakeObjective = Callable[[], TaskObjective]
PLUGINS = registry().found.plugins


def every(*kinds: Kind) -> pytest.MarkDecorator:
    chosen = [p for p in PLUGINS if p.kind in kinds]
    return pytest.mark.parametrize("plugin", chosen, ids=[f"{p.kind}-{p.distribution}:{p.name}" for p in chosen])


def generator(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------- all of them
def test_the_suite_covers_every_hook_of_the_contract() -> None:
    specified = {name for name, f in inspect.getmembers(hookspecs, inspect.isfunction) if hasattr(f, "advss_spec")}
    assert specified == set(HOOKS)
    assert set(HOOKS.values()) == set(KINDS) == {p.kind for p in PLUGINS}


def test_no_installed_plugin_is_broken() -> None:
    assert registry().found.faults == []


@every(*KINDS)
def test_options_are_typed_and_documented(plugin: Plugin) -> None:
    for option in options_of(plugin.offered):
        assert option.annotation is not Any
        assert option.doc, f"{plugin.name}: option {option.name} is not documented"


@every(*KINDS)
def test_defaults_are_of_the_type_that_is_annotated_and_pass_through_yaml(plugin: Plugin) -> None:
    choice = f"{plugin.distribution}:{plugin.name}"
    for option in options_of(plugin.offered):
        if not option.required:
            assert convert(option, option.default, flag=option.name) == option.default
    defaults = complete(plugin.kind, Choice(choice))
    again = yaml.safe_load(yaml.safe_dump(defaults))
    assert complete(plugin.kind, Choice(choice, again)) == defaults


@every(*KINDS)
def test_it_says_in_one_line_what_it_is(plugin: Plugin) -> None:
    assert plugin.offered.__doc__
    assert plugin.offered.__doc__ not in {base.__doc__ for base in plugin.offered.__mro__[1:]}


# ---------------------------------------------------------------- pretext tasks and fine-tuning schemes
class Ready:
    """A task of either kind with the network that its loss is asked of."""

    def __init__(self, task: Task, network: torch.nn.Module, batch: Batch) -> None:
        self.task, self.network, self.batch = task, network, batch

    def views(self, seed: int = 0) -> Views:
        with torch.no_grad():
            return self.task.views(self.batch, generator(seed))

    def loss(self, views: Views) -> Loss:
        with global_stream("cpu", "loss"):
            return self.task.loss(self.network, views.inputs, views.targets)


@pytest.fixture
def ready(plugin: Plugin, encoder: TimmEncoder, batch: Batch, build_task: BuildTask) -> Ready:
    if issubclass(plugin.offered, PretextTask):
        return Ready(build_task(plugin.offered), encoder, batch)
    return Ready(*scheme_and_classifier(plugin.offered, encoder), batch)


def scheme_and_classifier(offered: type, encoder: TimmEncoder) -> tuple[FinetuneScheme, ImageClassifier]:
    scheme = offered()
    assert isinstance(scheme, FinetuneScheme)
    with global_stream("cpu", "init"):
        classifier = ImageClassifier(encoder, encoder.tail(), 4)
        scheme.build(classifier)
    return scheme, classifier


def tensors(views: Views) -> list[Tensor]:
    return [*views.inputs, *(views.targets[name] for name in sorted(views.targets))]


@every("pretext", "finetune")
def test_inputs_are_images_in_0_to_1(ready: Ready) -> None:
    inputs = ready.views().inputs
    assert inputs
    for x in inputs:
        assert x.dtype == torch.float32
        assert len(x) == len(ready.batch.x)
        assert x.min() >= 0
        assert x.max() <= 1


@every("pretext", "finetune")
def test_views_are_a_function_of_the_generator_alone(ready: Ready) -> None:
    torch.manual_seed(1)
    first = tensors(ready.views())
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first, tensors(ready.views()), strict=True))


@every("pretext", "finetune")
def test_views_touch_neither_the_batch_nor_the_global_generator(ready: Ready) -> None:
    state, x, raw = torch.get_rng_state(), ready.batch.x.clone(), ready.batch.raw.clone()
    ready.views()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(ready.batch.x, x)
    assert torch.equal(ready.batch.raw, raw)


@every("pretext", "finetune")
def test_the_loss_is_a_finite_float32_scalar(ready: Ready) -> None:
    loss = ready.loss(ready.views())
    for value in (loss.value, *loss.logits):
        assert value.dtype == torch.float32
        assert value.isfinite().all()
    assert loss.value.shape == ()
    assert loss.penalty == 0.0


@every("pretext", "finetune")
def test_the_loss_under_bf16_autocast_is_close(ready: Ready) -> None:
    views = ready.views()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = ready.loss(views).value
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.detach(), ready.loss(views).value.detach(), atol=0.05, rtol=0.05)


@every("pretext", "finetune")
def test_gradient_reaches_every_input_and_the_shared_network(ready: Ready) -> None:
    views = ready.views()
    inputs = tuple(x.clone().requires_grad_() for x in views.inputs)
    value = ready.loss(Views(inputs, views.targets)).value
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(value, inputs, retain_graph=True))
    gradients = torch.autograd.grad(value, list(ready.network.parameters()), allow_unused=True)
    assert all(g is not None for g in gradients)
    assert max(float(g.abs().max()) for g in gradients if g is not None) > 0


@every("pretext", "finetune")
def test_gradient_reaches_every_parameter_of_its_own(ready: Ready) -> None:
    ready.loss(ready.views()).value.backward()  # type: ignore[no-untyped-call]
    assert [name for name, p in ready.task.named_parameters() if p.grad is None] == []


@every("pretext", "finetune")
def test_metrics_are_scalars_without_gradient(ready: Ready) -> None:
    for metric in ready.loss(ready.views()).metrics.values():
        assert metric.shape == ()
        assert not metric.requires_grad


@every("pretext", "finetune")
def test_freezing_before_an_attack_changes_neither_loss_nor_gradient(ready: Ready) -> None:
    views = ready.views()
    torch.nn.ModuleList([ready.network, ready.task]).eval()
    results = []
    for frozen in (False, True):
        targets = ready.task.freeze(ready.network, views).targets if frozen else views.targets
        inputs = tuple(x.clone().requires_grad_() for x in views.inputs)
        value = ready.loss(Views(inputs, targets)).value
        results.append([value.detach(), *torch.autograd.grad(value, inputs)])
    for plain, after in zip(*results, strict=True):
        torch.testing.assert_close(plain, after)


@every("pretext")
def test_the_state_dict_carries_all_that_the_loss_depends_on(
    plugin: Plugin, encoder: Encoder, batch: Batch, build_task: BuildTask
) -> None:
    one, other = (Ready(build_task(plugin.offered, seed=seed), encoder, batch) for seed in (0, 1))
    values = []
    other.task.load_state_dict(one.task.state_dict())
    encoder.eval()
    for ready in (one, other):
        ready.task.eval()
        views = ready.views()
        values.append([ready.loss(views).value, *tensors(views)])
    assert all(torch.equal(a, b) for a, b in zip(*values, strict=True))


@every("pretext")
def test_its_start_of_fine_tuning_is_the_backbones(plugin: Plugin, encoder: Encoder, build_task: BuildTask) -> None:
    task = build_task(plugin.offered)
    assert len(set(task.branches)) == len(task.branches) > 0
    assert task.tail is None or set(task.tail.state_dict()) == set(encoder.tail().state_dict())


@every("finetune")
def test_phases_hold_parameters_of_classifier_or_scheme_and_train_the_head(
    plugin: Plugin, encoder: TimmEncoder
) -> None:
    scheme, classifier = scheme_and_classifier(plugin.offered, encoder)
    known = {id(p) for p in [*classifier.parameters(), *scheme.parameters()]}
    phases = scheme.phases(classifier)
    chosen = [[id(p) for group in phase.groups for p in group["params"]] for phase in phases]
    for phase, parameters in zip(phases, chosen, strict=True):
        assert phase.share > 0
        assert parameters
        assert set(parameters) <= known
        assert len(set(parameters)) == len(parameters)
    assert id(classifier.head.weight) in {p for parameters in chosen for p in parameters}


@every("finetune")
def test_gradient_reaches_all_that_a_phase_trains(plugin: Plugin, encoder: TimmEncoder, batch: Batch) -> None:
    scheme, classifier = scheme_and_classifier(plugin.offered, encoder)
    for phase in scheme.phases(classifier):
        set_trainable(torch.nn.ModuleList([classifier, scheme]), phase)
        views = scheme.views(batch, generator())
        parameters = [p for group in phase.groups for p in group["params"]]
        value = scheme.loss(classifier, views.inputs, views.targets).value
        assert all(g is not None for g in torch.autograd.grad(value, parameters, allow_unused=True))


# ---------------------------------------------------------------- defenses
def defense_of(plugin: Plugin) -> Defense:
    defense = plugin.offered()
    assert isinstance(defense, Defense)
    return defense


@every("defense")
def test_an_attack_gives_detached_images_for_every_input_and_leaves_the_network_as_found(
    plugin: Plugin, make_objective: MakeObjective
) -> None:
    """In [0, 1] but for a defense that names its noise, which certificates take as unclamped."""
    objective, defense = make_objective(), defense_of(plugin)
    state = {name: t.clone() for name, t in objective.root.state_dict().items()}
    found = defense.attack(objective, generator())
    assert len(found) == len(objective.inputs)
    for x, clean in zip(found, objective.inputs, strict=True):
        assert x.shape == clean.shape
        assert not x.requires_grad
        assert x.isfinite().all()
        assert defense.noise > 0 or (x.min() >= 0 and x.max() <= 1)
    assert all(m.training for m in objective.root.modules())
    assert all(p.requires_grad and p.grad is None for p in objective.root.parameters())
    assert all(torch.equal(t, state[name]) for name, t in objective.root.state_dict().items())


@every("defense")
def test_attack_and_loss_are_functions_of_the_generator(plugin: Plugin, make_objective: MakeObjective) -> None:
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state, draws = torch.get_rng_state(), generator()
        objective, defense = make_objective(), defense_of(plugin)
        inputs = defense.attack(objective, draws)
        results.append([*inputs, defense.loss(objective, inputs, draws).total])
        assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@every("defense")
def test_its_loss_is_finite_and_reaches_every_parameter(plugin: Plugin, make_objective: MakeObjective) -> None:
    objective, defense = make_objective(), defense_of(plugin)
    loss = defense.loss(objective, defense.attack(objective, generator()), generator())
    assert loss.value.dtype == torch.float32
    assert loss.total.shape == ()
    assert loss.total.isfinite()
    loss.total.backward()  # type: ignore[no-untyped-call]
    dead = [name for name, p in objective.root.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert dead == []
