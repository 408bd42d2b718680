from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from advss.training.signals import Interrupted, StopRequest


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_is_noted_and_answered_at_the_next_check(number: signal.Signals, code: int) -> None:
    with StopRequest() as stop:
        stop.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted) as interrupted:
            stop.check()
    assert interrupted.value.exit_code == code


def test_handlers_are_as_found_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize(("signals", "code"), [(("SIGINT", "SIGINT"), 130), (("SIGTERM", "SIGINT"), 130)])
def test_ctrl_c_after_a_first_request_exits_at_once(signals: tuple[str, str], code: int) -> None:
    program = f"""
import os, signal
from advss.training.signals import StopRequest
with StopRequest():
    for number in (signal.{signals[0]}, signal.{signals[1]}):
        os.kill(os.getpid(), number)
    print("still here")
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (code, "")


def test_second_sigterm_is_patient() -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM
