"""An HTTP/2 connection as a client (RFC 9113), by httpcore, over our own wires.

httpcore reads the connection in whichever task waits for something, so no task of ours belongs to it.
What it does not do is taken care of here: it never resets a stream that its reader has left, and does
not give back the window of what still comes for it; so a connection with a body left unread takes
no further request and is closed when its last stream ends.  Time limits are the caller's.

Large files do not come this way if it can be helped (see `Ask.bulk`): one connection's window is
shared, and taking frames apart in Python costs ten times what a plain body does.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncGenerator
from typing import cast

import h2.exceptions
import httpcore
import trio

from mxart.message import Headers
from mxart.upstream.failure import FOREIGN, Cause, Trouble, trouble_of
from mxart.upstream.url import Origin
from mxart.upstream.wires import Wire

# They log header fields at debug level, Authorization among them.
for _name in ("httpcore", "hpack"):
    logging.getLogger(_name).setLevel(logging.WARNING)

_SPOKEN = (httpcore.ProtocolError, h2.exceptions.H2Error)


class _Network(httpcore.AsyncNetworkStream):
    """One of our wires as httpcore knows it. Timeouts are not given to it, and ignored."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._wire.receive_some(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if buffer:
            await self._wire.send_all(buffer)

    async def aclose(self) -> None:
        self._wire.close()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise httpcore.UnsupportedProtocol("the wire speaks TLS already")

    def get_extra_info(self, info: str) -> object:
        return self._wire.is_readable() if info == "is_readable" else None


class Http2Stream:
    """One exchange on an `Http2Connection`. Raises Trouble."""

    def __init__(self, connection: Http2Connection) -> None:
        self.connection = connection
        self._body: AsyncGenerator[bytes, None] | None = None
        self._response: httpcore.Response | None = None
        self._ended = False
        self._released = False
        self._expected: int | None = None
        connection.users += 1

    async def ask(
        self, method: str, target: str, headers: tuple[tuple[str, str], ...], body: bytes
    ) -> tuple[int, Headers]:
        """Send a request, return status and fields of its answer."""
        origin = self.connection.origin
        fields = [("host", origin.authority), *headers]
        if body or method == "POST":
            fields.append(("content-length", str(len(body))))
        request = httpcore.Request(
            method,
            httpcore.URL(scheme=origin.scheme, host=origin.host, port=origin.port, target=target),
            headers=fields,
            content=body or None,
        )
        try:
            response = await self.connection.inner.handle_async_request(request)
        except httpcore.ConnectionNotAvailable:
            self.connection.retired = True
            raise Trouble(Cause.RESET, f"{origin} takes no more requests on this connection") from None
        except (*_SPOKEN, *FOREIGN, KeyError) as error:
            raise self._broken(error, str(origin)) from None
        except BaseException:
            self.connection.retired = True  # a stream was left that the server still answers
            raise
        self._response = response
        # httpcore's stream is an async generator inside; it has to be closed by hand.
        self._body = cast("AsyncGenerator[bytes, None]", response.stream.__aiter__())  # type: ignore[union-attr]  # it is the asynchronous one
        found = Headers((name.decode("ascii"), value.decode("latin-1")) for name, value in response.headers)
        length = found.get("content-length")
        if method != "HEAD" and response.status not in (204, 304) and length is not None and length.isdecimal():
            self._expected = int(length)
        return response.status, found

    async def receive(self) -> bytes:
        """The next bytes of the body, b"" at its end."""
        if self._ended or self._body is None:
            return b""
        origin = self.connection.origin
        try:
            data = b""
            while not data:  # an empty frame is not the end
                data = await anext(self._body)
        except StopAsyncIteration:
            self._ended = True
        except (*_SPOKEN, *FOREIGN, KeyError) as error:
            raise self._broken(error, f"{origin} broke off the body") from None
        if self._expected is not None:
            self._expected -= len(data)
            if self._expected < 0 or (self._ended and self._expected):
                self.connection.retired = True
                raise Trouble(Cause.RESET, f"{origin} sent another number of bytes than it said")
        return data

    async def release(self) -> None:
        """Let go. Idempotent; waits for nothing."""
        if self._released:
            return
        self._released = True
        self.connection.users -= 1
        if not self._ended:
            self.connection.retired = True
        try:
            with trio.CancelScope(shield=True):  # nothing in here waits for the network
                if self._body is not None:
                    await self._body.aclose()
                if self._response is not None:
                    await self._response.aclose()
        except (*_SPOKEN, *FOREIGN, KeyError):
            self.connection.retired = True
        self.connection.close_if_done()

    def _broken(self, error: Exception, what: str) -> Trouble:
        self.connection.retired = True
        if isinstance(error, FOREIGN):
            return trouble_of(error, what)
        cause = Cause.RESET if isinstance(error, httpcore.RemoteProtocolError) else Cause.PROTOCOL
        return Trouble(cause, f"{what}: HTTP/2 {error or type(error).__name__}")


class Http2Connection:
    """Shared by exchanges to one origin. Owns its wire."""

    def __init__(self, wire: Wire, origin: Origin) -> None:
        self._wire = wire
        self.origin = origin
        self.inner = httpcore.AsyncHTTP2Connection(
            origin=httpcore.Origin(origin.scheme.encode(), origin.host.encode(), origin.port), stream=_Network(wire)
        )
        self.users = 0
        self.retired = False
        self.expires = 0.0  # kept by the pool

    @property
    def available(self) -> bool:
        """Whether another exchange may begin on it."""
        if self.retired or not self.inner.is_available():
            return False
        return self.users > 0 or not self._wire.is_readable()

    def close_if_done(self) -> None:
        """Close it if it is retired and nobody uses it any more."""
        if self.retired and not self.users:
            self.close()

    def close(self) -> None:
        """Close at once. Idempotent."""
        self.retired = True
        self._wire.close()
