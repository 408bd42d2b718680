"""How far attacks made on one model succeed on others (the paper's section 4.5, Table 4 and Figure 5).

Letters: N images, M models. The outcome, ``transfer.json``, holds:

- ``models``: the M labels; ``runs``: what each is, its folder, its checkpoint's sha256, its seed, its examples, and
  what :func:`advss.evaluations.chance.against_chance` says of it;
- ``ta``: each model's share of right answers on the unperturbed images; ``error``: 1 - TA;
- ``asr``: M rows, the attacked models, of M columns, the models that the attack was made on, as in Table 4: what is
  wrong without any attack counts as success;
- ``both_right``: the number of images that both models have right unperturbed, and ``asr_both_right``, the share of
  these on which the example succeeds, null where there are none: M rows of M columns, as ``asr``. This is transfer;
- ``all_right``: places in the test set of the images that every model has right unperturbed;
- ``sets``: source -> attacked model -> places in the test set of the images whose example succeeds;
- ``overlap``: source -> ``others`` (the source left out, as in Figure 5), ``all``, and ``others_right``, the others on
  ``all_right`` alone -> ``regions``, ``union`` and ``not_shared``, see :func:`advss.evaluations.overlap.overlap`;
- ``attack``: its title and options; ``images``: of which data, of which run's configuration, how many of the test
  images, and the sha256 of all of these.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from advss.config import Choice
from advss.data.splits import Part
from advss.evaluations.chance import against_chance
from advss.evaluations.chunks import Measuring
from advss.evaluations.headline import share
from advss.evaluations.overlap import draw_asr, draw_overlap, overlap
from advss.evaluations.planned import planned
from advss.evaluations.tried import Model, Trying, attackable
from advss.files import write_text
from advss.runs.finished import Asked, Finished, open_finished
from advss.runs.folder import RunFolder, make_folder, plan_folder
from advss.runs.opened import log_data
from advss.runs.own_data import own_data
from advss.runs.reading import watched
from advss.runs.session import choose_device, followed, tracked
from advss.tracking.tracker import Tracker
from advss.training.memory import keep_freed_memory
from advss.training.reporting import Reporter

KIND: Final = "transfer"
OUTCOME = "transfer.json"
EXAMPLES = "examples"  # the evaluation that makes them

Outcome = dict[str, Any]
Successes = dict[str, dict[str, Tensor]]  # source -> attacked model -> (N,) bool: its example succeeds


def transfer(runs: Sequence[str | Path], asked: Asked, *, reporter: Reporter) -> Outcome:
    """Attack each run's model once and try its examples on all the others, on the first run's test images.

    Each model is attacked with the draws of its own run's seed, so that the matrix' diagonal is 1 - RA as ``advss
    evaluate`` measures it on these images. Examples are what ``advss evaluate --evaluate examples`` keeps in a run's
    folder, and serve the next call.

    Args:
        runs: names or folders, at least two, of the same test images and classes.
        asked: the attack, and where the outcome goes.
        reporter: told of the progress.

    Returns:
        The content of transfer.json, and ``folder``.

    Raises:
        UsageError: bad input, before anything is made.
        Interrupted: a signal came; the chunks of examples that were done are kept, and nothing else is left.
    """
    members, plan = open_finished(runs, asked.where), planned(Choice(EXAMPLES), asked.evaluation)
    place, device = plan_folder(asked.runs_dir, asked.name, kind=KIND), choose_device(asked.device)
    first = members[0].config
    with watched(reporter) as watch:
        splits = own_data(first, members[0].folder, ("test",), watch)
    models = [attackable(member, plan, splits) for member in members]
    folder = make_folder(place, resume=False, named=asked.name is not None)
    keep_freed_memory()
    with (
        _nothing_left(folder),
        followed(folder.path, tracking=asked.tracking, what=KIND, lasts=(folder.path / OUTCOME).is_file) as (
            tracker,
            stop,
        ),
    ):
        reporter.say(f"transfer {folder.path}")
        attack = {"title": plan.title, **plan.options}
        tracker.params({"models": [m.label for m in members], **attack})
        log_data(tracker, splits, first)
        trying = Trying(plan, splits, Measuring(device, 0, asked.evaluation.batch_size, reporter, stop))
        with tracked(tracker, KIND):
            outcome = _measured(models, trying) | {"attack": attack, "images": _data(members[0], trying)}
        tracker.begin()  # not before: what is broken off leaves nothing
        _write(outcome, folder, tracker)
    return outcome | {"folder": str(folder.path)}


def _measured(models: Sequence[Model], trying: Trying) -> Outcome:
    """What the models' answers come to."""
    made, succeeded = _succeeded(models, trying)
    ran = [_ran(model, made[model.label], trying) for model in models]
    clean = {label: answers["ta"] for label, answers in made.items()}
    return _outcome([model.label for model in models], ran, clean, succeeded, trying.images)


def _data(first: Finished, trying: Trying) -> Outcome:
    sha256 = trying.splits.fingerprint.of("test").sha256
    return {"data": trying.splits.name, "run": first.label, "count": len(trying.images), "sha256": sha256}


@contextmanager
def _nothing_left(folder: RunFolder) -> Iterator[None]:
    """Remove the folder where the outcome is not reached: the same command can then be given again."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise


def _succeeded(models: Sequence[Model], trying: Trying) -> tuple[dict[str, Mapping[str, Tensor]], Successes]:
    """What each model answers, and on which models its examples succeed; one model's examples at a time are held."""
    made: dict[str, Mapping[str, Tensor]] = {}
    succeeded: Successes = {}
    for source in models:
        found = trying.examples(source)
        right = {m.label: found["ra"] if m is source else trying.right(m, found["x"]) for m in models}
        succeeded[source.label] = {label: ~right_N for label, right_N in right.items()}
        made[source.label] = {name: found[name] for name in ("ta", "answer")}
    return made, succeeded


def _outcome(
    labels: Sequence[str],
    ran: Sequence[Outcome],
    clean: Mapping[str, Tensor],
    succeeded: Successes,
    images: Part,
) -> Outcome:
    all_right = _places(images, torch.stack(list(clean.values())).all(0))
    sets = {
        source: {label: _places(images, success_N) for label, success_N in of_source.items()}
        for source, of_source in succeeded.items()
    }
    return {
        "models": labels,
        "runs": ran,
        "ta": [share(clean[label]) for label in labels],
        "error": [1 - share(clean[label]) for label in labels],
        "asr": [[1 - share(~succeeded[source][attacked]) for source in labels] for attacked in labels],
        **_of_both_right(labels, clean, succeeded),
        "all_right": all_right,
        "sets": sets,
        "overlap": {source: _overlaps(source, of_source, all_right) for source, of_source in sets.items()},
    }


def _ran(model: Model, answers: Mapping[str, Tensor], trying: Trying) -> Outcome:
    """What a model is, and whether its answers to the unperturbed images say that it has learnt anything."""
    run = model.run
    return {
        "model": run.label,
        "folder": str(run.folder.path),
        "sha256": run.manifest["sha256"],
        "seed": run.config.seed,
        "examples": str(model.this.answers),
        **against_chance(answers["answer"], trying.images.labels, trying.splits.classes),
    }


def _of_both_right(labels: Sequence[str], clean: Mapping[str, Tensor], succeeded: Successes) -> Outcome:
    """Counts and rates over the images that source and attacked model both have right unperturbed."""
    both = [[clean[source] & clean[attacked] for source in labels] for attacked in labels]
    rates = [
        [
            share(succeeded[source][attacked][both_N]) if both_N.any() else None
            for source, both_N in zip(labels, row, strict=True)
        ]
        for attacked, row in zip(labels, both, strict=True)
    ]
    return {"both_right": [[int(both_N.sum()) for both_N in row] for row in both], "asr_both_right": rates}


def _overlaps(source: str, of_source: Mapping[str, list[int]], all_right: list[int]) -> Outcome:
    """How far one source's successes are the same images on the models."""
    every = {label: set(places) for label, places in of_source.items()}
    others = {label: places for label, places in every.items() if label != source}
    right = {label: places & set(all_right) for label, places in others.items()}
    return {"others": overlap(others), "all": overlap(every), "others_right": overlap(right)}


def _places(images: Part, chosen_N: Tensor) -> list[int]:
    """Places in the test set of some of the images, in order."""
    places: list[int] = images.index[chosen_N].sort().values.tolist()
    return places


def _write(outcome: Outcome, folder: RunFolder, tracker: Tracker) -> None:
    """The outcome as JSON, one key a line, its figures, and both for the tracker."""
    path, figures = folder.path / OUTCOME, folder.path / "figures"
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in outcome.items()]
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")
    drawn = *draw_asr(outcome, figures / "asr.png"), *draw_overlap(outcome, figures / "venn.png")
    for file in (path, *drawn):
        tracker.artifact(file)
    labels = outcome["models"]
    cells = [(row, column) for row in range(len(labels)) for column in range(len(labels))]
    rates = {
        f"{kind}/{labels[row]}/{labels[column]}": outcome[kind][row][column]
        for kind in ("asr", "asr_both_right")
        for row, column in cells
    }
    rates |= {f"{kind}/{label}": outcome[kind][row] for kind in ("ta", "error") for row, label in enumerate(labels)}
    tracker.metrics("", 0, {name: rate for name, rate in rates.items() if rate is not None})
