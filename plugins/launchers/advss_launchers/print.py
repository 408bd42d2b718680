"""Jobs as a script on stdout, to be read, changed and run by hand: for bash, or for the queue of a Slurm cluster."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Literal

from advss.errors import UsageError
from advss.hookspecs import Launcher
from advss.launching import Board, Job


class Print(Launcher):
    """Print a script of the jobs, and run nothing.

    Args:
        style: bash runs one after another; sbatch hands each to a Slurm queue, behind those that it needs.
        options: of sbatch, as it takes them, such as "--partition=gpu --gres=gpu:1 --time=4:00:00".
    """

    name = "print"
    waits = False

    def __init__(self, *, style: Literal["bash", "sbatch"] = "bash", options: str = "") -> None:
        self.style = style
        self.options = options

    def check(self) -> None:
        """Refuse options that a shell could not read, and such as nobody takes."""
        try:
            shlex.split(self.options)
        except ValueError as error:
            raise UsageError(f"--launcher.options: {error} in '{self.options}'") from error
        if self.options and self.style != "sbatch":
            raise UsageError("--launcher.options are of sbatch; say --launcher.style sbatch, too")

    def launch(self, jobs: Sequence[Job], board: Board) -> None:
        """Print the script; what fails in it keeps back only what needs it."""
        print("\n".join(["#!/usr/bin/env bash", *(self._bash(jobs) if self.style == "bash" else self._sbatch(jobs))]))

    def _bash(self, jobs: Sequence[Job]) -> Iterator[str]:
        """A line a job: its number goes into ``ok`` where it ends well."""
        yield "declare -A ok failed"
        number = {job.name: place for place, job in enumerate(jobs, 1)}
        for job in jobs:
            needs = "".join(f"[[ ${{ok[{number[name]}]}} ]] && " for name in job.after if name in number)
            command = f"(cd {shlex.quote(str(job.folder))} && {shlex.join(job.command)}) >> {_log(job)} 2>&1"
            yield f"{needs}{command} && ok[{number[job.name]}]=1 || failed[{number[job.name]}]=1  # {job.name}"
        yield "exit $(( ${#failed[@]} > 0 ))"

    def _sbatch(self, jobs: Sequence[Job]) -> Iterator[str]:
        """A line a job: sbatch prints its id, which those that need it name; one that fails has them cancelled."""
        yield "set -e"
        options = f" {shlex.join(shlex.split(self.options))}" if self.options else ""
        number = {job.name: place for place, job in enumerate(jobs, 1)}
        for job in jobs:
            needs = [f"${{job{number[name]}}}" for name in job.after if name in number]
            after = f' --dependency="afterok:{":".join(needs)}" --kill-on-invalid-dep=yes' if needs else ""
            where = f"--chdir={shlex.quote(str(job.folder))} --output={_log(job)} --open-mode=append"
            line = f"sbatch --parsable --job-name={shlex.quote(job.name)} {where}{options}{after}"
            yield f"job{number[job.name]}=$({line} --wrap={shlex.quote(shlex.join(job.command))})"


def _log(job: Job) -> str:
    return shlex.quote(str(job.log))
