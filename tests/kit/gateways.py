"""A gateway on real listening sockets of this process, and what it said about them."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import trio

from kit.descriptors import open_files
from kit.wire import Answer, Client, FakeHandler, text
from mxart.config import Limits, Tunnel, Upstreams
from mxart.listeners import Role
from mxart.message import Request, Response
from mxart.metrics import Metrics
from mxart.proto.authority import Authority
from mxart.proto.tls import TlsServer
from mxart.proto.tunnel import mover
from mxart.server.gateway import Gateway
from mxart.server.metrics import families
from mxart.server.tunnels import TunnelTable
from mxart.upstream.dial import Dialer

AUTHORITY = Authority.ephemeral()
PLAIN, TLS = Role(), Role(tls=True)


async def who(request: Request) -> Response:
    """Tells the client whom the server takes it for."""
    peer = request.peer
    said = f"{peer.address} {peer.port} {peer.local_address} {peer.scheme} {peer.sni} {request.version}"
    return text(said.encode())


async def ended(client: Client) -> bytes:
    """What still came before the server closed, politely or not."""
    try:
        return await client.read_to_end()
    except ConnectionResetError:
        return client.buffer


@asynccontextmanager
async def target(talk: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    """A server that talks to each connection in its way; its port."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def serve(stream: trio.SocketStream) -> None:
            async with stream:
                with suppress(trio.BrokenResourceError):  # its client is gone
                    await talk(stream)

        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


class Lines(logging.Handler):
    """Log records, and a way to wait for one."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[logging.LogRecord] = []
        self._changed = trio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self._changed.set()
        self._changed = trio.Event()

    async def wait_for(self, part: str) -> logging.LogRecord:
        """The first record whose message holds `part`, once there is one."""
        while True:
            for record in self.records:
                if part in record.getMessage():
                    return record
            await self._changed.wait()

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        """The fields that stand beside a record's message."""
        fields: dict[str, object] = record.__dict__["fields"]
        return fields


@contextmanager
def listening_to(name: str = "mxart") -> Iterator[Lines]:
    logger = logging.getLogger(name)
    lines, level = Lines(), logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)


class Running:
    """A gateway that serves."""

    def __init__(
        self,
        gateway: Gateway,
        handler: FakeHandler,
        metrics: Metrics,
        lines: Lines,
        ports: list[int],
        listeners: trio.CancelScope,
        connections: trio.CancelScope,
        dialer: Dialer,
    ) -> None:
        self.gateway = gateway
        self.dialer = dialer
        self.handler = handler
        self.metrics = metrics
        self.lines = lines
        self.ports = ports
        self._listeners = listeners
        self.connections = connections

    async def connect(self, listener: int = 0) -> Client:
        """A connection to one of its ports."""
        sock = trio.socket.socket()
        await sock.connect(("127.0.0.1", self.ports[listener]))
        return Client(sock, self.handler, trio.Event())

    async def get(self, listener: int = 0) -> tuple[int, bytes]:
        """One request on a connection of its own."""
        client = await self.connect(listener)
        with client.sock:
            await client.send(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
            status, _, body = await client.response()
            return status, body

    def number(self, name: str, *labels: str) -> float:
        return dict(self.metrics.values(self.metrics.families[name])).get(labels, [0.0])[0]

    def drain(self) -> None:
        """As a worker does when it is told to stop."""
        self._listeners.cancel()
        self.gateway.drain()


@asynccontextmanager
async def running(
    *roles: Role,
    answer: Answer | Response = who,
    limits: Limits | None = None,
    tunnels: Iterable[Tunnel] = (),
    upstreams: Upstreams | None = None,
    max_connections: int = 100,
    own: Iterable[tuple[str, int]] = (),
    names: Iterable[str] = (),
    connect_seconds: float = 10.0,
) -> AsyncIterator[Running]:
    """A gateway with a port for each role. At the end everything is cut, and no descriptor may be left."""
    mover()  # its descriptor stays as long as trio runs
    before = open_files()
    handler = FakeHandler(answer)
    metrics = Metrics(families(["r"]), 1)
    dialer = Dialer(upstreams or Upstreams(), connect_timeout=connect_seconds)
    dialer.listening(own)
    gateway = Gateway(
        handler=handler,
        tls=TlsServer(AUTHORITY, lambda name: name.endswith(".test")),
        tunnels=TunnelTable(tunnels),
        dialer=dialer,
        limits=limits or Limits(handshake_seconds=5.0, progress_seconds=5.0, tunnel_idle_seconds=5.0),
        max_connections=max_connections,
        metrics=metrics,
        names=frozenset(names),
        tunnel_log=lambda line, fields: logging.getLogger("mxart.tunnel").info("%s", line, extra={"fields": fields}),
    )
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in roles or (PLAIN,)]
    ports = [sock.getsockname()[1] for sock in sockets]
    started = trio.Event()
    scopes: list[trio.CancelScope] = []

    async def serve() -> None:
        async with trio.open_nursery() as connections, trio.open_nursery() as listeners:
            scopes.extend((listeners.cancel_scope, connections.cancel_scope))
            for sock, role in zip(sockets, roles or (PLAIN,), strict=True):
                sock.setblocking(False)
                listeners.start_soon(gateway.accept, sock, role, connections)
            started.set()

    try:
        with trio.fail_after(20), listening_to() as lines:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                await started.wait()
                yield Running(gateway, handler, metrics, lines, ports, scopes[0], scopes[1], dialer)
                scopes[1].cancel()
    finally:
        for sock in sockets:
            sock.close()
    faults = [record for record in lines.records if record.exc_info]
    assert not faults, faults
    assert len({id(request) for request, _, _ in handler.ends}) == len(handler.ends), "finished() is told once"
    assert len(handler.ends) >= len(handler.requests), "finished() is called for each request"
    with trio.move_on_after(2):
        while open_files() > before:  # another end of a connection may be somebody's here, who is still closing it
            await trio.lowlevel.checkpoint()
    assert open_files() <= before, "no descriptor is left open"
