"""Jobs in the queue of a Slurm cluster, by submitit: preempted or out of time, they save and are queued again."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from advss.errors import UsageError
from advss.hookspecs import Launcher
from advss.launching import Board, Job

LOOK_S = 0.2
OFTEN = 1000  # time-outs after which a job is queued no more; each loses nothing


class Command:
    """A job's command, which submitit pickles; whatever stops it, it may be called again."""

    def __init__(self, command: Sequence[str], folder: str, log: str) -> None:
        self.command, self.folder, self.log = tuple(command), folder, log
        self.process: subprocess.Popen[bytes] | None = None  # in the process that runs it

    def __call__(self) -> None:
        """Run it; RuntimeError where it fails, by which Slurm has those that need it not begin."""
        with Path(self.log).open("ab") as log:
            self.process = subprocess.Popen(self.command, cwd=self.folder, stdout=log, stderr=log)
        self._wait()
        if code := self.process.returncode:
            raise RuntimeError(f"ended with {code}; see {self.log}")

    def checkpoint(self) -> Any:
        """Have it save and end, before the queue takes the machine away; what is queued then."""
        from submitit.helpers import DelayedSubmission

        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self._wait()
        return DelayedSubmission(Command(self.command, self.folder, self.log))

    __submitit_checkpoint__ = checkpoint  # what versions of submitit after 1.5 call it

    def _wait(self) -> None:
        """Until it has ended: a thread waits, since a signal's handler, too, may ask while this is asked."""
        process = self.process
        assert process
        waiting = threading.Thread(target=process.wait, daemon=True)
        waiting.start()
        while waiting.is_alive():
            time.sleep(LOOK_S)


class Slurm(Launcher):
    """Hand jobs to a Slurm queue, each behind those that it needs.

    Args:
        partition: where they are queued; empty is the cluster's own choice.
        hours: how long each may run before it is queued again.
        gpus: how many each has.
        cpus: how many cores each has.
        options: more of sbatch, each as --KEY=VALUE: "--account=lab --mem=32G".
    """

    name = "slurm"
    waits = False

    def __init__(
        self, *, partition: str = "", hours: float = 24.0, gpus: int = 1, cpus: int = 4, options: str = ""
    ) -> None:
        self.partition, self.hours = partition, hours
        self.gpus, self.cpus = gpus, cpus
        self.options = options

    def check(self) -> None:
        """Refuse to work without submitit or Slurm, and what sbatch does not take."""
        if find_spec("submitit") is None:
            raise UsageError("--launcher slurm needs submitit; pip install 'advss[slurm]'")
        for program in ("sbatch", "srun"):
            if shutil.which(program) is None:
                raise UsageError(f"--launcher slurm: there is no {program} on this machine; launch on a login node")
        if not self.hours > 0 or self.gpus < 0 or self.cpus < 1:
            raise UsageError("--launcher slurm: hours must be above 0, gpus at least 0 and cpus at least 1")
        self._more()

    def launch(self, jobs: Sequence[Job], board: Board) -> None:
        """Submit each, and return."""
        numbers: dict[str, str] = {}
        for job in jobs:
            needs = [numbers[name] for name in job.after if name in numbers]
            numbers[job.name] = self._submit(job, needs)
            board.began(job)
        if numbers:
            board.say(f"{len(numbers)} jobs are in the queue, {', '.join(numbers.values())}")

    def _submit(self, job: Job, needs: Sequence[str]) -> str:
        """The number of a job that is in the queue now."""
        from submitit import SlurmExecutor

        executor = SlurmExecutor(folder=job.log.parent / "slurm", max_num_timeout=OFTEN)
        more = self._more()
        if needs:
            more |= {"dependency": f"afterok:{':'.join(needs)}", "kill-on-invalid-dep": "yes"}
        where = {"partition": self.partition} if self.partition else {}
        gpus = {"gpus_per_node": self.gpus} if self.gpus else {}
        executor.update_parameters(
            job_name=job.name,
            time=max(1, round(self.hours * 60)),
            cpus_per_task=self.cpus,
            additional_parameters=more,
            **where,
            **gpus,
        )
        return str(executor.submit(Command(job.command, str(job.folder), str(job.log))).job_id)

    def _more(self) -> dict[str, str]:
        try:
            words = shlex.split(self.options)
        except ValueError as error:
            raise UsageError(f"--launcher.options: {error} in '{self.options}'") from error
        for word in words:
            if not word.startswith("--") or "=" not in word:
                raise UsageError(f"--launcher.options: expected --KEY=VALUE, got '{word}'")
        return {key: value for key, _, value in (word.removeprefix("--").partition("=") for word in words)}
