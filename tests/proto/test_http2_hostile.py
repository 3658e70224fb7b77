"""Clients that mean harm, or speak HTTP/2 badly: what it costs them, and that it costs nobody else."""

import logging
import struct

import pytest
import trio
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.http2_peer import (
    CONTINUATION,
    DATA,
    HEADERS,
    PING,
    PRIORITY,
    RST,
    SETTINGS,
    WINDOW,
    Served,
    frame,
    opening,
    plain_answer,
    served,
)
from mxart.body import Body
from mxart.message import Headers, Request, Response
from mxart.proto.http2 import Http2Limits

PROTOCOL_ERROR, FLOW_CONTROL, STREAM_CLOSED, FRAME_SIZE, REFUSED, COMPRESSION, CALM = 1, 3, 5, 6, 7, 9, 11
GET = [(":method", "GET"), (":scheme", "http"), (":authority", "mx.example"), (":path", "/x")]
END_STREAM, END_HEADERS = 1, 4


async def forever(_: Request) -> Response:
    await trio.sleep_forever()
    raise AssertionError


def block(fields: list[tuple[str, str]]) -> bytes:
    return Encoder().encode(fields)


def get(stream_id: int, *, ended: bool = True) -> bytes:
    return frame(HEADERS, END_HEADERS | (END_STREAM if ended else 0), stream_id, block_of_get)


class Static(Encoder):
    """An encoder that leaves the table alone, so that blocks can be sent in any order."""

    def block(self, fields: list[tuple[str, str]]) -> bytes:
        return self.encode([(name, value, True) for name, value in fields])


block_of_get = Static().block(GET)


async def ended_by(s: Served, *errors: int) -> None:
    """The server says GOAWAY with one of these errors, and hangs up."""
    await s.peer.until_closed()
    assert s.peer.goaways, "no GOAWAY came"
    assert s.peer.goaways[-1][1] in errors
    await s.peer.aclose()
    await s.done.wait()


async def flood(s: Served, attack: bytes, times: int) -> None:
    """Send something often while reading what comes back, as an attacker does who wants to go on."""
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            for _ in range(times):
                if s.peer.closed:
                    return
                await s.peer.send_raw(attack)

        nursery.start_soon(send)
        await s.peer.until_closed()
        nursery.cancel_scope.cancel()


async def test_rapid_reset() -> None:
    """CVE-2023-44487: open and cancel, over and over."""
    async with served(forever, raw=True) as s:
        for n in range(2000):
            stream_id = 2 * n + 1
            await s.peer.send_raw(get(stream_id) + frame(RST, 0, stream_id, struct.pack(">I", 8)))
            if s.peer.closed:
                break
        await ended_by(s, CALM)
        assert len(s.handler.requests) <= 400


async def test_a_client_that_cancels_some_of_many_is_let_be() -> None:
    async with served(plain_answer) as s:
        for n in range(600):
            stream = await s.peer.request(f"/{n}")
            if n % 2:
                await s.peer.answer(stream)
            else:
                s.peer.wire.reset_stream(stream, 8)
                await s.peer.flush()
        assert not s.peer.goaways


@pytest.mark.parametrize(
    "provocation",
    [
        frame(WINDOW, 0, 0, struct.pack(">I", 2**31 - 1)),  # overflows the stream's window
        frame(DATA, END_STREAM, 0, b"longer than was said"),
        frame(HEADERS, END_HEADERS | END_STREAM, 0, Static().block([(":bad", "trailer")])),
    ],
    ids=["window overflow", "wrong length", "bad trailers"],
)
async def test_resets_that_the_client_provokes(provocation: bytes) -> None:
    """CVE-2025-8671, "MadeYouReset": the client makes the server reset its streams."""
    head = Static().block([*GET, ("content-length", "3")])
    async with served(forever, raw=True) as s:
        for n in range(1000):
            stream_id = struct.pack(">I", 2 * n + 1)
            attack = frame(HEADERS, END_HEADERS, 2 * n + 1, head) + provocation[:5] + stream_id + provocation[9:]
            await s.peer.send_raw(attack)
        await ended_by(s, CALM)
        assert len(s.handler.requests) <= 300


async def test_malformed_requests_without_end() -> None:
    async with served(forever, raw=True) as s:
        bad = Static().block([(":method", "GET")])
        for n in range(1000):
            await s.peer.send_raw(frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, bad))
        await ended_by(s, CALM)
        assert not s.handler.requests


@pytest.mark.parametrize("piece", [b"", b"x", b"x" * 16384], ids=["empty", "small", "large"])
async def test_a_header_block_without_end(piece: bytes) -> None:
    """The CONTINUATION flood (CVE-2024-27316 and its kin)."""
    async with served(plain_answer, raw=True) as s:
        await s.peer.send_raw(frame(HEADERS, 0, 1, block_of_get))
        await flood(s, frame(CONTINUATION, 0, 1, piece), 10_000)
        await ended_by(s, CALM)


@pytest.mark.parametrize(
    "attack",
    [
        frame(PING, 0, 0, bytes(8)),
        frame(SETTINGS),
        frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65536) + struct.pack(">HI", 1, 0)),
        frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 1)),
        frame(0xBE, 0, 0, b"of an unknown type"),
        frame(WINDOW, 0, 0, struct.pack(">I", 1)),
        frame(RST, 0, 1, struct.pack(">I", 8)),
        frame(DATA, 0, 3),
        frame(DATA, 8, 3, b"\x05" + bytes(5)),
    ],
    ids=["ping", "settings", "table sizes", "priority", "unknown", "window", "reset", "empty data", "only padding"],
)
@pytest.mark.parametrize("batch", [10, 500])
async def test_frames_that_only_cost(attack: bytes, batch: int) -> None:
    async with served(forever, raw=True) as s:
        # Stream 1 is over, stream 3 takes a body.
        await s.peer.send_raw(get(1) + frame(RST, 0, 1, struct.pack(">I", 8)) + get(3, ended=False))
        await flood(s, attack * batch, 20_000 // batch)
        await ended_by(s, CALM)


async def test_a_peer_that_does_not_read_its_acknowledgements() -> None:
    """What waits to be sent is bounded: the server stops reading, and in the end gives up."""
    async with served(plain_answer, progress_seconds=0.2, send_buffer=4096) as s:
        with trio.move_on_after(5):
            while not s.done.is_set():
                with trio.move_on_after(0.05):
                    await s.peer.send_raw(frame(PING, 0, 0, bytes(8)) * 100 + frame(SETTINGS))
        await s.peer.aclose()
        await s.done.wait()


async def test_windows_that_are_opened_by_single_bytes() -> None:
    async def answer(_: Request) -> Response:
        return Response(200, Headers(), Body([bytes(100_000)]))

    async with served(answer, window=0, credit=False, raw=True) as s:
        for n in range(100):
            await s.peer.send_raw(get(2 * n + 1))
        await flood(s, b"".join(frame(WINDOW, 0, 2 * n + 1, struct.pack(">I", 1)) for n in range(100)), 1000)
        await ended_by(s, CALM)


async def test_headers_that_are_a_little_too_large_are_answered() -> None:
    async with served(plain_answer, Http2Limits(header_bytes=4000)) as s:
        got = await s.peer.get("/", fields=(("x", "y" * 4000),))
        assert got.status == 431
        assert b"4000" in got.body
        assert (await s.peer.get("/fine")).body == b"/fine"
        assert len(s.handler.requests) == 1


async def test_headers_that_are_far_too_large_end_the_connection() -> None:
    async with served(plain_answer, Http2Limits(header_bytes=4000)) as s:
        await s.peer.request("/", fields=(("x", "y" * 9000),))
        await ended_by(s, CALM)


async def test_a_small_block_that_stands_for_a_large_one() -> None:
    """The HPACK bomb: one large entry in the table, named thousands of times by one byte each."""
    async with served(plain_answer, raw=True) as s:
        encoder = Encoder()
        large = encoder.encode([*GET, ("x", "y" * 3900)])
        again = encoder.encode([("x", "y" * 3900)])
        assert len(again) == 1
        await s.peer.send_raw(frame(HEADERS, END_HEADERS | END_STREAM, 1, large))
        await s.peer.send_raw(frame(HEADERS, END_HEADERS | END_STREAM, 3, again * 16_000))
        await ended_by(s, CALM)


async def test_a_block_that_cannot_be_decoded_ends_the_connection() -> None:
    async with served(plain_answer, raw=True) as s:
        await s.peer.send_raw(frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff\xff\xff\xff\xff\xff\xff"))
        await ended_by(s, COMPRESSION)


async def test_streams_beyond_the_limit_are_refused_and_the_others_go_on() -> None:
    go = trio.Event()

    async def answer(request: Request) -> Response:
        await go.wait()
        return await plain_answer(request)

    async with served(answer, Http2Limits(streams=4), raw=True) as s:
        for n in range(8):
            await s.peer.send_raw(get(2 * n + 1))
        await s.peer.until(lambda: sum(a.reset == REFUSED for a in s.peer.answers.values()) == 4)
        assert len(s.handler.requests) == 4
        go.set()
        await s.handler.until(lambda h: len(h.told) == 4)


def one_frame_too_many(n: int) -> bytes:
    return (
        get(1)
        + get(3)
        + [
            get(2),  # streams of clients are odd
            frame(HEADERS, END_HEADERS | END_STREAM, 0, block_of_get),
            frame(DATA, 0, 0, b"x"),
            frame(DATA, 0, 99, b"x"),  # never opened
            frame(RST, 0, 99, bytes(4)),
            frame(RST, 0, 0, bytes(4)),
            frame(WINDOW, 0, 99, struct.pack(">I", 1)),
            frame(WINDOW, 0, 0, bytes(4)),
            frame(WINDOW, 0, 0, struct.pack(">I", 2**31 - 1)),
            frame(CONTINUATION, END_HEADERS, 1, b""),
            frame(HEADERS, END_STREAM, 5, block_of_get) + get(7),  # a block is not interrupted
            frame(HEADERS, END_STREAM, 5, block_of_get) + frame(PING, 0, 0, bytes(8)),
            frame(5, END_HEADERS, 1, struct.pack(">I", 2) + block_of_get),  # clients push nothing
            frame(SETTINGS, 0, 1),
            frame(SETTINGS, 0, 0, b"12345"),
            frame(SETTINGS, 1, 0, bytes(6)),
            frame(SETTINGS, 0, 0, struct.pack(">HI", 2, 2)),  # ENABLE_PUSH is 0 or 1
            frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 2**31)),
            frame(SETTINGS, 0, 0, struct.pack(">HI", 5, 100)),
            frame(PING, 0, 0, b"short"),
            frame(PING, 0, 1, bytes(8)),
            frame(RST, 0, 1, b"12"),
            frame(DATA, 8, 1, b"\xff" + b"x"),  # more padding than frame
            frame(DATA, 0, 1, bytes(16385)),
            b"\xff\xff\xff" + bytes(6),  # 16 MiB are announced
            frame(HEADERS, END_HEADERS | 32, 5, struct.pack(">IB", 5, 1) + block_of_get),  # depends on itself
            frame(PRIORITY, 0, 5, struct.pack(">IB", 5, 1)),
            frame(PRIORITY, 0, 5, b"1"),
            frame(7, 0, 1, bytes(8)),
        ][n]
    )


@pytest.mark.parametrize("n", range(29))
async def test_frames_that_break_the_protocol_end_the_connection(n: int) -> None:
    async with served(forever, raw=True) as s:
        await s.peer.send_raw(one_frame_too_many(n))
        await ended_by(s, PROTOCOL_ERROR, FLOW_CONTROL, STREAM_CLOSED, FRAME_SIZE)
        assert s.handler.cancelled == len(s.handler.requests)


@pytest.mark.parametrize(
    "fields",
    [
        GET[1:],
        GET[:1] + GET[2:],
        GET[:2] + GET[3:],
        GET[:3],
        [*GET, (":path", "/y")],
        [*GET, (":status", "200")],
        [*GET, ("x", "y"), (":method", "GET")][1:],
        [*GET[:3], (":path", "")],
        [*GET[:3], (":path", "no-slash")],
        [*GET[:3], (":path", "/a b")],
        [*GET[:3], (":path", "*")],
        [*GET, ("host", "other.example")],
        [*GET, ("host", "mx.example"), ("host", "b")],
        [GET[0], GET[1], (":authority", "user@mx.example"), GET[3]],
        [*GET, ("Upper", "case")],
        [*GET, ("connection", "close")],
        [*GET, ("transfer-encoding", "chunked")],
        [*GET, ("te", "gzip")],
        [*GET, ("x", "a\r\nb")],
        [*GET, ("x", "a\0b")],
        [*GET, ("x", " a")],
        [*GET, ("", "a")],
        [*GET, ("x y", "a")],
        [*GET, ("content-length", "5")],
        [*GET, ("content-length", "+0")],
        [*GET, ("content-length", "0"), ("content-length", "1")],
        [("x", "y")],
        [],
        [(":method", "CONNECT"), (":authority", "a:1"), (":path", "/")],
        [(":method", "CONNECT"), (":protocol", "websocket"), *GET[1:]],
    ],
)
async def test_a_malformed_request_costs_its_stream_and_no_other(fields: list[tuple[str, str]]) -> None:
    async with served(plain_answer, raw=True) as s:
        await s.peer.send_raw(frame(HEADERS, END_HEADERS | END_STREAM, 1, Static().block(fields)))
        await s.peer.until(lambda: 1 in s.peer.answers)
        assert s.peer.answers[1].reset == PROTOCOL_ERROR
        await s.peer.send_raw(get(3))
        await s.handler.until(lambda h: len(h.told) == 1)
        assert s.handler.told[0][2].error is None


async def test_a_request_that_goes_on_after_its_end_costs_its_stream() -> None:
    for more in (get(1), frame(DATA, END_STREAM, 1, b"x")):
        async with served(forever, raw=True) as s:
            await s.peer.send_raw(get(1) + get(3) + more)
            await s.peer.until(lambda s=s: 1 in s.peer.answers)
            assert s.peer.answers[1].reset == STREAM_CLOSED
            await s.handler.until(lambda h: len(h.told) == 1)
            assert (s.handler.cancelled, s.handler.running) == (1, 1)


async def test_a_stream_is_never_opened_again() -> None:
    async with served(plain_answer, raw=True) as s:
        await s.peer.send_raw(get(1))
        await s.peer.until(lambda: 1 in s.peer.answers and s.peer.answers[1].ended)
        await s.peer.send_raw(get(1))
        await ended_by(s, STREAM_CLOSED)


async def test_host_will_do_for_authority_and_cookies_are_joined() -> None:
    async with served(plain_answer) as s:
        fields = [*GET[:2], GET[3], ("host", "h.example"), ("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")]
        await s.peer.answer(await s.peer.request_fields(fields))
        request = s.handler.requests[0]
        assert request.authority == "h.example"
        assert request.headers.get_all("cookie") == ["a=1; b=2"]


async def test_connect_has_a_host_and_a_port_and_no_content() -> None:
    async with served(plain_answer) as s:
        connect = [(":method", "CONNECT"), (":authority", "example.com:443")]
        got = await s.peer.answer(await s.peer.request_fields([*connect, ("content-length", "1")], end=False))
        assert got.status == 400
        assert not s.handler.requests
        await s.peer.answer(await s.peer.request_fields(connect, end=False))
        (request,) = s.handler.requests
        assert (request.method, request.target, request.authority) == ("CONNECT", *["example.com:443"] * 2)


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"\x16\x03\x01" * 9]
)
async def test_a_wrong_preface(garbage: bytes) -> None:
    async with served(plain_answer, greet=False, raw=True) as s:
        await s.peer.send_raw(garbage)
        await ended_by(s, PROTOCOL_ERROR)


async def test_a_first_frame_that_is_not_settings() -> None:
    async with served(plain_answer, greet=False, raw=True) as s:
        await s.peer.send_raw(opening()[:24] + get(1))
        await ended_by(s, PROTOCOL_ERROR)
        assert not s.handler.requests


CONVERSATION = (
    opening()
    + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 100_000))
    + frame(PRIORITY, 0, 3, struct.pack(">IB", 0, 1))
    + frame(HEADERS, END_HEADERS, 1, block_of_get)
    + frame(DATA, 8, 1, b"\x03abc" + bytes(3))
    + frame(PING, 0, 0, b"12345678")
    + frame(HEADERS, END_STREAM, 3, block_of_get[:7])
    + frame(CONTINUATION, 0, 3, block_of_get[7:9])
    + frame(CONTINUATION, END_HEADERS, 3, block_of_get[9:])
    + frame(WINDOW, 0, 1, struct.pack(">I", 10))
    + frame(0x10, 0, 0, b"\0\0\0\x01u=1")
    + frame(HEADERS, END_HEADERS | END_STREAM | 32 | 8, 5, b"\x02" + struct.pack(">IB", 1, 9) + block_of_get + bytes(2))
    + frame(DATA, END_STREAM, 1, b"def")
)


async def test_a_conversation_byte_by_byte() -> None:
    bodies: list[bytes] = []

    async def answer(request: Request) -> Response:
        body = b""
        while data := await request.body.receive():
            body += data
        bodies.append(body)
        return await plain_answer(request)

    async with served(answer, greet=False, raw=True) as s:
        for n in range(len(CONVERSATION)):
            await s.peer.send_raw(CONVERSATION[n : n + 1])
            await trio.testing.wait_all_tasks_blocked()
        await s.handler.until(lambda h: len(h.told) == 3)
        assert sorted(bodies) == [b"", b"", b"abcdef"]
        assert all(sent.error is None for _, _, sent in s.handler.told)


async def test_a_conversation_that_breaks_off_anywhere() -> None:
    async def answer(request: Request) -> Response:
        while await request.body.receive():
            pass
        return await plain_answer(request)

    for n in range(len(CONVERSATION)):
        async with served(answer, greet=False, raw=True) as s:
            await s.peer.send_raw(CONVERSATION[:n])
            await s.peer.stream.send_eof()
            await s.peer.until_closed()
            await s.peer.aclose()
            await s.done.wait()


class Complaints(logging.Handler):
    """What the program says of its own failures."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record))


_KINDS = st.sampled_from([*range(10), 16, 255])
_FRAMES = st.tuples(_KINDS, st.integers(0, 255), st.integers(0, 9), st.binary(max_size=20) | st.just(block_of_get))


@settings(max_examples=100, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(24, len(CONVERSATION) - 1), st.integers(0, 255)), max_size=8),
    frames=st.lists(_FRAMES, max_size=20),
)
def test_wrong_bytes_never_break_the_server(
    changes: list[tuple[int, int]], frames: list[tuple[int, int, int, bytes]]
) -> None:
    """Whatever comes: an end in order, every request told of once, and no failure of the program's own."""
    data = bytearray(CONVERSATION)
    for place, byte in changes:
        data[place] = byte
    for kind, flags, stream_id, payload in frames:
        data += frame(kind, flags, stream_id, payload)

    async def answer(request: Request) -> Response:
        if request.headers.get("content-length") is None:
            await request.body.receive()
        return await plain_answer(request)

    async def run() -> None:
        async with served(answer, raw=True, greet=False) as s:
            await s.peer.send_raw(bytes(data))
            await s.peer.stream.send_eof()
            await s.peer.until_closed()

    complaints = Complaints()
    logging.getLogger("mxart").addHandler(complaints)
    try:
        trio.run(run)
    finally:
        logging.getLogger("mxart").removeHandler(complaints)
    assert not complaints.said
