"""The whole program between a misbehaving upstream and a client that checks everything.

In no case a false "not found", a complete wrong body, or a server that is worse off afterwards.  Each story
has a repository of its own, so that no breaker of one is open in another.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from kit.http import Got, get, head, parse
from kit.servers import Mxart, free_port, mxart
from kit.store import small_file_system
from kit.upstream import FakeUpstream, Say, challenge, fake_upstream, html, redirect, say

REPOSITORIES = 64
BIG = random.Random(1).randbytes(3_000_000)  # the same each time
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def config(port: int, *, more: str = "") -> str:
    tables = (
        f'[repository.r{n}]\nformat = "oci"\nkind = "proxy"\nupstream = "http://127.0.0.1:{port}"\npath = "/r{n}"\n'
        f"ttl = 0\nnegative_ttl = 0\n"
        for n in range(REPOSITORIES)
    )
    return "[upstreams]\nfirst_byte_seconds = 1\nidle_seconds = 1\nconnect_seconds = 2\n" + more + "".join(tables)


@dataclass
class Bench:
    """A running server, and what tells its descriptors."""

    server: Mxart
    upstream_port: int
    used: int = 0

    def repository(self) -> str:
        self.used += 1
        return f"r{self.used - 1}"

    async def get(self, target: str, **more: object) -> Got:
        return await get(self.server.port, target, **more)  # type: ignore[arg-type]

    def worker(self) -> int:
        pid = self.server.service.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def sockets(self) -> int:
        """Open connections of the worker, its listener among them."""
        found = 0
        for entry in Path(f"/proc/{self.worker()}/fd").iterdir():
            try:
                found += str(entry.readlink()).startswith("socket:")
            except FileNotFoundError:
                continue
        return found


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    port = free_port()
    with mxart(tmp_path_factory.mktemp("survives"), config(port)) as server:
        yield Bench(server, port)


@pytest.fixture
async def upstream(bench: Bench) -> AsyncIterator[FakeUpstream]:
    async with fake_upstream(port=bench.upstream_port) as fake:
        fake.on("/v2/", say(b"{}"))
        yield fake


def manifest(note: str) -> bytes:
    descriptor = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(b"{}"), "size": 2}
    return json.dumps(
        {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": descriptor, "layers": [], "x": note}
    ).encode()


def blob(note: str) -> bytes:
    return note.encode() + BIG


TROUBLE: list[tuple[str, Callable[[bytes], Say], set[int]]] = [
    ("an HTML page with 200", lambda _: html(), {502}),
    ("401 without an end", lambda _: challenge('Bearer realm="http://127.0.0.1:1/none"'), {502, 503}),
    ("403", lambda _: say("no", 403), {502}),
    ("429 with Retry-After", lambda _: say("slow down", 429, headers={"retry-after": "120"}), {503}),
    ("500", lambda _: say("oops", 500), {502}),
    ("503", lambda _: say("later", 503, headers={"retry-after": "60"}), {503}),
    ("a redirect in a circle", lambda _: redirect("/v2/round"), {502}),
    ("a redirect to nowhere", lambda _: redirect("http://127.0.0.1:1/"), {502, 503}),
    ("a reset before the head", lambda _: Say(reset_after=-1), {502, 503}),
    ("silence", lambda _: Say(stall_after=-1), {504}),
    ("garbage", lambda _: Say(raw=b"\x00\x01\x02 nonsense\r\n\r\n"), {502}),
    ("bytes in a coding nobody asked for", lambda data: say(data, headers={"content-encoding": "gzip"}), {502}),
]


@pytest.mark.parametrize(("what", "answer", "statuses"), TROUBLE, ids=[name for name, _, _ in TROUBLE])
async def test_trouble_upstream_is_never_not_found(
    bench: Bench, upstream: FakeUpstream, what: str, answer: Callable[[bytes], Say], statuses: set[int]
) -> None:
    name = bench.repository()
    data, layer = manifest(what), blob(what)
    upstream.on("/v2/round", redirect("/v2/round"))
    upstream.on("/v2/a/manifests/1", answer(data))
    upstream.on(f"/v2/a/blobs/{digest(layer)}", answer(layer))
    found = await bench.get(f"/v2/{name}/a/manifests/1")
    assert found.status in statuses, found
    assert found.complete
    assert json.loads(found.body)["errors"][0]["message"], "the refusal says why"
    if found.status == 503:
        assert int(found.headers["retry-after"]) >= 1
    other = bench.repository()
    found = await bench.get(f"/v2/{other}/a/blobs/{digest(layer)}")
    assert found.status in statuses or (found.status == 200 and not found.complete), found


@pytest.mark.parametrize("problem", [pytest.param(p, id=n) for n, p, _ in TROUBLE if n != "garbage"])
async def test_a_tag_that_is_kept_is_served_stale_and_marked(
    bench: Bench, upstream: FakeUpstream, problem: Callable[[bytes], Say]
) -> None:
    name = bench.repository()
    data = manifest("kept")
    upstream.on("/v2/round", redirect("/v2/round"))
    upstream.on(
        "/v2/a/manifests/1", say(data, headers={"content-type": MANIFEST_TYPE, "docker-content-digest": digest(data)})
    )
    fresh = await bench.get(f"/v2/{name}/a/manifests/1")
    assert (fresh.status, fresh.body) == (200, data)
    assert "warning" not in fresh.headers
    upstream.on("/v2/a/manifests/1", problem(data))
    stale = await bench.get(f"/v2/{name}/a/manifests/1")
    assert (stale.status, stale.body) == (200, data)
    assert re.match(r"11[01] ", stale.headers["warning"]), stale.headers


WRONG: list[tuple[str, Callable[[bytes], Say]]] = [
    ("other bytes", lambda data: say(data[:-1] + bytes([data[-1] ^ 1]))),
    ("other bytes at the start", lambda data: say(bytes([data[0] ^ 1]) + data[1:])),
    ("a short body", lambda data: say(data[:-5])),
    ("a long body", lambda data: say(data + b"more")),
    (
        "a short body that claims the length",
        lambda data: Say(body=data[:-5], length=len(data), close=True, ranges=False),
    ),
    ("a body without a length that ends early", lambda data: Say(body=data[:2_000_000], no_length=True, ranges=False)),
    ("an HTML page", lambda _: html()),
    ("nothing at all", lambda _: say(b"")),
]


@pytest.mark.parametrize(("what", "answer"), WRONG, ids=[name for name, _ in WRONG])
async def test_nobody_ever_receives_a_complete_wrong_blob(
    bench: Bench, upstream: FakeUpstream, what: str, answer: Callable[[bytes], Say]
) -> None:
    name = bench.repository()
    layer = blob("wrong " + what)
    path = f"/v2/a/blobs/{digest(layer)}"
    upstream.on(path, answer(layer))
    found = await bench.get(f"/v2/{name}{path[3:]}")
    assert found.status != 404
    if found.status == 200:
        assert not found.complete
        assert found.body != layer
    # Upstream comes to its senses: nothing of the wrong bytes was kept.
    upstream.on(path, say(layer))
    again = await bench.get(f"/v2/{bench.repository()}{path[3:]}")
    assert (again.status, again.complete, digest(again.body)) == (200, True, digest(layer))


async def test_a_transfer_that_breaks_is_resumed_and_nobody_notices(bench: Bench, upstream: FakeUpstream) -> None:
    name, layer = bench.repository(), blob("resumed")
    path = f"/v2/a/blobs/{digest(layer)}"
    upstream.on(path, Say(body=layer, reset_after=1_000_000), Say(body=layer, stall_after=500_000), say(layer))
    found = await bench.get(f"/v2/{name}{path[3:]}")
    assert (found.status, found.complete, digest(found.body)) == (200, True, digest(layer))
    assert [seen.headers.get("range", "")[:6] for seen in upstream.requests if seen.path == path] == [
        "",
        "bytes=",
        "bytes=",
    ]


async def test_the_first_of_many_leaves_and_all_others_get_everything_from_one_get(
    bench: Bench, upstream: FakeUpstream
) -> None:
    name, layer = bench.repository(), blob("many")
    path = f"/v2/a/blobs/{digest(layer)}"
    gate = trio.Event()
    upstream.on(path, Say(body=layer, body_gate=gate))
    found: list[Got] = []
    first = await trio.open_tcp_stream("127.0.0.1", bench.server.port)
    await first.send_all(head(f"/v2/{name}{path[3:]}"))
    await upstream.until(lambda: upstream.count(path, "GET") == 1)

    async def another() -> None:
        found.append(await bench.get(f"/v2/{name}{path[3:]}"))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(another)
        first.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await first.aclose()
        gate.set()
    assert {(got.status, got.complete, digest(got.body)) for got in found} == {(200, True, digest(layer))}
    assert upstream.count(path, "GET") == 1


async def test_a_download_whose_every_client_left_is_there_for_the_next_one(
    bench: Bench, upstream: FakeUpstream
) -> None:
    name, layer = bench.repository(), blob("left")
    path = f"/v2/a/blobs/{digest(layer)}"
    gate = trio.Event()
    upstream.on(path, Say(body=layer, body_gate=gate))
    client = await trio.open_tcp_stream("127.0.0.1", bench.server.port)
    await client.send_all(head(f"/v2/{name}{path[3:]}"))
    await upstream.until(lambda: upstream.count(path) == 1)
    await client.aclose()
    gate.set()
    found = await bench.get(f"/v2/{name}{path[3:]}")
    assert (found.status, digest(found.body)) == (200, digest(layer))
    assert upstream.count(path, "GET") == 1


async def test_a_reader_at_a_trickle_holds_nobody_up_and_gets_it_all(bench: Bench, upstream: FakeUpstream) -> None:
    name, layer = bench.repository(), blob("trickle")
    path = f"/v2/a/blobs/{digest(layer)}"
    upstream.on(path, say(layer))
    slow = trio.socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await slow.connect(("127.0.0.1", bench.server.port))
    await slow.send(head(f"/v2/{name}{path[3:]}"))
    data = await slow.recv(1024)
    quick = await bench.get(f"/v2/{name}{path[3:]}")
    assert digest(quick.body) == digest(layer)
    while chunk := await slow.recv(65536):
        data += chunk
    slow.close()
    got = parse(data)
    assert (got.complete, digest(got.body)) == (True, digest(layer))


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x00\x01\x02\x03garbage", 0),
        (b"\x16\x03\x01\x00", 0),
        (b"GET /v2/", 0),
        (b"GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
        (b"POST /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 200_000 + b"\r\n\r\n", 431),
        (b"GET /v2/ HTTP/1.1\r\n\r\n", 400),
        (b"GET /v2/r0/%00%2e%2e/manifests/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 400),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404),
    ],
)
async def test_what_strangers_send_is_refused_and_the_server_lives(bench: Bench, sent: bytes, status: int) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", bench.server.port)
    async with stream:
        data = b""
        try:
            await stream.send_all(sent)
            await stream.send_eof()
            while chunk := await stream.receive_some(65536):
                data += chunk
        except (trio.BrokenResourceError, OSError):
            pass
    assert parse(data).status == status
    assert (await bench.get("/-/health")).status == 200


async def test_ten_thousand_idle_connections_leave_room_for_work(tmp_path: Path) -> None:
    with mxart(tmp_path, "[limits]\nconnections = 12000\nhandshake_seconds = 120\n") as server:
        streams: list[socket.socket] = []
        try:
            for _ in range(10_000):
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", server.port))
                streams.append(one)
                if len(streams) % 200 == 0:
                    assert (await get(server.port, "/-/health")).status == 200
            assert (await get(server.port, "/-/health")).status == 200
            metrics = (await get(server.port, "/-/metrics")).body.decode()
            opened = re.search(r"^mxart_connections (\S+)$", metrics, re.MULTILINE)
            assert opened is not None
            assert float(opened[1]) > 9_900
        finally:
            for one in streams:
                one.close()


async def test_a_full_disk_costs_the_cache_and_no_client(tmp_path: Path) -> None:
    layer = blob("full disk")
    path = f"/v2/a/blobs/{digest(layer)}"
    async with fake_upstream() as upstream:
        upstream.on(path, say(layer))
        with small_file_system(tmp_path / "disk", "1m") as disk:
            small = f'[store.default]\npath = "{disk}"\n'
            with mxart(tmp_path / "run", config(upstream.port, more=small)) as server:
                found = await get(server.port, f"/v2/r0{path[3:]}")
                assert (found.status, found.complete, digest(found.body)) == (200, True, digest(layer))
                assert "cannot be stored" in server.log() or "No space" in server.log(), server.log()
                assert not [p for p in disk.rglob("*") if p.is_file() and p.name == digest(layer)[7:]]


async def test_after_all_that_no_connection_is_left_behind(bench: Bench, upstream: FakeUpstream) -> None:
    with trio.fail_after(20):
        while upstream.open_connections > 4 or bench.sockets() > 12:  # noqa: ASYNC110 # another process closes them, and tells nobody
            await trio.sleep(0.05)
    assert "Traceback" not in bench.server.log()
