"""What Python code calls: a run, what is measured of it, and its model and data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Unpack

from torch import Tensor, nn

from advss.cli.progress import reporter_for
from advss.cli.study_shown import view_of
from advss.config import DataFlag
from advss.configuration.keywords import Component, Keywords, MeasuringKeywords
from advss.configuration.layers import Said, members_of
from advss.configuration.resolve import by_flag, from_mapping
from advss.data.splits import part_tensors
from advss.errors import UsageError, did_you_mean
from advss.evaluations.evaluate import evaluate as measure
from advss.launching import USUAL
from advss.models.entrance import guarded
from advss.models.features import ImageFeatures
from advss.plugins import build
from advss.runs.classifier import load_classifier
from advss.runs.features import load_features
from advss.runs.folder import begun_by, classifier_of, encoder_of, find_run
from advss.runs.own_data import own_data
from advss.runs.stored import found_config, stored_config
from advss.stages.fit import fit as fit_run
from advss.studies.asked import asked_for, made_by_others
from advss.studies.definition import seeds_of
from advss.studies.records import records
from advss.studies.run import launch, lay_out, write_down
from advss.training.reporting import Reporter, Silent


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
    return fit_run(from_mapping(settings), reporter=_reporter(progress))


def evaluate(
    run: str | Path,
    *,
    limit: int | None = None,
    data: Mapping[str, str | Path] | None = None,
    runs_dir: str | Path = "runs",
    progress: bool = False,
    **settings: Unpack[MeasuringKeywords],
) -> dict[str, Any]:
    """Measure a run's best classifier on its test images; what was measured before stays beside it.

    Args:
        run: a run's name or its folder, of an ensemble too.
        limit: measure this many of the test images, as many of each class; None is what the run says.
        data: where the data are now, if they were moved, as of :func:`load_data`.
        runs_dir: where names are looked up.
        progress: as of :func:`fit`.
        **settings: the command line's options, with underscores, e.g. ``evaluate="pgd"``, several as a list,
            ``evaluate={"pgd": {"steps": 50}}``, ``eval_eps=4 / 255``; what is not said is as the run has it.

    Returns:
        The content of the run's result.json, and ``measured``, a list: what stands in the file of each measurement, in
        order, ``figures`` among it. Where the first of them with an RA is not the run's headline, its TA and RA stand
        in the headline's place, and the headline under ``headline``.

    Raises:
        UsageError: there is no such run, or it cannot be measured so, before anything is measured.
        Interrupted: as of :func:`fit`; the same again goes on from what was measured.
    """
    known = {*MeasuringKeywords.__annotations__, "limit", "data", "runs_dir", "progress"}
    for keyword in settings:
        if keyword not in known:
            raise UsageError(f"unknown setting {keyword}{did_you_mean(keyword, known)}")
    folder, said = find_run(run, Path(runs_dir)), by_flag(settings)
    if limit is not None:
        said["eval-limit"] = limit
    config = stored_config(folder.path, said, measured=True)
    return measure(
        folder.path,
        config.evaluation,
        config.evaluate,
        device=config.device,
        where={option: str(place) for option, place in (data or {}).items()},
        reporter=_reporter(progress),
    )


def study(
    study: str | Path | Mapping[str, Any] | None = None,
    *,
    fixed: Mapping[str, Any] | None = None,
    vary: Mapping[str, Sequence[Any]] | None = None,
    seeds: int | Sequence[int] | None = None,
    name: str | None = None,
    launcher: Component = USUAL,
    retry: int = 0,
    progress: bool = False,
) -> Any:
    """Run a grid of runs as one job, as ``advss study run``; the same again goes on, and does what is added.

    Args:
        study: a study's file, the name of one, or its parts, as in the file; None is what is said here alone.
        fixed: settings of all cells over the study's own, as of :func:`fit`: ``{"finetune_epochs": 4}``; ``runs_dir``
            is among them.
        vary: values by setting, ``{"pretext": ["none", "selfie", ["selfie", "rotation"]]}``.
        seeds: how many each cell has, or which; None is what the study says.
        name: of the study's folder in ``studies``; made from the file, or from the date, when absent.
        launcher: who runs the jobs, ``{"local": {"jobs": 2}}``.
        retry: how often a failed stage is tried again.
        progress: say which stage begins and ends, on stderr.

    Returns:
        A record a cell, ``cell``, ``seed``, ``state``, ``ta``, ``ra`` and others: a pandas frame where pandas is
        installed, else a list of dictionaries.

    Raises:
        UsageError: a part of the study cannot be understood, before any training; or stages are there that other
            versions of plugins have made, of which ``advss study run`` asks whether they are kept.
        Interrupted: as of :func:`fit`; the same again goes on.
    """
    (named,) = members_of("launcher", Said(launcher, "launcher"))
    chosen, said = build("launcher", named), by_flag(fixed or {})
    runs, reporter = Path(said.pop("runs-dir", "runs")), _reporter(progress)
    found, folder = asked_for(
        study,
        said,
        {flag.replace("_", "-"): list(values) for flag, values in (vary or {}).items()},
        None if seeds is None else seeds_of(seeds if isinstance(seeds, int) else list(seeds), origin="seeds"),
        name=name,
        studies_dir=Path("studies"),
    )
    laid = lay_out(found, runs, reporter, folder.timed)
    if line := made_by_others(laid):
        raise UsageError(f"{line}; `advss study run {folder.name} --versions keep` keeps them, `new` trains them anew")
    known = write_down(laid, folder, runs)
    launch(known, chosen, retry=retry, view=view_of(quiet=not progress))
    return _framed(records(known))


def _framed(found: list[dict[str, Any]]) -> Any:
    """A pandas frame where pandas is installed, which nothing here needs."""
    return import_module("pandas").DataFrame(found) if find_spec("pandas") else found


def _reporter(progress: bool) -> Reporter:
    return reporter_for(quiet=False) if progress else Silent()


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
        UsageError: there is no such run, split or stage, or its data cannot be read or are others than it saw.
    """
    if split not in ("train", "valid", "test"):
        raise UsageError(f"split '{split}' is none of train, valid, test")
    if stage not in (None, "pretrain", "finetune"):
        raise UsageError(f"stage '{stage}' is none of pretrain, finetune")
    folder = find_run(run, Path(runs_dir))
    pretraining = stage == "pretrain" if stage else begun_by(folder.read_result()) == "pretrain"
    flag: DataFlag = "pretrain-data" if pretraining and stored_config(folder.path).pretrain_data else "data"
    splits = own_data(found_config(folder.path, data, flag), folder, (split,), flag=flag)
    return part_tensors(splits.parts[split])
