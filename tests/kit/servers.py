"""Real server programs run by a test: started, waited for without sleeping, ended with everything they started.

Each runs in a session of its own, writes to files in the test's folder, and dies with the test process
whatever happens (PR_SET_PDEATHSIG through setpriv), so a broken run leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

T = TypeVar("T")

REQUIRED = "MXART_REQUIRE_CLIENTS"
"""Set in the environment, a missing program fails the test instead of skipping it."""

_DEBIAN = "/usr/sbin:/usr/bin:/sbin:/bin"


def program(name: str) -> str:
    """Where a program is, Debian's own before any other. Skips the test without it, or fails it under `REQUIRED`."""
    found = shutil.which(name, path=_DEBIAN) or shutil.which(name)
    return found if found is not None else missing(f"{name} is not installed")


def need_root() -> None:
    """Container runtimes and namespaces want root."""
    if os.geteuid() != 0:
        missing("this needs root")


def missing(why: str) -> NoReturn:
    """Skip the test, or fail it under `REQUIRED`."""
    if os.environ.get(REQUIRED):
        pytest.fail(f"{why}, and {REQUIRED} is set")
    pytest.skip(why)


def free_port() -> int:
    """A port that nobody listens on now. For programs that cannot be given port 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def pause(seconds: float = 0.005) -> None:
    """Give way between two looks at something that sends no event: a log file, a port of a foreign program."""
    select.select([], [], [], seconds)


def wait_until(look: Callable[[], T | None], what: str, seconds: float = 20.0) -> T:
    """Look until there is something to see. Fails the test at the end of the time, saying what was waited for."""
    end = time.monotonic() + seconds
    while True:
        if found := look():
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        pause()


class Service:
    """One server program. `command` runs in a session of its own; its output is in `out` and `err`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        within: Sequence[str] = (),
    ) -> None:
        """`env` is added to the environment; `within` is a command that runs others (nsenter, unshare)."""
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.out = folder / f"{name}.out"
        self.err = folder / f"{name}.err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [program("setpriv"), "--pdeathsig", "KILL", "--", *within, *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, **(env or {})},
                cwd=folder,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_for_line(self, pattern: str, seconds: float = 20.0) -> re.Match[str]:
        """Wait until the program has written a whole line that matches, to either output."""
        compiled = re.compile(pattern)

        def look() -> re.Match[str] | None:
            ended = self.process.poll() is not None
            for file in (self.out, self.err):
                for line in file.read_text(errors="replace").splitlines(keepends=True):
                    if line.endswith("\n") and (match := compiled.search(line)):
                        return match
            if ended:
                raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n{self.output()}")
            return None

        return wait_until(look, f"{self.name}: a line like {pattern!r}", seconds)

    def wait_for_port(
        self, port: int, host: str = "127.0.0.1", seconds: float = 20.0, within: Sequence[str] = ()
    ) -> None:
        """Wait until something accepts there; `within` is a command that runs others where it can be reached."""

        def look() -> bool | None:
            if self.process.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n{self.output()}")
            if within:
                knock = [*within, "bash", "-c", f"exec 3<>/dev/tcp/{host}/{port}"]
                return subprocess.run(knock, capture_output=True, timeout=5, check=False).returncode == 0 or None
            with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
                return True
            return None

        wait_until(look, f"{self.name} on port {port}", seconds)

    def output(self) -> str:
        """The end of what it wrote, for a failure's message."""
        texts = [file.read_text(errors="replace")[-4000:] for file in (self.out, self.err)]
        return "\n".join(text for text in texts if text)

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 20.0) -> int:
        """Ask it to end, wait, clear away whatever of its session is left, and return its exit code. Idempotent."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {seconds} s of {number.name}") from None
        finally:
            self.kill()

    def kill(self) -> None:
        """End the whole session at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()


class Mxart:
    """The program under test, as its users start it: `python -m mxart` in a process of its own."""

    def __init__(
        self,
        folder: Path,
        config: str = "",
        *,
        listen: Sequence[str] = ("127.0.0.1:0",),
        tls: bool = False,
        workers: int = 1,
        arguments: Sequence[str] = (),
        within: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Returns when the ready line is there. The data of an earlier one in the same folder is found again."""
        folder.mkdir(parents=True, exist_ok=True)
        self.data = folder / "data"
        command: list[str | Path] = [sys.executable, "-m", "mxart", "--data", self.data, "--workers", str(workers)]
        if config:
            file = folder / "mxart.toml"
            file.write_text(config)
            command += ["--config", file]
        for address in listen:
            command += ["--listen", address]
        if tls:
            command.append("--tls")
        self.service = Service("mxart", [*command, *arguments], folder, within=within, env=env)
        try:
            ready = self.service.wait_for_line(r"^mxart ready: (.*)")
        except BaseException:
            self.service.kill()
            raise
        self.urls = re.findall(r"https?://\S+", ready[1])

    @property
    def url(self) -> str:
        """The first listener's URL, without a slash at its end."""
        return self.urls[0].rstrip("/")

    @property
    def address(self) -> str:
        """The first listener as host:port."""
        return self.url.partition("//")[2]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def workers(self) -> list[int]:
        """The processes that serve: the children of the one started, or itself if it has none."""
        listing = Path(f"/proc/{self.service.pid}/task/{self.service.pid}/children").read_text()
        return [int(pid) for pid in listing.split()] or [self.service.pid]

    @property
    def ca(self) -> Path:
        """The certificate of the program's own CA."""
        return self.data / "ca" / "ca.pem"

    def log(self) -> str:
        """Everything that it wrote to standard error."""
        return self.service.err.read_text(errors="replace")

    def stop(self) -> None:
        """End it politely; it must exit with 0 and have reported no fault of its own."""
        code = self.service.stop()
        log = self.log()
        assert "Traceback" not in log, log[-8000:]
        assert re.search(r"\w+Warning: ", log) is None, log[-8000:]
        assert code == 0, f"exit code {code}:\n{self.service.output()}"


@contextlib.contextmanager
def mxart(
    folder: Path,
    config: str = "",
    *,
    listen: Sequence[str] = ("127.0.0.1:0",),
    tls: bool = False,
    workers: int = 1,
    within: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[Mxart]:
    """A running server; stopped and checked at the end, but a failure inside is never hidden by that."""
    server = Mxart(folder, config, listen=listen, tls=tls, workers=workers, within=within, env=env)
    try:
        yield server
    except BaseException:
        sys.stderr.write(f"--- mxart's log ---\n{server.log()[-12000:]}\n")
        server.service.kill()
        raise
    server.stop()


def nginx(
    folder: Path,
    http: str = "",
    *,
    port: int,
    host: str = "127.0.0.1",
    stream: str = "",
    workers: int = 1,
    within: Sequence[str] = (),
) -> Service:
    """An nginx in the foreground with the given http and stream blocks; returns when `host`:`port` accepts."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "nginx.conf"
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    config.write_text(
        (f"load_module {module};\n" if stream and module.exists() else "")
        + f"daemon off; worker_processes {workers}; pid {folder}/nginx.pid; error_log stderr;\n"
        + "user root; worker_rlimit_nofile 8192; events { worker_connections 4096; }\n"
        + (
            f"""http {{
              access_log off; server_tokens off; keepalive_requests 100000000;
              client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
              uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
              log_format plain '$request_method $request_uri $status $body_bytes_sent';
              {http}
            }}\n"""
            if http
            else ""
        )
        + (f"stream {{ {stream} }}\n" if stream else "")
    )
    command = [program("nginx"), "-p", folder, "-e", "stderr", "-c", config]
    service = Service("nginx", command, folder, within=within)
    try:
        service.wait_for_port(port, host, within=within)
    except BaseException:
        service.kill()
        raise
    return service
