"""The launchers that come with advss, one file each."""

from __future__ import annotations

from advss.hookspecs import Launcher, hookimpl

advss_api = (1, 0)


@hookimpl
def advss_launchers() -> list[type[Launcher]]:
    """Processes of this machine, scripts, queues and tasks of clusters."""
    from advss_launchers.local import Local
    from advss_launchers.print import Print
    from advss_launchers.ray import Ray
    from advss_launchers.slurm import Slurm

    return [Local, Print, Slurm, Ray]
