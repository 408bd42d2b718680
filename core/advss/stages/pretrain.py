"""Stage 1, P2 and P3 of the paper's Table 1: train the encoder on pretext tasks, standard or adversarially."""

from __future__ import annotations

from typing import Final

from torch import nn

from advss.config import Choice
from advss.errors import UsageError
from advss.hookspecs import Encoder, Phase, PretextTask, branch
from advss.models.spec import build_encoder_from
from advss.plugins.registry import build
from advss.randomness import global_stream
from advss.stages.session import Session, build_defense, described
from advss.stages.validation import pretext_score, pretext_validation
from advss.training.checkpoints import has_checkpoint
from advss.training.trainer import Progress
from advss.training.work import Modules, Work

STAGE: Final = "pretrain"


def pretrain_stage(session: Session) -> Progress:
    """Train, or go on training, the encoder of a run; leaves pretrain/{last,best}.safetensors."""
    return session.train(pretrain_work(session))


def pretrain_work(session: Session) -> Work:
    """The pretraining stage of a run, built and not yet trained."""
    config, settings = session.config, session.config.pretraining
    members = {choice.key or choice.name: _task(choice) for choice in config.pretext}
    spec = session.spec(tuple(dict.fromkeys(name for task in members.values() for name in task.branches)))
    with global_stream("cpu", config.seed, "init", "encoder"):
        encoder = build_encoder_from(spec)
    for key, task in members.items():
        _build_heads(key, task, encoder, config.seed)
    modules = Modules(encoder.to(session.device), members, STAGE).to(session.device)
    if not has_checkpoint(session.folder.last(STAGE)):
        _prepare(session, members, encoder)
    defense = build_defense(config.defense)
    valid = session.loader(session.splits.valid, settings, STAGE + "-valid")
    return Work(
        modules=modules,
        defense=defense,
        loader=session.loader(session.splits.train, settings, STAGE),
        phases=[Phase(1.0, [{"params": list(modules.parameters())}])],
        settings=settings,
        validate=pretext_validation(
            valid, settings.batch_size, defense, seed=config.seed, diversity=config.diversity, stop=session.stop
        ),
        score=pretext_score,
        seed=config.seed,
        device=session.device,
        diversity=config.diversity,
        bf16=session.bf16,
        manifest={
            "kind": STAGE,
            "model": spec.to_json(),
            "pretext": {c.key or c.name: described(c) for c in config.pretext},
            "defense": described(config.defense),
            "start": _start(members),
        },
    )


def _task(choice: Choice) -> PretextTask:
    task = build("pretext", choice)
    assert isinstance(task, PretextTask)
    return task


def _build_heads(key: str, task: PretextTask, encoder: Encoder, seed: int) -> None:
    with global_stream("cpu", seed, "init", key):
        try:
            task.build(encoder)
        except ValueError as error:
            raise UsageError(f"--pretext {key}: {str(error).removeprefix(f'{task.name}: ')}") from error


def _prepare(session: Session, members: dict[str, PretextTask], encoder: Encoder) -> None:
    for key, task in members.items():
        if type(task).prepare is not PretextTask.prepare:
            stream = global_stream(session.device, session.config.seed, "prepare", key)
            with stream, branch(task.branches[0], encoder, task):
                task.prepare(encoder, session.everything_in_order())


def _start(members: dict[str, PretextTask]) -> dict[str, str]:
    """Where fine-tuning finds its weights: the first member's BatchNorm branch, the first last stage there is."""
    owner = next((key for key, task in members.items() if isinstance(task.tail, nn.Module)), "")
    first = owner or next(iter(members))
    return {"branch": members[first].branches[0], "tail": f"tasks.{owner}.tail." if owner else ""}
