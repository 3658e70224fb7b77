"""The one place that dials: every connection that this program opens to another machine comes from here.

Theory of operation
-------------------
A way is a chain of proxies, mostly empty, and a target.  The first station is resolved and connected
to, trying its addresses as RFC 8305 has it: one after the other, each a quarter of a second after the
one before or as soon as that failed, and the first that stands wins.  Each proxy is then asked, through
what stands already, for the next station; names behind a proxy are its to resolve, unless the table
of `upstreams.resolve` knows them.

Three dangers are watched for.  We may sit where DNS sends our clients, so a name may lead back to us: an
answer that is one of our own listeners is refused as a loop.  A tunnel's target may be named by a stranger's
SNI: it never leads to loopback, link-local or ourselves unless the configuration wrote it so.  And an upstream
may lead us elsewhere, by a redirect or the name of its token server: not into networks that it is not of (see zones).
Behind a proxy names are the proxy's, and so is the care for where they lead; literal addresses are judged here.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import math
import os
import socket
from collections.abc import Collection, Iterable

import trio
from msgspec import Struct

from mxart.config import Upstreams
from mxart.errors import Forbidden
from mxart.upstream.failure import Cause, Trouble, reason
from mxart.upstream.proxies import Proxy, Ways, greet
from mxart.upstream.resolver import Resolver
from mxart.upstream.url import is_ip
from mxart.upstream.zones import Ip, Reach, Zone, plain_ip, reach_of, zone_of

_log = logging.getLogger("mxart.upstream")
_STAGGER = 0.25
_OWN = "resolves to this server; set upstreams.resolve or nameservers"

Address = tuple[str, int]


def refuse_reason(address: Address, own_addresses: Collection[Address], explicit: bool) -> str | None:
    """Why a stranger's wish must not be dialled; None if it may.

    `explicit`: the configuration itself names this target, so it means it.  Pure.
    """
    if explicit:
        return None
    ip = plain_ip(address[0])
    if address in own_addresses or (str(ip), address[1]) in own_addresses:
        return _OWN
    if ip.is_loopback or ip.is_unspecified:
        return "is a loopback address, which a tunnel reaches only where its `to` says so"
    if ip.is_link_local:
        return "is a link-local address, which a tunnel reaches only where its `to` says so"
    if ip.is_multicast or ip == ipaddress.IPv4Address("255.255.255.255"):
        return "is not the address of one machine"
    return None


class _Wish(Struct, frozen=True):
    """Why a place is to be dialled, and so what must not be."""

    tunnel: bool = False
    explicit: bool = False  # of a tunnel: its `to` names this very target
    reach: Reach = None  # of an upstream: None is one that is configured, else where one has led us


class Dialer:
    """Dials by the `[upstreams]` table. One per process, shared by every remote and tunnel."""

    def __init__(self, upstreams: Upstreams, *, connect_timeout: float = 10.0) -> None:
        self.resolver = Resolver(upstreams.resolve, upstreams.nameservers)
        self._ways = Ways(upstreams.proxy_for, upstreams.proxy)
        self._timeout = connect_timeout
        self._own: frozenset[Address] = frozenset()

    def listening(self, addresses: Iterable[Address]) -> None:
        """Tell which addresses are ours, as bound; 0.0.0.0 and :: stand for all of this machine."""
        self._own = frozenset(addresses)

    def ways(self, proxy: str | None) -> Ways:
        """The ways of a repository with this `proxy`: None inherits, "" is direct. Raises ConfigError."""
        return self._ways.instead(proxy)

    async def reach(self, host: str, way: tuple[Proxy, ...] = ()) -> frozenset[Zone]:
        """Where an upstream may lead us. Raises Trouble if its name has no address."""
        literal = self._literal(host)
        if literal is not None:
            return reach_of([literal])
        # What a proxy makes of the name is not known here.
        return reach_of([] if way else await self.resolver.resolve(host))

    async def connect(
        self, host: str, port: int, way: tuple[Proxy, ...] = (), reach: Reach = None
    ) -> trio.socket.SocketType:
        """A connected socket to an upstream. The caller owns it.

        `reach` is None for one that is configured; for a place that an upstream has named, what `reach` says of
        that upstream.  Raises Trouble.  Cancellation closes whatever was opened.
        """
        if reach is not None and (self.resolver.fixed(host) is not None or self._ways.name(host)):
            reach = None  # the configuration names it, too
        try:
            with trio.fail_after(self._timeout):
                return trio.socket.from_stdlib_socket(await self._connect(host, port, way, _Wish(reach=reach)))
        except trio.TooSlowError:
            through = f" through {', '.join(map(str, way))}" if way else ""
            raise Trouble(
                Cause.CONNECT_TIMEOUT, f"connecting to {host}:{port}{through} took longer than {self._timeout:g} s"
            ) from None

    async def connect_tcp(self, host: str, port: int, *, explicit: bool = False) -> socket.socket:
        """A connected, non-blocking socket for a tunnel, by the proxies for its host.

        `explicit`: its `to` names this very target.  Raises Forbidden for what must not be dialled, else
        UpstreamUnavailable, UpstreamFailed or UpstreamTimeout.  Cancellation closes whatever was opened.  The caller
        owns the socket.
        """
        try:
            with trio.CancelScope(deadline=trio.current_time() + self._timeout):
                return await self._connect(host, port, self._ways.to(host), _Wish(tunnel=True, explicit=explicit))
            raise Trouble(Cause.CONNECT_TIMEOUT, f"connecting took longer than {self._timeout:g} s")
        except Trouble as error:
            if error.cause is Cause.LOOP:
                raise Forbidden(f"tunnel to {host}:{port}: {error.detail}") from None
            raise error.problem(f"tunnel to {host}:{port}") from None

    async def _connect(self, host: str, port: int, way: tuple[Proxy, ...], wish: _Wish) -> socket.socket:
        if not way:
            addresses = self._judge(host, await self.resolver.resolve(host), port, wish)
            _log.debug("dialling %s:%d at %s", host, port, ", ".join(addresses))
            return await _first_of(addresses, port, host)
        fixed = self.resolver.fixed(host)
        literal = self._literal(host)
        if literal is not None and (wish.tunnel or wish.reach is not None):
            self._judge(host, [literal], port, wish)
        stations = [(proxy.host, proxy.port) for proxy in way[1:]] + [(fixed or host, port)]
        nearest = way[0]
        _log.debug("dialling %s:%d through %s", host, port, ", ".join(map(str, way)))
        try:
            raw = await _first_of(await self.resolver.resolve(nearest.host), nearest.port, nearest.host)
        except Trouble as error:
            raise Trouble(error.cause, f"proxy {nearest}: {error.detail}") from None
        proxy = nearest
        sock = trio.socket.from_stdlib_socket(raw)
        try:
            for proxy, (next_host, next_port) in zip(way, stations, strict=True):
                await greet(proxy, sock, next_host, next_port)
        except OSError as error:
            sock.close()
            raise Trouble(Cause.PROXY, f"proxy {proxy}, on the way to {host}: {reason(error)}") from None
        except BaseException:
            sock.close()
            raise
        return raw

    def _literal(self, host: str) -> str | None:
        """The address that a host is, whoever resolves it; None if that is not known."""
        address = self.resolver.fixed(host) or host
        if is_ip(address):
            return address
        name = host.lower().rstrip(".")
        if name == "localhost" or name.endswith(".localhost"):  # RFC 6761 section 6.3
            return "127.0.0.1"
        try:
            return socket.inet_ntoa(socket.inet_aton(name))  # 2130706433, 0x7f.1, 0177.0.0.1: proxies know them, too
        except OSError:
            return None

    def _judge(self, host: str, addresses: list[str], port: int, wish: _Wish) -> list[str]:
        """The addresses that may be dialled. Raises Trouble if there are none."""
        if wish.tunnel and wish.explicit:
            return addresses  # the configuration names this very target, and means it
        allowed: list[str] = []
        refused: tuple[Cause, str] | None = None
        for address in addresses:
            own = {(address, port)} if self._is_own(address, port) else set()
            cause, refusal = Cause.LOOP, None
            if wish.tunnel:
                refusal = refuse_reason((address, port), own, wish.explicit)
            elif own and (wish.reach is not None or (not is_ip(host) and host != "localhost")):
                refusal = _OWN
            elif wish.reach is not None and zone_of(address) not in wish.reach:
                cause = Cause.REDIRECT
                refusal = (
                    f"is {zone_of(address).value}, where an upstream outside must not lead us; "
                    "if that is meant, name it in upstreams.resolve or upstreams.proxy_for"
                )
                _log.warning(
                    "an upstream leads to %s (%s), which is %s: refused", host, address, zone_of(address).value
                )
            if refusal is None:
                allowed.append(address)
            else:
                refused = cause, f"{'loop: ' if refusal == _OWN else ''}{host} ({address}) {refusal}"
        if not allowed and refused is not None:
            raise Trouble(*refused)
        return allowed

    def _is_own(self, address: str, port: int) -> bool:
        ip = plain_ip(address)
        for own, own_port in self._own:
            if own_port != port:
                continue
            listener = plain_ip(own)
            if listener == ip or (listener.is_unspecified and is_local(ip)):
                return True
        return False


def is_local(ip: Ip) -> bool:
    """Whether an address is one of this machine's: only then can a socket be bound to it (ip(7))."""
    if ip.is_loopback:
        return True
    with socket.socket(socket.AF_INET6 if ip.version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(ip), 0))
        except OSError:
            return False
    return True


async def _connected(address: str, port: int) -> socket.socket:
    """A connection to an IP address, without the looking up that trio's own connect does. Raises OSError.

    Cancellation closes the socket.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        error = sock.connect_ex((address, port))
        if error == errno.EINPROGRESS:
            # One to this machine stands by now; asking costs less than being woken (connect(2): EISCONN, EALREADY).
            error = sock.connect_ex((address, port))
        if error == errno.EALREADY:
            await trio.lowlevel.wait_writable(sock)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error not in (0, errno.EISCONN):
            raise OSError(error, os.strerror(error))
    except BaseException:
        sock.close()
        raise
    return sock


async def _first_of(addresses: list[str], port: int, host: str) -> socket.socket:
    """The first connection that stands. Raises Trouble when none does."""
    if len(addresses) == 1:
        try:
            return await _connected(addresses[0], port)
        except OSError as error:
            why = f"{addresses[0]}:{port}: {reason(error)}"
            raise Trouble(Cause.REFUSED, f"cannot connect to {host}: {why}") from None
    won: list[socket.socket] = []
    errors: list[str] = []

    async def attempt(address: str, failed: trio.Event) -> None:
        try:
            sock = await _connected(address, port)
        except OSError as error:
            errors.append(f"{address}:{port}: {reason(error)}")
            failed.set()
        else:
            if won:
                sock.close()
            else:
                won.append(sock)
                nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for index, address in enumerate(addresses):
                failed = trio.Event()
                nursery.start_soon(attempt, address, failed)
                last = index == len(addresses) - 1
                with trio.move_on_after(math.inf if last else _STAGGER):
                    await failed.wait()
    except BaseException:
        for sock in won:
            sock.close()
        raise
    if won:
        return won[0]
    raise Trouble(Cause.REFUSED, f"cannot connect to {host}: {'; '.join(errors)}")
