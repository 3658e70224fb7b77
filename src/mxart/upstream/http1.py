"""An HTTP/1.1 connection as a client (RFC 9112).

Theory of operation
-------------------
h11 writes the request, reads the head, judges the framing, and takes apart chunked bodies.  A body with a
Content-Length, which is what every large file comes as, does not pass through it: once the head is
there, the bytes go from the kernel to the caller as they are, and only their number is watched.  That is
five times as fast as h11's buffers.  Each request gets an h11 connection of its own, so that after a raw
body nothing has to be put right.

A body of ours is sent while the answer is listened for: a server that wants none of it (a token has died, the disk is
full) says so before its end, and may close without reading the rest.
"""

from __future__ import annotations

from enum import Enum, auto

import h11
import trio

from mxart.errors import MxartError
from mxart.message import Headers
from mxart.upstream.failure import FOREIGN, Cause, Trouble, trouble_of
from mxart.upstream.payload import Outgoing, size_of
from mxart.upstream.url import Origin
from mxart.upstream.wires import RECEIVE_BYTES, Wire
from mxart.upstream.zones import Reach

_HEAD_BYTES = 65536
_WITH_BODY = ("POST", "PUT", "PATCH")  # they announce even an empty one (RFC 9110 section 8.6)
_FIRST_BYTES = 16384  # a head, and the whole of a small answer


class _Framing(Enum):
    DONE = auto()  # no body, or its end was reached
    LENGTH = auto()
    CHUNKED = auto()
    UNTIL_CLOSE = auto()
    BROKEN = auto()


class Http1Connection:
    """One exchange at a time. Owns its wire. Raises Trouble, and is of no use after that, nor after a cancellation."""

    def __init__(self, wire: Wire, origin: Origin, reach: Reach = None) -> None:
        self._wire = wire
        self.origin = origin
        self.reach = reach  # with which it was dialled
        self._h11 = h11.Connection(h11.CLIENT)
        self._framing = _Framing.DONE
        self._rest = b""  # of the body, that came with the head
        self._left = 0
        self._unsent = 0  # of a body of ours
        self._keep = True
        self._trouble: Trouble | None = None  # met by `take`
        self.expires = 0.0  # kept by the pool

    @property
    def reusable(self) -> bool:
        """Whether another request may follow: the body was read to its end, and nobody said close."""
        return self._keep and self._framing is _Framing.DONE

    @property
    def stale(self) -> bool:
        """On an idle connection: whether the peer has closed it, or sends what nobody asked for."""
        return self._wire.is_readable()

    async def ask(
        self, method: str, target: str, headers: tuple[tuple[str, str], ...], body: Outgoing
    ) -> tuple[int, Headers]:
        """Send a request, return status and fields of its answer. The Host field is added here.

        Also raises what reading the body raises.
        """
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)
        self._framing = _Framing.BROKEN
        fields = [("host", self.origin.authority), *headers]
        size = size_of(body)
        if size or method in _WITH_BODY:
            fields.append(("content-length", str(size)))
        try:
            raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
            request = self._h11.send(h11.Request(method=method, target=target, headers=raw)) or b""
            if isinstance(body, bytes) and size <= _FIRST_BYTES:
                if body:
                    request += self._h11.send(h11.Data(data=body)) or b""
                request += self._h11.send(h11.EndOfMessage()) or b""
                await self._wire.send_all(request)
                response, whole = await self._head(), True
            else:
                await self._wire.send_all(request)
                response, whole = await self._converse(body)
        except UnicodeEncodeError:
            raise Trouble(Cause.PROTOCOL, f"{self.origin}: the request cannot be written as HTTP") from None
        except FOREIGN as error:
            raise trouble_of(error, str(self.origin)) from None
        status = response.status_code
        found = Headers((name.decode("ascii"), value.decode("latin-1")) for name, value in response.headers.raw_items())
        close = "close" in (found.combined("connection") or "").lower()
        self._keep = whole and response.http_version == b"1.1" and not close
        self._frame(method, status, found)
        return status, found

    async def _converse(self, body: Outgoing) -> tuple[h11.Response, bool]:
        """Send a body, listening; the answer, and whether all was sent before it came."""
        heard: list[h11.Response] = []
        failed: list[Exception] = []
        self._unsent = size_of(body)

        async def listen() -> None:
            try:
                heard.append(await self._head())
            except (Trouble, *FOREIGN) as error:
                failed.append(error)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            try:
                await self._send_body(body)
            except MxartError as error:
                failed.append(error)
                nursery.cancel_scope.cancel()
            except FOREIGN:
                pass  # who closed it may have said why before: `listen` hears that, or that there was nothing
        if heard:
            return heard[0], not self._unsent
        raise failed[0]

    async def _send_body(self, body: Outgoing) -> None:
        if isinstance(body, bytes):
            await self._wire.send_all(body)
            self._unsent = 0
            return
        async with body.open() as pieces:
            while self._unsent:
                data = await pieces.receive()
                await self._wire.send_all(data)
                self._unsent -= len(data)

    async def _head(self) -> h11.Response:
        started = False
        while True:
            event = self._h11.next_event()
            if isinstance(event, h11.Response):
                return event
            if event is h11.NEED_DATA:
                data = await self._wire.receive_some(_FIRST_BYTES)
                if not data:
                    what = "in the middle of an answer's head" if started else "without an answer"
                    raise Trouble(Cause.RESET, f"{self.origin} closed the connection {what}")
                started = True
                self._h11.receive_data(data)
            elif not isinstance(event, h11.InformationalResponse):
                raise Trouble(Cause.PROTOCOL, f"{self.origin} sent no answer")

    def _frame(self, method: str, status: int, headers: Headers) -> None:
        """Decide where the body ends (RFC 9112 section 6.3)."""
        if method == "HEAD" or status in (204, 304):
            self._framing = _Framing.DONE
            if self._h11.trailing_data[0]:
                self._keep = False
        elif "transfer-encoding" in headers:
            self._framing = _Framing.CHUNKED
        elif (length := headers.get("content-length")) is not None:
            self._rest = self._h11.trailing_data[0]
            self._left = int(length)  # h11 has checked its form, and that there are not two of them
            self._framing = _Framing.LENGTH if self._left else _Framing.DONE
            if len(self._rest) > self._left:
                # More than it said: whatever the surplus is, nothing more can be read here.
                self._rest = self._rest[: self._left]
                self._keep = False
        else:
            self._rest = self._h11.trailing_data[0]
            self._framing = _Framing.UNTIL_CLOSE
            self._keep = False

    async def receive(self) -> bytes:
        """The next bytes of the body, b"" at its end. Cancellation loses nothing."""
        if self._trouble is not None:
            raise self._trouble
        try:
            match self._framing:
                case _Framing.DONE:
                    return b""
                case _Framing.LENGTH:
                    return await self._receive_counted()
                case _Framing.CHUNKED:
                    return await self._receive_chunked()
                case _Framing.UNTIL_CLOSE:
                    data = self._rest or await self._wire.receive_some(RECEIVE_BYTES)
                    self._rest = b""
                    if not data:
                        self._framing = _Framing.DONE
                    return data
                case _Framing.BROKEN:
                    raise Trouble(Cause.RESET, f"{self.origin}: the body broke off before")
        except FOREIGN as error:
            self._framing = _Framing.BROKEN
            raise trouble_of(error, f"{self.origin} broke off the body") from None

    @property
    def tappable(self) -> bool:
        """Whether `take` may give something: the rest of the body comes from the wire as it is."""
        return self._framing is _Framing.LENGTH and not self._rest

    def take(self, buffer: memoryview, wait: float) -> int:
        """`receive` for a thread, while no task calls it: see message.Tap."""
        if not self.tappable or self._trouble is not None:
            return 0
        try:
            count = self._wire.read_into(buffer[: self._left], wait)
        except FOREIGN as error:
            self._framing = _Framing.BROKEN
            self._trouble = trouble_of(error, f"{self.origin} broke off the body")
            return 0
        self._left -= count
        if not self._left:
            self._framing = _Framing.DONE
        return count

    async def _receive_counted(self) -> bytes:
        data = self._rest or await self._wire.receive_some(min(self._left, RECEIVE_BYTES))
        self._rest = b""
        if not data:
            self._framing = _Framing.BROKEN
            raise Trouble(Cause.RESET, f"{self.origin} closed the connection {self._left} bytes before the body's end")
        if len(data) > self._left:  # TLS gives whole records
            data = data[: self._left]
            self._keep = False
        self._left -= len(data)
        if not self._left:
            self._framing = _Framing.DONE
        return data

    async def _receive_chunked(self) -> bytes:
        while True:
            event = self._h11.next_event()
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                self._framing = _Framing.DONE
                if self._h11.trailing_data[0]:
                    self._keep = False
                return b""
            if event is not h11.NEED_DATA:
                raise Trouble(Cause.PROTOCOL, f"{self.origin} sent something that is no body")
            self._h11.receive_data(await self._wire.receive_some(RECEIVE_BYTES))

    def close(self) -> None:
        """Close at once. Idempotent."""
        self._keep = False
        self._wire.close()
