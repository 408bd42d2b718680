"""Streams that are closed, full, broken or of few letters: what is printed is lost, and nothing else."""

from __future__ import annotations

import errno
import io
import subprocess
import sys
from collections.abc import Callable
from typing import TextIO, cast

import pytest
from rich.console import Console

from advss.cli.main import main
from advss.cli.progress import Bar, Lines, Quiet
from advss.config import RunConfig
from advss.output import Forgiving, forgiving_output, tell
from advss.stages.fit import fit
from advss.training.reporting import Reporter, Silent

Settings = Callable[..., RunConfig]


class Broken(io.StringIO):
    """A terminal on which every write and flush raises."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error

    def flush(self) -> None:
        if not self.closed:  # as it is once more when it is collected
            raise self.error

    def isatty(self) -> bool:
        return True

    def close(self) -> None:
        self.error = ValueError("closed")


FULL = OSError(errno.ENOSPC, "No space left on device")
GONE = BrokenPipeError(errno.EPIPE, "Broken pipe")
ERRORS = {"full": FULL, "gone": GONE, "a notebook's own": RuntimeError("no kernel")}


def closed() -> TextIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [*map(Broken, ERRORS.values()), closed()], ids=[*ERRORS, "closed"])
def test_printing_never_raises(stream: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    with forgiving_output():
        print("a line", flush=True)
        print("another", file=sys.stderr, flush=True)
    tell("a third")
    Silent().say("a fourth")
    Quiet(Console(stderr=True)).say("a fifth")
    assert sys.stdout is sys.stderr is stream  # as found


def test_without_stderr_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    tell("a line")


@pytest.mark.parametrize(
    ("encoding", "text", "printed"),
    [
        ("ascii", "PGD ℓ∞ ×2, ℓ2, Bäume", r"PGD Linf x2, L2, B\xe4ume"),
        ("latin-1", "ℓ∞ Bäume", "Linf Bäume"),
        ("utf-8", "ℓ∞ B\udce4ume", r"ℓ∞ B\udce4ume"),  # a file's name in another encoding
    ],
)
def test_letters_that_an_encoding_lacks_stay_legible(encoding: str, text: str, printed: str) -> None:
    written = io.BytesIO()
    stream = Forgiving(io.TextIOWrapper(written, encoding=encoding))
    print(text, end="", file=cast(TextIO, stream), flush=True)
    assert written.getvalue().decode(encoding) == printed


@pytest.mark.parametrize(
    "reporter",
    [Silent, lambda: Lines(Console(stderr=True)), lambda: Bar(Console(stderr=True, force_terminal=True))],
    ids=["silent", "lines", "bar"],
)
def test_run_from_python_outlives_its_output(
    reporter: Callable[[], Reporter], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(GONE))
    monkeypatch.setattr(sys, "stderr", Broken(GONE))
    assert fit(settings("none", "none"), reporter=reporter())["status"] == "finished"


PRINTED = ["fit", "--config", "digits", "--print-config"]  # a recipe that is named is not said aloud


@pytest.mark.parametrize(("error", "code"), [(FULL, 1), (GONE, 141)], ids=["full", "gone"])
@pytest.mark.parametrize("words", [["--version"], ["--help"], ["plugins", "list", "--json"], PRINTED])
def test_command_that_only_prints_fails_where_it_cannot(
    words: list[str], error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(error))
    assert main(words) == code
    warned = "advss: warning: not all could be printed on stdout: No space left on device\n"
    assert capsys.readouterr().err == (warned if error is FULL else "")


@pytest.mark.parametrize("redirected", [">/dev/full", ">/dev/full 2>/dev/full", ">&- 2>&-", "2>&1 | true"])
def test_process_ends_as_its_work_ended_and_not_as_its_output(redirected: str) -> None:
    work = "from advss.output import process_output\nwith process_output():\n  print('x' * 10**6)"
    command = f"set -o pipefail; '{sys.executable}' -c \"{work}\" {redirected}"
    assert subprocess.run(["bash", "-c", command], check=False, capture_output=True).returncode == 0
