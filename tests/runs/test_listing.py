"""What is known of run folders from their small files, and what becomes of folders that are not as they should be."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advss.errors import UsageError
from advss.runs.listing import Row, find_listed, listed, row_of
from advss.runs.wanted import Wanted, in_order

Stored = Callable[..., Path]


def attacked(**options: Any) -> dict[str, Any]:
    """What result.json has of PGD, its headline, and of AutoAttack."""
    own = {"version": "standard", "norm": "linf", "eps": 0.03, **options}
    figures = {"ra": {"accuracy": 0.25, "interval": [0.2, 0.3]}}
    headline = {"evaluation": "pgd", "title": "PGD", "norm": "linf", "eps": 0.03}
    return {"ra_attack": headline, "evaluations": {"autoattack": {"options": own, "figures": figures}}}


@pytest.mark.parametrize("other", [{"version": "rand"}, {"eps": 0.1}, {"norm": "l2"}])
def test_aa_is_the_standard_version_at_the_headlines_threat(stored: Stored, other: dict[str, Any]) -> None:
    assert row_of(stored("one", **attacked())).aa == 0.25
    assert row_of(stored("other", **attacked(**other))).aa is None


def test_a_finished_run_is_told_by_its_result(stored: Stored) -> None:
    folder = stored("one", **attacked())
    sizes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert row_of(folder) == Row(
        "one",
        folder,
        kind="fit",
        tasks=("rotation",),
        defense=("pgd",),
        scheme="full",
        data=("digits",),
        backbone="resnet18",
        ta=0.9,
        ra=0.4,
        aa=0.25,
        state="finished",
        size=sizes,
        date=1.7e9,
    )


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({"defense": "none"}, (("rotation",), ("none", "pgd"), "full", ("digits",))),
        ({"pretext": [], "defense": "none"}, ((), ("pgd",), "full", ("digits",))),
        ({"pretrain_data": "stl10"}, (("rotation",), ("pgd",), "full", ("stl10", "digits"))),
        ({"command": "pretrain", "pretrain_data": "stl10"}, (("rotation",), ("pgd",), None, ("stl10",))),
        ({"epochs": {"pretrain": 1, "finetune": 0}}, (("rotation",), ("pgd",), None, ("digits",))),
    ],
)
def test_choices_are_those_of_the_stages_it_has(stored: Stored, said: dict[str, Any], wanted: tuple[Any, ...]) -> None:
    row = row_of(stored("one", **said))
    assert (row.tasks, row.defense, row.scheme, row.data) == wanted


def test_an_average_names_its_members(stored: Stored) -> None:
    row = row_of(stored("abc", command="fit", members=[{"run": "a"}, {"run": "b"}], epochs={}))
    assert (row.kind, row.members, row.state) == ("ensemble", ("a", "b"), "finished")


def test_a_comparison_is_a_row_of_its_own_kind(tmp_path: Path) -> None:
    (tmp_path / "transfer.json").write_text(json.dumps({"models": ["a", "b"], "images": {"data": "digits"}}))
    row = row_of(tmp_path)
    assert (row.kind, row.members, row.data, row.ta, row.state) == (
        "transfer",
        ("a", "b"),
        ("digits",),
        None,
        "finished",
    )


# ---------------------------------------------------------------- how it stands
def test_it_runs_only_while_a_process_has_its_lock(stored: Stored) -> None:
    folder = stored("one", status="running")
    assert row_of(folder).state == "interrupted"
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert row_of(folder).state == "running"
    assert row_of(folder).state == "interrupted"


def test_a_run_that_diverged_says_how(stored: Stored) -> None:
    row = row_of(stored("one", status="running", diverged="3 non-finite losses in a row"))
    assert (row.state, row.problem) == ("diverged", "3 non-finite losses in a row")


def test_before_there_is_a_result_the_configuration_tells(stored: Stored) -> None:
    folder = stored("one")
    (folder / "result.json").unlink()
    row = row_of(folder)
    assert (row.tasks, row.defense, row.data, row.state) == (("rotation",), ("pgd",), ("digits",), "interrupted")


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("result.json", "{", "result.json is not JSON"),
        ("result.json", '{"ta": "high"}', "result.json is no result of a run: ta"),
        ("result.json", "[" * 100_000, "result.json is not JSON"),
        ("result.json", b"\xff\xfe", "result.json is not JSON"),
        ("config.yaml", None, "config.yaml is missing"),
        ("finetune/best.json", None, "finetune/best.json is missing"),
        ("transfer.json", "{}", "transfer.json is no outcome of `advss transfer`"),
    ],
)
def test_a_damaged_run_is_a_row(stored: Stored, file: str, content: str | bytes | None, problem: str) -> None:
    path = stored("one") / file
    for gone in (path, path.with_suffix(f".previous{path.suffix}")):
        gone.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    (row,) = listed(path.parents[file.count("/") + 1])
    assert row.state == "damaged"
    assert problem in row.problem


def test_the_checkpoint_before_the_best_will_do(stored: Stored) -> None:
    folder = stored("one")
    (folder / "finetune/best.json").unlink()
    assert row_of(folder).state == "finished"


def test_nothing_is_read_through_a_link(stored: Stored, tmp_path: Path) -> None:
    folder = stored("one")
    (folder / "result.json").rename(tmp_path / "elsewhere.json")
    (folder / "result.json").symlink_to(tmp_path / "elsewhere.json")
    row = row_of(folder)
    assert (row.ta, row.state) == (None, "damaged")
    assert "result.json is a link" in row.problem


def test_what_moves_a_terminal_is_not_shown(stored: Stored) -> None:
    assert row_of(stored("one", data="\x1b[2Jdigits")).data == ("?[2Jdigits",)


@pytest.mark.parametrize("time_s", ["1e300", "NaN", "-1e18", '"now"', "[]"])
def test_a_time_that_is_none_gives_way_to_the_files_own(time_s: str, stored: Stored) -> None:
    folder = stored("one")
    (folder / "metrics.jsonl").write_text('{"time": ' + time_s + "}\n")
    date = row_of(folder).date
    assert date is not None
    assert abs(date - time.time()) < 3600


def test_a_number_that_is_none_is_left_out(stored: Stored) -> None:
    assert row_of(stored("one", ta=float("nan"), evaluations={"autoattack": "no"})).ta is None


# ---------------------------------------------------------------- which, and in which order
def test_folders_that_are_no_runs_are_left_out(stored: Stored) -> None:
    runs = stored("one").parent
    (runs / "notes").mkdir()
    (runs / ".one.removed").mkdir()
    (runs / ".one.removed/result.json").touch()
    (runs / "file").touch()
    assert [row.name for row in listed(runs)] == ["one"]
    assert listed(runs / "nowhere") == []


def test_the_nearest_name_is_given(stored: Stored) -> None:
    runs = stored("selfie").parent
    assert find_listed("selfie", runs) == find_listed(str(runs / "selfie"), Path("runs")) == runs / "selfie"
    with pytest.raises(UsageError, match=r"there is no run 'selfei'.*did you mean 'selfie'"):
        find_listed("selfei", runs)


ROWS = [
    Row("a", Path("a"), tasks=("selfie", "rotation"), defense=("pgd",), scheme="full", ta=0.5, state="finished"),
    Row("b", Path("b"), defense=("none", "pgd"), scheme="partial", data=("stl10", "digits"), state="diverged"),
    Row("c", Path("c"), tasks=("acme:selfie",), scheme="full", ta=0.9, state="interrupted"),
    Row("d", Path("d"), kind="transfer"),
]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(), "abcd"),
        (Wanted(pretext=("selfie",)), "ac"),
        (Wanted(pretext=("rotation", "selfie")), "a"),
        (Wanted(pretext=("none",)), "b"),
        (Wanted(defense="pgd"), "ab"),
        (Wanted(finetune="full", state=("interrupted", "diverged")), "c"),
        (Wanted(data="digits"), "b"),
        (Wanted(name="[ad]*"), "ad"),
    ],
)
def test_filters(wanted: Wanted, found: str) -> None:
    assert "".join(row.name for row in filter(wanted.fits, ROWS)) == found


@pytest.mark.parametrize(
    ("key", "order"),
    [("ta", "cabd"), ("-ta", "acbd"), ("TA", "cabd"), ("name", "abcd"), ("-name", "dcba"), ("data", "bacd")],
)
def test_order(key: str, order: str) -> None:
    assert "".join(row.name for row in in_order(ROWS, key)) == order


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(UsageError, match="--sort: there is no 'siz'; did you mean 'size'"):
        in_order((), "siz")


# ---------------------------------------------------------------- what it costs
def test_five_hundred_runs_are_listed_within_seconds_and_without_torch(stored: Stored) -> None:
    runs = stored("first").parent
    for place in range(499):
        folder = runs / f"run-{place}"
        folder.mkdir()
        for path in (runs / "first").iterdir():
            if path.is_file():
                (folder / path.name).write_bytes(path.read_bytes())

    program = (
        "import sys; from pathlib import Path; from advss.runs.listing import listed\n"
        "print(len(listed(Path(sys.argv[1]))), *(name in sys.modules for name in ('torch', 'numpy')))"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program, str(runs)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["500", "False", "False"]
    assert time.monotonic() - began < 10
