"""``advss study run|status|job``: a grid of runs as one job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advss.cli.arguments import Arguments, Grammar
from advss.cli.context import check_plugins, reporter_of, runs_dir_of
from advss.configuration.settings import COMPONENTS, SETTINGS
from advss.errors import UsageError
from advss.launching import TIED, USUAL
from advss.output import printed
from advss.training.signals import Interrupted

if TYPE_CHECKING:
    from advss.hookspecs import Launcher
    from advss.studies.definition import Definition
    from advss.studies.folder import StudyFolder
    from advss.studies.run import Laid

LAUNCHER = "launcher."
LEFT_OUT = ("seed", "name")  # of settings: a study says them itself


def study_run(arguments: Arguments) -> int:
    """``advss study run [STUDY]``."""
    from advss.cli.study_shown import print_plan, print_study, view_of
    from advss.studies.run import launch, lay_out, write_down

    check_plugins(arguments)
    study, folder = _asked(arguments)
    runs_dir, reporter = runs_dir_of(arguments), reporter_of(arguments)
    launcher, retry = _launcher(arguments), _retry(arguments)
    laid = _versions_settled(lay_out(study, runs_dir, reporter, folder.timed), arguments, runs_dir)
    if "plan" in arguments.switches:
        print_plan(laid)
        return printed()
    known = write_down(laid, folder, runs_dir)
    try:
        launch(known, launcher, retry=retry, view=view_of(quiet="quiet" in arguments.switches))
    except Interrupted as stopped:
        stopped.run = str(folder.path)
        raise
    if not launcher.waits:  # how it stands is not known here, and a script on stdout stays one
        return printed()
    print_study(known)
    return printed(0 if known.done else 1)  # a job that was killed has not failed, and is not done


def study_status(arguments: Arguments) -> int:
    """``advss study status STUDY``."""
    from advss.cli.study_shown import print_study
    from advss.studies.folder import planned_study

    folder = planned_study(arguments.positionals[0], _studies_dir(arguments))
    print_study(folder)
    return printed(1 if folder.failed else 0)


def study_job(arguments: Arguments) -> int:
    """``advss study job STUDY RUN``."""
    from advss.studies.folder import planned_study
    from advss.studies.work import tie, work

    if TIED.lstrip("-") in arguments.switches:
        tie()
    check_plugins(arguments)
    name, run = arguments.positionals
    study = planned_study(name, _studies_dir(arguments))
    try:
        work(study, run, reporter=reporter_of(arguments))
    except Interrupted as stopped:
        stopped.run = str(study.path)  # which goes on with it, too
        raise
    return 0


def _asked(arguments: Arguments) -> tuple[Definition, StudyFolder]:
    """The study that the line asks for, what it changes in it taken in, and the folder of it."""
    from advss.studies.asked import asked_for
    from advss.studies.definition import seeds_of, setting, value_of

    said: dict[str, Any] = {flag: value_of(text) for flag, text in arguments.settings.items() if flag != "runs-dir"}
    said |= dict(setting(one) for one in arguments.flags.get("set", ()))
    if configs := arguments.flags.get("config"):
        said["config"] = configs
    seeds = arguments.flag("seeds")
    return asked_for(
        next(iter(arguments.positionals), None),
        said,
        _axes(arguments),
        None if seeds is None else seeds_of(value_of(seeds), origin="--seeds"),
        name=arguments.flag("name"),
        studies_dir=_studies_dir(arguments),
    )


def _axes(arguments: Arguments) -> dict[str, list[Any]]:
    """What varies, by flag."""
    from advss.studies.definition import axis

    found: dict[str, list[Any]] = {}
    for flag, values in map(axis, arguments.flags.get("vary", ())):
        if flag in found:
            raise UsageError(f"--vary: {flag} stands twice; write all its values in one, as --vary {flag}=A,B")
        found[flag] = values
    return found


def _versions_settled(laid: Laid, arguments: Arguments, runs_dir: Path) -> Laid:
    """Say which stages other versions have made, and have it said whether they are kept."""
    from advss.studies.asked import KEEP, NEW, keeping, made_by_others

    said, line = arguments.flag("versions"), made_by_others(laid)
    if said not in (KEEP, NEW, None):
        raise UsageError(f"--versions: expected keep or new, got '{said}'")
    if not line or said == NEW:
        return laid
    if said is None and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{line}; say --versions keep, or --versions new to train them anew")
    if said is None:
        print(f"{line}. Keep them? [Y/n] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("n", "no"):
            return laid
    return keeping(laid, runs_dir, reporter_of(arguments))


def _launcher(arguments: Arguments) -> Launcher:
    """The launcher that the line chooses, with its options."""
    from advss.config import Choice
    from advss.plugins import build

    options: dict[str, Any] = {
        flag.removeprefix(LAUNCHER).replace("-", "_"): values[-1]
        for flag, values in arguments.flags.items()
        if flag.startswith(LAUNCHER)
    }
    if (jobs := arguments.flag("jobs")) is not None:
        options["jobs"] = jobs
    launcher: Launcher = build("launcher", Choice(arguments.flag("launcher") or USUAL, options), flag="--launcher.")
    launcher.check()
    return launcher


def _retry(arguments: Arguments) -> int:
    said = arguments.flag("retry") or "0"
    if not (said.isascii() and said.isdecimal()):
        raise UsageError(f"--retry: expected how often, such as 2, got '{said}'")
    return int(said)


def _studies_dir(arguments: Arguments) -> Path:
    return Path(arguments.flag("studies-dir") or "studies")


_WHERE = {"studies-dir": "folder of the studies (studies)"}
GRAMMARS = [
    (
        study_run,
        Grammar(
            "study run",
            "run a grid of runs as one job: a study's file, the name of one, or --vary",
            ("[STUDY]",),
            {
                "vary": "KEY=A,B: what varies; + joins an ensemble: --vary pretext=none,selfie+rotation",
                "seeds": "how many seeds each cell has, or a list of them: 3, [0,1,2]",
                "set": "KEY=VALUE: a setting of all cells, as --KEY VALUE",
                "config": "a YAML file or a packaged recipe; several count in order",
                "name": "of the study and its folder",
                "launcher": f"who runs the jobs ({USUAL})",
                "jobs": "how many jobs run at once, as --launcher.jobs",
                LAUNCHER: "an option of the launcher, such as --launcher.jobs 2",
                "retry": "how often a failed stage is tried again (0)",
                "versions": "stages that other versions of plugins made: keep, or train them new",
                **_WHERE,
            },
            {"plan": "print cells, shared stages and cost, and run nothing", "quiet": "no progress on the screen"},
            tuple(flag for flag in (*COMPONENTS, *SETTINGS) if flag not in LEFT_OUT),
        ),
    ),
    (
        study_status,
        Grammar("study status", "how a study's cells stand", ("STUDY",), _WHERE),
    ),
    (
        study_job,
        Grammar(
            "study job",
            "finish one stage of a study, as its launcher does",
            ("STUDY", "RUN"),
            _WHERE,
            {"quiet": "no progress on the screen", "tied": "save and end when standard input ends"},
        ),
    ),
]
