"""Jobs as tasks of a Ray cluster, whose nodes share the folders; a job whose node is lost goes on at another one."""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Literal

from advss.errors import UsageError
from advss.hookspecs import Launcher
from advss.launching import Board, Job
from advss_launchers.jobs import Order, begin, stop

LOOK_S = 0.25  # between two questions of whether the user wants to stop
ANSWER_S = 10.0  # for a cluster to answer
STOP_S = 75.0  # for tasks to have their jobs save and end, which have 60 s


def finish(job: Job) -> int:
    """The task: run a job's process to its end; it does not outlive this one, whatever kills it. Its exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # by which Ray cancels; a shell's background ignores it
    process = begin(job)
    try:
        while process.poll() is None:  # a wait in the system would not be left for the KeyboardInterrupt of a cancel
            time.sleep(LOOK_S)
        return int(process.returncode)
    finally:
        stop([process])


class Ray(Launcher):
    """Hand jobs to a Ray cluster, each when those that it needs have ended well.

    Args:
        address: of the cluster, HOST:PORT; auto is the one of this machine, local one that is begun here and ends with
            this program.
        cpus: how many cores each job has.
        gpus: how many GPUs each has; auto is 1 where the cluster has any.
        resources: what else a job's node must have, as NAME=AMOUNT, several by commas: "A100=1".
        retries: how often a job is begun again whose node or worker is lost; each goes on where the last one stopped.
    """

    name = "ray"

    def __init__(
        self,
        *,
        address: str = "auto",
        cpus: int = 1,
        gpus: float | Literal["auto"] = "auto",
        resources: str = "",
        retries: int = 3,
    ) -> None:
        self.address, self.cpus, self.gpus = address, cpus, gpus
        self.resources, self.retries = resources, retries

    def check(self) -> None:
        """Refuse to work without Ray or a cluster, and what no node of it has."""
        if find_spec("ray") is None:
            raise UsageError("--launcher ray needs Ray; pip install 'advss[ray]'")
        if self.cpus < 1 or (self.gpus != "auto" and self.gpus < 0) or self.retries < 0:
            raise UsageError("--launcher ray: cpus must be at least 1, gpus and retries at least 0")
        self._more()
        self._connect()
        self._wanted()

    def launch(self, jobs: Sequence[Job], board: Board) -> None:
        """Hand each over as soon as it may begin; Ray has it wait until a node is free."""
        import ray

        task, wanted = ray.remote(finish), self._wanted() | {"max_retries": self.retries}
        order, running = Order(jobs), dict[Any, Job]()
        try:
            while order.waiting or running:
                for job in order.ready():
                    running[task.options(name=job.name, **wanted).remote(job)] = job
                    board.began(job)
                board.check()
                for one in ray.wait([*running], timeout=LOOK_S)[0]:
                    job, code = running.pop(one), _code(one, board)
                    order.ended(job, code)
                    board.ended(job, code)
        finally:
            _cancel([*running])

    def _connect(self) -> None:
        """Be a driver of the cluster, as long as this process lasts, unless it is one already."""
        import ray

        if ray.is_initialized():
            return
        host, _, port = self.address.removeprefix("ray://").rpartition(":")
        try:
            if port.isdecimal():  # Ray itself asks for minutes
                socket.create_connection((host, int(port)), ANSWER_S).close()
            ray.init(self.address, log_to_driver=False, logging_level=logging.ERROR, namespace="advss")
        except (OSError, ValueError) as error:
            raise UsageError(
                f"--launcher ray: no cluster at '{self.address}' ({_line(error)}); "
                "begin one by `ray start --head`, or say --launcher.address local"
            ) from error

    def _wanted(self) -> dict[str, Any]:
        """What a task is given; UsageError where no node has it."""
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        auto = float(any(node.get("GPU", 0) for node in nodes))
        gpus, more = auto if self.gpus == "auto" else self.gpus, self._more()
        wanted = {"CPU": self.cpus, "GPU": gpus, **more}
        if not any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
            asked = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items() if amount)
            raise UsageError(f"--launcher ray: no node of the cluster has {asked}; see `ray status`")
        return {"num_cpus": self.cpus, "num_gpus": gpus, "resources": more}

    def _more(self) -> dict[str, float]:
        found = {}
        for one in self.resources.split(",") if self.resources else ():
            name, _, amount = one.partition("=")
            try:
                found[name.strip()] = float(amount)
            except ValueError as error:
                raise UsageError(f"--launcher.resources: expected NAME=AMOUNT, got '{one}'") from error
        return found


def _code(task: Any, board: Board) -> int:
    """A task's exit code; that of one which Ray has given up is 1."""
    import ray

    try:
        return int(ray.get(task))
    except ray.exceptions.RayError as error:
        board.say(f"Ray has given a job up: {_line(error)}")
        return 1


def _cancel(tasks: Sequence[Any]) -> None:
    """Have the jobs of tasks save and end, and wait until they have."""
    import ray

    for task in tasks:
        ray.cancel(task)
    if tasks:
        ray.wait([*tasks], num_returns=len(tasks), timeout=STOP_S)


def _line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
