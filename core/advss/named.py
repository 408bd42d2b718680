"""Modules by name, whatever the names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar, cast

from torch import nn

M = TypeVar("M", bound=nn.Module)
MARK = "@"  # no attribute's name begins with it


class NamedModules(nn.Module, Generic[M]):
    """Modules under names that come from others.

    nn.ModuleDict refuses the names of its own attributes, such as ``type``, ``float`` and ``train``. Here each name
    stands behind a mark, in the names of parameters too: ``branches.@main.weight``.
    """

    def __init__(self, modules: Mapping[str, M]) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(MARK + name, module)

    def __getitem__(self, name: str) -> M:
        return cast(M, self._modules[MARK + name])

    def __iter__(self) -> Iterator[str]:
        return (key.removeprefix(MARK) for key in self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def __contains__(self, name: str) -> bool:
        return MARK + name in self._modules

    def by_name(self) -> dict[str, M]:
        """The modules by their names, in order."""
        return {name: self[name] for name in self}
