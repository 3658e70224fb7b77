"""HTTP/2 as a client sees it that behaves."""

import os

import trio

from kit.http2_peer import plain_answer, served
from kit.sources import FileSource
from mxart.body import EMPTY, Body, Span
from mxart.errors import TooLarge
from mxart.message import Headers, Request, Response
from mxart.proto.http2 import Http2Limits


async def sum_of_body(request: Request) -> Response:
    total = 0
    while data := await request.body.receive():
        total += len(data)
    return Response(201, Headers(), Body([str(total).encode()]))


async def test_a_request_is_answered() -> None:
    async with served(plain_answer) as s:
        answer = await s.peer.get("/v2/?n=1")
        assert (answer.status, bytes(answer.body), answer.ended) == (200, b"/v2/?n=1", True)
        assert answer.headers["content-length"] == "8"
        assert answer.headers["content-type"] == "text/plain"
        assert answer.headers["date"].endswith(" GMT")
        request = s.handler.requests[0]
        assert (request.method, request.target, request.version) == ("GET", "/v2/?n=1", "2")
        assert request.authority == "mx.example"
        assert await request.body.receive() == b""
        await s.handler.until(lambda h: len(h.told) == 1)
        sent = s.handler.told[0][2]
        assert sent.error is None
        assert sent.body_bytes == 8
        assert sent.first_byte is not None
        assert sent.started <= sent.first_byte <= sent.finished


async def test_the_server_says_what_it_takes() -> None:
    async with served(plain_answer, Http2Limits(header_bytes=8000, streams=7)) as s:
        await s.peer.get()
        known = s.peer.server_settings
        assert (known[2], known[3], known[6]) == (0, 7, 8000)
        assert known[4] >= 65535


async def test_many_requests_one_after_the_other_and_at_once() -> None:
    async with served(plain_answer) as s:
        for n in range(20):
            assert (await s.peer.get(f"/{n}")).body == f"/{n}".encode()
        streams = [await s.peer.request(f"/{n}") for n in range(100)]
        for n, stream in enumerate(streams):
            assert (await s.peer.answer(stream)).body == f"/{n}".encode()


async def test_a_handler_that_waits_holds_up_no_other() -> None:
    go = trio.Event()

    async def answer(request: Request) -> Response:
        if request.target == "/slow":
            await go.wait()
        return await plain_answer(request)

    async with served(answer) as s:
        slow = [await s.peer.request("/slow") for _ in range(50)]
        for n in range(5):
            assert (await s.peer.get(f"/{n}")).status == 200
        go.set()
        for stream in slow:
            assert (await s.peer.answer(stream)).body == b"/slow"


async def test_head_is_answered_with_the_length_alone_and_the_body_closed() -> None:
    source = FileSource(b"x" * 1000)

    async def answer(_: Request) -> Response:
        return Response(200, Headers(), Body([Span(source, 0, 1000)]))

    async with served(answer) as s:
        got = await s.peer.get("/abc", "HEAD")
        assert (got.headers["content-length"], got.body, got.ended) == ("1000", b"", True)
        assert source.closed


async def test_answers_that_have_no_body_say_no_length() -> None:
    async def answer(request: Request) -> Response:
        return Response(int(request.target[1:]), Headers(), EMPTY)

    async with served(answer) as s:
        for status in (204, 304):
            got = await s.peer.get(f"/{status}")
            assert (got.status, got.ended) == (status, True)
            assert "content-length" not in got.headers
        assert (await s.peer.get("/200")).headers["content-length"] == "0"


async def test_bytes_and_spans_of_files_are_sent_one_after_the_other() -> None:
    data = os.urandom(300_000)
    source = FileSource(data)

    async def answer(_: Request) -> Response:
        parts = [b"head ", Span(source, 10, 5), b"", Span(source, 0, 0), b" - ", Span(source, 100_000, 200_000), b"."]
        return Response(200, Headers(), Body(parts))

    async with served(answer) as s:
        got = await s.peer.get()
        assert got.body == b"head " + data[10:15] + b" - " + data[100_000:] + b"."
        assert got.headers["content-length"] == str(len(got.body))
        await s.handler.until(lambda h: len(h.told) == 1)
        assert source.closed
        assert s.handler.told[0][2].body_bytes == len(got.body)


async def test_a_growing_file_is_followed_to_its_end() -> None:
    source = FileSource(b"one ", complete=False)

    async def answer(request: Request) -> Response:
        if request.target == "/other":
            return await plain_answer(request)
        return Response(200, Headers(), Body([Span(source, 0, None)]))

    async with served(answer) as s:
        stream = await s.peer.request()
        got = s.peer.answers[stream]
        await s.peer.until(lambda: bytes(got.body) == b"one ")
        source.grow(b"two ")
        await s.peer.until(lambda: bytes(got.body) == b"one two ")
        assert (await s.peer.get("/other")).status == 200
        source.grow(b"three")
        source.finish()
        assert (await s.peer.answer(stream)).body == b"one two three"
        assert got.ended
        assert "content-length" not in got.headers


async def test_a_growing_file_whose_length_is_known_has_a_content_length() -> None:
    source = FileSource(b"12345", total=10, complete=False)

    async def answer(_: Request) -> Response:
        return Response(200, Headers(), Body([Span(source, 2, None)]))

    async with served(answer) as s:
        stream = await s.peer.request()
        got = s.peer.answers[stream]
        await s.peer.until(lambda: bytes(got.body) == b"345")
        assert got.headers["content-length"] == "8"
        source.grow(b"67890")
        source.finish()
        assert (await s.peer.answer(stream)).body == b"34567890"


async def test_a_body_that_breaks_resets_its_stream_and_no_other() -> None:
    source = FileSource(b"some", total=100, complete=False)
    other = FileSource(b"", total=4, complete=False)

    async def answer(request: Request) -> Response:
        return Response(200, Headers(), Body([Span(source if request.target == "/bad" else other, 0, None)]))

    async with served(answer) as s:
        good = await s.peer.request("/good")
        bad = await s.peer.request("/bad")
        await s.peer.until(lambda: bytes(s.peer.answers[bad].body) == b"some")
        source.break_off()
        got = await s.peer.answer(bad)
        assert (got.reset, got.ended) == (2, False)  # INTERNAL_ERROR
        other.grow(b"fine")
        other.finish()
        assert (await s.peer.answer(good)).body == b"fine"
        await s.handler.until(lambda h: len(h.told) == 2)
        errors = {request.target: sent.error for request, _, sent in s.handler.told}
        assert errors == {"/good": None, "/bad": "upstream broke off"}
        assert source.closed
        assert other.closed


async def test_a_file_that_is_shorter_than_promised_resets_the_stream() -> None:
    async def answer(request: Request) -> Response:
        total = 50 if request.target == "/lies" else None
        return Response(200, Headers(), Body([Span(FileSource(b"short", total=total), 0, 50)]))

    async with served(answer) as s:
        for path in ("/short", "/lies"):
            got = await s.peer.get(path)
            assert (bytes(got.body), got.reset, got.ended) == (b"short", 2, False)
        assert (await s.peer.get("/more")).reset == 2


async def test_every_stream_gets_its_share() -> None:
    """Two large bodies at once: neither is finished before the other has its half."""
    size = 1 << 20

    async def answer(_: Request) -> Response:
        return Response(200, Headers(), Body([Span(FileSource(bytes(size)), 0, size)]))

    async with served(answer) as s:
        first, second = await s.peer.request("/1"), await s.peer.request("/2")
        await s.peer.until(lambda: s.peer.answers[first].over or s.peer.answers[second].over)
        assert min(len(s.peer.answers[first].body), len(s.peer.answers[second].body)) > size // 2
        assert len((await s.peer.answer(first)).body) == len((await s.peer.answer(second)).body) == size


async def test_a_stream_without_window_stalls_no_other() -> None:
    async def answer(request: Request) -> Response:
        return Response(200, Headers(), Body([bytes(60_000 if request.target == "/large" else 10)]))

    async with served(answer, window=20_000, credit=False) as s:
        large = await s.peer.request("/large")
        await s.peer.until(lambda: len(s.peer.answers[large].body) == 20_000)
        for n in range(5):
            assert len((await s.peer.get(f"/{n}")).body) == 10
        s.peer.wire.increment_flow_control_window(40_000, large)
        await s.peer.flush()
        assert len((await s.peer.answer(large)).body) == 60_000


async def test_a_window_of_one_byte_is_honoured_and_can_be_widened_by_settings() -> None:
    async with served(plain_answer, window=1) as s:
        stream = await s.peer.request("/abcdef")
        await s.peer.until(lambda: bytes(s.peer.answers[stream].body) == b"/")
        s.peer.wire.update_settings({4: 1000})
        await s.peer.flush()
        assert (await s.peer.answer(stream)).body == b"/abcdef"


async def test_the_end_of_a_growing_body_needs_no_window() -> None:
    source = FileSource(b"1234", complete=False)

    async def answer(_: Request) -> Response:
        return Response(200, Headers(), Body([Span(source, 0, None)]))

    async with served(answer, window=4, credit=False) as s:
        stream = await s.peer.request()
        await s.peer.until(lambda: len(s.peer.answers[stream].body) == 4)
        source.finish()
        # A body whose window is used up does not know yet that it is at its end: any credit shows it.
        s.peer.wire.increment_flow_control_window(1, stream)
        await s.peer.flush()
        assert (await s.peer.answer(stream)).ended


async def test_an_upload_arrives_however_large() -> None:
    async with served(sum_of_body) as s:
        stream = await s.peer.request("/up", "PUT", end=False)
        await s.peer.body(stream, os.urandom(3 << 20), end=True)
        assert (await s.peer.answer(stream)).body == str(3 << 20).encode()


async def test_an_upload_is_held_back_until_the_handler_reads() -> None:
    go = trio.Event()

    async def answer(request: Request) -> Response:
        await go.wait()
        return await sum_of_body(request)

    async with served(answer) as s:
        stream = await s.peer.request("/up", "PUT", end=False)
        await s.peer.until(lambda: bool(s.peer.server_settings))
        while (room := s.peer.wire.local_flow_control_window(stream)) > 0:
            await s.peer.body(stream, bytes(room))
        ping = s.peer.pongs
        s.peer.wire.ping(b"12345678")
        await s.peer.flush()
        await s.peer.until(lambda: s.peer.pongs > ping)
        assert s.peer.wire.local_flow_control_window(stream) == 0
        go.set()
        await s.peer.body(stream, bytes(100_000), end=True)
        assert (await s.peer.answer(stream)).status == 201


async def test_uploads_that_nobody_reads_leave_the_connection_its_window() -> None:
    """The handler answers at once; what was sent meanwhile is dropped, and others can still upload."""

    async def answer(request: Request) -> Response:
        if request.target == "/up":
            return await sum_of_body(request)
        return Response(403, Headers(), Body([b"no"]))

    async with served(answer) as s:
        for _ in range(40):
            stream = await s.peer.request("/no", "PUT", end=False)
            await s.peer.body(stream, bytes(60_000))
            got = await s.peer.answer(stream)
            assert (got.status, got.reset or 0) == (403, 0)  # NO_ERROR
        stream = await s.peer.request("/up", "PUT", end=False)
        await s.peer.body(stream, bytes(1 << 20), end=True)
        assert (await s.peer.answer(stream)).body == str(1 << 20).encode()


async def test_a_client_that_cannot_stop_may_send_the_rest_of_what_it_announced_after_its_answer() -> None:
    """Java's, before 21, waits for its window whatever else it is told; without that it would hang."""

    async def answer(request: Request) -> Response:
        if request.target == "/up":
            return await sum_of_body(request)
        return Response(401, Headers(), Body([b"who are you?"]))

    announced = (("content-length", str(3 << 20)),)
    async with served(answer) as s:
        for _ in range(20):
            stream = await s.peer.request("/no", "PUT", fields=announced, end=False)
            await s.peer.body(stream, bytes(60_000))
            got = await s.peer.answer(stream)
            assert (got.status, got.body, got.reset) == (401, b"who are you?", None)
            await s.peer.body(stream, bytes((3 << 20) - 60_000), end=True)
        stream = await s.peer.request("/no", "PUT", fields=announced, end=False)
        assert (await s.peer.answer(stream)).reset is None
        await s.peer.body(stream, bytes(3 << 20))
        assert s.peer.wire.local_flow_control_window(stream) == 0  # not a byte more
        s.peer.wire.reset_stream(stream)
        for fields in ((("content-length", str(1 << 40)),), (*announced, ("expect", "100-continue"))):
            stream = await s.peer.request("/no", "PUT", fields=fields, end=False)
            assert (await s.peer.answer(stream)).status == 401
            await s.peer.until(lambda of=stream: s.peer.answers[of].reset is not None)
        stream = await s.peer.request("/up", "PUT", end=False)
        await s.peer.body(stream, bytes(1 << 20), end=True)
        assert (await s.peer.answer(stream)).body == str(1 << 20).encode()


async def test_padding_is_given_back() -> None:
    async with served(sum_of_body) as s:
        stream = await s.peer.request("/up", "PUT", end=False)
        for _ in range(1200):
            while s.peer.wire.local_flow_control_window(stream) < 300:
                await s.peer.pump()
            s.peer.wire.send_data(stream, b"x", pad_length=255)
            await s.peer.flush()
        s.peer.wire.end_stream(stream)
        await s.peer.flush()
        assert (await s.peer.answer(stream)).body == b"1200"


async def test_the_client_may_go_on_once_the_handler_reads() -> None:
    async with served(sum_of_body) as s:
        stream = await s.peer.request("/up", "PUT", fields=(("expect", "100-continue"),), end=False)
        await s.peer.until(lambda: s.peer.answers[stream].interim == [100])
        await s.peer.body(stream, b"abc", end=True)
        assert (await s.peer.answer(stream)).body == b"3"


async def test_a_refused_upload_is_never_asked_for() -> None:
    async def answer(_: Request) -> Response:
        return Response(403, Headers(), Body([b"no"]))

    async with served(answer) as s:
        stream = await s.peer.request("/up", "PUT", fields=(("expect", "100-continue"),), end=False)
        got = await s.peer.answer(stream)
        assert (got.status, got.interim) == (403, [])


async def test_a_body_over_the_limit_is_refused_before_and_while_it_comes() -> None:
    async def answer(request: Request) -> Response:
        try:
            return await sum_of_body(request)
        except TooLarge as problem:
            return Response(413, Headers(), Body([problem.message.encode()]))

    async with served(answer, Http2Limits(body_bytes=1000)) as s:
        declared = await s.peer.request("/", "PUT", fields=(("content-length", "1001"),), end=False)
        assert (await s.peer.answer(declared)).status == 413
        undeclared = await s.peer.request("/", "PUT", end=False)
        await s.peer.body(undeclared, bytes(1001))
        assert (await s.peer.answer(undeclared)).status == 413
        fitting = await s.peer.request("/", "PUT", fields=(("content-length", "1000"),), end=False)
        await s.peer.body(fitting, bytes(1000), end=True)
        assert (await s.peer.answer(fitting)).body == b"1000"


async def test_trailers_are_accepted_and_dropped() -> None:
    async with served(sum_of_body) as s:
        stream = await s.peer.request("/", "PUT", end=False)
        await s.peer.body(stream, b"12345")
        s.peer.wire.send_headers(stream, [("x-checksum", "abc")], end_stream=True)
        await s.peer.flush()
        assert (await s.peer.answer(stream)).body == b"5"


async def test_what_cannot_be_sent_is_never_sent() -> None:
    async def answer(request: Request) -> Response:
        n = int(request.target[1:])
        bad = [
            ("x", "a\r\nset-cookie: evil"),
            ("x", "a\nb"),
            ("x", "\0"),
            ("x y", "z"),
            ("x\r\n", "z"),
            ("x", "\u20ac"),
        ]
        return Response(200, Headers([bad[n]]), Body([b"text"]))

    async with served(answer) as s:
        for n in range(6):
            got = await s.peer.get(f"/{n}")
            assert (got.status, got.headers, got.reset) == (0, {}, 2)
            await s.handler.until(lambda h, n=n: len(h.told) == n + 1)
            assert s.handler.told[-1][2].error


async def test_fields_of_connections_are_left_out_of_answers() -> None:
    async def answer(_: Request) -> Response:
        fields = [("connection", "x"), ("transfer-encoding", "chunked"), ("Keep-Alive", "1"), ("content-length", "99")]
        return Response(200, Headers([*fields, ("x-kept", " a ")]), Body([b"text"]))

    async with served(answer) as s:
        got = await s.peer.get()
        assert sorted(got.headers) == ["content-length", "date", "x-kept"]
        assert (got.headers["content-length"], got.headers["x-kept"]) == ("4", "a")


async def test_a_large_head_is_cut_into_frames() -> None:
    async def answer(_: Request) -> Response:
        return Response(200, Headers([(f"x-{n}", "v" * 1000) for n in range(40)]), Body([b"text"]))

    async with served(answer) as s:
        got = await s.peer.get()
        assert len(got.headers) == 42
        assert got.body == b"text"


async def test_a_handler_that_fails_costs_its_stream_and_no_other() -> None:
    async def answer(request: Request) -> Response:
        if request.target == "/wait":
            await trio.lowlevel.checkpoint()
        if request.target != "/good":
            raise ZeroDivisionError
        return await plain_answer(request)

    async with served(answer) as s:
        assert (await s.peer.get("/bad")).reset == 2
        assert (await s.peer.get("/wait")).reset == 2
        assert (await s.peer.get("/good")).status == 200
