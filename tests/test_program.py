"""The program as an administrator meets it: starting, stopping, reloading, dying workers, wrong configurations."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.servers import Mxart, mxart

LOCAL = '[repository.mine]\nformat = "oci"\nkind = "local"\npath = "/"\n'


def get(url: str, ca: Path | None = None) -> tuple[int, bytes]:
    context = ssl.create_default_context(cafile=str(ca)) if ca else None
    try:
        with urllib.request.urlopen(url, timeout=10, context=context) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def eventually(what: Callable[[], object], seconds: float = 10) -> None:
    """For what another process does in its own time, and tells nobody about."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def workers(server: Mxart) -> set[int]:
    children = Path(f"/proc/{server.service.pid}/task/{server.service.pid}/children").read_text()
    return {int(pid) for pid in children.split()}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mxart", *arguments], capture_output=True, text=True, timeout=30, check=False
    )


def test_without_a_configuration_it_is_ready_healthy_and_speaks_oci(tmp_path: Path) -> None:
    with mxart(tmp_path) as server:
        assert get(f"{server.url}/-/health") == (200, b"alive\n")
        assert get(f"{server.url}/-/ready") == (200, b"ready\n")
        # Who wants to publish can log in, so the door asks; whoever asks as nobody reads all the same.
        assert get(f"{server.url}/v2/")[0] == 401
        assert (server.data / "admin-password").exists()
        status, body = get(f"{server.url}/v2/not/there/manifests/1")
        assert (status, b"NAME_UNKNOWN" in body) == (404, True)
        assert get(f"{server.url}/somewhere")[0] == 404
        assert (server.data / "catalog.sqlite").exists()
        assert server.data.stat().st_mode & 0o777 == 0o700


def test_metrics_are_the_same_from_every_worker(tmp_path: Path) -> None:
    with mxart(tmp_path, workers=2) as server:
        for _ in range(20):
            get(f"{server.url}/-/health")
        eventually(lambda: b'outcome="own",repository="",status="2xx"} ' in get(f"{server.url}/-/metrics")[1])
        text = get(f"{server.url}/-/metrics")[1].decode()
        assert "mxart_workers 2.0" in text
        counted = re.search(r'mxart_exchanges_total\{outcome="own",repository="",status="2xx"\} (\S+)', text)
        assert counted is not None
        assert float(counted[1]) >= 20


def test_every_listener_is_in_the_ready_line_and_tls_is_the_programs_own(tmp_path: Path) -> None:
    with mxart(tmp_path, listen=("127.0.0.1:0", "[::1]:0"), tls=True) as server:
        assert len(server.urls) == 2
        for url in server.urls:
            assert get(f"{url}/-/health", server.ca) == (200, b"alive\n")
        port = server.port
        plain = urllib.request.Request(f"http://127.0.0.1:{port}/v2/?n=1")
        opener = urllib.request.build_opener(_NoRedirects)
        with pytest.raises(urllib.error.HTTPError) as error:
            opener.open(plain, timeout=10)
        with error.value as reply:
            assert reply.code == 308
            assert reply.headers["location"] == f"https://127.0.0.1:{port}/v2/?n=1"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def test_a_worker_that_is_killed_is_replaced(tmp_path: Path) -> None:
    with mxart(tmp_path, workers=2) as server:
        before = workers(server)
        assert len(before) == 2
        os.kill(min(before), signal.SIGKILL)
        eventually(lambda: len(workers(server)) == 2 and workers(server) != before)
        assert get(f"{server.url}/-/health")[0] == 200


def test_workers_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    server = Mxart(tmp_path, workers=2)
    left = workers(server)
    os.kill(server.service.pid, signal.SIGKILL)
    eventually(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in left))
    server.service.kill()


def test_a_reload_brings_the_new_configuration_and_keeps_the_port(tmp_path: Path) -> None:
    with mxart(tmp_path, LOCAL) as server:
        assert get(f"{server.url}/v2/a/tags/list")[0] == 404
        config = tmp_path / "mxart.toml"
        config.write_text(LOCAL.replace('path = "/"', 'path = "/team"'))
        os.kill(server.service.pid, signal.SIGHUP)
        eventually(lambda: b"known: team/" in get(f"{server.url}/v2/a/tags/list")[1])


def test_a_bad_reload_is_reported_and_the_old_configuration_kept(tmp_path: Path) -> None:
    with mxart(tmp_path, LOCAL) as server:
        before = workers(server)
        (tmp_path / "mxart.toml").write_text("nonsense = 1\n")
        os.kill(server.service.pid, signal.SIGHUP)
        eventually(lambda: "nonsense" in server.log())
        assert "the old one stays" in server.log()
        assert workers(server) == before
        assert get(f"{server.url}/-/health")[0] == 200


def test_stopping_lets_an_open_request_finish_first(tmp_path: Path) -> None:
    server = Mxart(tmp_path)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(b"GET /-/health HTTP/1.1\r\nHost: x\r\n")
        get(f"{server.url}/-/health")  # the half request was accepted before this one
        os.kill(server.service.pid, signal.SIGTERM)
        eventually(lambda: '"message":"stopping' in server.log())
        client.sendall(b"\r\n")
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer.lower()
    assert server.service.process.wait(20) == 0


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    server = Mxart(tmp_path)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(b"GET /-/health HTTP/1.1\r\n")
        get(f"{server.url}/-/health")
        os.kill(server.service.pid, signal.SIGTERM)
        eventually(lambda: '"message":"stopping' in server.log())
        os.kill(server.service.pid, signal.SIGINT)
        assert server.service.process.wait(10) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--config", "/nowhere/mxart.toml"], "cannot be read"),
        (["--listen", "nowhere"], "127.0.0.1:8080"),
        (["--listen", "256.1.1.1:80"], "cannot listen on 256.1.1.1:80"),
        (["--workers", "0"], "0 is not in the range"),
        (["--nonsense"], "No such option"),
    ],
)
def test_a_users_mistake_is_one_clear_line_and_status_2(tmp_path: Path, arguments: list[str], told: str) -> None:
    done = run("--data", str(tmp_path / "d"), *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("--data", str(tmp_path / "d"), "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 2
    assert "another program listens there" in done.stderr


def test_check_says_what_would_be_served(tmp_path: Path) -> None:
    file = tmp_path / "mxart.toml"
    group = '[repository.all]\nformat = "oci"\nkind = "group"\npath = "/all"\nmembers = ["mine"]\npublish_to = "mine"\n'
    file.write_text(LOCAL + group)
    done = run("--config", str(file), "check")
    assert done.returncode == 0
    assert "repository  mine: oci local at /\n" in done.stdout
    assert "repository  all: oci group at /all; pushes go to mine\n" in done.stdout
    file.write_text(LOCAL + "members = ['x']")
    done = run("--config", str(file), "check")
    assert (done.returncode, "repository.mine.members" in done.stderr) == (2, True)
    hub = '[repository.hub]\nformat = "oci"\nkind = "proxy"\nupstream = "https://up.test"\npath = "/hub"\n'
    file.write_text(hub + 'username = "u"\npassword_file = "/nowhere/secret"\n')
    done = run("--config", str(file), "check")
    assert (done.returncode, "/nowhere/secret cannot be read" in done.stderr) == (2, True)
    assert "Check the configuration" in run("check", "-h").stdout


def test_the_ca_can_be_printed_before_the_first_start(tmp_path: Path) -> None:
    done = run("--data", str(tmp_path / "d"), "ca", "print")
    assert done.returncode == 0
    assert done.stdout.startswith("-----BEGIN CERTIFICATE-----")
    assert done.stdout == (tmp_path / "d" / "ca" / "ca.pem").read_text()
    assert (tmp_path / "d" / "ca" / "ca-key.pem").stat().st_mode & 0o777 == 0o600
