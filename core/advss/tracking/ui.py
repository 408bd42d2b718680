"""``advss ui``: MLflow's pages on the runs of a folder, on this machine only unless another host is named."""

from __future__ import annotations

import json
import os
import signal
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
from advss.output import tell
from advss.tracking.address import Address, find_address
from advss.tracking.store import EXPERIMENT, SETTINGS, artifacts_folder, is_server, sqlite_path, store_uri
from advss.tracking.view import LINK

START_S = 120.0  # the server takes about 13 s to start on two slow cores


def ui_command(runs_dir: Path, where: Address) -> list[str]:
    """The command that serves the store of ``runs_dir``."""
    store = ["--backend-store-uri", store_uri(runs_dir), "--artifacts-destination", artifacts_folder(runs_dir).as_uri()]
    place = ["--host", where.host, "--port", str(where.port), *where.options()]
    return [sys.executable, "-m", "mlflow", "server", *store, *place, "--workers", "1"]


def serve(runs_dir: Path, *, host: str | None = None, port: int | None = None, open_browser: bool = True) -> int:
    """Print and open the link to the runs, and serve them until Ctrl-C, by default at 127.0.0.1, port 5000.

    Where MLFLOW_TRACKING_URI names a server, it is the one that is shown, and nothing is started.

    Returns:
        The exit code for the command line.

    Raises:
        UsageError: nothing was tracked yet, the host is none of this machine's, the port is in use, or the server does
            not start.
    """
    uri = store_uri(runs_dir)
    if is_server(uri):
        if host is not None or port is not None:
            flag = "host" if port is None else "port"
            raise UsageError(
                f"--{flag}: MLFLOW_TRACKING_URI names the server {uri}, which is shown; leave one of them out"
            )
        _show(uri.rstrip("/"), open_browser=open_browser)
        return 0
    path = sqlite_path(uri)
    if path is not None and not path.is_file():
        raise UsageError(f"there are no tracked runs in '{runs_dir}' yet: no {path}; run advss fit first")
    where = find_address(host, port)
    if not where.local:
        tell(
            f"advss: warning: anybody who reaches port {where.port} of this machine can read and change the runs; "
            "there is no password"
        )
    try:
        with tempfile.TemporaryFile() as log, _server(ui_command(runs_dir, where), log) as server:
            _wait_for(server, where.url, log)
            _show(where.url, elsewhere=where.url_elsewhere, open_browser=open_browser)
            return server.wait()
    except KeyboardInterrupt:
        return 0


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


def _show(address: str, *, elsewhere: str = "", open_browser: bool) -> None:
    """Print the link to the runs (MLflow's front page shows other things), and open it."""
    page = f"/#/experiments/{_experiment_id(address)}/runs{LINK}"
    others = f"and to other machines at {elsewhere}{page}\n" if elsewhere else ""
    print(f"MLflow shows the runs at {address}{page}\n{others}Ctrl-C ends it.", flush=True)
    if open_browser:
        webbrowser.open(address + page)


def _experiment_id(address: str) -> str:
    query = urllib.parse.urlencode({"experiment_name": EXPERIMENT})
    try:
        with urllib.request.urlopen(f"{address}/api/2.0/mlflow/experiments/get-by-name?{query}", timeout=10) as answer:
            return str(json.load(answer)["experiment"]["experiment_id"])
    except urllib.error.HTTPError as error:
        raise UsageError(f"MLflow at {address} has no experiment '{EXPERIMENT}' yet; run advss fit first") from error
    except (urllib.error.URLError, OSError) as error:
        raise UsageError(f"MLflow at {address} does not answer ({error})") from error
