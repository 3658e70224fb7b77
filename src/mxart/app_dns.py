"""The DNS server put together: within a worker of the whole server, or alone (`mxart dns`)."""

from __future__ import annotations

import signal
from collections.abc import Callable

import trio

from mxart.config import Config
from mxart.errors import ConfigError
from mxart.listeners_dns import BoundDns, bind_dns
from mxart.logs import LineSink
from mxart.metrics import Metrics
from mxart.proto.dns import Claims, Rules
from mxart.server import metrics as series
from mxart.server.dns import Clients, Responder
from mxart.server.dns_forward import Forwarders
from mxart.server.dns_tcp import TcpServer
from mxart.server.dns_udp import serve_udp
from mxart.supervisor import Prepared

_DRAIN_SECONDS = 5.0  # longer than any answer takes
_FLUSH_SECONDS = 0.2


def claimed(config: Config) -> list[str]:
    """The names that are answered with our address: of repositories, of the token server, of `dns.names`.

    Names of tunnels are not among them: whoever wants clients to come through us lists them in `dns.names`.
    """
    hosts = [host for repository in config.repositories.values() for host in repository.hosts]
    names = config.dns.names if config.dns is not None else ()
    return list(dict.fromkeys((*hosts, *config.token_server.hosts, *names)))


class DnsService:
    """The DNS server of one worker. What is under way runs in `nursery`."""

    def __init__(self, config: Config, bound: BoundDns, metrics: Metrics, nursery: trio.Nursery) -> None:
        """`config.dns` is there."""
        dns = config.dns
        assert dns is not None
        self._bound = bound
        self._nursery = nursery
        rules = Rules(Claims(claimed(config)), dns.answer, dns.ttl, recursive=bool(dns.forward))
        forwarders = Forwarders(dns.forward, bound.secret) if dns.forward else None
        self._responder = Responder(rules, Clients(dns.clients), forwarders, metrics, nursery)
        self._tcp = TcpServer(self._responder)

    def listen(self, listeners: trio.Nursery) -> None:
        """Take queries in tasks of `listeners`, until these are cancelled."""
        for sock in self._bound.udp:
            listeners.start_soon(serve_udp, self._responder, sock, self._nursery)
        for sock in self._bound.tcp:
            listeners.start_soon(self._tcp.accept, sock, self._nursery)

    def drain(self) -> None:
        """Let TCP connections end after the answers under way. Cancel what `listen` started first."""
        self._tcp.drain()


class DnsAlone:
    """A configuration made ready, of which only the DNS server is served (supervisor.Prepared)."""

    def __init__(self, config: Config, bound: BoundDns, sink: LineSink) -> None:
        self.config = config
        self.bound = bound
        self._sink = sink
        self._metrics = Metrics(series.families(()), self.workers)

    @property
    def workers(self) -> int:
        return 1

    @property
    def drain_seconds(self) -> float:
        return _DRAIN_SECONDS

    @property
    def urls(self) -> list[str]:
        return [self.bound.url]

    def release(self, staying: list[Prepared]) -> None:
        kept = {id(sock) for other in staying if isinstance(other, DnsAlone) for sock in other.bound.sockets}
        for sock in self.bound.sockets:
            if id(sock) not in kept:
                sock.close()

    def serve(self, index: int, life: int, ready: Callable[[], None]) -> None:
        self._metrics.for_worker(index)
        try:
            trio.run(self._run, life, ready)
        finally:
            self._sink.flush()

    async def _run(self, life: int, ready: Callable[[], None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM) as told:
            async with trio.open_nursery() as background:
                background.start_soon(self._flush_log)
                async with trio.open_nursery() as connections:
                    service = DnsService(self.config, self.bound, self._metrics, connections)
                    async with trio.open_nursery() as listeners:
                        service.listen(listeners)
                        listeners.start_soon(_end_of, life, listeners.cancel_scope)
                        ready()
                        await told.__anext__()
                        listeners.cancel_scope.cancel()
                    service.drain()
                    connections.cancel_scope.deadline = trio.current_time() + _DRAIN_SECONDS
                background.cancel_scope.cancel()

    async def _flush_log(self) -> None:
        self._sink.gather()
        while True:
            await trio.sleep(_FLUSH_SECONDS)
            self._sink.flush()


async def _end_of(life: int, scope: trio.CancelScope) -> None:
    """Stop when the supervisor is gone: its end of the pipe is closed then."""
    await trio.lowlevel.wait_readable(life)
    scope.cancel()


def prepare_alone(config: Config, previous: Prepared | None, sink: LineSink) -> DnsAlone:
    """Make ready what `mxart dns` serves. Raises ConfigError; then nothing has changed for `previous`."""
    bound = bind_dns(config.dns, previous.bound if isinstance(previous, DnsAlone) else None)
    if bound is None:
        raise ConfigError("there is no [dns] table")
    return DnsAlone(config, bound, sink)
