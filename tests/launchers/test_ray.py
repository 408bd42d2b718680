"""Jobs as tasks of a Ray cluster, which the test begins in an environment of its own, and whose worker it kills."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml

from advss.errors import UsageError
from advss.studies.folder import StudyFolder
from advss.training.checkpoints import load_checkpoint
from advss_launchers.ray import Ray

PATIENCE_S = 240.0
STUDY: dict[str, Any] = {
    "fixed": {
        "config": "digits",
        "data": "digits",
        "data.limit": 100,
        "pretext": "none",
        "defense": {"pgd": {"steps": 1}},
        "backbone": {"resnet18": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}},
        "finetune-epochs": 12,
        "finetune-batch-size": 16,
        "eval-steps": 1,
        "eval-limit": 20,
        "eval-valid-steps": 1,
        "evaluate": ["pgd"],
        "precision": "float32",
        "memory-format": "contiguous",
        "checkpoint-minutes": 0.001,
        "tracking": False,
    },
    "rows": {"P1 F4": {}},
}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with Ray, and all that this one has."""
    place = tmp_path_factory.mktemp("ray")
    venv.create(place, with_pip=True)
    found = place / "bin" / "python"
    (site,) = place.glob("lib/python*/site-packages")
    (site / "this.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    done = subprocess.run([found, "-m", "pip", "install", "--quiet", "ray>=2.50"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("Ray cannot be installed here")
    return found


@pytest.fixture(scope="module")
def address(python: Path) -> Iterator[str]:
    """A cluster of one core on 127.0.0.1, as long as the tests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = tempfile.mkdtemp(prefix="ray")  # short, for the names of sockets in it
    words = ("start", "--head", "--block", "--node-ip-address", "127.0.0.1", "--port", str(port), "--num-cpus", "1")
    off = ("--include-dashboard", "false", "--disable-usage-stats", "--temp-dir", place)
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    with Path(place, "log").open("wb") as log:
        head = psutil.Popen([python.parent / "ray", *words, *off], env=environ, stdout=log, stderr=log)
    try:
        end = time.monotonic() + PATIENCE_S
        while b"--block" not in Path(place, "log").read_bytes() and time.monotonic() < end:
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        processes = [*head.children(recursive=True), head]
        head.terminate()
        for process in psutil.wait_procs(processes, timeout=20)[1]:
            process.kill()
        shutil.rmtree(place, ignore_errors=True)


def command(python: Path | str, place: Path, *words: str) -> psutil.Popen:
    place.mkdir()
    (place / "s.yaml").write_text(yaml.safe_dump(STUDY))
    line = (python, "-m", "advss.cli.main", "study", "run", "s.yaml", "--quiet", *words)
    return psutil.Popen(line, cwd=place, env=os.environ | {"OMP_NUM_THREADS": "1"})


def job_of(place: Path) -> psutil.Process | None:
    """The process of the job that trains, if it does."""
    if not list(place.glob("runs/*/finetune/last.safetensors")):
        return None
    words = {"job", f"{place}/studies/s"}
    return next((p for p in psutil.process_iter(["cmdline"]) if words <= {*(p.info["cmdline"] or ())}), None)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_whose_worker_is_killed_goes_on_at_another(
    python: Path, address: str, tmp_path: Path, until: Callable[..., Any]
) -> None:
    whole, killed = (tmp_path.resolve() / name for name in ("whole", "killed"))
    study = command(python, killed, "--launcher", "ray", "--launcher.address", address)
    job = until(lambda: job_of(killed))
    job.parent().kill()  # Ray's worker
    assert study.wait(PATIENCE_S) == 0
    assert not job.is_running()
    assert command(sys.executable, whole).wait(PATIENCE_S) == 0
    ours, theirs = (StudyFolder(place / "studies" / "s") for place in (killed, whole))
    ((run, _),) = ours.stages.items()
    log = (ours.job(run) / "log.txt").read_text()
    assert log.count("resum") >= 1, log
    one, other = (load_checkpoint(folder.run(run).best("finetune")).tensors for folder in (ours, theirs))
    assert all(torch.equal(one[name], other[name]) for name in other)
    assert ours.run(run).read_result()["ra"] == theirs.run(run).read_result()["ra"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_keeps_the_contract(python: Path, address: str, tmp_path: Path) -> None:
    line = (python, "-m", "advss.cli.main", "plugins", "check", "ray")
    done = subprocess.run(
        line, cwd=tmp_path, env=os.environ | {"RAY_ADDRESS": address}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed, 0 not checked" in done.stdout


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"cpus": 0}, "cpus must be at least 1"),
        ({"gpus": -1.0}, "gpus and retries at least 0"),
        ({"resources": "A100"}, "--launcher.resources: expected NAME=AMOUNT, got 'A100'"),
        ({"address": "127.0.0.1:1"}, r"no cluster at '127.0.0.1:1' \(.*refused\); begin one by `ray start --head`"),
    ],
)
def test_what_ray_cannot_do_is_refused(said: dict[str, Any], line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advss_launchers.ray.find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "ray", type("ray", (), {"is_initialized": staticmethod(lambda: False)}))
    with pytest.raises(UsageError, match=line):
        Ray(**said).check()


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advss_launchers.ray.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs Ray; pip install 'advss\[ray\]'"):
        Ray().check()
