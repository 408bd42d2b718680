from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from advss.errors import UsageError
from advss.tracking.address import find_address
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


def options(command: list[str]) -> dict[str, str]:
    """The options of a command that serves."""
    return dict(zip(command[4::2], command[5::2], strict=True))


def test_the_command_serves_the_store_beside_the_runs_to_this_machine_only(tmp_path: Path, closed_port: int) -> None:
    said = options(ui_command(tmp_path / "runs", find_address(None, closed_port)))
    assert said["--backend-store-uri"] == f"sqlite:///{tmp_path}/mlflow.db"
    assert (said["--host"], said["--port"]) == ("127.0.0.1", str(closed_port))
    assert "--allowed-hosts" not in said


def lets_in(said: dict[str, str], name: str) -> bool:
    """Whether MLflow's own checks let a browser read and change by a name."""
    from mlflow.server.security_utils import is_allowed_host_header, should_block_cors_request

    hosts, origins = said["--allowed-hosts"].split(","), said["--cors-allowed-origins"].split(",")
    return is_allowed_host_header(hosts, name) and not should_block_cors_request(f"http://{name}", "POST", origins)


def test_the_names_of_the_machine_are_let_in_and_no_others(
    tmp_path: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Box")
    here = SimpleNamespace(family=socket.AF_INET, address="192.0.2.7")
    monkeypatch.setattr("psutil.net_if_addrs", lambda: {"eth0": [here]})
    said = options(ui_command(tmp_path / "runs", find_address("0.0.0.0", closed_port)))
    for name in ("box", "192.0.2.7", "127.0.0.1", "localhost", "[::1]"):
        assert lets_in(said, f"{name}:{closed_port}")
    assert not lets_in(said, f"evil.example:{closed_port}")


def test_what_the_environment_lets_in_counts(tmp_path: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", "box.example")
    said = options(ui_command(tmp_path / "runs", find_address("0.0.0.0", closed_port)))
    assert "--allowed-hosts" not in said
    assert "--cors-allowed-origins" in said


@pytest.mark.parametrize(
    ("host", "url"),
    [
        (None, "http://127.0.0.1:"),
        ("localhost", "http://localhost:"),
        ("0.0.0.0", "http://127.0.0.1:"),
        ("::1", "http://[::1]:"),
        ("[::1]", "http://[::1]:"),
    ],
)
def test_the_link_fits_the_host(host: str | None, url: str, closed_port: int) -> None:
    if host and "::1" in host:
        with socket.socket(socket.AF_INET6) as probe:
            try:
                probe.bind(("::1", 0))
            except OSError:
                pytest.skip("no IPv6 here")
    assert find_address(host, closed_port).url == f"{url}{closed_port}"


@pytest.mark.parametrize("host", ["", "192.0.2.1", "no host", "http://127.0.0.1"])
def test_a_host_that_is_not_this_machines_is_one_line(sent: Path, closed_port: int, host: str) -> None:
    with pytest.raises(UsageError, match=rf"^--host: '{host}' cannot be used \(.*\); expected an address") as caught:
        serve(sent, host=host, port=closed_port, open_browser=False)
    assert "\n" not in str(caught.value)


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


@pytest.mark.parametrize("flag", ["host", "port"])
def test_a_flag_without_use_is_refused(sent: Path, monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with pytest.raises(UsageError, match=f"^--{flag}: MLFLOW_TRACKING_URI names the server"):
        serve(sent, host="::1" if flag == "host" else None, port=5001 if flag == "port" else None, open_browser=False)


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
    ui.ui_command = lambda runs_dir, where: [sys.executable, "-c", other, str(where.port)]
sys.exit(ui.serve(Path(sys.argv[1]), host=sys.argv[4], port=port, open_browser=False))
"""


def answers(port: int, name: str) -> tuple[int, int]:
    """What the server answers to a browser that calls it by a name: to the page, and to the search for runs."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"Host": f"{name}:{port}", "Origin": f"http://{name}:{port}", "Content-Type": "application/json"}
    connection.request("GET", "/", headers=headers)
    page = connection.getresponse()
    page.read()
    connection.request("POST", "/ajax-api/2.0/mlflow/runs/search", '{"experiment_ids": ["1"]}', headers)
    found = connection.getresponse()
    found.read()
    connection.close()
    return page.status, found.status


@pytest.mark.parametrize(
    ("how", "server", "host"),
    [(signal.SIGTERM, "", "0.0.0.0"), (signal.SIGINT, STAND_IN, "127.0.0.1")],
    ids=["MLflow", "Ctrl-C"],
)
def test_the_server_answers_and_ends_with_us(
    sent: Path, closed_port: int, how: signal.Signals, server: str, host: str
) -> None:
    command = [sys.executable, "-c", SERVE, str(sent), str(closed_port), server, host]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        link = process.stdout.readline().split()[-1]
        with urllib.request.urlopen(link.partition("#")[0], timeout=10) as page:
            assert page.status == 200
        if not server:
            assert answers(closed_port, socket.gethostname().lower()) == (200, 200)
            assert answers(closed_port, "evil.example") == (403, 403)
        process.send_signal(how)
        _, complaints = process.communicate(timeout=30)
    warned = (
        f"anybody who reaches port {closed_port} of this machine can read and change the runs; there is no password"
    )
    expected = "" if server else f"advss: warning: {warned}\n"
    assert (process.returncode, complaints) == (0, expected)
    with socket.create_server(("127.0.0.1", closed_port)):
        pass
