"""The same adversarial images, and the same robust accuracy, as foolbox's PGD gives."""

from __future__ import annotations

import foolbox as fb
import pytest
import torch
import torch.nn.functional as F
from foolbox.attacks.sparse_l1_descent_attack import SparseL1DescentAttack
from foolbox.models.pytorch import PyTorchModel
from torch import Tensor, nn

from advss.attacks import Norm, Threat, maximise
from advss.attacks.pgd import PGD

OTHERS = {"linf": fb.attacks.LinfPGD, "l2": fb.attacks.L2PGD, "l1": SparseL1DescentAttack}


def conv_net(classes: int, *, channels: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.Tanh(),  # smooth: no kink at which a rounding error turns a gradient's sign
            nn.Conv2d(8, 8, 3, stride=2),
            nn.Tanh(),
            nn.Flatten(),
            nn.LazyLinear(classes),
        )


@pytest.mark.parametrize(
    ("norm", "eps", "step_size", "low"),
    [
        ("linf", 8 / 255, 2 / 255, 0.0),
        ("l2", 0.5, 0.125, 0.0),
        ("l1", 4.0, 0.2, 0.4),  # within ball and [0, 1]: their projection comes back too little, and is clamped then
    ],
)
def test_the_adversarials_are_foolboxs(norm: Norm, eps: float, step_size: float, low: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, label = low + (1 - 2 * low) * torch.rand(8, 3, 16, 16, generator=generator), torch.arange(8) % 5
    model = conv_net(5, channels=3).double()
    model(x.double())  # gives the BatchNorm statistics of their own
    model.eval()
    attack = OTHERS[norm](abs_stepsize=step_size, steps=10, random_start=False)
    theirs = attack.run(
        PyTorchModel(model, bounds=(0, 1)), x.double(), fb.criteria.Misclassification(label), epsilon=eps
    )
    (ours,) = maximise(
        lambda inputs: F.cross_entropy(model(inputs[0]), label),
        (x.double(),),
        generator,
        Threat(norm=norm, eps=eps, step_size=step_size, steps=10),
        start="none",
    )
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert (ours - x).abs().max() > 0.02


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """A small network trained on scikit-learn's digits in float32, and the 597 digits that it did not see."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    label = torch.tensor(digits.target, dtype=torch.int64)
    model = conv_net(10, channels=1)
    model(x[:2])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(60):
        part = slice(step % 12 * 100, step % 12 * 100 + 100)
        optimizer.zero_grad()
        F.cross_entropy(model(x[part]), label[part]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval(), x[1200:], label[1200:]


@pytest.mark.parametrize(
    ("norm", "eps", "step_size", "top_share", "stronger"),
    [
        ("linf", 8 / 255, 2 / 255, None, 0.01),
        ("l2", 0.5, 0.125, None, 0.01),
        ("l1", 1.5, 0.3, 0.05, 0.05),  # by the exact projection, as most of these pixels are black
    ],
)
def test_robust_accuracy_is_foolboxs_within_a_point_or_less_where_theirs_is_weaker(
    trained: tuple[nn.Module, Tensor, Tensor],
    norm: Norm,
    eps: float,
    step_size: float,
    top_share: float | None,
    stronger: float,
) -> None:
    model, x, label = trained
    threat = Threat(norm=norm, eps=eps, step_size=step_size, steps=20, top_share=top_share)
    found = PGD()(model, x, label, threat, torch.Generator().manual_seed(0))
    clean, robust = found.clean_B == label, found.robust_B
    torch.manual_seed(0)
    quantile = {} if top_share is None else {"quantile": 1 - top_share}
    attack = OTHERS[norm](abs_stepsize=step_size, steps=20, random_start=True, **quantile)
    _, _, broken = attack(PyTorchModel(model, bounds=(0, 1)), x, label, epsilons=eps)
    theirs = 1 - float(broken.float().mean())
    ours = float(robust.float().mean())
    assert float(clean.float().mean()) > 0.85
    assert -0.01 <= theirs - ours <= stronger
    assert ours < float(clean.float().mean()) - 0.02
