"""Every job once, each after those it needs, whatever fails; and a stop is heard. The jobs note what they see."""

from __future__ import annotations

from contextlib import suppress

import psutil

from advss.testing.launched import CODES, ENDED, LOST, NEEDS, Stopped, Told, a_place, launched, launcher_of
from advss.testing.subject import Subject
from advss.testing.verdicts import expect

LONG_S = 5.0  # of a job that is told to stop


def no_jobs_are_no_fault(subject: Subject) -> None:
    """A study that is done has none left."""
    launcher_of(subject).launch([], Told())


def every_job_runs_once_in_its_folder(subject: Subject) -> None:
    """As many times as it is given, with ``job.folder`` as the working directory."""
    with launched(subject) as (place, _):
        for name in CODES:
            count = len(place.began(name))
            expect(count or name in LOST, f"job '{name}' did not run in its folder; start job.command in job.folder")
            expect(count <= 1, f"job '{name}' ran {count} times; launch() runs each once")


def none_begins_before_those_it_needs_have_ended(subject: Subject) -> None:
    """What a job makes is there when another needs it."""
    with launched(subject) as (place, _):
        for name, needs in NEEDS.items():
            for _, *ended in place.began(name):
                early = [before for before in needs if f"{before}{ENDED}" not in ended]
                expect(not early, f"job '{name}' began before '{''.join(early[:1])}' had ended; see job.after")


def what_fails_keeps_back_only_what_needs_it(subject: Subject) -> None:
    """Jobs that need it, by whatever way, do not begin; the others do."""
    with launched(subject) as (place, _):
        for name in LOST:
            expect(not place.began(name), f"job '{name}' ran, and one that it needs had failed or did not run")
        for name in CODES.keys() - LOST:
            expect(place.began(name), f"job '{name}' did not run because of another that it does not need")


def the_board_is_told_of_every_job(subject: Subject) -> None:
    """That it began and then that it ended, with its exit code; nothing of those that did not run."""
    with launched(subject) as (_, board):
        for name, code in CODES.items():
            wanted = [] if name in LOST else [("began", name, 0), ("ended", name, code)]
            found = [one for one in board.told if one[1] == name]
            expect(found == wanted, f"of job '{name}' the board was told {_in_words(found)}, not {_in_words(wanted)}")


def output_is_added_to_the_log(subject: Subject) -> None:
    """Both streams of a job, behind what an earlier try has left."""
    launcher = launcher_of(subject)
    with a_place() as place:
        job = place.job("first")
        job.log.write_text("of an earlier try\n")
        launcher.launch([job], Told())
        found = job.log.read_text()
        for what in ("output of first", "errors of first"):
            expect(what in found, f"what a job writes, '{what}', is not in job.log")
        expect(found.startswith("of an earlier try"), "what job.log held of an earlier try is gone; open it to append")


def it_may_launch_again(subject: Subject) -> None:
    """A second launch by the same object is as the first: ``--retry`` asks for it."""
    launcher = launcher_of(subject)
    with a_place() as place:
        for _ in range(2):
            launcher.launch([place.job("first", code=3), place.job("second", needs=("first",))], Told())
        launcher.launch([place.job("second")], Told())
        tries = len(place.began("first"))
        expect(tries == 2, f"a job that failed ran {tries} times in two launches; keep nothing on self")
        expect(
            place.began("second"), "a job that was kept back did not run in a launch of its own; keep nothing on self"
        )


def a_stop_is_heard(subject: Subject) -> None:
    """What ``board.check()`` raises comes out of launch(), and by then no job runs; nothing begins after it."""
    launcher, heard = launcher_of(subject), False
    with a_place() as place:
        jobs = [place.job("long", seconds=LONG_S), place.job("next", needs=("long",))]
        try:
            launcher.launch(jobs, Told(stops=lambda: bool(place.began("long"))))
        except Stopped:
            heard = True
        left = [int(process) for process, *_ in place.began("long") if psutil.pid_exists(int(process))]
        for process in left:
            with suppress(psutil.Error):
                psutil.Process(process).kill()
        expect(heard, "launch() does not raise what board.check() does; ask it at least twice a second, and let it out")
        expect(not left, "launch() is over and a job runs on; send it SIGTERM and wait for its end")
        expect(not place.ended("long"), f"a job of {LONG_S:.0f} s had ended by itself before the stop was heard")
        expect(not place.began("next"), "a job began after the stop")


def _in_words(told: list[tuple[str, str, int]]) -> str:
    return " and ".join(f"{what} with {code}" if what == "ended" else what for what, _, code in told) or "nothing"
