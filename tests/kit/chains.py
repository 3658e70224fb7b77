"""Real proxies in every order: tinyproxy for http, microsocks for socks5, haproxy for l4, three stations of each.

A chain is a sequence of schemes, the nearest station first.  Every station and every upstream has a name of its own
that only the proxies can resolve (the test itself cannot), and each proxy tells in its log what it was asked to
connect to: so a log shows that a chain was gone in its order, and that names were resolved at the far end.
The stations in the second place want a user and a password.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from kit.netns import world
from kit.servers import Service, free_port, program

Chain = tuple[str, ...]

SCHEMES = ("http", "socks5", "l4")
CHAINS: tuple[Chain, ...] = tuple(
    itertools.chain.from_iterable(itertools.product(SCHEMES, repeat=n) for n in (1, 2, 3))
)
USER, PASSWORD = "puller", "s3cr3t"


def label(chain: Sequence[str]) -> str:
    return "-".join(chain)


def host(chain: Chain, what: str = "registry") -> str:
    """The upstream that a chain leads to; `what` may be auth or cdn too."""
    return f"{what}.{label(chain)}.far.test"


def station(chain: Chain, index: int) -> str:
    """The name of a station of a chain."""
    return f"s{index}.{label(chain)}.far.test"


class Chains:
    """The running proxies, for upstreams on `port` of 127.0.0.1."""

    def __init__(self, folder: Path, port: int, stack: contextlib.ExitStack) -> None:
        self.port = port
        l4 = [(chain, n) for chain in CHAINS for n, scheme in enumerate(chain) if scheme == "l4"]
        self._l4_port = free_port()
        self._l4 = {which: f"127.7.{number // 200}.{number % 200 + 1}" for number, which in enumerate(l4)}
        names: dict[str, str] = {}
        for chain in CHAINS:
            names |= {host(chain, what): "127.0.0.1" for what in ("registry", "auth", "cdn")}
            names |= {station(chain, n): self._l4.get((chain, n), "127.0.0.1") for n in range(len(chain))}
        inside = stack.enter_context(world(folder / "world", names, network=False)).enter
        self._ports: dict[tuple[str, int], int] = {}
        self._services: dict[tuple[str, int], Service] = {}
        for n in range(3):
            login = (USER, PASSWORD) if n == 1 else ("", "")
            for scheme, start in (("http", tinyproxy), ("socks5", microsocks)):
                port_ = free_port()
                service = start(folder / f"{scheme}-{n}", port_, *login, within=inside)
                stack.callback(service.kill)
                self._ports[scheme, n] = port_
                self._services[scheme, n] = service
        for (_, n), service in self._services.items():
            service.wait_for_port(self._ports[("http" if "tinyproxy" in service.name else "socks5"), n])
        self._haproxy = self._start_haproxy(folder / "l4")
        stack.callback(self._haproxy.kill)
        for address in self._l4.values():
            self._haproxy.wait_for_port(self._l4_port, address)

    def _start_haproxy(self, folder: Path) -> Service:
        lines = ["global", "  log stdout format raw local0", "defaults", "  mode tcp", "  log global"]
        lines += ["  option tcplog", "  timeout connect 5s", "  timeout client 20s", "  timeout server 20s"]
        for (chain, n), address in self._l4.items():
            to = f"127.0.0.1:{self.port}" if n + 1 == len(chain) else self.address(chain, n + 1)
            lines += [f"listen {station(chain, n)}", f"  bind {address}:{self._l4_port}", f"  server next {to}"]
        folder.mkdir(parents=True)
        (folder / "haproxy.cfg").write_text("\n".join(lines) + "\n")
        return Service("haproxy", [program("haproxy"), "-db", "-f", folder / "haproxy.cfg"], folder)

    def address(self, chain: Chain, n: int) -> str:
        """Where a station listens."""
        if chain[n] == "l4":
            return f"{self._l4[chain, n]}:{self._l4_port}"
        return f"127.0.0.1:{self._ports[chain[n], n]}"

    def proxy(self, chain: Chain) -> str:
        """What to write into the configuration for a chain."""
        urls = []
        for n, scheme in enumerate(chain):
            user = f"{USER}:{PASSWORD}@" if n == 1 and scheme != "l4" else ""
            port = self.address(chain, n).rpartition(":")[2]
            urls.append(
                f"{scheme}://{user}{station(chain, n) if n else self.address(chain, n).rpartition(':')[0]}:{port}"
            )
        return ", ".join(urls)

    def asked(self, chain: Chain, n: int) -> str:
        """What a station has written so far."""
        service = self._haproxy if chain[n] == "l4" else self._services[chain[n], n]
        return service.out.read_text(errors="replace") + service.err.read_text(errors="replace")


def tinyproxy(
    folder: Path,
    port: int,
    user: str = "",
    password: str = "",
    *,
    listen: str = "127.0.0.1",
    within: Sequence[str] = (),
) -> Service:
    """A real HTTP proxy. Its log is its standard output."""
    folder.mkdir(parents=True)
    lines = [f"Port {port}", f"Listen {listen}", "Timeout 30", "LogLevel Connect", "MaxClients 50"]
    if user:
        lines.append(f"BasicAuth {user} {password}")
    (folder / "tinyproxy.conf").write_text("\n".join(lines) + "\n")
    command = [program("tinyproxy"), "-d", "-c", folder / "tinyproxy.conf"]
    return Service("tinyproxy", command, folder, within=within)


def microsocks(
    folder: Path,
    port: int,
    user: str = "",
    password: str = "",
    *,
    listen: str = "127.0.0.1",
    within: Sequence[str] = (),
) -> Service:
    """A real SOCKS5 proxy."""
    login = ["-u", user, "-P", password] if user else []
    return Service("microsocks", [program("microsocks"), "-i", listen, "-p", str(port), *login], folder, within=within)


@contextlib.contextmanager
def chains(folder: Path, port: int) -> Iterator[Chains]:
    """Every chain, running."""
    with contextlib.ExitStack() as stack:
        yield Chains(folder, port, stack)
