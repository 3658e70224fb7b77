"""From a request to its answer and its log line: whatever goes wrong, the client is told, and counted once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from kit.descriptors import open_files
from kit.gateways import listening_to
from kit.wire import PEER, FakeSource, tcp_pair
from mxart import errors
from mxart.digest import Digest
from mxart.errors import Problem
from mxart.logs import EventLog, LineSink
from mxart.message import Headers, Peer, Request, Response, Sent, Trace
from mxart.metrics import Metrics
from mxart.proto.draining import Draining
from mxart.proto.http1 import Http1Limits, serve_http1
from mxart.proto.plain import PlainTransport
from mxart.repos.callers import NOBODY, Caller
from mxart.repos.oci.format import Oci
from mxart.repos.operations import File, Found, Listed, Listing
from mxart.server.handler import Gate, plain_problem
from mxart.server.metrics import families
from mxart.server.own import OwnPages
from mxart.server.routes import Mount, Routes

FORMAT = Oci()
SUM = Digest.of(b"x")
BLOB = f"/v2/a/blobs/{SUM}"


class Fake:
    """A repository that answers, or fails, as it is told."""

    def __init__(self, answer: Found | BaseException | None = None) -> None:
        self.name = "r"
        self.site = ""
        self.format = FORMAT
        self._answer = answer

    def owns(self, package: str) -> bool:
        return False

    async def admit(self, caller: Caller, trace: Trace) -> None:
        pass

    async def file(self, operation: File, trace: Trace, caller: Caller = NOBODY) -> Found:
        trace.outcome = "hit"
        if isinstance(self._answer, Found):
            return self._answer
        if self._answer is None:
            await trio.sleep_forever()
        assert isinstance(self._answer, BaseException)
        raise self._answer

    async def listing(self, operation: Listing, trace: Trace, caller: Caller = NOBODY) -> Listed:
        raise AssertionError


class World:
    """A gate, what it counted, and what it wrote."""

    def __init__(self, answer: Found | BaseException | None = None, *, ready: bool = True) -> None:
        reading, self._writing = os.pipe()
        self._lines = os.fdopen(reading)
        self.metrics = Metrics(families(["r"]), 1)
        own = OwnPages(self.metrics, lambda: ready, lambda: b"-----BEGIN CERTIFICATE-----\n")
        routes = Routes([Mount("r", "oci", ("docker.io",), "/")])
        events = EventLog("mxart.exchange", LineSink(self._writing))
        self.gate = Gate(routes, {"r": Fake(answer)}, own, self.metrics, events)

    def close(self) -> None:
        os.close(self._writing)
        self._lines.close()

    def lines(self) -> list[dict[str, object]]:
        """Every line so far; call it once."""
        os.write(self._writing, b"end\n")
        return [json.loads(line) for line in iter(self._lines.readline, "end\n")]

    def counted(self, name: str) -> dict[tuple[str, ...], float]:
        text, _ = self.metrics.render()
        return {
            tuple(sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text.decode())
            for sample in family.samples
            if sample.name == name
        }


def request(target: str, *, method: str = "GET", authority: str = "mxart.test", agent: str = "t/1") -> Request:
    return Request(method, target, authority, Headers([("user-agent", agent)]), PEER)


def told(response: Response) -> str:
    return b"".join(part for part in response.body.segments if isinstance(part, bytes)).decode()


def subclasses() -> list[type[Problem]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Problem)]


@pytest.mark.parametrize("kind", subclasses())
async def test_every_problem_has_its_status_and_is_worded_for_oci_clients(kind: type[Problem]) -> None:
    world = World(kind("it is so", retry_after=1.2, headers=(("x-more", "y"),)))
    asked = request(BLOB)
    response = await world.gate.handle(asked)
    world.close()
    assert response.status == kind.status
    (error,) = json.loads(told(response))["errors"]
    assert error["message"] == "it is so"
    assert response.headers.get("retry-after") == "2"
    assert response.headers.get("x-more") == "y"
    assert asked.trace.notes == [f"{kind.status}: it is so"]
    assert asked.trace.repository == "r"


def test_a_problem_where_no_format_is_asked_is_a_line_of_text() -> None:
    response = plain_problem(errors.UpstreamUnavailable("not now", retry_after=0.2, headers=(("x-more", "y"),)))
    assert (response.status, told(response)) == (503, "not now\n")
    assert response.headers.get("retry-after") == "1"
    assert response.headers.get("x-more") == "y"


async def test_a_fault_of_ours_is_500_with_its_traceback_in_the_log_and_nowhere_else() -> None:
    world = World(ZeroDivisionError("secret detail"))
    with listening_to() as lines:
        response = await world.gate.handle(request(BLOB))
    world.close()
    assert response.status == 500
    assert "secret" not in told(response)
    assert json.loads(told(response))["errors"][0]["code"] == "UNKNOWN"
    (record,) = lines.records
    assert record.exc_info is not None
    assert "secret detail" in str(record.exc_info[1])


@pytest.mark.parametrize(
    ("query", "authority", "namespace"),
    [("?ns=docker.io", "mxart.test", "docker.io"), ("?ns=docker.io", "docker.io", None), ("", "mxart.test", None)],
)
async def test_what_was_found_by_its_namespace_says_so(query: str, authority: str, namespace: str | None) -> None:
    found = Found(SUM, 1, b"x", Headers([("content-type", "a/b")]), '"x"', ready=Response(200, Headers([("a", "b")])))
    world = World(found)
    response = await world.gate.handle(request(BLOB + query, authority=authority))
    world.close()
    assert (response.status, response.headers.get("a")) == (200, "b")
    assert response.headers.get("oci-namespace") == namespace
    assert found.ready is not None
    assert found.ready.headers.get("oci-namespace") is None, "what everybody is answered with stays as it is"


async def test_a_body_that_breaks_before_its_first_byte_is_upstreams_failure() -> None:
    world = World(errors.BodyBroken("the digest is another"))
    response = await world.gate.handle(request(BLOB))
    world.close()
    assert response.status == 502
    assert "the digest is another" in json.loads(told(response))["errors"][0]["message"]


async def test_cancellation_is_no_error() -> None:
    world = World()
    with trio.CancelScope() as scope:
        scope.cancel()
        await world.gate.handle(request(BLOB))
    world.close()
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("target", "authority", "status", "part"),
    [
        ("/nowhere", "x", 404, "/v2/"),
        ("/v2/a/tags/list?ns=evil.test", "x", 404, "NAME_UNKNOWN"),
        ("/v2/", "a/b", 400, "errors"),
        ("/-/nothing", "x", 404, "/-/health"),
        ("/-/health", "x", 200, "alive"),
        ("/-/ready", "x", 200, "ready"),
        ("/-/ca.pem", "x", 200, "BEGIN CERTIFICATE"),
        ("/-/metrics", "x", 200, "mxart_connections"),
    ],
)
async def test_what_is_not_a_repositorys_is_answered_too(target: str, authority: str, status: int, part: str) -> None:
    world = World()
    response = await world.gate.handle(request(target, authority=authority))
    world.close()
    assert response.status == status
    assert part in told(response)


async def test_a_worker_that_drains_is_alive_and_not_ready() -> None:
    world = World(ready=False)
    ready, health = await world.gate.handle(request("/-/ready")), await world.gate.handle(request("/-/health"))
    deleted = await world.gate.handle(request("/-/health", method="DELETE"))
    world.close()
    assert (ready.status, health.status) == (503, 200)
    assert (deleted.status, deleted.headers.get("allow")) == (405, "GET, HEAD")


async def test_an_exchange_is_one_line_and_one_count() -> None:
    world = World()
    asked = request("/v2/", agent="docker/27 \x1b[31m\xff\u2028")
    response = await world.gate.handle(asked)
    asked.trace.notes.append("the file \udcff\ud800 is odd")
    world.gate.finished(asked, response, Sent(10.0, 10.25, 11.0, 2))
    (line,) = world.lines()
    world.close()
    assert {key: line[key] for key in ("client", "method", "path", "host", "protocol", "status", "bytes")} == {
        "client": "127.0.0.1",
        "method": "GET",
        "path": "/v2/",
        "host": "mxart.test",
        "protocol": "1.1",
        "status": 200,
        "bytes": 2,
    }
    assert line["agent"] == "docker/27 \x1b[31m\xff\u2028"
    assert line["why"] == "the file \\udcff\\ud800 is odd"
    assert world.counted("mxart_exchanges_total") == {("static", "r", "2xx"): 1}
    assert world.counted("mxart_sent_bytes_total") == {("r",): 2}
    assert world.counted("mxart_first_byte_seconds_count") == {("r",): 1}


async def test_times_and_reasons_are_in_the_line() -> None:
    world = World(errors.UpstreamTimeout("upstream said nothing"))
    asked = Request("GET", BLOB, "docker.io", Headers(), Peer("::1", 1, scheme="https", sni="docker.io"), version="2")
    asked.trace.upstream_requests, asked.trace.upstream_seconds = 2, 1.5
    response = await world.gate.handle(asked)
    world.gate.finished(asked, response, Sent(10.0, 10.25, 11.0, 2, "the peer reset the connection"))
    (line,) = world.lines()
    world.close()
    assert (line["protocol"], line["status"], line["repository"]) == ("2+tls", 504, "r")
    assert (line["first_byte_ms"], line["total_ms"], line["upstream_ms"]) == (250, 1000, 1500)
    assert (line["upstream_requests"], line["agent"]) == (2, "")
    assert line["why"] == "504: upstream said nothing"
    assert line["error"] == "the peer reset the connection"
    assert world.counted("mxart_exchanges_total") == {("hit", "r", "cut"): 1}


async def test_a_refusal_of_the_wire_is_a_line_and_a_count_too() -> None:
    world = World()
    response = world.gate.refuse(431, "the head is too large", PEER)
    (line,) = world.lines()
    world.close()
    assert (response.status, line["status"], line["client"]) == (431, 431, "127.0.0.1")
    assert world.counted("mxart_refused_connections_total") == {(): 1}


@pytest.mark.parametrize("when", ["while the file grows", "before the answer is there"])
async def test_a_client_that_leaves_is_counted_once_and_nothing_stays_open(when: str, tmp_path: Path) -> None:
    before = open_files()
    file = tmp_path / "growing"
    file.write_bytes(b"x" * 1000)
    source = FakeSource(file, 1 << 20) if when == "while the file grows" else None
    found = Found(SUM, 1 << 20, source, Headers(), "") if source is not None else None
    world = World(found)
    server, client = tcp_pair()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            transport = PlainTransport(server, PEER, 5.0)
            nursery.start_soon(serve_http1, transport, world.gate, Http1Limits(), Draining())
            await client.send(f"GET {BLOB} HTTP/1.1\r\nHost: docker.io\r\n\r\n".encode())
            if source is not None:
                assert await client.recv(10) == b"HTTP/1.1 2"
                await source.waiting.wait()
            client.close()
            if source is not None:
                source.grow(b"x" * 100_000)
                await trio.lowlevel.checkpoint()
                source.grow(b"x" * (1 << 19))
    (line,) = world.lines()
    world.close()
    assert line["error"]
    assert world.counted("mxart_exchanges_total") == {("hit", "r", "cut"): 1}
    assert open_files() <= before
