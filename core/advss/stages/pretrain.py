"""Stage 1, P2 and P3 of the paper's Table 1: train the encoder on pretext tasks, standard or adversarially."""

from __future__ import annotations

from typing import Final

from torch import nn

from advss.config import Choice, RunConfig
from advss.ensemble.diversity import Diversity
from advss.errors import UsageError
from advss.hookspecs import Encoder, Phase, PretextTask
from advss.models.spec import build_encoder_from
from advss.plugins.provenance import Record, choices_of, used_by
from advss.plugins.registry import build
from advss.randomness import global_stream, of_member
from advss.runs.session import Session, build_defense, described
from advss.runs.start import choose_start
from advss.stages.validation import pretext_score, pretext_validation, validation_images
from advss.training.blame import blaming, fitting, refused
from advss.training.form import check_made
from advss.training.progress import Progress
from advss.training.work import Modules, Work

STAGE: Final = "pretrain"


def pretrain_stage(session: Session) -> Progress:
    """Train, or go on training, the encoder of a run; leaves pretrain/{last,best}.safetensors."""
    return session.train(pretrain_work(session))


def pretrain_work(session: Session) -> Work:
    """The pretraining stage of a run, built and not yet trained."""
    plugins = used_by(choices_of(session.config, STAGE))
    with blaming(STAGE, plugins):
        return _work(session, plugins)


def _work(session: Session, plugins: list[Record]) -> Work:
    config, settings = session.config, session.config.pretraining
    tasks = {choice.key or choice.name: _task(choice, plugins) for choice in config.pretext}
    members = dict(sorted(tasks.items()))  # so that the order in which they are named changes nothing
    splits = session.seen_by(STAGE)
    spec = session.spec(tuple(dict.fromkeys(name for task in members.values() for name in task.branches)), STAGE)
    with global_stream("cpu", config.seed, "init", "encoder"):
        encoder = build_encoder_from(spec, session.first_tensors)
    for key, task in members.items():
        _build_heads(key, task, encoder, config.seed, plugins)
    modules = Modules(encoder.to(session.device), members, STAGE).to(session.device)
    defense = build_defense(config.defense)
    valid = validation_images(session, settings, STAGE)
    return Work(
        modules=modules,
        defense=defense,
        loader=session.loader(splits.train, settings, STAGE),
        phases=[Phase(1.0, [{"params": [p for p in modules.parameters() if p.requires_grad]}])],
        settings=settings,
        validate=pretext_validation(valid, settings.batch_size, defense, seed=config.seed, stop=session.stop),
        score=pretext_score,
        seed=config.seed,
        device=session.device,
        diversity=_diversity(config),
        averaged=config.ensemble_loss == "mean",
        bf16=session.bf16,
        everything=session.everything(settings, STAGE),
        manifest={
            "kind": STAGE,
            "model": spec.to_json(),
            "pretext": {c.key or c.name: described(c) for c in config.pretext},
            "defense": described(config.defense),
            "starts": _starts(tasks, config.finetune_tail),
        },
        plugins=plugins,
        stop=session.stop,
    )


def _diversity(config: RunConfig) -> Diversity:
    return Diversity(
        config.diversity,
        config.diversity_in,
        config.diversity_sign,
        config.diversity_every,
        config.diversity_pixels,
    )


def _task(choice: Choice, plugins: list[Record]) -> PretextTask:
    task = build("pretext", choice)
    assert isinstance(task, PretextTask)
    with fitting(STAGE, task, plugins):
        check_made(task)
    return task


def _build_heads(key: str, task: PretextTask, encoder: Encoder, seed: int, plugins: list[Record]) -> None:
    with global_stream("cpu", seed, "init", of_member(key)):
        try:
            task.build(encoder)
        except ValueError as error:
            raise UsageError(f"--pretext {key}: {refused(error, plugins).removeprefix(f'{task.name}: ')}") from error


def _starts(tasks: dict[str, PretextTask], wanted: str) -> dict[str, dict[str, str]]:
    """Where fine-tuning finds its weights: each member's BatchNorm branch, and its last stage where it has one.

    Raises:
        UsageError: the last stage that is wanted is of a member that has none.
    """
    starts = {
        key: {"branch": task.branches[0], "tail": f"tasks.{key}.tail." if isinstance(task.tail, nn.Module) else ""}
        for key, task in tasks.items()
    }
    choose_start(starts, wanted)
    return starts
