"""What a task owns: parameters where they are looked for, and state that a checkpoint carries."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import UninitializedParameter

from advss.errors import UsageError
from advss.hookspecs import PretextTask
from advss.models.held import held
from advss.randomness import stream
from advss.testing.ready import Ready, expect_finite, ready, same_tensors, short
from advss.testing.stand_ins import every_batch
from advss.testing.subject import Subject
from advss.testing.verdicts import BrokenError, UncheckedError, as_in_training, expect
from advss.training.form import check_branches, tensors


def parameters_are_registered(subject: Subject) -> None:
    """A parameter in a plain list, tuple, dict or object neither trains nor is saved."""
    it = ready(subject)
    known = {id(p) for p in it.modules.parameters()}
    for path, p in held(it.task):
        expect(
            id(p) in known,
            f"{path} is a parameter that PyTorch does not find, so it neither trains nor is saved; hold it as "
            "an attribute of its own, in nn.ModuleList, nn.ModuleDict or nn.ParameterList",
        )


def the_encoder_is_not_kept_as_a_part(subject: Subject) -> None:
    """Encoder or classifier are given to loss(); kept as a submodule they would be saved and trained twice."""
    _expect_apart(ready(subject))


def parameters_and_buffers_are_made_in_build(subject: Subject) -> None:
    """What appears later is missed by the optimiser, the device and the checkpoint."""
    bare = ready(subject, prepared=False)
    made = _owned(bare.task)
    for name, t in made.items():
        expect(not isinstance(t, UninitializedParameter), f"'{name}' has no size after build(); size it by the encoder")
    it = ready(subject)
    it.loss(it.views())
    it.after_step(it.views())
    late = [name for name in _owned(it.task) if name not in made]
    expect(not late, f"'{', '.join(late)}' is not there after build(); make it there, prepare() may fill it")


def a_loss_is_finite_before_it_has_seen_the_data(subject: Subject) -> None:
    """Before training each stage is tried on its first batch, and prepare() has not run by then."""
    prepared, it = ready(subject), ready(subject, prepared=False)
    expect_finite(prepared.loss(prepared.views()).value)
    try:
        value = it.loss(it.views()).value
    except (RuntimeError, ValueError, IndexError) as error:
        said = " ".join(str(error).split())
        raise BrokenError(f"views() or loss() fail before prepare(): {said}; give buffers values in build()") from error
    expect(value.isfinite(), f"the loss before prepare() is {float(value.detach())}; give buffers values in build()")


def hooks_leave_weights_and_statistics_alone(subject: Subject) -> None:
    """prepare(), before_epoch() and after_step() move the task's own buffers and what it has frozen, and no more."""
    it = ready(subject, prepared=False)
    views = it.views()
    hooks: dict[str, Callable[[], None]] = {
        "prepare() or before_epoch()": lambda: it.look_at_data(every_batch(), stream("cpu", "look")),
        "after_step()": lambda: it.after_step(views),
    }
    for hook, run in hooks.items():
        before = {name: t.clone() for name, t in _left_alone(it).items()}
        training = {name: p for name, p in it.task.named_parameters() if p.requires_grad}
        run()
        now = dict(it.task.named_parameters())
        for name, p in training.items():
            expect(now.get(name) is p, f"{hook} puts another parameter in the place of '{name}', which never trains")
        for name, t in _left_alone(it).items():
            expect(
                torch.equal(t, before[name]), f"{hook} moves '{name}'; leave weights and BatchNorm's statistics alone"
            )


def _left_alone(it: Ready) -> dict[str, Tensor]:
    """The network, what the task trains, and the statistics of normalisation that does."""
    own: dict[str, Tensor] = {name: p for name, p in it.task.named_parameters() if p.requires_grad}
    for place, module in it.task.named_modules():
        if isinstance(module, _NormBase) and any(p.requires_grad for p in module.parameters()):
            own |= {f"{place}.{name}": b for name, b in module.named_buffers()}
    return {**it.network.state_dict(), **own}


def its_state_survives_a_checkpoint(subject: Subject) -> None:
    """Loaded strictly into one that was built from another seed and not prepared, views and loss are the same."""
    one, other = ready(subject), ready(subject, seed=1, prepared=False)
    one.repeated_views()
    _expect_apart(one)
    _live(one)
    state = one.modules.named_state()
    for name, value in state.items():
        expect(isinstance(value, Tensor), f"state '{name}' is {type(value).__name__}; a checkpoint holds tensors only")
    try:
        saved = load(save({name: t.detach().contiguous() for name, t in state.items()}))
    except RuntimeError as error:
        raise BrokenError(
            f"its state cannot be written as safetensors, which keeps each tensor once: {_shared(state) or error}"
        ) from error
    _load(other, saved)
    found = [_outcome(it) for it in (one, other)]
    if not same_tensors(found[0], _outcome(one)):
        raise UncheckedError("the loss does not repeat")
    for what, value in found[0].items():
        expect(
            torch.equal(value, found[1][what]),
            f"{what} is another after saving and loading: it depends on what state_dict() does not carry; make it a "
            "buffer in build(): self.register_buffer(name, tensor)",
        )


def it_can_be_copied(subject: Subject) -> None:
    """The moving average of a run (``ema``) is a deep copy."""
    it = ready(subject)
    it.loss(it.views())
    try:
        copy.deepcopy(it.modules)
    except Exception as error:
        raise BrokenError(
            f"copy.deepcopy of it fails ({type(error).__name__}: {error}); --pretrain-ema copies it: hold no "
            "generators, files, locks or tensors with a graph"
        ) from error


def its_start_of_fine_tuning_is_the_backbones(subject: Subject) -> None:
    """``tail`` is a last stage of the encoder or None, and the BatchNorm branches have names of their own."""
    it = ready(subject)
    assert isinstance(it.task, PretextTask)
    as_in_training(check_branches, it.task.branches)
    if it.task.tail is not None:
        own, asked = set(it.task.tail.state_dict()), set(it.network.tail().state_dict())
        expect(
            own == asked,
            f"self.tail holds {sorted(own ^ asked)[:3]} that encoder.tail() does not, or lacks it; fine-tuning "
            "loads it strictly: set self.tail = encoder.tail(), and call a last stage of another form otherwise",
        )


def _expect_apart(it: Ready) -> None:
    shared = {id(p): name for name, p in it.network.named_parameters()}
    for name, p in it.task.named_parameters(remove_duplicate=False):
        expect(
            id(p) not in shared,
            f"its parameter '{name}' is '{shared.get(id(p))}' of the network it was built for; keep no module of "
            "that one: loss() is given it at every call",
        )


def _owned(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _live(it: Ready) -> None:
    """Leave a trace of training in all that can move."""
    views = it.views()
    it.loss(views)
    with torch.no_grad():
        for p in it.modules.parameters():
            if p.is_floating_point():
                p.add_(0.01)
    it.after_step(views)


def _shared(state: dict[str, Tensor]) -> str:
    """The first two tensors of a state that lie in one memory; empty where there are none."""
    first: dict[int, str] = {}
    for name, t in state.items():
        place = t.untyped_storage().data_ptr()
        if place and first.setdefault(place, name) != name:
            return f"'{short(first[place])}' and '{short(name)}' share theirs; keep one of them, or a clone"
    return ""


def _load(it: Ready, saved: dict[str, Tensor]) -> None:
    fresh = it.modules.named_state()
    for name, t in saved.items():
        expect(
            name not in fresh or fresh[name].shape == t.shape,
            f"'{short(name)}' has shape {tuple(fresh[name].shape) if name in fresh else ()} after build() and "
            f"{tuple(t.shape)} later; size it in build(), by encoder.data.images where it is of every image",
        )
    try:
        it.modules.load_named_state(saved, what="a checkpoint")
    except UsageError as error:
        raise BrokenError(f"what was saved does not load into one newly built: {error}") from error


def _outcome(it: Ready) -> dict[str, Tensor]:
    it.modules.eval()
    views = it.views()
    value = it.loss(views).value.detach()
    expect_finite(value)
    return {**tensors(views), "the loss": value}
