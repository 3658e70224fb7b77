"""Connections to the servers of one upstream: opened when needed, kept for a while, given back or closed.

Choosing is synchronous; I/O comes after.  Nothing here runs by itself: connections that were idle too
long are closed by whoever comes next, or by `sweep`.
"""

from __future__ import annotations

import logging
import ssl

import trio

from mxart.message import Headers, Tap
from mxart.upstream.dial import Dialer
from mxart.upstream.failure import FOREIGN, Cause, Trouble, reason, trouble_of
from mxart.upstream.http1 import Http1Connection
from mxart.upstream.http2 import Http2Connection, Http2Stream
from mxart.upstream.payload import Outgoing, Watched
from mxart.upstream.proxies import Ways
from mxart.upstream.timing import Timeouts
from mxart.upstream.tls import ClientTls
from mxart.upstream.url import Origin, Url
from mxart.upstream.wires import PlainWire, TlsWire, Wire
from mxart.upstream.zones import Reach, Zone

_log = logging.getLogger("mxart.upstream")
_IDLE_SECONDS = 30.0  # less than what servers wait before they close
_IDLE_CONNECTIONS = 16
_SMALL_REST = 65536  # a rest of a body that is cheaper to read than a new connection is to make


class Exchange:
    """One request and its answer. Close it; what was read to its end leaves a connection for others."""

    def __init__(
        self, pool: Pool, channel: Http1Connection | Http2Stream, url: Url, status: int, headers: Headers
    ) -> None:
        self._pool = pool
        self.url = url
        self._channel = channel
        self._closed = False
        self.status = status
        self.headers = headers

    async def receive(self) -> bytes:
        """The next bytes of the body, b"" at its end. Raises Trouble, also when nothing moves for the idle timeout."""
        timeout = self._pool.timeouts.idle
        with trio.move_on_after(timeout):
            return await self._channel.receive()
        raise Trouble(Cause.STALLED, f"the body stalled for {timeout:g} s")

    def tap(self) -> Tap | None:
        """See tap.Tapped."""
        channel = self._channel
        return channel if isinstance(channel, Http1Connection) and channel.tappable else None

    async def read(self, max_bytes: int) -> bytes:
        """A small body whole. Raises Trouble if it is larger."""
        parts: list[bytes] = []
        size = 0
        while data := await self.receive():
            size += len(data)
            if size > max_bytes:
                raise Trouble(Cause.PROTOCOL, f"an answer larger than {max_bytes} bytes where a small one was expected")
            parts.append(data)
        return b"".join(parts)

    async def finish(self) -> None:
        """Read a short rest that nobody wants, so that the connection can be used again; then close."""
        try:
            size = 0
            with trio.move_on_after(0.5):
                while size < _SMALL_REST and (data := await self.receive()):
                    size += len(data)
        except Trouble:
            pass  # it was of no use anyway
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Let go. Idempotent; takes no time worth speaking of, so it may be called when cancelled."""
        if not self._closed:
            self._closed = True
            await self._pool.give_back(self._channel)


class Pool:
    """Dials by `dialer` along `ways`."""

    def __init__(self, dialer: Dialer, ways: Ways, tls: ClientTls | None, timeouts: Timeouts) -> None:
        self._dialer = dialer
        self._ways = ways
        self._tls = tls
        self.timeouts = timeouts
        self._idle: list[Http1Connection] = []  # the longest idle first
        self._shared: dict[tuple[Origin, Reach], Http2Connection] = {}
        self._h2_only: set[Origin] = set()  # they refuse HTTP/1.1 by ALPN

    async def ask(
        self,
        method: str,
        origin: Origin,
        target: str,
        headers: tuple[tuple[str, str], ...],
        *,
        body: Outgoing = b"",
        bulk: bool = False,
        reach: Reach = None,
        once: bool = False,
    ) -> Exchange:
        """Send a request to a server and return when the head of the answer is there.

        `bulk` wants a connection of its own (HTTP/1.1).  `reach` is as Dialer.connect wants it.
        `once`: it must not be sent a second time, not even where the first went into a connection that was closing.

        Raises Trouble, and what reading the body raises.  Cancellation closes the connection.
        """
        self.sweep()
        while True:
            channel, used = self._kept(origin, bulk, reach)
            if channel is None:
                try:
                    channel = await self._open(origin, bulk, reach)
                except Trouble as error:
                    error.undone = True
                    raise
            sending: Outgoing = body
            try:
                with trio.fail_after(self.timeouts.first_byte) as scope:
                    if not isinstance(body, bytes):
                        sending = Watched(body, scope, self.timeouts.idle, self.timeouts.first_byte)
                    status, found = await channel.ask(method, target, headers, sending)
            except trio.TooSlowError:
                await self._drop(channel)
                if isinstance(sending, Watched) and not sending.complete:
                    why = f"{origin} took nothing of the body for {self.timeouts.idle:g} s"
                    raise Trouble(Cause.STALLED, why) from None
                raise Trouble(Cause.SILENT, f"{origin} did not answer within {self.timeouts.first_byte:g} s") from None
            except Trouble as error:
                await self._drop(channel)
                if used and error.cause is Cause.RESET and not once:
                    # The server closed it while it was idle, just as the request was sent: no failure of anybody.
                    _log.debug("%s closed an idle connection; opening another", origin)
                    continue
                raise
            except BaseException:
                await self._drop(channel)
                raise
            return Exchange(self, channel, Url(origin, target), status, found)

    async def reach(self, origin: Origin) -> frozenset[Zone]:
        """Where a server may lead us. Raises Trouble."""
        return await self._dialer.reach(origin.host, self._ways.to(origin.host))

    def _kept(self, origin: Origin, bulk: bool, reach: Reach) -> tuple[Http1Connection | Http2Stream | None, bool]:
        if not bulk or origin in self._h2_only:
            shared = self._shared.get((origin, reach))
            if shared is not None and shared.available:
                return shared.stream(), True
        for index in range(len(self._idle) - 1, -1, -1):
            if self._idle[index].origin == origin and self._idle[index].reach == reach:
                connection = self._idle.pop(index)
                if connection.stale:
                    connection.close()
                    continue
                return connection, True
        return None, False

    async def _open(self, origin: Origin, bulk: bool, reach: Reach) -> Http1Connection | Http2Stream:
        sock = await self._dialer.connect(origin.host, origin.port, self._ways.to(origin.host), reach)
        wire: Wire = PlainWire(sock)
        if origin.scheme == "http":
            return Http1Connection(wire, origin, reach)
        if self._tls is None:
            self._tls = ClientTls()
        wanted = bulk and origin not in self._h2_only
        try:
            secured = TlsWire(wire, self._tls.files if wanted else self._tls.documents, origin.host)
            with trio.fail_after(self.timeouts.connect):
                await secured.handshake()
        except trio.TooSlowError:
            wire.close()
            raise Trouble(
                Cause.CONNECT_TIMEOUT, f"the TLS handshake with {origin} took longer than {self.timeouts.connect:g} s"
            ) from None
        except ssl.SSLError as error:
            wire.close()
            # The alert of RFC 7301 section 3.2. Python gives it no code and not always a reason, only a text.
            if wanted and "no application protocol" in str(error).replace("_", " ").lower():
                self._h2_only.add(origin)
                return await self._open(origin, bulk, reach)
            if isinstance(error, ssl.SSLCertVerificationError) and await self._is_ours(origin, reach):
                raise Trouble(
                    Cause.LOOP,
                    f"loop: {origin} leads back to this server, which shows a certificate of its own CA; "
                    "set upstreams.resolve or nameservers",
                ) from None
            raise trouble_of(error, str(origin)) from None
        except (*FOREIGN, ValueError) as error:
            wire.close()
            raise Trouble(Cause.TLS, f"the TLS handshake with {origin}: {reason(error)}") from None
        except BaseException:
            wire.close()
            raise
        if secured.alpn != "h2":
            return Http1Connection(secured, origin, reach)
        connection = Http2Connection(secured, origin)
        try:
            await connection.start()
        except BaseException:
            connection.close()
            raise
        known = self._shared.get((origin, reach))
        if known is None or not known.available:
            self._shared[origin, reach] = connection
            if known is not None:
                known.retired = True
                known.close_if_done()
        else:
            connection.retired = True  # two opened at once: this one serves its own request only
        return connection.stream()

    async def _is_ours(self, origin: Origin, reach: Reach) -> bool:
        """Whether a server that is not trusted is this very one, by a name that leads back here. Nothing is asked."""
        context = self._tls.ourselves if self._tls is not None else None
        if context is None:
            return False
        try:
            sock = await self._dialer.connect(origin.host, origin.port, self._ways.to(origin.host), reach)
        except Trouble:
            return False
        wire = PlainWire(sock)
        try:
            with trio.move_on_after(self.timeouts.connect):
                await TlsWire(wire, context, origin.host).handshake()
                return True
        except FOREIGN:
            return False  # somebody else whose certificate is wrong
        finally:
            wire.close()
        return False

    async def _drop(self, channel: Http1Connection | Http2Stream) -> None:
        if isinstance(channel, Http1Connection):
            channel.close()
        else:
            await channel.release()

    async def give_back(self, channel: Http1Connection | Http2Stream) -> None:
        """For `Exchange`: keep the connection if it can be used again."""
        now = trio.current_time()
        if not isinstance(channel, Http1Connection):
            await channel.release()
            channel.connection.expires = now + _IDLE_SECONDS
        elif channel.reusable:
            channel.expires = now + _IDLE_SECONDS
            self._idle.append(channel)
            while len(self._idle) > _IDLE_CONNECTIONS:
                self._idle.pop(0).close()
        else:
            channel.close()

    def sweep(self) -> None:
        """Close what was idle too long, or was closed by the other side."""
        now = trio.current_time()
        kept: list[Http1Connection] = []
        for connection in self._idle:
            if connection.expires <= now or connection.stale:
                connection.close()
            else:
                kept.append(connection)
        self._idle = kept
        for place, shared in list(self._shared.items()):
            if not shared.users and (shared.expires <= now or not shared.available):
                del self._shared[place]
                shared.close()

    def close(self) -> None:
        """Close every idle connection; those in use are closed by their users."""
        for connection in self._idle:
            connection.close()
        self._idle = []
        for shared in self._shared.values():
            shared.retired = True
            shared.close_if_done()
        self._shared = {}
