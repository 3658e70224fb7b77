"""The DNS server between its sockets and its forwarders: who may ask, what is known already, who waits for whom.

Theory of operation.  `now` answers whatever can be answered without waiting: our own names, refusals, what the
cache has.  For the rest it says `Waiting`, and the caller, in a task of its own, awaits `later`.  Equal questions
wait for one flight, which belongs to the server and not to whoever asked first: its answer is kept even if
everybody has gone.  While the forwarders are silent a client gets what is kept from earlier (RFC 8767).
"""

from __future__ import annotations

import ipaddress
import logging
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

import trio
from msgspec import Struct, field

from mxart.metrics import Metrics
from mxart.proto.dns import Answer, Forward, Ignore, Key, Rules, refuse_stranger
from mxart.proto.dns_kept import Kept, answer
from mxart.proto.dns_wire import Ede
from mxart.server import metrics as series
from mxart.server.dns_cache import DnsCache, Found
from mxart.server.dns_forward import TOTAL_SECONDS, Forwarders, Unanswered

log = logging.getLogger("mxart.dns")

_FLIGHTS = 256  # questions under way; each may hold some sockets. One client's are at most as many as stay free
_WAITING = 2048  # clients that wait for one of them
_OF_ONE = 512  # of these, for one client's address
_PATIENCE = TOTAL_SECONDS + 0.1  # so that the flight's own end comes first
_STALE_AFTER = 1.8  # seconds that a client waits before it is given a stale answer (RFC 8767 section 5)
_LOG_SECONDS = 60.0
_STRANGERS = 50  # strangers answered in a second: enough to be told, too few to be a weapon


class Clients:
    """The networks that may ask."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(text) for text in networks]
        self.include = lru_cache(maxsize=4096)(self._include)

    def _include(self, address: str) -> bool:
        ip = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return any(ip in network for network in self._networks)


class Seldom:
    """Lets a log line through once in a while, and counts the others."""

    def __init__(self, seconds: float = _LOG_SECONDS) -> None:
        self._seconds = seconds
        self._last = float("-inf")
        self._held = 0

    def due(self) -> int | None:
        """How many lines were held back since the last one; None: hold this one back, too."""
        now = trio.current_time()
        if now - self._last < self._seconds:
            self._held += 1
            return None
        self._last, held, self._held = now, self._held, 0
        return held


class Waiting(Struct):
    """A question that takes asking; `stale` is the answer if nobody knows a newer one."""

    asked: Forward
    stale: Found | None


class _Flight(Struct):
    done: trio.Event = field(default_factory=trio.Event)
    kept: Kept | None = None
    ede: tuple[int, str] = (Ede.OTHER, "")


class Responder:
    """Answers the queries of one worker. Flights are tasks of `nursery`."""

    def __init__(
        self,
        rules: Rules,
        clients: Clients,
        forwarders: Forwarders | None,
        metrics: Metrics,
        nursery: trio.Nursery,
        *,
        cache: DnsCache | None = None,
    ) -> None:
        self._rules = rules
        self._clients = clients
        self._forwarders = forwarders
        self._metrics = metrics
        self._nursery = nursery
        self._cache = cache if cache is not None else DnsCache()
        self._flights: dict[Key, _Flight] = {}
        self._begun: Counter[str] = Counter()  # flights, by the client that asked first
        self._waiting: Counter[str] = Counter()
        self._waiting_total = 0
        self._stranger_seldom, self._loop_seldom, self._full_seldom = Seldom(), Seldom(), Seldom()
        self._second = 0
        self._strangers = 0

    def may_ask(self, client: str) -> bool:
        """Whether a client is of the configured networks; if not, that is counted, and logged now and then."""
        if self._clients.include(client):
            return True
        self._count("stranger")
        held = self._stranger_seldom.due()
        if held is not None:
            more = f" ({held} more since the last such line)" if held else ""
            log.warning("dns: refused %s, which is in none of dns.clients' networks%s", client, more)
        return False

    def stranger(self, wire: bytes) -> bytes | None:
        """What a stranger's datagram is answered, None: nothing."""
        second = int(trio.current_time())
        if second != self._second:
            self._second, self._strangers = second, 0
        self._strangers += 1
        return refuse_stranger(wire) if self._strangers <= _STRANGERS else None

    def now(self, wire: bytes, client: str, *, udp: bool) -> bytes | Waiting | None:
        """The answer to a client that may ask; None: none is due. Never raises."""
        decision = self._rules.decide(wire, udp=udp)
        match decision:
            case Answer():
                self._count(decision.outcome)
                return decision.wire
            case Ignore():
                self._count("ignored")
                return None
            case Forward():
                return self._known(decision, client, udp=udp)

    def _known(self, asked: Forward, client: str, *, udp: bool) -> bytes | Waiting:
        time = trio.current_time()
        found = self._cache.get(asked.key, time)
        if found is not None and found.fresh:
            self._count("cached")
            return self._answer(asked, found, udp=udp)
        under_way = asked.key in self._flights
        if self._forwarders is None or self._forwarders.is_ours(asked.question, under_way=under_way):
            held = self._loop_seldom.due()
            if held is not None:
                log.warning("dns: our own question about %s came back from %s", asked.question.text, client)
            return self._fail(asked, (Ede.OTHER, "a forwarding loop"), udp=udp)
        if found is not None and not found.retry:
            self._count("stale")
            return self._answer(asked, found, udp=udp)
        if self._cache.has_failed(asked.key, time):
            return self._fail(asked, (Ede.NO_REACHABLE_AUTHORITY, "no forwarder answered just now"), udp=udp)
        full = self._waiting_total >= _WAITING or self._waiting[client] >= _OF_ONE
        if full or (not under_way and self._begun[client] >= _FLIGHTS - len(self._flights)):
            held = self._full_seldom.due()
            if held is not None:
                log.warning("dns: too many questions wait for the forwarders; last of %s", client)
            return self._fail(asked, (Ede.OTHER, "too many questions wait for the forwarders"), udp=udp)
        return Waiting(asked, found)

    async def later(self, waiting: Waiting, client: str, *, udp: bool) -> bytes:
        """The answer, within four seconds. Cancellation leaves the flight to the others."""
        asked = waiting.asked
        flight = self._flights.get(asked.key)
        if flight is None:
            flight = self._flights[asked.key] = _Flight()
            self._begun[client] += 1
            self._nursery.start_soon(self._fly, asked, flight, client)
        self._waiting[client] += 1
        self._waiting_total += 1
        try:
            with trio.move_on_after(_PATIENCE if waiting.stale is None else _STALE_AFTER):
                await flight.done.wait()
        finally:
            self._waiting_total -= 1
            self._waiting[client] -= 1
            if not self._waiting[client]:
                del self._waiting[client]
        if flight.kept is not None:
            self._count("forwarded")
            return self._answer(asked, Found(flight.kept, 0.0, fresh=True, retry=False), udp=udp)
        if waiting.stale is not None:
            self._count("stale")
            return self._answer(asked, waiting.stale, udp=udp)
        return self._fail(asked, flight.ede, udp=udp)

    async def _fly(self, asked: Forward, flight: _Flight, client: str) -> None:
        assert self._forwarders is not None
        started = trio.current_time()
        try:
            flight.kept = await self._forwarders.ask(asked.question, do=asked.key.do, cd=asked.key.cd)
            self._cache.put(asked.key, flight.kept, trio.current_time())
            self._metrics.observe(series.DNS_FORWARD, seconds=trio.current_time() - started)
        except Unanswered as error:
            log.debug("dns: nobody knows %s: %s", asked.question.text, error)
            flight.ede = (error.ede, "the forwarders do not answer" if error.ede else "the forwarders cannot answer")
            self._cache.failed(asked.key, trio.current_time())
        except Exception:
            log.exception("dns: asking about %s failed", asked.question.text)
        finally:
            del self._flights[asked.key]
            self._begun[client] -= 1
            if not self._begun[client]:
                del self._begun[client]
            flight.done.set()

    def _answer(self, asked: Forward, found: Found, *, udp: bool) -> bytes:
        exists = self._rules.claims.is_above(asked.question.labels)
        return answer(asked.query, found.kept, found.age, udp=udp, exists=exists, stale=not found.fresh)

    def _fail(self, asked: Forward, ede: tuple[int, str], *, udp: bool) -> bytes:
        self._count("failed")
        return self._rules.failed(asked.query, ede, udp=udp)

    def _count(self, outcome: str) -> None:
        self._metrics.add(series.DNS_QUERIES, outcome)
