"""A world of its own for a test: nothing leaves it, names mean what the test says, nothing stays mounted after it.

A network namespace with only the loopback up, so that ports 443 and 80 are free and no packet gets
out, and a mount namespace with a hosts file of its own.  Both live as long as a process that holds
them; commands enter with nsenter.  (`ip netns exec` would remount /sys without the cgroup tree,
which breaks container runtimes.)
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from kit.servers import Service, need_root, program

_HOLD = """
set -e
[ -z "$3" ] || ip link set lo up
mount --bind "$1" /etc/hosts
mount --bind "$2" /etc/resolv.conf
if [ -d /etc/docker ]; then mount -t tmpfs none /etc/docker; fi
echo the world is ready
exec sleep infinity
"""


class World:
    """`enter` is what a command has to begin with to run inside."""

    def __init__(self, folder: Path, names: Mapping[str, str], *, network: bool) -> None:
        need_root()
        folder.mkdir(parents=True, exist_ok=True)
        hosts, resolv = folder / "hosts", folder / "resolv.conf"
        self._hosts, self._resolv = hosts, resolv
        self.knows(names)
        self.asks()
        command = [program("unshare"), "--mount", "--propagation", "private"]
        if network:
            command.append("--net")
        script = ["sh", "-c", _HOLD, "hold", str(hosts), str(resolv), "network" if network else ""]
        self._holder = Service("world", [*command, *script], folder)
        try:
            self._holder.wait_for_line("the world is ready")
        except BaseException:
            self._holder.kill()
            raise
        spaces = f"/proc/{self._holder.pid}/ns"
        self.enter = [program("nsenter"), f"--mount={spaces}/mnt"]
        if network:
            self.enter.append(f"--net={spaces}/net")
        self.enter.append("--")

    @property
    def pid(self) -> int:
        """The process that holds the namespaces."""
        return self._holder.pid

    def knows(self, names: Mapping[str, str]) -> None:
        """Which hosts exist here, with their addresses, from now on."""
        # Written in place: the mount is of this very file.
        self._hosts.write_text("".join(f"{ip} {name}\n" for name, ip in {"localhost": "127.0.0.1", **names}.items()))

    def asks(self, *nameservers: str) -> None:
        """Which nameservers know the other names. None: the C library then asks 127.0.0.1, where nobody answers."""
        self._resolv.write_text("".join(f"nameserver {address}\n" for address in nameservers))

    def mounts(self, below: Path) -> list[str]:
        """What is mounted below a folder, in this world."""
        table = Path(f"/proc/{self._holder.pid}/mounts").read_text()
        return [line.split()[1] for line in table.splitlines() if line.split()[1].startswith(f"{below}/")]

    def run(
        self, *command: str | Path, seconds: float = 60.0, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> bytes:
        """Run a command inside and return its output; it must succeed."""
        done = subprocess.run(
            [*self.enter, *command], capture_output=True, timeout=seconds, env=env, input=stdin, check=False
        )
        assert done.returncode == 0, (command, done.returncode, done.stderr.decode(errors="replace"))
        return done.stdout

    def close(self) -> None:
        """The namespaces go with the last process inside; so do their mounts."""
        self._holder.kill()


@contextlib.contextmanager
def world(folder: Path, names: Mapping[str, str] | None = None, *, network: bool = True) -> Iterator[World]:
    """`names` are the hosts that exist there, with their addresses."""
    made = World(folder, names or {}, network=network)
    try:
        yield made
    finally:
        made.close()
