"""``advss ui``: MLflow's pages on the runs of a folder, on this machine only."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from advss.errors import UsageError
from advss.tracking.store import EXPERIMENT, SETTINGS, artifacts_folder, is_server, sqlite_path, store_uri
from advss.tracking.view import LINK

HOST = "127.0.0.1"
START_S = 120.0  # the server takes about 13 s to start on two slow cores


def ui_command(runs_dir: Path, *, port: int) -> list[str]:
    """The command that serves the store of ``runs_dir`` to this machine."""
    store = ["--backend-store-uri", store_uri(runs_dir), "--artifacts-destination", artifacts_folder(runs_dir).as_uri()]
    return [sys.executable, "-m", "mlflow", "server", *store, "--host", HOST, "--port", str(port), "--workers", "1"]


def serve(runs_dir: Path, *, port: int = 5000, open_browser: bool = True) -> int:
    """Print and open the link to the runs, and serve them until Ctrl-C.

    Where MLFLOW_TRACKING_URI names a server, it is the one that is shown, and nothing is started.

    Returns:
        The exit code for the command line.

    Raises:
        UsageError: nothing was tracked yet, the port is in use, or the server does not start.
    """
    uri = store_uri(runs_dir)
    if is_server(uri):
        _show(uri.rstrip("/"), open_browser=open_browser)
        return 0
    path = sqlite_path(uri)
    if path is not None and not path.is_file():
        raise UsageError(f"there are no tracked runs in '{runs_dir}' yet: no {path}; run advss fit first")
    _check_free(port)
    try:
        with tempfile.TemporaryFile() as log, _server(ui_command(runs_dir, port=port), log) as server:
            _wait_for(server, f"http://{HOST}:{port}", log)
            _show(f"http://{HOST}:{port}", open_browser=open_browser)
            return server.wait()
    except KeyboardInterrupt:
        return 0


def _check_free(port: int) -> None:
    with socket.socket() as probe, socket.socket() as other:
        # Without it, a port that a server has just left counts as taken for a minute.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            other.bind((HOST, 0))
            free = other.getsockname()[1]
            raise UsageError(f"port {port} cannot be used ({error}); try --port {free}") from error


@contextmanager
def _server(command: list[str], log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    # A session of its own: Ctrl-C reaches us alone, and we end the server together with its workers.
    server = subprocess.Popen(
        command,
        stdout=log,
        stderr=log,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env={**SETTINGS, **os.environ},
    )
    # SIGINT too: whoever starts us in the background may have it ignored, and we inherit that
    ending = (signal.SIGTERM, signal.SIGINT)
    usual = {number: signal.signal(number, signal.default_int_handler) for number in ending}
    try:
        yield server
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()


def _wait_for(server: subprocess.Popen[bytes], address: str, log: IO[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    log.seek(0)
    said = log.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
    raise UsageError(f"MLflow's server did not start: {said[-1]}")


def _show(address: str, *, open_browser: bool) -> None:
    """Print the link to the runs (MLflow's front page shows other things), and open it."""
    link = f"{address}/#/experiments/{_experiment_id(address)}/runs{LINK}"
    print(f"MLflow shows the runs at {link}\nCtrl-C ends it.", flush=True)
    if open_browser:
        webbrowser.open(link)


def _experiment_id(address: str) -> str:
    query = urllib.parse.urlencode({"experiment_name": EXPERIMENT})
    try:
        with urllib.request.urlopen(f"{address}/api/2.0/mlflow/experiments/get-by-name?{query}", timeout=10) as answer:
            return str(json.load(answer)["experiment"]["experiment_id"])
    except urllib.error.HTTPError as error:
        raise UsageError(f"MLflow at {address} has no experiment '{EXPERIMENT}' yet; run advss fit first") from error
    except (urllib.error.URLError, OSError) as error:
        raise UsageError(f"MLflow at {address} does not answer ({error})") from error
