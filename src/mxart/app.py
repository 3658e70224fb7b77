"""The composition root: builds every part from the configuration, owns the nurseries and the order of shutdown.

`prepare` runs in the supervisor and makes what all workers share; `Server.serve` is a worker's life.

Nurseries of a worker: background (transfers, upkeep) ⊃ connections ⊃ listeners.  Shutdown goes the
other way: stop accepting, let connections finish until a deadline, then transfers until the same one.
"""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import trio
from msgspec import Struct, field

from mxart.access.key_files import KeyFiles
from mxart.app_access import Rights, prepare_access
from mxart.app_api import ApiOnDemand
from mxart.app_ca import authority, tls_server
from mxart.app_sums import prepare_sums
from mxart.build import Parts
from mxart.build_trust import Trust
from mxart.claims import served_names
from mxart.config import Config
from mxart.errors import ConfigError
from mxart.listeners import Bound, bind_all
from mxart.listeners_dns import BoundDns, bind_dns
from mxart.logs import EventLog, LineSink
from mxart.metrics import Metrics
from mxart.proto.authority import Authority
from mxart.proto.certificates import Sessions
from mxart.proto.tls import TlsServer
from mxart.repos.own_keys import OwnKey
from mxart.server import metrics as series
from mxart.server.gateway import Gateway
from mxart.server.handler import Gate
from mxart.server.own import OwnPages
from mxart.server.rates import RateTable, limiter
from mxart.server.tunnels import TunnelTable
from mxart.store.catalog import SqliteCatalog
from mxart.store.generation import Generation
from mxart.store.paths import DataPaths, JobPaths, stores
from mxart.supervisor import Prepared
from mxart.upstream.dial import Dialer
from mxart.via import make_pseudonym
from mxart.web.jobs import Jobs

if TYPE_CHECKING:
    from mxart.app_dns import DnsService

log = logging.getLogger(__name__)

_FLUSH_SECONDS = 0.2
_UPKEEP_SECONDS = 30.0
_GENERATIONS = 4  # generations of workers that may overlap while old ones drain
_MIN_WIDTH = 16


def prepare(config: Config, previous: Prepared | None, log_to: tuple[LineSink, EventLog]) -> Server:
    """Make ready what all workers share. Raises ConfigError; then nothing has changed for `previous`."""
    before = previous if isinstance(previous, Server) else None
    slots = Slots.of_config(config, before)
    ca = authority(config)
    trust = Trust.read(config, ca.pem)
    places = stores(config)
    for place in places.values():
        place.create()
    SqliteCatalog(DataPaths(config.data).catalog).close()  # made, or brought up to date, by one process
    sessions = before.sessions if before is not None else Sessions()
    tls = tls_server(config, ca, sessions)
    keys = prepare_access(config)
    own_key = prepare_sums(config)
    dns = bind_dns(config.dns, before.dns if before is not None else None)
    try:
        bound = bind_all(config, before.bound if before is not None else ())
    except ConfigError:
        if dns is not None and (before is None or dns is not before.dns):
            dns.close()
        raise
    lasting = before.lasting if before is not None else Lasting()
    return Server(
        config,
        ca,
        trust,
        bound,
        tls,
        sessions,
        log_to=log_to,
        slots=slots,
        lasting=lasting,
        dns=dns,
        keys=keys,
        own_key=own_key,
    )


class Slots(Struct, frozen=True):
    """The catalog's generation counter, and which of its slots the workers of a configuration count in.

    The first slot is for processes outside the server.  It outlives a reload, so that old workers that drain and new
    ones see each other's writes.
    """

    counter: Generation
    width: int
    number: int = 0

    @classmethod
    def of_config(cls, config: Config, before: Server | None) -> Slots:
        """For the next configuration after `before`. Raises ConfigError when there are too few for its workers."""
        if before is None or before.config.data != config.data:
            width = max(config.workers, _MIN_WIDTH)
            paths = DataPaths(config.data)
            paths.create()
            return cls(Generation.open(paths.generation, 1 + _GENERATIONS * width), width)
        width = before.slots.width
        if config.workers > width:
            raise ConfigError(f"workers = {config.workers}: a reload can raise them to {width}; for more, start anew")
        return cls(before.slots.counter, width, before.slots.number + 1)

    def of(self, worker: int) -> Generation:
        """A worker's own. Raises OSError if the disk is full."""
        return self.counter.slot(1 + self.number % _GENERATIONS * self.width + worker % self.width)


class Lasting(Struct, frozen=True):
    """What is made once, before the first fork, and is the same in all workers and after every reload."""

    rates: RateTable = field(default_factory=RateTable)
    guesses: RateTable = field(default_factory=RateTable)
    pseudonym: str = field(default_factory=make_pseudonym)


class Server:
    """A configuration made ready (supervisor.Prepared)."""

    def __init__(
        self,
        config: Config,
        ca: Authority,
        trust: Trust,
        bound: tuple[Bound, ...],
        tls: TlsServer,
        sessions: Sessions,
        *,
        log_to: tuple[LineSink, EventLog],
        slots: Slots,
        lasting: Lasting,
        dns: BoundDns | None,
        keys: KeyFiles,
        own_key: OwnKey | None,
    ) -> None:
        self.config = config
        self.ca = ca
        self.trust = trust
        self.bound = bound
        self.dns = dns
        self.keys = keys
        self.own_key = own_key
        self.tls = tls
        self.sessions = sessions
        self.sink, self.exchanges = log_to
        self.slots = slots
        self.lasting = lasting
        self.metrics = Metrics(series.families(config.repositories), config.workers)

    @property
    def workers(self) -> int:
        return self.config.workers

    @property
    def drain_seconds(self) -> float:
        return self.config.limits.drain_seconds

    @property
    def urls(self) -> list[str]:
        return [*(bound.url for bound in self.bound), *([self.dns.url] if self.dns is not None else [])]

    def release(self, staying: list[Prepared]) -> None:
        kept = {id(sock) for other in staying if isinstance(other, Server) for sock in other.sockets}
        for sock in self.sockets:
            if id(sock) not in kept:
                sock.close()

    @property
    def sockets(self) -> list[socket.socket]:
        """Every listening socket."""
        dns = self.dns.sockets if self.dns is not None else ()
        return [*(sock for bound in self.bound for sock in bound.sockets), *dns]

    def serve(self, index: int, life: int, ready: Callable[[], None]) -> None:
        self.metrics.for_worker(index)
        trio.run(_Worker(self, self.slots.of(index)).run, life, ready)


class _Worker:
    """One worker process, from its fork to its end."""

    def __init__(self, server: Server, generation: Generation) -> None:
        self._server = server
        self._config = server.config
        self._metrics = server.metrics
        self._generation = generation

    async def run(self, life: int, ready: Callable[[], None]) -> None:
        server = self._server
        dialer = Dialer(self._config.upstreams, connect_timeout=self._config.upstreams.connect_seconds)
        dialer.listening(sock.getsockname()[:2] for sock in server.sockets)
        parts = Parts(
            self._config,
            server.trust,
            self._generation,
            self._metrics,
            dialer,
            pseudonym=server.lasting.pseudonym,
            own_key=server.own_key,
        )
        try:
            # Listened to until the end: a second SIGTERM (a service manager tells every process, and so does the
            # supervisor) must not cut the draining short.
            with trio.open_signal_receiver(signal.SIGTERM) as told:
                await self._live(parts, told, life, ready)
        finally:
            self._metrics.set(series.WORKERS, value=0)
            server.sink.flush()

    async def _live(self, parts: Parts, told: AsyncIterator[int], life: int, ready: Callable[[], None]) -> None:
        server, limits = self._server, self._config.limits
        async with trio.open_nursery() as background:
            await parts.start(background)
            jobs = Jobs(JobPaths(self._config.data))
            await background.start(jobs.run)
            rights = Rights.of(self._config, parts, server.keys, self._generation, server.lasting.guesses)
            own = OwnPages(self._metrics, lambda: not gateway.is_draining, lambda: server.ca.pem)
            gate = Gate(
                parts.routes,
                parts.repositories,
                own,
                self._metrics,
                server.exchanges,
                indexes=parts.indexes,
                limiter=limiter(limits, server.lasting.rates),
                pseudonym=server.lasting.pseudonym,
                reception=rights.reception,
                token_pages=rights.token_pages,
                api=ApiOnDemand(self._config, parts, jobs, rights),
                deputy=parts.own_sums,
                url=self._config.access.url,
            )
            gateway = Gateway(
                handler=gate,
                tls=server.tls,
                tunnels=TunnelTable(self._config.tunnels),
                dialer=parts.dialer,
                limits=limits,
                max_connections=max(1, limits.connections // self._config.workers),
                metrics=self._metrics,
                tunnel_log=server.exchanges.named("mxart.tunnel"),
                names=served_names(self._config, socket.gethostname()),
            )
            background.start_soon(self._flush_log)
            background.start_soon(self._upkeep, parts)
            deadline = await self._accept(gateway, told, life, ready)
            background.start_soon(_ignore, told)
            await jobs.stop()
            await parts.stop(max(0.0, deadline - trio.current_time()))
            background.cancel_scope.cancel()

    async def _accept(self, gateway: Gateway, told: AsyncIterator[int], life: int, ready: Callable[[], None]) -> float:
        """Serve until told to stop and every connection is done, or the deadline, which is returned, has come."""
        async with trio.open_nursery() as connections:
            dns = self._dns(connections)
            async with trio.open_nursery() as listeners:
                if dns is not None:
                    dns.listen(listeners)
                for bound in self._server.bound:
                    for sock in bound.sockets:
                        listeners.start_soon(gateway.accept, sock, bound.role, connections)
                self._metrics.set(series.WORKERS, value=1)
                ready()
                await _first_of(told.__anext__, partial(trio.lowlevel.wait_readable, life))
                listeners.cancel_scope.cancel()
            for sock in self._server.sockets:
                sock.close()
            gateway.drain()
            if dns is not None:
                dns.drain()
            deadline = trio.current_time() + self._config.limits.drain_seconds
            connections.cancel_scope.deadline = deadline
        return deadline

    def _dns(self, connections: trio.Nursery) -> DnsService | None:
        if self._server.dns is None:
            return None
        from mxart.app_dns import DnsService  # noqa: PLC0415  # dnspython takes a while to import

        return DnsService(self._config, self._server.dns, self._metrics, connections)

    async def _flush_log(self) -> None:
        self._server.sink.gather()
        while True:
            await trio.sleep(_FLUSH_SECONDS)
            self._server.sink.flush()

    async def _upkeep(self, parts: Parts) -> None:
        while True:
            await trio.sleep(_UPKEEP_SECONDS)
            parts.sweep()


async def _ignore(signals: AsyncIterator[int]) -> None:
    """Take what comes: what is left in a receiver is delivered anew at its end, to nobody who handles it."""
    async for _ in signals:
        pass


async def _first_of(*waits: Callable[[], Awaitable[object]]) -> None:
    """Return when the first of them does; the others are cancelled."""
    async with trio.open_nursery() as nursery:

        async def wait(one: Callable[[], Awaitable[object]]) -> None:
            await one()
            nursery.cancel_scope.cancel()

        for one in waits:
            nursery.start_soon(wait, one)
