"""OpenMP's threads fit the cores that are free, before torch is loaded; a user's own variables win."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from advss import threads
from advss.threads import WAITING, chosen, environment, quota, settle

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores that others keep busy."""
    on(monkeypatch, cores=2, others=2.0)


def on(patch: pytest.MonkeyPatch, *, cores: int, others: float, granted: float = math.inf) -> None:
    patch.setattr(threads, "own_cores", lambda: list(range(cores)))
    patch.setattr(threads, "busy", lambda _: others)
    patch.setattr(threads, "quota", lambda: granted)


def values(environ: dict[str, str]) -> dict[str, str]:
    return {variable: value for variable, (value, _) in chosen(environ).items()}


@pytest.mark.parametrize(
    ("count", "others", "granted", "expected"),
    [
        (2, 0.0, math.inf, {}),
        (2, 0.2, math.inf, {}),
        (2, 1.0, math.inf, PASSIVE),
        (2, 2.0, math.inf, PASSIVE),
        (64, 0.0, 2.0, {"OMP_NUM_THREADS": "2"}),
        (64, 40.0, 2.0, {"OMP_NUM_THREADS": "2"}),
        (64, 64.0, 2.0, {"OMP_NUM_THREADS": "2"} | PASSIVE),
        (64, 64.0, 1.5, {"OMP_NUM_THREADS": "1"}),
        (64, 0.0, 0.1, {"OMP_NUM_THREADS": "1"}),
        (1, 1.0, math.inf, {}),
    ],
)
def test_threads_spin_where_every_one_has_a_core(
    count: int, others: float, granted: float, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, cores=count, others=others, granted=granted)
    assert values({}) == expected


@pytest.mark.parametrize("variable", WAITING)
@pytest.mark.usefixtures("cores")
def test_a_users_own_way_of_waiting_wins(variable: str) -> None:
    assert values({variable: "1"}) == {}


@pytest.mark.usefixtures("cores")
def test_a_users_own_number_of_threads_is_heeded() -> None:
    assert values({"OMP_NUM_THREADS": "1"}) == {}
    assert values({"OMP_NUM_THREADS": "2"}) == PASSIVE


@pytest.mark.usefixtures("cores")
def test_what_was_chosen_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.delitem(sys.modules, "torch")
    settle()
    assert os.environ == PASSIVE
    said = "advss: other jobs keep 2.0 of 2 cores busy: OMP_WAIT_POLICY=PASSIVE; a value of your own wins\n"
    assert capsys.readouterr().err == said


@pytest.mark.usefixtures("cores")
def test_nothing_is_said_where_torch_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    settle()
    assert os.environ == {}


@pytest.mark.parametrize("use", ["from advss.cli.main import main; main(['fit'])", "import advss; advss.fit"])
def test_it_stands_in_the_environment_when_torch_is_loaded(use: str, tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(
        "import os; print(os.environ['OMP_WAIT_POLICY'], flush=True); os._exit(0)"
    )
    code = f"from advss import threads; threads.own_cores = lambda: [0]; threads.busy = lambda _: 1.0; {use}"
    environ = {name: value for name, value in os.environ.items() if name not in WAITING}
    environ |= {"OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    line = [sys.executable, "-c", code]
    assert subprocess.run(line, env=environ, capture_output=True, text=True, check=True).stdout == "PASSIVE\n"


@pytest.mark.parametrize(
    ("jobs", "said", "expected"),
    [
        (1, {}, {}),
        (2, {}, {"OMP_NUM_THREADS": "4"}),
        (3, {}, {"OMP_NUM_THREADS": "2"}),
        (20, {}, {"OMP_NUM_THREADS": "1"}),
        (2, {"OMP_NUM_THREADS": "8"}, {"OMP_NUM_THREADS": "8"} | PASSIVE),
        (2, {"OMP_NUM_THREADS": "8", "GOMP_SPINCOUNT": "5"}, {"OMP_NUM_THREADS": "8", "GOMP_SPINCOUNT": "5"}),
    ],
)
def test_jobs_share_the_cores(
    jobs: int, said: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, cores=8, others=0.0)
    assert environment(jobs, {"HOME": "/"} | said) == {"HOME": "/"} | expected


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        ("0::/", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2.0),
        ("0::/gone", {}, math.inf),
        (
            "3:cpu,cpuacct:/a",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "50000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"},
            0.5,
        ),
        ("3:cpu:/host", {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4.0),
        ("3:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        ("4:memory:/", {"memory/cpu.max": "1 100000"}, math.inf),
        ("", {}, math.inf),
    ],
)
def test_a_containers_quota(line: str, files: dict[str, str], expected: float, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "cgroup").write_text(line)
    assert quota(tmp_path / "cgroup", tmp_path) == expected


def test_where_there_are_no_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert quota(tmp_path / "none", tmp_path) == math.inf
