"""Tunnels from the wish to the line in the log: dialled, counted, timed, and never in a circle.

A tunnel may lead back to us without our seeing it in its address: through a NAT, or a firewall rule that
redirects what we send ourselves.  Two things give it away.  The hello of a TLS connection has a random
number that no other has (RFC 8446 section 4.1.2), and it passes us for a second time while its tunnel
is open.  And a connection that was redirected to us on its way from the very address and port that a tunnel of ours
has dialled from, to the very address and port that it has dialled, is that tunnel.
Both are known to this worker alone; a circle over several workers meets the first one again soon.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter

import trio
from msgspec import Struct

from mxart.errors import LoopDetected, MxartError, Problem
from mxart.message import Peer
from mxart.metrics import Metrics
from mxart.proto.tunnel import TunnelCounts
from mxart.server import metrics as series
from mxart.server.addresses import Address, plain
from mxart.server.tunnels import Target
from mxart.upstream.dial import Dialer

Carry = Callable[[socket.socket, TunnelCounts], Awaitable[object]]
"""Moves bytes to and from a tunnel's target until both ways have ended, and counts them."""

TunnelLog = Callable[[str, Mapping[str, object]], None]

_NOWHERE: tuple[Address, Address] = (("", 0), ("", 0))
_LOOP = (
    "loop: this tunnel comes back to this server; set upstreams.resolve or nameservers,"
    " or let the firewall spare this server's own connections"
)


class Wish(Struct, frozen=True):
    """What a tunnel is for."""

    target: Target
    by: str  # how it was asked for: sni, connect, address, port
    name: str = ""  # what was asked for
    random: bytes = b""  # of the TLS hello that asked
    original: Address | None = None  # where the connection was bound for, if it was redirected to us


class Tunnelling:
    """Opens the tunnels of one worker. `log` is given a line, and its fields, for each one that has ended."""

    def __init__(self, dialer: Dialer, metrics: Metrics, log: TunnelLog) -> None:
        self._dialer = dialer
        self._metrics = metrics
        self._log = log
        self._randoms: set[bytes] = set()
        self.redirected = False  # whether connections may be redirected to us
        self._dialled: set[tuple[Address, Address]] = set()  # both ends of the connections to targets

    async def open(self, peer: Peer, wish: Wish) -> OpenTunnel:
        """Dial. Raises Problem, already logged and counted, when there will be no tunnel. Cancellation leaves nothing.

        Whoever gets the tunnel calls `carry`, or `close`.
        """
        tunnel = OpenTunnel(self, peer, wish)
        self._metrics.add(series.TUNNELS)
        try:
            if wish.random in self._randoms:
                raise LoopDetected(_LOOP)
            if wish.original is not None and ((peer.address, peer.port), wish.original) in self._dialled:
                raise LoopDetected(_LOOP)
            if wish.random:
                self._randoms.add(wish.random)
                tunnel.random = wish.random
            target = wish.target
            tunnel.sock = await self._dialer.connect_tcp(target.host, target.port, explicit=target.explicit)
            if self.redirected:
                tunnel.ends = _ends(tunnel.sock)
                self._dialled.add(tunnel.ends)
        except BaseException as error:
            if isinstance(error, Problem):
                self._metrics.add(series.REFUSED)
            tunnel.close(error)
            raise
        return tunnel

    def ended(self, tunnel: OpenTunnel, error: str | None) -> None:
        """Forget a tunnel, and tell of it."""
        wish, counts, to = tunnel.wish, tunnel.counts, str(tunnel.wish.target)
        self._randoms.discard(tunnel.random)
        self._dialled.discard(tunnel.ends)
        self._metrics.add(series.TUNNELS, amount=-1)
        self._metrics.add(series.TUNNELLED, "up", amount=counts.up)
        self._metrics.add(series.TUNNELLED, "down", amount=counts.down)
        fields: dict[str, object] = {
            "client": tunnel.peer.address,
            "by": wish.by,
            "sni" if wish.by in ("sni", "port") else "name": wish.name,
            "to": to,
        }
        if error is not None:
            fields["error"] = error
        fields["up"], fields["down"] = counts.up, counts.down
        fields["seconds"] = round(perf_counter() - tunnel.started, 3)
        self._log(f"tunnel {to}", fields)


class OpenTunnel:
    """One tunnel. Made by `Tunnelling.open`."""

    __slots__ = ("_tunnelling", "counts", "ends", "over", "peer", "random", "sock", "started", "wish")

    def __init__(self, tunnelling: Tunnelling, peer: Peer, wish: Wish) -> None:
        self._tunnelling = tunnelling
        self.peer = peer
        self.wish = wish
        self.started = perf_counter()
        self.counts = TunnelCounts()
        self.random = b""
        self.ends: tuple[Address, Address] = _NOWHERE
        self.sock: socket.socket | None = None
        self.over = False

    async def carry(self, move: Carry) -> MxartError | None:
        """Let bytes through until it ends, and close it. What broke it is told in the log, and returned."""
        assert self.sock is not None
        try:
            await move(self.sock, self.counts)
        except MxartError as error:
            self.close(error)
            return error
        except BaseException as error:
            self.close(error)
            raise
        self.close()
        return None

    def close(self, error: BaseException | None = None) -> None:
        """Give it up. Idempotent."""
        if self.over:
            return
        self.over = True
        if self.sock is not None:
            self.sock.close()
        match error:
            case None:
                why = None
            case trio.Cancelled():
                why = "cut: the server stops"
            case MxartError():
                why = str(error)
            case _:
                why = repr(error)
        self._tunnelling.ended(self, why)


def _ends(sock: socket.socket) -> tuple[Address, Address]:
    try:
        near, far = sock.getsockname(), sock.getpeername()
    except OSError:  # the target has reset already
        return _NOWHERE
    return (plain(near[0]), near[1]), (plain(far[0]), far[1])
