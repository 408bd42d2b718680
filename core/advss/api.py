"""What Python code calls: a run, and a run's model and data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Unpack

from torch import Tensor, nn

from advss.cli.progress import reporter_for
from advss.config import DataFlag
from advss.configuration.keywords import Keywords
from advss.configuration.resolve import from_mapping
from advss.data.splits import part_tensors
from advss.errors import UsageError
from advss.models.entrance import guarded
from advss.models.features import ImageFeatures
from advss.runs.classifier import load_classifier
from advss.runs.features import load_features
from advss.runs.folder import begun_by, classifier_of, encoder_of, find_run
from advss.runs.own_data import own_data
from advss.runs.stored import found_config, stored_config
from advss.stages.fit import fit as fit_run
from advss.training.reporting import Silent


def fit(*, progress: bool = False, **settings: Unpack[Keywords]) -> dict[str, Any]:
    """Pretrain, fine-tune and evaluate.

    Args:
        progress: show a bar on a terminal and in a notebook, elsewhere a line an epoch; on stderr.
        **settings: the command line's options, with underscores, e.g. ``pretext="selfie"``,
            ``defense={"pgd": {"steps": 5}}``, ``pretrain_epochs=1``.

    Returns:
        The content of the run's result.json.

    Raises:
        UsageError: an unknown or unusable setting, before any training.
        Interrupted: Ctrl-C or a signal, no Exception; all is saved, and ``advss fit --resume RUN`` goes on, where
            ``RUN`` is its attribute ``run``.
    """
    return fit_run(from_mapping(settings), reporter=reporter_for(quiet=False) if progress else Silent())


def load_model(run: str | Path, *, runs_dir: str | Path = "runs") -> nn.Module:
    """The best fine-tuned classifier of a run, in eval mode, on the CPU.

    Args:
        run: a run's name, its folder, or a fine-tuning checkpoint (``.safetensors``).
        runs_dir: where names are looked up.

    Returns:
        A module from images in [0, 1] (B, 3, S, S), S the side it was trained on, to logits (B, K); normalisation is
        inside. Called with images of another dtype or shape, or first with values in 0...255, it raises UsageError.

    Raises:
        UsageError: there is no such run or model, or its bytes are not those saved.
    """
    path = Path(run)
    return guarded(load_classifier(path if path.is_file() else classifier_of(find_run(run, Path(runs_dir)))))


def load_encoder(run: str | Path, task: str | None = None, *, runs_dir: str | Path = "runs") -> ImageFeatures:
    """Encoder and last stage of a run's best pretraining epoch, without heads, in eval mode, on the CPU.

    Of a run that pretrained it is what fine-tuning starts from: the encoder, which all tasks share, and the last stage
    of ``task``, or of the first task with one, as ``--finetune-tail auto`` has it, in the same BatchNorm branch. Where
    there is no last stage, features are the mean of the encoder's map, and a line says so. Weights are those that are
    kept: the moving average where the run has one.

    Of a run without pretraining of its own (``advss finetune --from``, ``--pretext none``) it is the fine-tuned
    classifier without its head; so it is of a fine-tuning checkpoint's file. No plugin of the run is asked for, but the
    one that registers its backbone.

    Args:
        run: a run's name, its folder, or a checkpoint (``.safetensors``).
        task: the pretext task whose last stage it is; in an ensemble, its key.
        runs_dir: where names are looked up.

    Returns:
        A module from images in [0, 1] (B, 3, S, S), S the side it was trained on, to features (B, D), D its attribute
        ``features``; normalisation is inside. ``.encoder`` gives the map alone. What it is called with is looked at as
        :func:`load_model` does it.

    Raises:
        UsageError: there is no such run, encoder or task, or its bytes are not those saved.
    """
    path = Path(run)
    return guarded(load_features(path if path.is_file() else encoder_of(find_run(run, Path(runs_dir))), task))


def load_data(
    run: str | Path,
    split: Literal["train", "valid", "test"] = "test",
    *,
    stage: Literal["pretrain", "finetune"] | None = None,
    data: Mapping[str, str | Path] | None = None,
    runs_dir: str | Path = "runs",
) -> tuple[Tensor, Tensor]:
    """The images and labels that a run saw: (N, 3, H, W) float32 in [0, 1] and (N,) int64, -1 where there is none.

    Args:
        run: a run's name or its folder.
        split: which images.
        stage: whose, of a run with ``--pretrain-data``; None is the stage that the run ends in.
        data: where the data are now, if they were moved, as ``--data.root DIR``: ``{"root": "/new/place"}``.
        runs_dir: where names are looked up.

    Raises:
        UsageError: there is no such run or split, or its data cannot be read or are others than it saw.
    """
    if split not in ("train", "valid", "test"):
        raise UsageError(f"split '{split}' is none of train, valid, test")
    folder = find_run(run, Path(runs_dir))
    pretraining = stage == "pretrain" if stage else begun_by(folder.read_result()) == "pretrain"
    flag: DataFlag = "pretrain-data" if pretraining and stored_config(folder.path).pretrain_data else "data"
    splits = own_data(found_config(folder.path, data, flag), folder, (split,), flag=flag)
    return part_tensors(splits.parts[split])
