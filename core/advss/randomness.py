"""The one place where random streams begin, and the only one that touches torch's global generator.

Every stream is a function of a key such as (seed, stage, step, member), so runs repeat, members do not depend on their
order, and resuming needs no generator state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

Key = str | int
OWN = frozenset({"encoder", "classifier", "scheme", "defense"})  # what core draws for, where members' keys stand too


def seed_of(*key: Key) -> int:
    """A 63-bit seed from a key; equal keys give equal seeds on every machine."""
    digest = hashlib.blake2b("\x1f".join(f"{type(k).__name__}:{k}" for k in key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def of_member(key: str) -> str:
    """How a member of a run stands in keys: as it is called, unless core draws for something of that name."""
    return f"task {key}" if key in OWN else key


def stream(device: torch.device | str, *key: Key) -> torch.Generator:
    """A generator on ``device`` for a key."""
    return torch.Generator(device).manual_seed(seed_of(*key))


@contextmanager
def global_stream(device: torch.device | str, *key: Key) -> Iterator[None]:
    """Seed torch's global generators (CPU and ``device``) by a key within the context; they are as found after it."""
    where = torch.device(device)
    with torch.random.fork_rng([where] if where.type == "cuda" else [], device_type="cuda"):
        torch.default_generator.manual_seed(seed_of(*key))
        if where.type == "cuda":
            with torch.cuda.device(where):
                torch.cuda.manual_seed(seed_of(*key))
        yield
