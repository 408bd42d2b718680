"""Do not take our word for it: attack a run's model with foolbox and compare.

    python examples/foolbox_check.py RUN --steps 20 --limit 200

Needs foolbox (``pip install 'advss[test]'``). The model takes images in [0, 1] and normalises inside, so any attack
library gets it as it is.
"""

from __future__ import annotations

import argparse

import torch
from foolbox.attacks.fast_gradient_method import LinfFastGradientAttack
from foolbox.attacks.projected_gradient_descent import LinfProjectedGradientDescentAttack
from foolbox.models.pytorch import PyTorchModel
from foolbox.utils import accuracy

import advss
from advss.attacks import Threat


def main() -> None:
    """Print TA, and RA by foolbox's PGD and by several of its other attacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="name or folder of a run, or a fine-tuning checkpoint")
    parser.add_argument("--eps", type=float, default=8 / 255)
    parser.add_argument("--step-size", type=float, default=2 / 255)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--limit", type=int, default=0, help="test images; 0 takes all")
    arguments = parser.parse_args()
    try:
        threat = Threat(eps=arguments.eps, step_size=arguments.step_size, steps=arguments.steps)
    except ValueError as error:  # 8 for 8/255, say
        parser.error(str(error))

    torch.manual_seed(0)
    x, y = advss.load_data(arguments.run, split="test")
    x, y = x[: arguments.limit or None], y[: arguments.limit or None]
    model = PyTorchModel(advss.load_model(arguments.run), bounds=(0, 1), device=x.device)
    print(f"TA                 {accuracy(model, x, y):.4f}  ({len(x)} images)")
    attacks = {
        f"RA, PGD-{threat.steps}": LinfProjectedGradientDescentAttack(
            abs_stepsize=threat.step_size, steps=threat.steps
        ),
        "RA, FGSM": LinfFastGradientAttack(),
    }
    for name, attack in attacks.items():
        *_, fooled = attack(model, x, y, epsilons=threat.eps)
        print(f"{name:<18} {1 - fooled.float().mean().item():.4f}")


if __name__ == "__main__":
    main()
