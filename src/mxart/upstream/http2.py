"""An HTTP/2 connection as a client (RFC 9113), on h2.

Theory of operation
-------------------
No task belongs to a connection.  Whoever waits for something of its stream takes the reader's role, if
nobody has it, receives once, and hands every event to the stream that it is for; then the role is
free again.  What h2 has to say goes out after each step, by one sender at a time; what a cancelled
sender left unsent goes with the next.  A send that was cut in the middle ends the connection.

A stream's window is given back when its reader takes the bytes, so a slow reader holds `_WINDOW` bytes at
most, and the connection's window is so large that it never holds up the others.

Large files do not come this way if it can be helped (see `Ask.bulk`): taking frames apart in Python costs
several times what a plain body does, and all of it would go through one TCP connection.
"""

from __future__ import annotations

from collections.abc import Callable

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import trio

from mxart.message import Headers
from mxart.upstream.failure import FOREIGN, Cause, Trouble, trouble_of
from mxart.upstream.payload import Outgoing, size_of
from mxart.upstream.url import Origin
from mxart.upstream.wires import RECEIVE_BYTES, Wire

_WINDOW = 1 << 20
_CONNECTION_WINDOW = 1 << 30
_STREAMS_AT_ONCE = 100
_CLOSE_SECONDS = 0.5
_CONFIG = h2.config.H2Configuration(client_side=True, header_encoding="latin-1")


class Http2Connection:
    """Shared by exchanges to one origin. Owns its wire. Call `start` first."""

    def __init__(self, wire: Wire, origin: Origin) -> None:
        self._wire = wire
        self._h2 = h2.connection.H2Connection(_CONFIG)
        self._streams: dict[int, Http2Stream] = {}
        self._reader = trio.Lock()
        self._sender = trio.Lock()
        self._dead: Trouble | None = None
        self.origin = origin
        self.users = 0
        self.retired = False  # takes no further exchange
        self.expires = 0.0  # kept by the pool

    async def start(self) -> None:
        """Say hello (section 3.4). Raises Trouble."""
        self._h2.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 65536,
            },
        )
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_CONNECTION_WINDOW)
        await self.flush()

    @property
    def available(self) -> bool:
        """Whether another exchange may begin on it."""
        if self.retired or self._dead is not None or self.users >= self._limit():
            return False
        return self.users > 0 or not self._wire.is_readable()

    def _limit(self) -> int:
        return min(self._h2.remote_settings.max_concurrent_streams, _STREAMS_AT_ONCE)

    def stream(self) -> Http2Stream:
        """An exchange on this connection; release it."""
        self.users += 1
        return Http2Stream(self)

    def begin(self, stream: Http2Stream, fields: list[tuple[str, str]], *, end: bool) -> None:
        """For a stream: queue the head of its request; `end`: there is no body. Raises Trouble."""
        try:
            stream.number = self._h2.get_next_available_stream_id()
            self._streams[stream.number] = stream
            self._h2.send_headers(stream.number, fields, end_stream=end)
        except h2.exceptions.H2Error as error:
            raise self._die(Trouble(Cause.RESET, f"{self.origin}: HTTP/2: {error}")) from None

    async def send(self, stream: Http2Stream, data: bytes) -> None:
        """For a stream: send a piece of its body, as the peer's windows allow; b"" ends it. Raises Trouble.

        Returns early when the answer is there: whoever answers before the end wants no more of it.
        """
        number, rest = stream.number, memoryview(data)
        while not stream.answered:
            try:
                if not data:
                    self._h2.end_stream(number)
                    stream.sent = True
                    break
                size = min(self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size, len(rest))
                if size > 0:
                    self._h2.send_data(number, bytes(rest[:size]))
                    rest = rest[size:]
                    await self.flush()
            except h2.exceptions.H2Error as error:
                # A reset that has come in the meantime says it better.
                raise stream.trouble or self._die(Trouble(Cause.RESET, f"{self.origin}: HTTP/2: {error}")) from None
            if not rest:
                return
            await self.wait(stream, lambda: stream.answered or self._h2.local_flow_control_window(number) > 0)
        await self.flush()

    async def wait(self, stream: Http2Stream, ready: Callable[[], bool]) -> None:
        """For a stream: send what is to be sent, and receive until something is ready. Raises Trouble.

        Cancellation loses nothing, unless it comes in the middle of a send: then the connection dies.
        """
        await self.flush()
        while not ready():
            if stream.trouble is not None or self._dead is not None:
                raise stream.trouble or self._dead or AssertionError
            async with self._reader:
                # Another reader may have brought it while this one waited for the role.
                if not ready() and stream.trouble is None and self._dead is None:
                    await self._receive()
            await self.flush()

    async def _receive(self) -> None:
        try:
            data = await self._wire.receive_some(RECEIVE_BYTES)
            if not data:
                raise self._die(Trouble(Cause.RESET, f"{self.origin} closed the HTTP/2 connection"))
            events = self._h2.receive_data(data)
        except h2.exceptions.H2Error as error:
            # After a GOAWAY h2 takes nothing more: what was under way is asked for again elsewhere.
            cause = Cause.RESET if self.retired else Cause.PROTOCOL
            raise self._die(Trouble(cause, f"{self.origin}: HTTP/2: {error or type(error).__name__}")) from None
        except FOREIGN as error:
            raise self._die(trouble_of(error, str(self.origin))) from None
        for event in events:
            if isinstance(event, h2.events.ConnectionTerminated):
                self.retired = True
                for number, stream in self._streams.items():
                    if number > (event.last_stream_id or 0):
                        stream.trouble = Trouble(Cause.RESET, f"{self.origin} says goodbye (HTTP/2 GOAWAY)")
            elif (found := self._streams.get(getattr(event, "stream_id", None) or 0)) is not None:
                found.take(event)

    async def flush(self) -> None:
        """Send what h2 has to say. Raises Trouble."""
        async with self._sender:
            data = self._h2.data_to_send()
            if not data:
                return
            try:
                await self._wire.send_all(data)
            except FOREIGN as error:
                raise self._die(trouble_of(error, str(self.origin))) from None
            except BaseException:
                self._die(Trouble(Cause.RESET, f"{self.origin}: a message on the HTTP/2 connection was cut off"))
                raise

    def acknowledge(self, stream: Http2Stream, count: int) -> None:
        """For a stream: its reader took so many bytes."""
        if self._dead is None:
            try:
                self._h2.acknowledge_received_data(count, stream.number)
            except h2.exceptions.H2Error:
                self.retired = True  # closed in the meantime; whoever waits on it hears by itself

    async def leave(self, stream: Http2Stream, *, ended: bool) -> None:
        """For a stream: it is done with, maybe before its end. Takes half a second at most."""
        self._streams.pop(stream.number, None)
        self.users -= 1
        if not ended and stream.number:
            if not self.users:
                self.retired = True  # cheaper to close than to wait for what is on its way
            elif self._dead is None:
                try:
                    self._h2.reset_stream(stream.number, h2.errors.ErrorCodes.CANCEL)
                    with trio.move_on_after(_CLOSE_SECONDS, shield=True):
                        await self.flush()
                except (h2.exceptions.H2Error, Trouble):
                    pass  # closed already, or nobody is there any more
        self.close_if_done()

    def close_if_done(self) -> None:
        """Close it if it is of no more use and nobody uses it."""
        if (self.retired or self._dead is not None) and not self.users:
            self.close()

    def close(self) -> None:
        """Close at once. Idempotent."""
        self._die(Trouble(Cause.RESET, f"the HTTP/2 connection to {self.origin} was closed"))
        self._wire.close()

    def _die(self, trouble: Trouble) -> Trouble:
        self.retired = True
        if self._dead is None:
            self._dead = trouble
        return trouble


class Http2Stream:
    """One exchange. Raises Trouble."""

    def __init__(self, connection: Http2Connection) -> None:
        self.connection = connection
        self.number = 0
        self.trouble: Trouble | None = None
        self.sent = False  # the whole request
        self._head: list[tuple[str, str]] | None = None
        self._chunks: list[bytes] = []
        self._held = 0  # of the window: the bytes in `_chunks`, with their padding
        self._ended = False
        self._released = False

    async def ask(
        self, method: str, target: str, headers: tuple[tuple[str, str], ...], body: Outgoing
    ) -> tuple[int, Headers]:
        """Send a request, return status and fields of its answer. Also raises what reading the body raises."""
        origin = self.connection.origin
        fields = [(":method", method), (":scheme", origin.scheme), (":authority", origin.authority), (":path", target)]
        fields += headers
        size = size_of(body)
        if size or method in ("POST", "PUT", "PATCH"):
            fields.append(("content-length", str(size)))
        self.sent = not size
        self.connection.begin(self, fields, end=self.sent)
        if size:
            await self._send(body)
        await self.connection.wait(self, lambda: self._head is not None)
        head = self._head or []
        status = next((value for name, value in head if name == ":status"), "")
        return int(status), Headers((name, value) for name, value in head if not name.startswith(":"))

    @property
    def answered(self) -> bool:
        """Whether the head of the answer is there."""
        return self._head is not None

    async def _send(self, body: Outgoing) -> None:
        if isinstance(body, bytes):
            await self.connection.send(self, body)
        else:
            unsent = body.length
            async with body.open() as pieces:
                while unsent and not self.answered:
                    data = await pieces.receive()
                    await self.connection.send(self, data)
                    unsent -= len(data)
        await self.connection.send(self, b"")

    def take(self, event: h2.events.Event) -> None:
        """For the connection: something came."""
        if isinstance(event, h2.events.ResponseReceived):
            self._head = [(str(name), str(value)) for name, value in event.headers or ()]
        elif isinstance(event, h2.events.DataReceived):
            if event.data:
                self._chunks.append(event.data)
            self._held += event.flow_controlled_length or 0
        elif isinstance(event, h2.events.StreamEnded):
            self._ended = True
        elif isinstance(event, h2.events.StreamReset) and not self._ended:  # after an early answer it is usual
            what = "broke off the body" if self._head is not None else "refused"
            self.trouble = Trouble(Cause.RESET, f"{self.connection.origin} {what} (HTTP/2 error {event.error_code})")

    async def receive(self) -> bytes:
        """The next bytes of the body, b"" at its end."""
        await self.connection.wait(self, lambda: bool(self._chunks) or self._ended)
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks = []
        held, self._held = self._held, 0
        if held:
            self.connection.acknowledge(self, held)
        return data

    async def release(self) -> None:
        """Let go. Idempotent."""
        if not self._released:
            self._released = True
            await self.connection.leave(self, ended=self._ended and self.sent)
