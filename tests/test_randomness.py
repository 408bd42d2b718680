"""Streams: functions of their key alone, apart from each other, and the global generator left as found."""

from __future__ import annotations

import pytest
import torch

from advss.randomness import global_stream, seed_of, stream

KEYS: list[tuple[int | str, ...]] = [(0,), (1,), ("0",), (0, 0), (0, "fit"), ("fit", 0), (0, "fit", 1), (0, "fit1")]
KEYS += [(1, 23), (12, 3), (123,)]


def test_different_keys_give_different_seeds() -> None:
    assert len({seed_of(*key) for key in KEYS}) == len(KEYS)


def test_seeds_fit_a_generator() -> None:
    assert all(0 <= seed_of(0, step) < 2**63 for step in range(1000))


def test_a_seed_does_not_depend_on_the_process_or_machine() -> None:
    """The digest is what coreutils' ``b2sum -l 64`` prints for the key's text; a seed is its upper 63 bits."""
    digest = bytes.fromhex("431f2942a96a3667")
    assert seed_of(0, "pretrain", 5) == int.from_bytes(digest, "little") >> 1


def test_a_stream_is_a_function_of_its_key() -> None:
    draws = [torch.rand(4, generator=stream("cpu", 0, "views", step)) for step in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_stream_does_not_touch_the_global_generator() -> None:
    before = torch.get_rng_state()
    torch.rand(4, generator=stream("cpu", 0))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_global_stream_seeds_dropout_and_is_undone() -> None:
    before = torch.get_rng_state()
    masks = []
    for step in (1, 1, 2):
        with global_stream("cpu", 0, step):
            masks.append(torch.nn.functional.dropout(torch.ones(64)))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    assert torch.equal(torch.get_rng_state(), before)


def _drawn_then_failed() -> None:
    torch.rand(3)
    raise RuntimeError("inside")


def test_the_global_stream_is_undone_when_something_raises() -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="inside"), global_stream("cpu", 0):
        _drawn_then_failed()
    assert torch.equal(torch.get_rng_state(), before)


def test_global_streams_nest() -> None:
    with global_stream("cpu", "outer"):
        expected = torch.rand(3)
    with global_stream("cpu", "outer"):
        with global_stream("cpu", "inner"):
            torch.rand(5)
        assert torch.equal(torch.rand(3), expected)
