"""DNS servers to forward to: a fake one that misbehaves as told, and a real dnsmasq."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import dns.flags
import dns.message
import dns.rrset
import trio

from kit.servers import Service, program, wait_until

Behave = Callable[[dns.message.QueryMessage, "FakeServer", bool], bytes | Sequence[bytes] | None]
"""Query, server, whether it came over TCP: what to send back, several datagrams perhaps, or nothing."""


class FakeServer:
    """Answers every A question with 192.0.2.1 until `behave` is changed; counts by transport."""

    def __init__(self, port: int, behave: Behave) -> None:
        self.port = port
        self.behave = behave
        self.udp: list[str] = []
        self.tcp: list[str] = []
        self.sources: list[tuple[int, int]] = []  # source port and id of each datagram
        self.wires: list[bytes] = []
        self.heard = trio.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


def response(query: dns.message.QueryMessage, *, ttl: int = 60, address: str = "192.0.2.1") -> dns.message.Message:
    """An ordinary answer."""
    reply = dns.message.make_response(query)
    reply.flags |= dns.flags.RA
    if query.question[0].rdtype == 1:
        reply.answer.append(dns.rrset.from_text(query.question[0].name, ttl, "IN", "A", address))
    return reply


def well(query: dns.message.QueryMessage, _server: FakeServer, _tcp: bool) -> bytes:
    """Answers as it should."""
    return response(query).to_wire()


def mute(_query: dns.message.QueryMessage, _server: FakeServer, _tcp: bool) -> None:
    """Says nothing."""


def _said(said: bytes | Sequence[bytes] | None) -> Sequence[bytes]:
    return [] if said is None else [said] if isinstance(said, bytes) else said


@asynccontextmanager
async def fake_server(behave: Behave = well) -> AsyncIterator[FakeServer]:
    """UDP and TCP on one port of the loopback."""
    with (
        trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_STREAM) as listener,
        trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock,
    ):
        await listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        await sock.bind(("127.0.0.1", listener.getsockname()[1]))
        server = FakeServer(listener.getsockname()[1], behave)

        async def datagrams() -> None:
            while True:
                data, peer = await sock.recvfrom(4096)
                query = dns.message.from_wire(data)
                server.udp.append(query.question[0].name.to_text().lower())
                server.sources.append((peer[1], query.id))
                server.wires.append(data)
                server.heard.set()
                for wire in _said(server.behave(query, server, False)):
                    await sock.sendto(wire, peer)

        async def connection(peer: trio.SocketStream) -> None:
            async with peer:
                data = bytearray()
                async for piece in peer:
                    data += piece
                    if len(data) < 2 or len(data) < 2 + struct.unpack("!H", data[:2])[0]:
                        continue
                    query = dns.message.from_wire(bytes(data[2:]))
                    server.tcp.append(query.question[0].name.to_text().lower())
                    for wire in _said(server.behave(query, server, True)):
                        await peer.send_all(struct.pack("!H", len(wire)) + wire)
                    return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(datagrams)
            nursery.start_soon(trio.serve_listeners, connection, [trio.SocketListener(listener)])
            yield server
            nursery.cancel_scope.cancel()


class Dnsmasq:
    """A real forwarder and server of names: `records` are lines of its configuration."""

    def __init__(
        self,
        folder: Path,
        port: int,
        *records: str,
        address: str = "127.0.0.1",
        within: Sequence[str] = (),
        log: bool = True,
    ) -> None:
        """Returns when it answers. `log`: keep a list of what it is asked."""
        folder.mkdir(parents=True, exist_ok=True)
        config, self._log = folder / "dnsmasq.conf", folder / "dnsmasq.log"
        self._log.touch()
        fixed = ["no-resolv", "no-hosts", "bind-interfaces", "user=root", "local-ttl=60", "neg-ttl=60"]
        fixed += ["log-queries"] if log else []
        places = [f"listen-address={address}", f"port={port}", f"log-facility={self._log}", f"pid-file={folder}/pid"]
        config.write_text("\n".join([*fixed, *places, *records]) + "\n")
        self.service = Service(
            "dnsmasq", [program("dnsmasq"), "--keep-in-foreground", f"--conf-file={config}"], folder, within=within
        )
        try:
            wait_until(lambda: "started" in self._log.read_text(), "dnsmasq")
        except BaseException:
            self.service.kill()
            raise

    def close(self) -> None:
        """End it."""
        self.service.kill()

    def asked(self) -> list[str]:
        """The questions it had, in order, as "A name"."""
        lines = [line.partition(" query[")[2] for line in self._log.read_text().splitlines()]
        return [f"{line.partition(']')[0]} {line.split()[1].lower()}" for line in lines if line]
