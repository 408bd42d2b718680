"""Progress: a bar on a terminal, a line an epoch in a log, nothing when quiet."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

import advss
from advss import api
from advss.cli import progress
from advss.cli.progress import Bar, Lines, Quiet, reporter_for
from advss.training.reporting import Reporter, Silent

FINETUNED = {"train/loss": 1.5, "train/accuracy": 0.5, "valid/ta": 0.9, "valid/ra": 0.4}
PRETRAINED = {
    "train/loss": 1.5,
    "valid/clean/selfie/accuracy": 0.8,
    "valid/clean/jigsaw/accuracy": 0.6,
    "valid/adversarial/selfie/accuracy": 0.3,
    "valid/adversarial/jigsaw/accuracy": 0.1,
}


def console(*, terminal: bool, width: int = 80) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, _environ={})


def written(target: Console) -> str:
    assert isinstance(target.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", target.file.getvalue())


def train(reporter: Reporter, metrics: dict[str, float]) -> None:
    reporter.start("finetune", steps=4, done=0, epochs=2)
    for step in range(1, 5):
        reporter.step(step=step, images=32, metrics={"loss": 2.0 / step})
        if step % 2 == 0:
            reporter.epoch(epoch=step // 2, epochs=2, metrics=metrics)
    reporter.finish()


@pytest.mark.parametrize(
    ("terminal", "quiet", "kind"), [(True, False, Bar), (False, False, Lines), (True, True, Quiet)]
)
def test_the_reporter_suits_where_it_goes(terminal: bool, quiet: bool, kind: type) -> None:
    assert type(reporter_for(quiet=quiet, console=console(terminal=terminal))) is kind


def test_a_log_says_how_far_it_is_where_there_are_no_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("advss.cli.progress.time.monotonic", lambda: now)
    target = console(terminal=False)
    reporter = Lines(target)
    reporter.start("reading images", steps=6000, done=0, epochs=1)
    for second in range(1, 61):
        now = float(second)
        reporter.step(step=100 * second, images=100, metrics={})
    seconds = (6, 12, 18, 24, 31, 39, 49)  # 6 s apart, then further
    assert written(target).splitlines() == [
        "reading images",
        *(f"reading images: {100 * second:,} of 6,000, {60 - second} s left" for second in seconds),
    ]


def test_the_time_left_is_by_what_was_done_since_it_went_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("advss.cli.progress.time.monotonic", lambda: now)
    target = console(terminal=False)
    reporter = reporter_for(quiet=False, console=target, of="a: ")
    reporter.start("evaluate pgd", steps=1000, done=800, epochs=1, unit="image")
    now = 60.0
    reporter.step(step=810, images=10, metrics={})
    assert written(target).splitlines() == [
        "a: evaluate pgd, from image 800",
        "a: evaluate pgd: 810 of 1,000 images, 19 min left",
    ]


def test_what_is_measured_in_parts_says_where_it_is_and_what_share_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("advss.cli.progress.time.monotonic", lambda: now)
    target = console(terminal=False)
    reporter = Lines(target)
    reporter.start("evaluate autoattack", steps=2000, done=90, epochs=1, unit="")
    reporter.doing("apgd-t 3, 62 of 100 images stand")
    now = 60.0
    reporter.step(step=500, images=100, metrics={})
    assert written(target).splitlines() == [
        "evaluate autoattack, 4 % done before",
        "evaluate autoattack: apgd-t 3, 62 of 100 images stand, 25 % done, 4 min left",
    ]


def test_the_bar_says_what_is_measured_and_no_speed_of_parts() -> None:
    target = console(terminal=True, width=120)
    bar = Bar(target)
    bar.start("evaluate autoattack", steps=2000, done=90, epochs=1, unit="")
    bar.doing("apgd-t 3, 62 of 100 images stand")
    bar.step(step=500, images=100, metrics={})
    bar.finish()
    assert "apgd-t 3, 62 of 100 images stand" in written(target)
    assert "/s" not in written(target)
    assert "/2000" not in written(target)


def test_a_log_has_a_line_an_epoch() -> None:
    target = console(terminal=False)
    train(Lines(target), FINETUNED)
    lines = written(target).splitlines()
    assert lines[0] == "finetune: 2 epochs of 2 steps"
    assert [line.split("  ")[:4] for line in lines[1:]] == [
        ["finetune 1/2", "loss 1.5", "ta 0.9", "ra 0.4"],
        ["finetune 2/2", "loss 1.5", "ta 0.9", "ra 0.4"],
    ]
    assert all("images/s" in line for line in lines[1:])


def test_a_resumed_log_says_where() -> None:
    target = console(terminal=False)
    Lines(target).start("finetune", steps=4, done=3, epochs=2)
    assert written(target) == "finetune: 2 epochs of 2 steps, from step 3\n"


def test_quiet_says_warnings_only() -> None:
    target = console(terminal=False)
    reporter = Quiet(target)
    train(reporter, FINETUNED)
    assert written(target) == ""
    reporter.say("advss: warning: [odd]")
    assert written(target) == "advss: warning: [odd]\n"


@pytest.mark.parametrize("width", [80, 120])
def test_the_bar_ends_with_loss_ta_ra_and_speed_in_one_line(width: int) -> None:
    target = console(terminal=True, width=width)
    train(Bar(target), FINETUNED)
    last = [line for line in written(target).splitlines() if line.strip()][-1].split("\r")[-1]
    assert len(last) <= width
    for said in ("finetune 2/2", "loss 0.500", "TA 0.900", "RA 0.400", "/s"):
        assert said in last


def test_in_pretraining_the_bar_shows_the_members_mean_accuracies() -> None:
    target = console(terminal=True, width=120)
    train(Bar(target), PRETRAINED)
    assert "acc 0.700 adv 0.200" in written(target)


def test_a_resumed_bar_begins_where_it_stopped() -> None:
    target = console(terminal=True, width=120)
    bar = Bar(target)
    bar.start("finetune", steps=4, done=3, epochs=2)
    bar.finish()
    assert "3/4" in written(target)


def test_a_log_of_an_ensemble_shows_the_whole_and_the_members_mean_accuracies() -> None:
    target = console(terminal=False)
    members = {"valid/clean/loss": 3.0, "valid/adversarial/diversity": -0.1, "valid/adversarial/cosine:a/b": 0.2}
    train(Lines(target), PRETRAINED | members)
    line = written(target).splitlines()[1]
    assert line.startswith("finetune 1/2  loss 1.5  clean/loss 3  adversarial/diversity -0.1  acc 0.700 adv 0.200  ")
    assert "cosine" not in line


@pytest.mark.parametrize(("widgets", "kind"), [(object(), Bar), (None, Lines)])
def test_a_notebook_has_a_bar_where_it_can_show_one(
    widgets: object, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "find_spec", lambda name: widgets)
    notebook = Console(file=io.StringIO(), force_jupyter=True)
    assert type(reporter_for(quiet=False, console=notebook)) is kind


@pytest.mark.parametrize(("asked", "kind"), [({}, Silent), ({"progress": True}, Lines)])
def test_python_shows_progress_when_asked(asked: Any, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Reporter] = []
    monkeypatch.setattr(api, "fit_run", lambda config, *, reporter: given.append(reporter))
    advss.fit(seed=3, **asked)
    assert [type(reporter) for reporter in given] == [kind]
