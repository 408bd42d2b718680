"""The packages in ``examples/`` as a third party has them: installed by pip, found by name, their own tests passing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent for path in (ROOT / "examples").glob("*/pyproject.toml"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process in which every example is installed, and nothing else is as it was not."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", folder, *PACKAGES], check=True)
    return os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def test_there_are_examples_of_every_kind() -> None:
    assert [path.name for path in PACKAGES] == [
        "advss-awp",
        "advss-contrastive",
        "advss-free-at",
        "advss-lora",
        "advss-lpft",
        "advss-mart",
    ]


@pytest.mark.timeout(900)  # some train by the command line; seconds on a machine that does nothing else
@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_its_own_tests_pass_with_all_of_them_installed(
    package: Path, installed: dict[str, str], tmp_path: Path
) -> None:
    options: list[str | Path] = ["-c", ROOT / "pyproject.toml", "-p", "no:cacheprovider", "-n0", package / "tests"]
    command = [sys.executable, "-m", "pytest", *options]
    done = subprocess.run(command, cwd=tmp_path, env=installed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
