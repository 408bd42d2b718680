"""OpenMP's threads fitted to the cores that are free; it counts only if it is said before torch is loaded.

torch's threads spin while they wait for one another. On free cores nothing is faster; where other jobs run, a thread
that spins keeps from the core the one it waits for, and a step takes many times as long. So the cores are looked at
for a moment, and what OpenMP is to do stands in the environment. A user's own variables win.
``benchmarks/threads.py`` measures it.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from advss.output import tell

LOOK_S = 0.05  # processor times are counted in hundredths of a second
LACKING = 0.5  # cores short of the threads from which on threads must not spin
THREADS = ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT")
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")


def settle() -> None:
    """Look at the cores and say in the environment how torch's threads are to wait; too late, do nothing."""
    if "torch" in sys.modules:
        return
    for variable, (value, why) in chosen(os.environ).items():
        os.environ[variable] = value
        tell(f"advss: {why}: {variable}={value}; a value of your own wins")


def chosen(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Variables that the cores ask for and ``environ`` does not have, each with its value and the reason."""
    cores, allowed = own_cores(), allowed_threads()
    threads, found = _number(environ.get("OMP_NUM_THREADS")) or allowed, {}
    if allowed < len(cores) and not _says(environ, THREADS):
        found["OMP_NUM_THREADS"] = (str(allowed), f"a quota of {quota():.3g} of {len(cores)} cores")
    if threads > 1 and not waiting_is_said(environ):
        others = busy(cores)
        if crowded(threads, others, cores):
            found["OMP_WAIT_POLICY"] = ("PASSIVE", f"other jobs keep {others:.1f} of {len(cores)} cores busy")
    return found


def environment(jobs: int, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for each of ``jobs`` processes that train side by side on this machine.

    Args:
        jobs: how many run at once; they share the cores.
        environ: of which it is a copy; default: this process's. What it says of threads stays.
    """
    made, allowed = dict(os.environ if environ is None else environ), allowed_threads()
    if jobs > 1 and not _says(made, THREADS):
        made["OMP_NUM_THREADS"] = str(max(1, allowed // jobs))
    threads = _number(made.get("OMP_NUM_THREADS"))
    if threads > 1 and jobs * threads > allowed and not waiting_is_said(made):
        made["OMP_WAIT_POLICY"] = "PASSIVE"
    return made


def waiting_is_said(environ: Mapping[str, str]) -> bool:
    """Whether an environment says how threads wait."""
    return _says(environ, WAITING)


def _says(environ: Mapping[str, str], names: tuple[str, ...]) -> bool:
    return any(environ.get(name) for name in names)


def allowed_threads() -> int:
    """How many threads find a core: as many as there are cores for this process, or a quota of them, rounded down."""
    return math.floor(max(1.0, min(len(own_cores()), quota())))


def own_cores() -> list[int]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def crowded(threads: int, others: float, cores: list[int]) -> bool:
    """Whether too few cores are left for this many threads where others keep some busy."""
    return threads + others - len(cores) >= LACKING


def busy(cores: list[int], look_s: float | None = LOOK_S) -> float:
    """How many of these cores are busy while this thread looks on; 0 where the system does not tell.

    Args:
        cores: by number.
        look_s: for how long; None looks back to this thread's last call.
    """
    import psutil  # not where it is not needed

    try:
        percents: list[float] = psutil.cpu_percent(look_s, percpu=True)
    except (OSError, RuntimeError, ValueError, psutil.Error):
        return 0.0
    return sum(percents[core] for core in cores if core < len(percents)) / 100


def quota(groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> float:
    """How many cores' time a container, or whoever set control groups, grants this process; infinite where nobody did.

    Args:
        groups: the file that names the process's groups.
        mount: where the groups' files lie; within a container its own group often is the root.
    """
    try:
        lines = [line.split(":", 2) for line in groups.read_text().splitlines()]
    except (OSError, ValueError):
        return math.inf
    granted = [math.inf]
    for _, controllers, group in (line for line in lines if len(line) == 3):
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = mount / controllers if controllers else mount
        inside = [root / part.relative_to("/") for part in (Path(group), *Path(group).parents) if part.is_absolute()]
        granted += [_granted(folder) for folder in inside]
    return min(granted)


def _granted(group: Path) -> float:
    """What one group grants: ``cpu.max`` of version 2 of control groups, ``cpu.cfs_quota_us`` of version 1."""
    try:
        limit, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return math.inf
    cores = _number(limit) / (_number(period) or 1)
    return cores or math.inf


def _number(text: str | None) -> int:
    """A whole number; 0 where it is none, such as ``max``, ``-1`` or a list."""
    stripped = (text or "").strip()
    return int(stripped) if stripped.isdecimal() else 0
