"""Super classes made of several class folders, as a file or a packaged grouping says."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from advss.configuration.recipes import read_yaml
from advss.errors import UsageError, did_you_mean

Grouping = Literal["restricted-imagenet", "imagenet-m10"]  # those that are packaged
INDICES = re.compile(r"(\d+)(?:-(\d+))?")  # classes of ImageNet-1k: 151, or 151-268 with both ends
IMAGENET = 1000


class Groups:
    """Which class folders make a super class, in the order of the file.

    A member is a folder's name, or where no folder is called so the index of an ImageNet-1k class, or a range of them
    (``151-268``), whose folders are called by their WordNet ids.

    Args:
        groups: a YAML file of super class: [folder, ...], or the name of a packaged grouping.

    Raises:
        UsageError: there is no such file, or it is no mapping of lists, or a list is empty.
    """

    def __init__(self, groups: Path | Grouping) -> None:
        self._where = f"--data.groups {groups}"
        self._members = _checked(_parsed(_text(groups), self._where), self._where)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the super classes."""
        return tuple(self._members)

    def by_folder(self, folder: Path, there: Sequence[str]) -> dict[str, str]:
        """The super class of each class folder that stands in one.

        Args:
            folder: what holds the class folders.
            there: their names.

        Raises:
            UsageError: a class folder is named twice, or is not there.
        """
        found: dict[str, str] = {}
        for group, members in self._members.items():
            for name in (name for member in members for name in _folders(member, there, self._where)):
                if name not in there:
                    close = get_close_matches(name, there, n=1)
                    meant = f"; did you mean '{close[0]}'?" if close else ""
                    raise UsageError(f"{self._where}: '{group}' has '{name}', no class folder of '{folder}'{meant}")
                if name in found:
                    twice = f"in '{group}' and in '{found[name]}'" if found[name] != group else f"twice in '{group}'"
                    raise UsageError(f"{self._where}: '{name}' stands {twice}; leave it in one place")
                found[name] = group
        return found


def _text(groups: Path | Grouping) -> str:
    if isinstance(groups, str):
        return (files("advss.data") / "groupings" / f"{groups}.yaml").read_text("utf-8")
    try:
        return groups.read_text("utf-8")
    except FileNotFoundError as error:
        meant = did_you_mean(groups.name, get_args(Grouping))
        raise UsageError(f"--data.groups: no file '{groups}', and no grouping of this name{meant}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"--data.groups {groups}: cannot read it: {reason}") from error


def _parsed(text: str, where: str) -> Any:
    try:
        return read_yaml(text, typed=False)  # folders may be called 007 and no
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: not YAML: {' '.join(str(error).split())}") from error


def _checked(content: Any, where: str) -> Mapping[str, list[str]]:
    if not isinstance(content, dict) or not content:
        raise UsageError(f"{where}: must be a mapping of lists, as in `dog: [n02085620, n02085782]`")
    for group, members in content.items():
        if not isinstance(members, list) or not all(isinstance(member, str) for member in members):
            raise UsageError(f"{where}: '{group}' must be a list of class folders, as in `{group}: [n02085620]`")
        if not members:
            raise UsageError(f"{where}: '{group}' is empty; name its class folders, or take it out")
    return content


def _folders(member: str, there: Collection[str], where: str) -> Sequence[str]:
    """The class folders that a member of a group means."""
    indices = INDICES.fullmatch(member)
    if member in there or not indices:
        return [member]
    first, last = int(indices[1]), int(indices[2] or indices[1])
    if not first <= last < IMAGENET:
        raise UsageError(f"{where}: '{member}' is no class folder, nor classes of ImageNet, 0 to {IMAGENET - 1}")
    return wnids()[first : last + 1]


@cache
def wnids() -> list[str]:
    """The WordNet ids of ImageNet-1k's classes, in their order."""
    from timm.data.imagenet_info import ImageNetInfo  # reads several files

    imagenet: Any = ImageNetInfo("imagenet-1k")
    return [imagenet.index_to_label_name(index) for index in range(IMAGENET)]
