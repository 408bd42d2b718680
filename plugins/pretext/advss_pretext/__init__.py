"""The pretext tasks that come with advss, one file each."""

from __future__ import annotations

from advss.hookspecs import PretextTask, hookimpl

advss_api = (1, 0)


@hookimpl
def advss_pretext_tasks() -> list[type[PretextTask]]:
    """Selfie, rotation and jigsaw."""
    from advss_pretext.jigsaw import Jigsaw
    from advss_pretext.rotation import Rotation
    from advss_pretext.selfie import Selfie

    return [Selfie, Rotation, Jigsaw]
