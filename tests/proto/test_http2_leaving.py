"""Clients and servers that leave: reset streams, lost connections, drains, time that runs out, cancellation."""

import hpack
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kit.http2_peer import HEADERS, PEER, Http2Peer, RecordingHandler, frame, opening, plain_answer, served
from kit.sources import FileSource
from kit.steps import CancelAtStep
from mxart.body import Body, Span
from mxart.errors import Disconnected
from mxart.message import Headers, Request, Response
from mxart.proto.draining import Draining
from mxart.proto.http2 import Http2Limits, serve_http2


async def forever(_: Request) -> Response:
    await trio.sleep_forever()
    raise AssertionError


async def test_a_cancelled_stream_cancels_its_handler() -> None:
    async def answer(request: Request) -> Response:
        return await (forever if request.target == "/wait" else plain_answer)(request)

    async with served(answer) as s:
        stream = await s.peer.request("/wait")
        await s.handler.until(lambda h: h.running == 1)
        s.peer.wire.reset_stream(stream, 8)
        await s.peer.flush()
        await s.handler.until(lambda h: len(h.told) == 1)
        assert s.handler.cancelled == 1
        assert s.handler.told[0][1] is None
        assert "cancelled" in (s.handler.told[0][2].error or "")
        assert (await s.peer.get("/more")).status == 200


async def test_a_stream_that_is_cancelled_in_its_body_closes_it() -> None:
    source = FileSource(bytes(1000), total=2000, complete=False)

    async def answer(_: Request) -> Response:
        return Response(200, Headers(), Body([Span(source, 0, None)]))

    async with served(answer) as s:
        stream = await s.peer.request()
        await s.peer.until(lambda: len(s.peer.answers[stream].body) == 1000)
        s.peer.wire.reset_stream(stream, 8)
        await s.peer.flush()
        await s.handler.until(lambda h: len(h.told) == 1)
        assert source.closed
        assert s.handler.told[0][2].body_bytes == 1000
        assert s.handler.told[0][2].error


async def test_a_stream_that_is_cancelled_in_its_upload_tells_the_handler() -> None:
    seen: list[str] = []

    async def answer(request: Request) -> Response:
        try:
            while await request.body.receive():
                pass
        except Disconnected as error:
            seen.append(str(error))
            raise
        return await plain_answer(request)

    async with served(answer) as s:
        stream = await s.peer.request("/", "PUT", end=False)
        await s.peer.body(stream, b"some")
        await s.handler.until(lambda h: h.running == 1)
        s.peer.wire.reset_stream(stream, 8)
        await s.peer.flush()
        await s.handler.until(lambda h: len(h.told) == 1)
        assert s.handler.told[0][1] is None


async def test_a_lost_connection_cancels_everything_and_closes_every_body() -> None:
    source = FileSource(bytes(1000), total=2000, complete=False)

    async def answer(request: Request) -> Response:
        if request.target == "/wait":
            return await forever(request)
        return Response(200, Headers(), Body([Span(source, 0, None)]))

    async with served(answer) as s:
        await s.peer.request("/wait")
        stream = await s.peer.request("/body")
        await s.peer.until(lambda: len(s.peer.answers[stream].body) == 1000)
        await s.peer.aclose()
        await s.done.wait()
        assert s.handler.cancelled == 1
        assert source.closed
        assert all(sent.error for _, _, sent in s.handler.told)


async def test_an_answer_that_comes_after_the_client_left_is_closed() -> None:
    source = FileSource(b"1234")
    go = trio.Event()

    async def answer(_: Request) -> Response:
        with trio.CancelScope(shield=True):
            await go.wait()
        return Response(200, Headers(), Body([Span(source, 0, 4)]))

    async with served(answer) as s:
        stream = await s.peer.request()
        await s.handler.until(lambda h: h.running == 1)
        s.peer.wire.reset_stream(stream, 8)
        await s.peer.flush()
        s.peer.wire.ping(b"12345678")
        await s.peer.flush()
        await s.peer.until(lambda: s.peer.pongs == 1)
        go.set()
        await s.handler.until(lambda h: len(h.told) == 1)
        assert source.closed


async def test_a_drain_lets_streams_finish_and_loses_no_request() -> None:
    go = trio.Event()

    async def answer(request: Request) -> Response:
        await go.wait()
        return await plain_answer(request)

    async with served(answer) as s:
        first = await s.peer.request("/first")
        await s.handler.until(lambda h: h.running == 1)
        s.draining.set()
        # Sent before the client has heard of the drain: still answered.
        second = await s.peer.request("/second")
        await s.peer.until(lambda: len(s.peer.goaways) == 2)
        assert s.peer.goaways == [(2**31 - 1, 0), (second, 0)]
        late = await s.peer.request("/late")
        go.set()
        assert (await s.peer.answer(first)).body == b"/first"
        assert (await s.peer.answer(second)).body == b"/second"
        await s.peer.until_closed()
        assert s.peer.answers[late].reset in {None, 7}  # REFUSED_STREAM, or not looked at any more
        assert len(s.handler.requests) == 2


async def test_a_drain_closes_an_idle_connection() -> None:
    async with served(plain_answer) as s:
        await s.peer.get()
        s.draining.set()
        await s.peer.until_closed()
        assert s.peer.goaways == [(2**31 - 1, 0), (1, 0)]


async def test_a_drain_does_not_wait_long_for_a_client_that_is_silent() -> None:
    async with served(plain_answer) as s:
        await s.peer.get()
        s.draining.set()
        while await s.peer.stream.receive_some():
            pass  # and acknowledges nothing


async def test_a_connection_that_began_after_the_drain_is_told() -> None:
    async with served(plain_answer, greet=False) as s:
        s.draining.set()
        await s.peer.start()
        await s.peer.until_closed()
        assert s.peer.goaways


async def test_a_client_that_says_goodbye_gets_its_answers() -> None:
    go = trio.Event()

    async def answer(request: Request) -> Response:
        await go.wait()
        return await plain_answer(request)

    async with served(answer) as s:
        stream = await s.peer.request("/last")
        await s.peer.send_raw(frame(7, 0, 0, bytes(8)))
        await s.handler.until(lambda h: h.running == 1)
        go.set()
        assert (await s.peer.answer(stream)).body == b"/last"
        await s.peer.until_closed()


async def test_an_idle_connection_is_closed() -> None:
    async with served(plain_answer, Http2Limits(idle_seconds=0.05)) as s:
        await s.peer.get()
        await s.peer.until_closed()
        assert s.peer.goaways == [(1, 0)]


async def test_a_connection_with_a_request_under_way_is_not_idle() -> None:
    go = trio.Event()

    async def answer(request: Request) -> Response:
        if request.target == "/slow":
            await trio.sleep(0.2)  # longer than the idle time by far
            go.set()
        return await plain_answer(request)

    async with served(answer, Http2Limits(idle_seconds=0.03)) as s:
        assert (await s.peer.get("/slow")).status == 200
        assert go.is_set()


class LateTransport:
    """Brings a request at the very moment at which the connection has been idle for too long."""

    peer = PEER
    protocol = "h2"

    def __init__(self, clock: MockClock, idle: float, handler: RecordingHandler) -> None:
        self._clock = clock
        self._idle = idle
        self._handler = handler
        fields = [(":method", "GET"), (":scheme", "http"), (":authority", "mx.example"), (":path", "/late")]
        self._arrives = [opening(), frame(HEADERS, 5, 1, hpack.Encoder().encode(fields))]
        self.sent = b""

    async def receive_some(self, max_bytes: int = 65536, timeout: float | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._arrives:
            await self._handler.until(lambda handler: bool(handler.told))
            return b""
        if len(self._arrives) == 1:
            self._clock.jump(self._idle)
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()  # the deadline is seen to have passed, and still the bytes were first
        return self._arrives.pop(0)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.send_nowait(data)

    def send_nowait(self, data: bytes | bytearray | memoryview) -> bytes:
        self.sent += data
        return b""

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        raise AssertionError("not over HTTP/2")

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        raise AssertionError("the connection is to end in order")


async def test_a_request_that_comes_with_the_deadline_is_answered(mock_clock: MockClock) -> None:
    """The deadline is the reader's; it never cancels the handler that the reader runs."""

    async def answer(request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        return await plain_answer(request)

    handler = RecordingHandler(answer)
    transport = LateTransport(mock_clock, 10, handler)
    await serve_http2(transport, handler, Http2Limits(idle_seconds=10), Draining())
    assert b"/late" in transport.sent
    assert [sent.error for _, _, sent in handler.told] == [None]


async def test_a_client_that_gives_no_window_loses_its_stream() -> None:
    async with served(plain_answer, Http2Limits(progress_seconds=0.05), window=3, credit=False) as s:
        stream = await s.peer.request("/longer")
        got = await s.peer.answer(stream)
        assert (bytes(got.body), got.reset) == (b"/lo", 8)
        await s.handler.until(lambda h: len(h.told) == 1)
        assert "window" in (s.handler.told[0][2].error or "")
        assert (await s.peer.get("/x")).body == b"/x"


async def test_a_client_that_gives_the_connection_no_window_loses_it() -> None:
    async def answer(_: Request) -> Response:
        return Response(200, Headers(), Body([bytes(50_000)]))

    async with served(answer, Http2Limits(progress_seconds=0.05), credit=False, window=1 << 20) as s:
        streams = [await s.peer.request() for _ in range(30)]
        await s.peer.until_closed()
        assert s.peer.goaways
        assert not s.peer.answers[streams[-1]].ended
        assert sum(len(a.body) for a in s.peer.answers.values()) == 65535


async def test_a_client_that_reads_nothing_is_cut_off() -> None:
    async def answer(_: Request) -> Response:
        return Response(200, Headers(), Body([bytes(10_000_000)]))

    async with served(answer, window=2**31 - 1, progress_seconds=0.1) as s:
        s.peer.wire.increment_flow_control_window(2**31 - 1 - 65535)
        await s.peer.request()
        await s.done.wait()
        assert s.handler.told[0][2].error


async def test_a_client_that_stops_in_its_upload_loses_its_stream() -> None:
    async def answer(request: Request) -> Response:
        if request.method == "PUT":
            while await request.body.receive():
                pass
        return await plain_answer(request)

    async with served(answer, Http2Limits(progress_seconds=0.05)) as s:
        stream = await s.peer.request("/", "PUT", end=False)
        await s.peer.body(stream, b"some")
        assert (await s.peer.answer(stream)).reset == 8
        assert (await s.peer.get("/x")).body == b"/x"


async def test_cancelling_the_server_at_any_step_leaves_nothing_behind() -> None:
    """The whole of a busy connection, cancelled after its first step, its second, and so on."""
    sources: list[FileSource] = []

    async def answer(request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        if request.method == "PUT":
            while await request.body.receive():
                pass
        sources.append(FileSource(b"1234", complete=False))
        sources[-1].finish()
        return Response(200, Headers(), Body([b"head", Span(sources[-1], 0, None)]))

    for steps in range(1, 60, 1):
        async with served(answer) as s:
            nursery = trio.lowlevel.current_task().child_nurseries[-1]
            instrument = CancelAtStep(nursery, steps)
            instrument.scope = s.scope
            trio.lowlevel.add_instrument(instrument)
            try:
                await s.peer.send_raw(b"")
                try:
                    for n in range(3):
                        await s.peer.request(f"/{n}")
                    up = await s.peer.request("/up", "PUT", end=False)
                    await s.peer.body(up, b"x" * 100, end=True)
                    for stream in list(s.peer.answers):
                        await s.peer.answer(stream)
                except trio.BrokenResourceError:
                    pass
            finally:
                trio.lowlevel.remove_instrument(instrument)
        assert all(source.closed for source in sources)


async def test_half_a_preface_and_silence_is_idle() -> None:
    async with served(plain_answer, Http2Limits(idle_seconds=0.05), greet=False) as s:
        await s.peer.send_raw(opening()[:10])
        while await s.peer.stream.receive_some():
            pass


async def test_the_connection_goes_on_while_one_client_of_a_growing_file_leaves() -> None:
    source = FileSource(b"", total=4, complete=False)
    peers: list[Http2Peer] = []

    async def answer(_: Request) -> Response:
        return Response(200, Headers(), Body([Span(source, 0, None)]))

    async with served(answer) as s:
        peers.append(s.peer)
        gone = await s.peer.request("/gone")
        await s.handler.until(lambda h: len(h.requests) == 1)
        s.peer.wire.reset_stream(gone, 8)
        await s.peer.flush()
        await s.handler.until(lambda h: len(h.told) == 1)
        assert source.closed
