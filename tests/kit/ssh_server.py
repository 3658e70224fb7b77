"""A real sshd on a port of the loopback, run by whoever runs the tests, for one key of its own making."""

from __future__ import annotations

import contextlib
import getpass
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from kit.servers import Service, free_port, program


class SshServer:
    """`key` logs in; `known_hosts` knows it as `name`. It runs git, and whatever else is asked of it."""

    def __init__(self, folder: Path, name: str = "git.test") -> None:
        folder.mkdir(parents=True)
        self.user = getpass.getuser()
        self.port = free_port()
        self.key = folder / "key"
        self.stranger = folder / "stranger"
        self.known_hosts = folder / "known_hosts"
        host_key = folder / "host"
        for file in (self.key, self.stranger, host_key):
            subprocess.run([program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
        self.known_hosts.write_text(f"[{name}]:{self.port} {host_key.with_suffix('.pub').read_text()}")
        config = folder / "sshd_config"
        config.write_text(
            f"""Port {self.port}
ListenAddress 127.0.0.1
HostKey {host_key}
AuthorizedKeysFile {self.key.with_suffix(".pub")}
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
"""
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # Debian's sshd wants it, and its service makes it
        self._service = Service("sshd", [program("sshd"), "-D", "-e", "-f", config], folder)
        self._service.wait_for_port(self.port)

    def url(self, repository: Path, name: str = "git.test") -> str:
        """Of a bare repository on this machine."""
        return f"ssh://{self.user}@{name}:{self.port}{repository}"

    def log(self) -> str:
        return self._service.err.read_text(errors="replace")

    def stop(self) -> None:
        self._service.stop()


@contextlib.contextmanager
def ssh_server(folder: Path) -> Iterator[SshServer]:
    """A running one."""
    server = SshServer(folder)
    try:
        yield server
    finally:
        server.stop()
