"""What a task gives on the first batch and is not of the contract's form: one line, before any training."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Fails = Callable[..., str]
VIEWS, TARGETS = 'return Views((x,), {"flipped": flipped})', '{"flipped": flipped}'
CRITERION, METRICS = 'targets["flipped"])\n', '{"accuracy": accuracy(logits, targets["flipped"])}'

MISFITS = {
    "no super().__init__()": ("super().__init__()", "self.head = None", "call super().__init__()"),
    "plain tuple": (
        VIEWS,
        "return x, flipped",
        "views() returns tuple (Tensor of shape (40, 3, 16, 16), ",
    ),
    "a view alone": ("Views((x,), ", "Views(x, ", "views() returns Views (inputs = Tensor of shape (40"),
    "no view": ("Views((x,), ", "Views((), ", "views() gives no inputs"),
    "outside [0, 1]": ("Views((x,), ", "Views((x * 2 - 1,), ", "input 0 of views() has values from -1 to 1"),
    "NaN": ("Views((x,), ", "Views((x / 0 * 0,), ", "input 0 of views() has values from nan to nan"),
    "integers": ("Views((x,), ", "Views(((x * 255).byte(),), ", "input 0 of views() is torch.uint8; give float32"),
    "a target that is no tensor": (
        TARGETS,
        '{"flipped": flipped, "n": 3}',
        "target 'n' of views() is int; give a",
    ),
    "not a Loss": (
        "return Loss(value, ",
        "return value; Loss(value, ",
        "loss() returns Tensor of shape (); return",
    ),
    "unreduced": (CRITERION, 'targets["flipped"], reduction="none")\n', "Loss.value has shape (40,); give a scalar"),
    "in float64": ("Loss(value, ", "Loss(value.double(), ", "Loss.value is torch.float64; give float32"),
    "a float": ("Loss(value, ", "Loss(value.item(), ", "Loss.value is float; give a tensor"),
    "logits alone": ("(logits,), {", "logits, {", "Loss.logits is Tensor of shape (40, 2); give a tuple of tensors"),
    "metric a float": (METRICS, '{"n": 0.5}', "metric 'n' is float; give a scalar tensor"),
    "metric a vector": (METRICS, '{"n": logits.detach()}', "has shape (40, 2)"),
    "metric with a gradient": (METRICS, '{"n": value}', "metric 'n' has a gradient"),
    "metric NaN": (METRICS, '{"n": value.detach() / 0}', "metric 'n' is inf"),
    "parameter in a list": (
        "self.head = nn.Linear(encoder.features, 2)",
        "self.head = nn.Linear(encoder.features, 2); self.more = [nn.Parameter(torch.zeros(2))]",
        "more[0] is a parameter that PyTorch does not find",
    ),
}


@pytest.mark.parametrize("mistake", MISFITS)
def test_what_is_not_of_the_form_is_one_line(fails: Fails, flip: str, mistake: str) -> None:
    before, after, said = MISFITS[mistake]
    line = fails(flip.replace(before, after, 1))
    assert line.startswith("advss: error: pretrain: the pretext task flip (their-plugin 2.5): ")
    assert said in line
    assert line.endswith("; `advss plugins check flip` says whether it keeps the contract\n")
    assert line.count("\n") == 1
