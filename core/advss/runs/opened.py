"""How a run is opened: a new folder or one that is gone on with, a session in it, and what is tracked of it."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from advss.config import DataFlag, RunConfig, paths_in
from advss.configuration.resolve import to_yaml
from advss.data.fingerprint import PARTS, PartName
from advss.data.splits import Splits
from advss.data.summary import overlap
from advss.errors import UsageError
from advss.files import write_text
from advss.models.families import family_of
from advss.plugins.provenance import choices_of, saying_what_is_needed, used_by
from advss.runs.curves import draw_curves
from advss.runs.diversity import draw_diversity
from advss.runs.folder import Command, RunFolder, check_command, make_folder, plan_run, told_finished
from advss.runs.initial import first_weights, keep_weights, kept_weights, told
from advss.runs.lock import check_free, locked
from advss.runs.own_data import own_data
from advss.runs.reading import watched
from advss.runs.session import Session, choose_device, followed, open_data
from advss.runs.stored import found_config, keep_evaluations
from advss.tracking.journal import What
from advss.tracking.tracker import Tracker
from advss.training.checkpoints import has_checkpoint
from advss.training.memory import keep_freed_memory
from advss.training.reporting import Reporter

Result = dict[str, Any]


@contextmanager
def opened(
    config: RunConfig, command: Command, *, resume: bool, reporter: Reporter, source: Path | None = None
) -> Iterator[Session | None]:
    """A session in the run's folder, made or gone on with by ``command``; None when the run is finished.

    ``source`` is the pretraining checkpoint that a new one starts from.
    """
    folder = plan_run(config, resume=resume)
    new = not (resume and folder.path.exists())
    with ExitStack() as stack:
        if not new:
            stack.enter_context(locked(folder.path))  # before anything of it is read
            if folder.finished:
                yield None
                return
            check_command(folder, command)
        reporter.say(f"{'resuming' if resume else 'starting'} {folder.name}")
        with saying_what_is_needed(lambda: folder.read_result().get("plugins"), run=folder.name):
            family_of(config.architecture.name)
        device = choose_device(config.device)  # before minutes of reading
        splits, pretrained = _read_data(config, command, None if new else folder, reporter)
        for line in overlap(splits, pretrained):
            reporter.say(line)
        facts = (pretrained or splits).facts
        weights = first_weights(config, facts, source, reporter.say) if new else kept_weights(config, folder)
        if weights:
            reporter.say(told(weights, config, facts))
        folder = make_folder(folder, resume=resume, named=config.name is not None)
        if new:
            stack.enter_context(locked(folder.path))

        def lasts() -> bool:
            return not new or any(has_checkpoint(folder.last(stage)) for stage in ("pretrain", "finetune"))

        stack.enter_context(_no_folder_left(folder, lasts))
        if weights and new:
            keep_weights(weights, folder)
        if not folder.config.is_file():
            write_text(folder.config, to_yaml(dataclasses.replace(config, name=None)))
        keep_evaluations(folder, config)
        config = dataclasses.replace(config, name=folder.name, device=str(device))
        session = stack.enter_context(open_session(config, folder, splits, reporter, lasts=lasts))
        session.weights, session.pretrain_splits = weights, pretrained
        if pretrained:
            log_data(session.tracker, pretrained, config.chosen("pretrain-data"))
        _record_start(session, command)
        yield session


def _read_data(
    config: RunConfig, command: Command, begun: RunFolder | None, reporter: Reporter
) -> tuple[Splits, Splits | None]:
    """The images of a command, and those that are pretrained on where they are others; of a run that has begun, its."""

    def read(flag: DataFlag, parts: tuple[PartName, ...]) -> Splits:
        with watched(reporter, told=flag) as watch:
            if begun is None:
                return open_data(config, parts, watch, flag)
            return own_data(config, begun, parts, watch, flag)

    others: DataFlag = "pretrain-data" if config.pretrain_data else "data"
    if command == "pretrain":
        return read(others, ("train", "valid")), None
    splits = read("data", PARTS)
    apart = command == "fit" and config.pretrain_data
    return splits, read(others, ("train", "valid")) if apart else None


def _record_start(session: Session, command: Command) -> None:
    """Write down and track what a run is made of, as it begins or goes on."""
    config, folder, weights = session.config, session.folder, session.weights
    plugins = used_by(choices_of(config, "pretrain", "finetune", "evaluate"))
    now = {"command": command, "plugins": plugins, "weights": weights and weights.described(), "status": "running"}
    session.record(**(blank_result(config, folder) | folder.read_result() | now))
    versions = {f"{p['kind']}.{p['name']}": f"{p['distribution']} {p['version']}" for p in plugins}
    session.tracker.params({"command": command, "plugins": versions})
    session.tracker.artifact(folder.config)


@contextmanager
def _no_folder_left(folder: RunFolder, lasts: Callable[[], bool]) -> Iterator[None]:
    """Remove a new folder when bad input shows before there is anything to go on from."""
    try:
        yield
    except UsageError:
        if not lasts():
            shutil.rmtree(folder.path, ignore_errors=True)
        raise


@contextmanager
def reopened(
    folder: RunFolder, *, device: str, reporter: Reporter, where: Mapping[str, str] | None = None
) -> Iterator[Session]:
    """A session in a run's folder, to measure its model on ``device``; plugins that trained it may be gone by now.

    ``where`` says by option of their source where its data are now.

    Raises:
        UsageError: another process trains in it.
    """
    check_free(folder.path)
    stored = found_config(folder.path, where)
    config = dataclasses.replace(stored, name=folder.name, runs_dir=folder.path.parent, device=device)
    with watched(reporter) as watch:
        splits = own_data(config, folder, ("test",), watch)
    with open_session(config, folder, splits, reporter, what="measurement") as session:
        yield session


@contextmanager
def open_session(
    config: RunConfig,
    folder: RunFolder,
    splits: Splits,
    reporter: Reporter,
    *,
    what: What = "run",
    params: Mapping[str, Any] | None = None,
    lasts: Callable[[], bool] = lambda: True,
) -> Iterator[Session]:
    """What every stage of one run shares, for as long as it is open; the configuration and the data are tracked.

    ``what`` and ``lasts`` as of :func:`followed`; ``params`` are tracked with, and before, the configuration's.
    """
    keep_freed_memory()
    with followed(folder.path, tracking=config.tracking, what=what, lasts=lasts) as (tracker, stop):
        if what == "run":  # else it has them
            said = dict(params or {})
            tracker.params(said | _as_params(config) | said)
        log_data(tracker, splits, config)
        yield Session(config, folder, splits, choose_device(config.device), tracker, reporter, stop)


def close(session: Session, *, status: str = "finished") -> Result:
    """Draw the curves and write down how the run stands; one that was evaluated before its end can still be resumed."""
    drawn = session.folder.journal, session.folder.path / "figures"
    for figure in [*draw_curves(*drawn), *draw_diversity(*drawn)]:
        session.tracker.artifact(figure)
    result = session.record(status=status)
    session.tracker.artifact(session.folder.result)
    return result


def finished_result(config: RunConfig, reporter: Reporter) -> Result:
    """What a finished run came to, which the user is told."""
    return told_finished(plan_run(config, resume=True), reporter)


def blank_result(config: RunConfig, folder: RunFolder) -> Result:
    """What result.json holds of a run that has not been measured yet."""
    return {
        "name": folder.name,
        "pretext": [member.name for member in config.pretext],
        "defense": config.defense.name,
        "finetune": {"scheme": config.finetune.name, "defense": config.finetune_defense.name},
        "data": config.data.name,
        "pretrain_data": config.pretrain_data.name if config.pretrain_data else None,
        "backbone": config.architecture.name,
        "seed": config.seed,
        "device": _device_name(config.device),
        "ta": None,
        "ra": None,
        "ra_attack": None,
        "best_epoch": None,
        "folder": str(folder.path),
    }


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _as_params(config: RunConfig) -> dict[str, Any]:
    """The configuration as the parameters of a tracked run: what was chosen first, as MLflow then shows it."""
    plain = dataclasses.asdict(config)
    members = plain.pop("pretext")
    chosen: dict[str, Any] = {"pretext": ",".join(member["name"] for member in members) or "none"}
    options: dict[str, Any] = {"pretext_options": {m["key"] or m["name"]: m["options"] for m in members}}
    for key in ("defense", "finetune", "finetune_defense", "data", "pretrain_data", "backbone"):
        choice = plain.pop(key) or {"name": "none", "options": {}}
        chosen[key], options[f"{key}_options"] = choice["name"], choice["options"]
    return {**chosen, "seed": plain.pop("seed"), **options, **plain, "runs_dir": str(config.runs_dir)}


def log_data(tracker: Tracker, splits: Splits, config: RunConfig) -> None:
    """Tell the tracker which data a run sees."""
    counts: dict[str, int] = {name: len(part) for name, part in splits.parts.items()}
    profile = counts | {"classes": len(splits.classes), "side": splits.side}
    places = [str(place) for value in config.data.options.values() for place in paths_in(value)]
    source = ", ".join(places) or ("scikit-learn" if splits.name == "digits" else splits.name)
    tracker.dataset(name=splits.name, source=source, fingerprint=splits.fingerprint.sha256, profile=profile)
