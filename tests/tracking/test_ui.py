from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from advss.errors import UsageError
from advss.tracking.sync import sync
from advss.tracking.tracker import Tracker
from advss.tracking.ui import serve, ui_command

Server = Callable[[int], contextlib.AbstractContextManager[str]]


@pytest.fixture
def sent(folder: Path) -> Path:
    """The folder of runs of which one is in MLflow."""
    Tracker(folder, name="sample", enabled=False).finish("FINISHED")
    sync(folder)
    return folder.parent


def test_the_command_serves_the_store_beside_the_runs_to_this_machine_only(tmp_path: Path) -> None:
    command = ui_command(tmp_path / "runs", port=5001)
    options = dict(zip(command[4::2], command[5::2], strict=True))
    assert options["--backend-store-uri"] == f"sqlite:///{tmp_path}/mlflow.db"
    assert (options["--host"], options["--port"]) == ("127.0.0.1", "5001")


def test_a_port_in_use_names_another_that_is_free(sent: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(UsageError, match=r"try --port \d+") as caught:
            serve(sent, port=taken.getsockname()[1], open_browser=False)
        free = int(str(caught.value).rpartition(" ")[2])
        with socket.create_server(("127.0.0.1", free)):
            pass


def test_no_runs_yet(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are no tracked runs"):
        serve(tmp_path / "runs", open_browser=False)


def test_a_server_that_is_there_already_is_shown(
    sent: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    with server(0) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert serve(sent) == 0
    assert opened == [f"{address}/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=advss"]
    assert opened[0] in capsys.readouterr().out


def test_a_server_that_is_dead_is_named(sent: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port}")
    with pytest.raises(UsageError, match=f"{closed_port} does not answer"):
        serve(sent, open_browser=False)


STAND_IN = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"experiment": {"experiment_id": "1"}}')
    def log_message(self, *args):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""
SERVE = """
import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for what it runs aside
from pathlib import Path
from advss.tracking import ui
port, other = int(sys.argv[2]), sys.argv[3]
if other:
    ui.ui_command = lambda runs_dir, *, port: [sys.executable, "-c", other, str(port)]
sys.exit(ui.serve(Path(sys.argv[1]), port=port, open_browser=False))
"""


@pytest.mark.parametrize(("how", "server"), [(signal.SIGTERM, ""), (signal.SIGINT, STAND_IN)], ids=["MLflow", "Ctrl-C"])
def test_the_server_answers_and_ends_with_us(sent: Path, closed_port: int, how: signal.Signals, server: str) -> None:
    command = [sys.executable, "-c", SERVE, str(sent), str(closed_port), server]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        link = process.stdout.readline().split()[-1]
        with urllib.request.urlopen(link.partition("#")[0], timeout=10) as page:
            assert page.status == 200
        process.send_signal(how)
        _, complaints = process.communicate(timeout=30)
    assert (process.returncode, complaints) == (0, "")
    with socket.create_server(("127.0.0.1", closed_port)):
        pass
