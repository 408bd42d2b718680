"""Launchers that break the contract, each caught by a check that says what to do."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence

import pytest

from advss.errors import UsageError
from advss.hookspecs import Launcher
from advss.launching import Board, Job
from advss.testing.checks import launchers, options
from advss.testing.subject import Subject
from advss.testing.suite import OF_KIND
from advss.testing.verdicts import Verdict

Ask = Callable[..., Verdict]
none = launchers.no_jobs_are_no_fault
once = launchers.every_job_runs_once_in_its_folder
order = launchers.none_begins_before_those_it_needs_have_ended
failing = launchers.what_fails_keeps_back_only_what_needs_it
told = launchers.the_board_is_told_of_every_job
logged = launchers.output_is_added_to_the_log
again = launchers.it_may_launch_again
stop = launchers.a_stop_is_heard


class Sound(Launcher):
    """One job after another."""

    name = "mine"

    def launch(self, jobs: Sequence[Job], board: Board) -> None:
        lost: set[str] = set()
        for job in jobs:
            board.check()
            code = 1 if self.keeps_back(job, lost) else self.run(job, board)
            lost |= {job.name} if code else set()

    def keeps_back(self, job: Job, lost: set[str]) -> bool:
        return bool(lost & {*job.after})

    def run(self, job: Job, board: Board) -> int:
        board.began(job)
        code = self.wait(self.process(job), board)
        board.ended(job, code)
        return code

    def process(self, job: Job, mode: str = "a") -> subprocess.Popen[bytes]:
        with job.log.open(mode) as log:
            return subprocess.Popen(job.command, cwd=job.folder, stdout=log, stderr=log)

    def wait(self, process: subprocess.Popen[bytes], board: Board) -> int:
        try:
            while True:
                board.check()
                try:
                    return process.wait(0.05)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.terminate()
            process.wait()


class NeedsOne(Sound):
    def launch(self, jobs: Sequence[Job], board: Board) -> None:
        super().launch([jobs[0], *jobs[1:]], board)


class Twice(Sound):
    def run(self, job: Job, board: Board) -> int:
        self.wait(self.process(job), board)
        return super().run(job, board)


class Elsewhere(Sound):
    def process(self, job: Job, mode: str = "a") -> subprocess.Popen[bytes]:
        return subprocess.Popen(job.command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Backwards(Sound):
    def launch(self, jobs: Sequence[Job], board: Board) -> None:
        for job in reversed(jobs):
            self.run(job, board)


class GoesOn(Sound):
    def keeps_back(self, job: Job, lost: set[str]) -> bool:
        return False


class OneStepFar(Sound):
    """What needs what needs a failed one runs."""

    def launch(self, jobs: Sequence[Job], board: Board) -> None:
        failed: set[str] = set()
        for job in jobs:
            if not failed & {*job.after} and self.run(job, board):
                failed.add(job.name)


class GivesUp(Sound):
    def keeps_back(self, job: Job, lost: set[str]) -> bool:
        return bool(lost)


class Mute(Sound):
    def run(self, job: Job, board: Board) -> int:
        return self.wait(self.process(job), board)


class TellsAll(Sound):
    """It tells of jobs that do not run."""

    def launch(self, jobs: Sequence[Job], board: Board) -> None:
        super().launch(jobs, board)
        board.ended(next((job for job in jobs if job.name == "needs-it"), jobs[0]), 1)


class OnlyOneCode(Sound):
    def wait(self, process: subprocess.Popen[bytes], board: Board) -> int:
        return min(1, super().wait(process, board))


class Unlogged(Sound):
    def process(self, job: Job, mode: str = "a") -> subprocess.Popen[bytes]:
        return subprocess.Popen(job.command, cwd=job.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class HalfLogged(Sound):
    def process(self, job: Job, mode: str = "a") -> subprocess.Popen[bytes]:
        with job.log.open(mode) as log:
            return subprocess.Popen(job.command, cwd=job.folder, stdout=log, stderr=subprocess.DEVNULL)


class Overwrites(Sound):
    def process(self, job: Job, mode: str = "a") -> subprocess.Popen[bytes]:
        return super().process(job, "w")


class Remembers(Sound):
    def __init__(self) -> None:
        self.lost: set[str] = set()

    def launch(self, jobs: Sequence[Job], board: Board) -> None:
        for job in jobs:
            if self.lost & {job.name, *job.after} or self.run(job, board):
                self.lost.add(job.name)


class Deaf(Sound):
    def wait(self, process: subprocess.Popen[bytes], board: Board) -> int:
        return process.wait()


class LeavesRunning(Sound):
    def wait(self, process: subprocess.Popen[bytes], board: Board) -> int:
        while process.poll() is None:
            board.check()
        return process.returncode


class Swallows(Sound):
    def launch(self, jobs: Sequence[Job], board: Board) -> None:
        try:
            super().launch(jobs, board)
        except BaseException:
            return


class Nothing(Launcher):
    """It has no launch()."""


class LaunchOfOne(Launcher):
    def launch(self, jobs: Sequence[Job]) -> None:  # type: ignore[override]
        """Without a board."""


BROKEN = [
    (NeedsOne, none, "it raised IndexError"),
    (Twice, once, "job 'first' ran 2 times"),
    (Elsewhere, once, "job 'first' did not run in its folder; start job.command in job.folder"),
    (Backwards, order, "job 'second' began before 'first' had ended; see job.after"),
    (GoesOn, failing, "job 'needs-it' ran, and one that it needs had failed"),
    (OneStepFar, failing, "job 'needs-both' ran, and one that it needs had failed or did not run"),
    (GivesUp, failing, "job 'other' did not run because of another that it does not need"),
    (Mute, told, "of job 'first' the board was told nothing, not began and ended with 0"),
    (TellsAll, told, "of job 'needs-it' the board was told ended with 1, not nothing"),
    (OnlyOneCode, told, "of job 'broken' the board was told began and ended with 1, not began and ended with 3"),
    (Unlogged, logged, "'output of first', is not in job.log"),
    (HalfLogged, logged, "'errors of first', is not in job.log"),
    (Overwrites, logged, "what job.log held of an earlier try is gone; open it to append"),
    (Remembers, again, "a job that failed ran 1 times in two launches; keep nothing on self"),
    (Deaf, stop, "a job of 5 s had ended by itself before the stop was heard"),
    (LeavesRunning, stop, "launch.. is over and a job runs on"),
    (Swallows, stop, "launch.. does not raise what board.check.. does"),
    (Nothing, options.its_methods_are_named_as_in_the_contract, r"has no launch\(\), for which there is no default"),
    (LaunchOfOne, options.its_methods_take_what_core_gives, r"does not take \(self, jobs, board\) in order"),
]


def named(offered: type) -> type:
    return type(offered.__name__, (offered,), {"name": "mine", "__module__": __name__})


@pytest.mark.parametrize("fact", OF_KIND["launcher"])
def test_a_sound_launcher_passes(ask: Ask, fact: Callable[[Subject], None]) -> None:
    assert ask(named(Sound), fact).message == ""


@pytest.mark.parametrize(("offered", "fact", "message"), BROKEN, ids=[case[0].__name__ for case in BROKEN])
def test_it_is_caught(ask: Ask, offered: type, fact: Callable[[Subject], None], message: str) -> None:
    verdict = ask(named(offered), fact)
    assert verdict.outcome == "failed", verdict.message
    assert re.search(message, verdict.message), verdict.message


class Hands(Sound):
    waits = False

    def launch(self, jobs: Sequence[Job], board: Board) -> None:
        raise AssertionError("handed on")


class NotHere(Sound):
    def check(self) -> None:
        raise UsageError("there is no sbatch")

    def launch(self, jobs: Sequence[Job], board: Board) -> None:
        raise AssertionError("launched")


@pytest.mark.parametrize("fact", OF_KIND["launcher"])
@pytest.mark.parametrize(
    ("offered", "why"),
    [
        (Hands, "it waits for no jobs, and the suite hands none to others"),
        (NotHere, "it cannot work here: there is no sbatch"),
    ],
)
def test_what_is_not_to_be_launched_is_not(ask: Ask, offered: type, why: str, fact: Callable[[Subject], None]) -> None:
    verdict = ask(named(offered), fact)
    assert (verdict.outcome, verdict.message) == ("unchecked", why)
