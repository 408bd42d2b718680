"""Modules by name, whatever the names; the branches of BatchNorm are such."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, TypeVar, cast

from torch import Tensor, nn

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


class BranchNorm(nn.Module):
    """Several normalisation layers in the place of one; :func:`branch` says which answers."""

    def __init__(self, norms: dict[str, nn.Module]) -> None:
        super().__init__()
        self.branches = NamedModules(norms)
        self.current = next(iter(norms))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` by the current branch."""
        return cast(Tensor, self.branches[self.current](x))


@contextmanager
def branch(name: str, *modules: nn.Module) -> Iterator[None]:
    """Within the context, the BatchNorm branch ``name`` answers in ``modules``, where there is one."""
    norms = [m for root in modules for m in root.modules() if isinstance(m, BranchNorm)]
    before = [norm.current for norm in norms]
    for norm in norms:
        norm.current = name if name in norm.branches else norm.current
    try:
        yield
    finally:
        for norm, current in zip(norms, before, strict=True):
            norm.current = current
