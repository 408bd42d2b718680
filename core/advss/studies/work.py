"""What a job of a study does: it finishes one stage's run, from wherever that stands, and measures it."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from advss.config import RunConfig
from advss.configuration.resolve import resolve, to_mapping
from advss.errors import UsageError
from advss.evaluations.ensemble import ensemble
from advss.evaluations.evaluate import evaluate
from advss.evaluations.transfer import transfer
from advss.files import write_json, write_text
from advss.runs.finished import Asked
from advss.runs.folder import RunFolder
from advss.runs.lock import held, locked, writing
from advss.runs.stored import resume_config, stored_config
from advss.stages.fit import finetune, pretrain
from advss.studies.folder import FAILED, MEASURED, StudyFolder
from advss.training.checkpoints import has_checkpoint
from advss.training.reporting import Reporter
from advss.training.signals import Interrupted

LOOK_S = 0.5
PATIENCE_S = 600.0  # for whoever works on the same: a job whose launcher has died saves and ends before that
PLACES = ("device", "tracking", "checkpoint-minutes")  # that may differ when a run is gone on with


def work(study: StudyFolder, run: str, *, reporter: Reporter) -> None:
    """Finish one stage of a study; a finished one is left as it is.

    Raises:
        UsageError: there is no such stage, or it cannot be done; the line is kept beside the job.
        Interrupted: a signal came; everything up to that step is saved.
    """
    if run not in study.stages:
        raise UsageError(f"study {study.path} has no stage '{run}'; see `advss study status {study.path}`")
    job = study.job(run)
    with locked(job, PATIENCE_S), _failing(job / FAILED):
        if study.finished(run):
            return
        _wait_for(study.run(run).path, reporter)
        stage = study.stages[run]
        config = stage_config(study, run)
        if stage["kind"] in ("pretrain", "finetune"):
            _train(study, run, config, reporter)
        else:
            _join(study, run, config, reporter)
        _measure(study, run, config, reporter)


def stage_config(study: StudyFolder, run: str) -> RunConfig:
    """A stage's configuration, in its run's folder."""
    config = resolve({}, configs=[study.job(run) / "config.yaml"], environ={}, say=False)
    return replace(config, name=run, runs_dir=study.runs_dir)


def tie() -> None:
    """Have this process save and end as soon as its standard input ends, which its launcher holds open."""

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock would be held as the interpreter ends
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def _failing(line: Path) -> Iterator[None]:
    """Within, what fails leaves its line, which the next try takes away."""
    line.unlink(missing_ok=True)
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        last = str(error) if isinstance(error, UsageError) else traceback.format_exception_only(error)[-1]
        write_text(line, " ".join(last.split()) + "\n")
        raise


def _wait_for(run: Path, reporter: Reporter) -> None:
    """Until nobody else works in a run's folder: another study may share it, or a job whose launcher has died."""
    told, until = False, time.monotonic() + PATIENCE_S
    while held(run) and time.monotonic() < until:
        if not told:
            reporter.say(f"{run} is in use; waiting for it")
            told = True
        time.sleep(LOOK_S)


def _train(study: StudyFolder, run: str, config: RunConfig, reporter: Reporter) -> None:
    folder, stage = study.run(run), study.stages[run]
    begun = folder.path.exists() and folder.config.is_file()
    if begun and not folder.finished:
        config = resume_config(folder.path, _since(folder.path, config), environ={})
    elif folder.path.exists() and not begun:  # it was killed before it wrote anything
        shutil.rmtree(folder.path)
    if stage["kind"] == "pretrain":
        pretrain(config, resume=begun, reporter=reporter)
        return
    source = study.run(stage["after"][0]).path if stage["after"] else None
    finetune(config, source=source, resume=begun, reporter=reporter)


def _since(run: Path, config: RunConfig) -> dict[str, Any]:
    """What may be said of a run that is gone on with: how it runs now, and where its data are now."""
    said = to_mapping(config)
    return {flag: said[flag] for flag in PLACES} | {f"data.{n}": place for n, place in _moved(run, config).items()}


def _moved(run: Path, config: RunConfig) -> dict[str, str]:
    """By option of their source, where the data are now, as far as they were elsewhere."""
    was = stored_config(run).data.options
    now = {name: value for name, value in config.data.options.items() if isinstance(value, Path)}
    return {name: str(place) for name, place in now.items() if was.get(name) != place}


def _measure(study: StudyFolder, run: str, config: RunConfig, reporter: Reporter) -> None:
    """Measure a finished run by all that the study asks for and that is not there."""
    folder = study.run(run)
    for digest, by in study.unmeasured(run).items():
        asked = stored_config(folder.path, by, measured=True)
        measured = evaluate(
            folder.path,
            asked.evaluation,
            asked.evaluate,
            device=config.device,
            where=_moved(folder.path, config) or None,
            reporter=reporter,
        )
        _note(folder, digest, measured)


def _note(folder: RunFolder, digest: str, measured: Mapping[str, Any]) -> None:
    files = [one["file"] for one in measured["measured"]]
    with writing(folder.path):
        result = folder.read_result()
        write_json(folder.result, {**result, MEASURED: {**(result.get(MEASURED) or {}), digest: files}})


def _join(study: StudyFolder, run: str, config: RunConfig, reporter: Reporter) -> None:
    """Average runs, or try their examples on one another."""
    stage, folder = study.stages[run], study.run(run)
    members = [study.run(member).path for member in stage["after"]]
    where = _moved(members[0], config) or None
    asked = Asked(config.evaluation, study.runs_dir, run, config.device, config.tracking, where)
    if stage["kind"] == "transfer":
        shutil.rmtree(folder.path, ignore_errors=True)  # of one that was killed
        transfer(members, asked, reporter=reporter)
        return
    if not has_checkpoint(folder.best("finetune")):
        shutil.rmtree(folder.path, ignore_errors=True)
        ensemble(members, asked, reporter=reporter)
