"""The other end of an HTTP/2 connection: a well-behaved client, and the frames of one that is not."""

import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.settings
import trio
from h2.errors import ErrorCodes
from hyperframe.frame import Frame, GoAwayFrame

from mxart.body import Body
from mxart.message import Headers, Peer, Request, Response, Sent
from mxart.proto.draining import Draining
from mxart.proto.http2 import Http2Limits, serve_http2
from mxart.proto.http2_frames import PREFACE
from mxart.proto.plain import PlainTransport

PEER = Peer("192.0.2.1", 4711)
SETTINGS, PING, PRIORITY, RST, WINDOW, DATA, HEADERS, CONTINUATION = 4, 6, 2, 3, 8, 0, 1, 9


def frame(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> bytes:
    """Any frame, right or wrong (RFC 9113 section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream_id) + payload


@dataclass
class Answer:
    """What came back on a stream so far."""

    status: int = 0
    interim: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: ErrorCodes | int | None = None

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None


class _Client(h2.connection.H2Connection):
    """h2 refuses everything after GOAWAY, also what belongs to streams that go on."""

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        event = h2.events.ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        return [], [event]


class Http2Peer:
    """A client. With `credit` off it never gives window back.

    To misbehave there is `send_raw`, and `raw`: then what comes back is only noted, not judged.
    """

    def __init__(
        self, sock: trio.socket.SocketType, *, credit: bool = True, window: int | None = None, raw: bool = False
    ) -> None:
        self.raw = raw
        self._sending = trio.Lock()
        self._pumping: trio.Event | None = None
        self._unread = bytearray()
        self.stream = trio.SocketStream(sock)
        self.credit = credit
        self.window = window
        self.answers: dict[int, Answer] = {}
        self.goaways: list[tuple[int, int]] = []  # last stream, error
        self.acks = 0  # of settings
        self.pongs = 0
        self.closed = False
        self.server_settings: dict[int, int] = {}
        config = h2.config.H2Configuration(
            client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.wire = _Client(config)
        if window is not None:
            self.wire.local_settings = h2.settings.Settings(
                client=True, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
            )

    async def start(self) -> None:
        self.wire.initiate_connection()
        await self.flush()

    async def flush(self) -> None:
        async with self._sending:
            data = self.wire.data_to_send()
            if data:
                await self.stream.send_all(data)

    async def send_raw(self, data: bytes) -> None:
        """Bytes as they are; a server that has hung up already is no error."""
        try:
            await self.stream.send_all(data)
        except trio.BrokenResourceError:
            self.closed = True

    def head(
        self,
        path: str = "/",
        method: str = "GET",
        *,
        fields: tuple[tuple[str, str], ...] = (),
        authority: str = "mx.example",
    ) -> list[tuple[str, str]]:
        return [(":method", method), (":scheme", "http"), (":authority", authority), (":path", path), *fields]

    async def request(
        self,
        path: str = "/",
        method: str = "GET",
        *,
        fields: tuple[tuple[str, str], ...] = (),
        end: bool = True,
    ) -> int:
        return await self.request_fields(self.head(path, method, fields=fields), end=end)

    async def request_fields(self, fields: list[tuple[str, str]], *, end: bool = True) -> int:
        stream_id = self.wire.get_next_available_stream_id()
        self.wire.send_headers(stream_id, fields, end_stream=end)
        self.answers[stream_id] = Answer()
        await self.flush()
        return stream_id

    async def body(self, stream_id: int, data: bytes, *, end: bool = False) -> None:
        """Send a body as far as the windows allow, waiting for more window."""
        sent = 0
        while True:
            room = min(self.wire.local_flow_control_window(stream_id), 16384, len(data) - sent)
            if room > 0 or len(data) == sent:
                last = sent + room == len(data)
                self.wire.send_data(stream_id, data[sent : sent + room], end_stream=end and last)
                sent += room
                await self.flush()
                if last:
                    return
            else:
                await self.pump()

    async def pump(self) -> None:
        """Take what the server sends next, or wait for a task that does so already."""
        if self._pumping is not None:
            await self._pumping.wait()
            return
        self._pumping = trio.Event()
        try:
            await self._pump()
        finally:
            self._pumping.set()
            self._pumping = None

    async def _pump(self) -> None:
        try:
            data = await self.stream.receive_some(65536)
        except trio.BrokenResourceError:
            data = b""
        if not data:
            self.closed = True
            return
        if self.raw:
            self._note(data)
            return
        for event in self.wire.receive_data(data):
            self._take(event)
        if not self.closed:
            try:
                await self.flush()
            except trio.BrokenResourceError:
                self.closed = True

    def _note(self, data: bytes) -> None:
        """What matters of the server's frames to a client that keeps no state."""
        self._unread += data
        while len(self._unread) >= 9:
            length = int.from_bytes(self._unread[:3])
            if len(self._unread) < 9 + length:
                return
            kind, flags, stream_id = struct.unpack(">BBI", self._unread[3:9])
            payload = bytes(self._unread[9 : 9 + length])
            del self._unread[: 9 + length]
            answer = self.answers.setdefault(stream_id, Answer())
            answer.ended |= kind in {DATA, HEADERS} and bool(flags & 1)
            match kind:
                case 0:
                    answer.body += payload
                case 3:
                    answer.reset = int.from_bytes(payload)
                case 6:
                    self.pongs += flags & 1
                case 7:
                    last, error = struct.unpack(">II", payload[:8])
                    self.goaways.append((last, error))
                case _:
                    pass

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.InformationalResponseReceived():
                headers = {name.decode(): value.decode() for name, value in event.headers or ()}
                self.answers[event.stream_id].interim.append(int(headers[":status"]))
            case h2.events.ResponseReceived():
                headers = {name.decode(): value.decode("latin-1") for name, value in event.headers or ()}
                answer = self.answers[event.stream_id]
                answer.status = int(headers.pop(":status"))
                answer.headers = headers
            case h2.events.DataReceived():
                self.answers[event.stream_id or 0].body += event.data or b""
                if self.credit:
                    self.wire.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            case h2.events.StreamEnded():
                self.answers[event.stream_id or 0].ended = True
            case h2.events.StreamReset():
                self.answers.setdefault(event.stream_id, Answer()).reset = event.error_code
            case h2.events.ConnectionTerminated():
                self.goaways.append((event.last_stream_id or 0, int(event.error_code or 0)))
            case h2.events.SettingsAcknowledged():
                self.acks += 1
            case h2.events.PingAckReceived():
                self.pongs += 1
            case h2.events.RemoteSettingsChanged():
                self.server_settings |= {int(k): c.new_value for k, c in event.changed_settings.items()}
            case _:
                pass

    async def answer(self, stream_id: int) -> Answer:
        """The whole answer, or how it broke off."""
        answer = self.answers[stream_id]
        while not answer.over and not self.closed:
            await self.pump()
        return answer

    async def get(self, path: str = "/", method: str = "GET", fields: tuple[tuple[str, str], ...] = ()) -> Answer:
        return await self.answer(await self.request(path, method, fields=fields))

    async def until(self, holds: Callable[[], bool]) -> None:
        """Take what comes until something holds, or the server hangs up."""
        while not holds() and not self.closed:
            await self.pump()

    async def until_closed(self) -> None:
        await self.until(lambda: False)

    async def aclose(self) -> None:
        await self.stream.aclose()


class PeerStream(trio.abc.HalfCloseableStream):
    """The bytes of one stream of a client, both ways, as behind a CONNECT."""

    def __init__(self, peer: Http2Peer, stream_id: int) -> None:
        self._peer = peer
        self._id = stream_id
        self.answer = peer.answers[stream_id]

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._peer.body(self._id, bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        await self._peer.body(self._id, b"", end=True)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes; a reset is told as trio tells one of TCP."""
        while not self.answer.body:
            if self.answer.ended:
                return b""
            if self.answer.reset is not None or self._peer.closed:
                raise trio.BrokenResourceError
            await self._peer.pump()
        data = bytes(self.answer.body[:max_bytes])
        del self.answer.body[: len(data)]
        return data

    async def reset(self) -> None:
        """Give the stream up."""
        self._peer.wire.reset_stream(self._id, ErrorCodes.CANCEL)
        await self._peer.flush()

    async def aclose(self) -> None:
        await self.reset()


Answering = Callable[[Request], Coroutine[object, object, Response]]


class RecordingHandler:
    """Answers by a function, and remembers what it was told."""

    def __init__(self, answer: Answering) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.told: list[tuple[Request, Response | None, Sent]] = []
        self.running = 0
        self.cancelled = 0
        self._changed = trio.Event()

    async def handle(self, request: Request) -> Response:
        self.requests.append(request)
        self.running += 1
        self._notify()
        try:
            return await self.answer(request)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
            self._notify()

    def refuse(self, status: int, message: str, peer: Peer) -> Response:
        assert peer == PEER
        return Response(status, Headers([("content-type", "text/plain")]), Body([message.encode()]))

    def finished(self, request: Request, response: Response | None, sent: Sent) -> None:
        assert all(told[0] is not request for told in self.told), "told twice"
        self.told.append((request, response, sent))
        self._notify()

    async def until(self, holds: Callable[["RecordingHandler"], bool]) -> None:
        while not holds(self):
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@dataclass
class Served:
    """A server at work on one connection."""

    peer: Http2Peer
    handler: RecordingHandler
    draining: Draining
    done: trio.Event
    scope: trio.CancelScope


@asynccontextmanager
async def served(
    answer: Answering,
    limits: Http2Limits | None = None,
    *,
    greet: bool = True,
    credit: bool = True,
    window: int | None = None,
    raw: bool = False,
    progress_seconds: float = 60.0,
    send_buffer: int | None = None,
) -> AsyncIterator[Served]:
    """A connection over a real socket pair. At the end: nothing of the server is left."""
    ours, theirs = socket.socketpair()
    if send_buffer is not None:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    handler = RecordingHandler(answer)
    draining, done = Draining(), trio.Event()
    transport = PlainTransport(trio.socket.from_stdlib_socket(ours), PEER, progress_seconds)
    peer = Http2Peer(trio.socket.from_stdlib_socket(theirs), credit=credit, window=window, raw=raw)

    async def serve(scope: trio.CancelScope) -> None:
        with scope:
            await serve_http2(transport, handler, limits or Http2Limits(), draining)
        done.set()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()
            nursery.start_soon(serve, scope)
            try:
                if greet:
                    await peer.start()
                yield Served(peer, handler, draining, done, scope)
            finally:
                await peer.aclose()
            await done.wait()
    assert handler.running == 0
    assert len(handler.told) == len(handler.requests), "every request is told of once"


def opening() -> bytes:
    """What a client begins with."""
    return PREFACE + frame(SETTINGS)


async def plain_answer(request: Request) -> Response:
    """Answers everything with its own target."""
    return Response(200, Headers([("content-type", "text/plain")]), Body([request.target.encode()]))
