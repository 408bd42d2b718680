"""What a plugin does to the process while it is read is undone, and named in one line."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from advss.errors import UsageError
from advss.plugins import registry
from advss.plugins.discovery import discover

Install = Callable[..., str]
GOOD = """
from advss.hookspecs import Defense

class Good(Defense):
    name = "good"

def advss_defenses():
    return [Good]
"""
SPOILERS = {
    "import torch; torch.manual_seed(3)": "torch's global generator",
    "import torch; torch.rand(1)": "torch's global generator",
    "import torch; torch.set_default_dtype(torch.float64)": "torch's default dtype",
    "import torch; torch.set_default_device('meta')": "torch's default device",
    "import torch; torch.set_num_threads(torch.get_num_threads() + 1)": "torch's number of threads",
    "import torch; torch.set_grad_enabled(False)": "torch's gradient mode",
    "import warnings; warnings.simplefilter('ignore')": "the warnings' filters",
    "import warnings; warnings.simplefilter('error')": "the warnings' filters",
    "import os; os.chdir('/')": "the working directory",
}


def state() -> list[object]:
    """What plugins may not change, read plainly."""
    return [
        torch.get_rng_state().tolist(),
        torch.get_default_dtype(),
        torch.empty(0).device,
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        list(warnings.filters),
        str(Path.cwd()),
    ]


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Whatever a failing test leaves changed is not the next one's."""
    dtype, threads, here = torch.get_default_dtype(), torch.get_num_threads(), Path.cwd()
    with warnings.catch_warnings(), torch.random.fork_rng():
        yield
    torch.set_default_dtype(dtype)
    torch.set_default_device(None)
    torch.set_num_threads(threads)
    torch.set_grad_enabled(True)
    os.chdir(here)


@pytest.mark.parametrize("code", SPOILERS)
def test_what_is_changed_is_put_back_and_named(install: Install, code: str) -> None:
    install("acme", code + "\n" + GOOD)
    before = state()
    found = discover()
    assert state() == before
    (fault,) = found.faults
    assert (fault.distribution, fault.status) == ("acme", "untidy")
    assert fault.error == f"changed {SPOILERS[code]}, put back"
    assert "good" in {p.name for p in found.plugins}


def test_what_a_hook_changes_is_put_back(install: Install) -> None:
    install("acme", "import torch\n" + GOOD.replace("return", "torch.set_default_dtype(torch.float64); return"))
    discover()
    assert torch.get_default_dtype() == torch.float32


def test_what_a_broken_plugin_changes_is_put_back(install: Install) -> None:
    install("acme", "import torch\ntorch.set_default_dtype(torch.float64)\n1 / 0")
    (fault,) = discover().faults
    assert (fault.status, torch.get_default_dtype()) == ("broken", torch.float32)


def test_several_changes_are_one_line(install: Install) -> None:
    install("acme", "import torch\nprint('x')\ntorch.manual_seed(0)\ntorch.set_default_dtype(torch.float64)\n" + GOOD)
    (fault,) = discover().faults
    changed = "changed torch's global generator and torch's default dtype, put back"
    assert fault.error == f"printed 2 bytes on stdout, left out: 'x'; {changed}"


def test_filters_of_one_library_are_its_own_affair(install: Install) -> None:
    install("acme", "import warnings\nwarnings.filterwarnings('ignore', module='acme')\n" + GOOD)
    assert discover().faults == []


def test_what_is_printed_is_kept_off_stdout(install: Install, capfd: pytest.CaptureFixture[str]) -> None:
    install("acme", "import os\nprint('hello')\nos.write(1, b'x' * 3_000_000)\nos.system('echo child')\n" + GOOD)
    print("before")
    registry()
    print("after")
    captured = capfd.readouterr()
    assert captured.out == "before\nafter\n"
    said = f"printed 3,000,012 bytes on stdout, left out: '{'x' * 40}'..."
    assert captured.err == f"advss: warning: plugin acme 2.5 (plugin): {said}\n"


def test_each_plugin_answers_for_what_it_printed(install: Install) -> None:
    install("acme", "print('one')\n" + GOOD)
    install("other", "print('two')\n" + GOOD)
    errors = {fault.distribution: fault.error for fault in discover().faults}
    assert {name: error[-5:] for name, error in errors.items()} == {"acme": "'one'", "other": "'two'"}


def test_a_stream_that_a_plugin_keeps_can_be_written_to_later(install: Install) -> None:
    module = install("acme", "import sys\nout = sys.stdout\n" + GOOD)
    discover()
    sys.modules[module].out.write("late")
    sys.modules[module].out.flush()


@pytest.mark.parametrize("stream", ["stdout", "stderr", "stdin"])
def test_streams_that_a_plugin_replaces_are_put_back(install: Install, stream: str) -> None:
    install("acme", f"import sys, io\nsys.{stream} = io.StringIO()\n" + GOOD)
    before = getattr(sys, stream)
    discover()
    assert getattr(sys, stream) is before


def test_without_a_temporary_folder_what_is_printed_is_dropped(
    install: Install, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    install("acme", "print('hello')\n" + GOOD)
    assert "good" in {p.name for p in registry().found.plugins}
    assert capfd.readouterr().out == ""


def test_an_untidy_plugin_is_an_error_under_strict(install: Install) -> None:
    install("acme", "print('hello')\n" + GOOD)
    with pytest.raises(UsageError, match=r"plugin acme 2\.5 \(plugin\): printed 6 bytes on stdout"):
        registry(strict=True)


def test_advss_itself_is_tidy() -> None:
    assert discover().faults == []
