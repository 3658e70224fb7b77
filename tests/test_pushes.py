"""The whole program takes pushes, over two workers, from many clients at once and while workers are killed.

What was acknowledged is there, whole, for every worker, at once and after any kill; what was not can be sent again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from kit.http import Got, get, head
from kit.publishing import pushed_image
from kit.servers import Mxart, mxart

CONFIG = """
[repository.own]
format = "oci"
kind = "local"
path = "/"
[repository.hub]
format = "oci"
kind = "proxy"
upstream = "http://127.0.0.1:9"
path = "/hub"
[[permission]]
repository = "own"
groups = "anonymous"
actions = ["read", "publish", "overwrite", "delete"]
"""
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
PUSHES = 48
KILLS = 5  # a worker that dies often is given longer and longer pauses
LAYER = random.Random(7).randbytes(3_000_000)  # the same each time


def sum_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Client:
    """Pushes as clients do: each request on a connection of its own, so any worker may get it."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def say(self, method: str, target: str, body: bytes | None = None, **fields: str) -> Got:
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        return await get(self.port, target, method=method, headers=headers, body=body)

    async def begin(self, package: str) -> str:
        begun = await self.say("POST", f"/v2/{package}/blobs/uploads/", b"")
        assert begun.status == 202
        return begun.headers["location"]

    async def push_blob(self, package: str, data: bytes) -> Got:
        location = await self.begin(package)
        half = len(data) // 2
        sent = await self.say("PATCH", location, data[:half])
        assert (sent.status, sent.headers["range"]) == (202, f"0-{max(0, half - 1)}")
        return await self.say("PUT", f"{location}?digest={sum_of(data)}", data[half:])

    async def push_manifest(self, package: str, reference: str, data: bytes) -> Got:
        return await self.say("PUT", f"/v2/{package}/manifests/{reference}", data, content_type=MANIFEST)

    async def check_image(self, package: str, manifest: bytes) -> None:
        """It is there, with all that it needs, byte by byte."""
        got = await self.say("GET", f"/v2/{package}/manifests/{sum_of(manifest)}")
        assert (got.status, got.body) == (200, manifest)
        image = json.loads(manifest)
        for item in (image["config"], *image["layers"]):
            blob = await self.say("GET", f"/v2/{package}/blobs/{item['digest']}")
            assert (blob.status, sum_of(blob.body), blob.complete) == (200, item["digest"], True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mxart]:
    with mxart(tmp_path_factory.mktemp("pushes"), CONFIG, workers=2) as server:
        yield server


@pytest.fixture
def client(server: Mxart) -> Client:
    return Client(server.port)


def workers(server: Mxart) -> list[int]:
    pid = server.service.pid
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_the_same_blob_and_the_same_tag_are_pushed_by_many_at_once(client: Client) -> None:
    manifests = [pushed_image(f"by {number}", LAYER) for number in range(8)]

    async def push(manifest: bytes) -> None:
        for data in (b"{}", LAYER):
            assert (await client.push_blob("crowd", data)).status == 201
        assert (await client.push_manifest("crowd", "latest", manifest)).status == 201
        await client.check_image("crowd", manifest)

    async with trio.open_nursery() as nursery:
        for manifest in manifests:
            nursery.start_soon(push, manifest)
    latest = await client.say("GET", "/v2/crowd/manifests/latest")
    assert latest.body in manifests
    tags = await client.say("GET", "/v2/crowd/tags/list")
    assert json.loads(tags.body) == {"name": "crowd", "tags": ["latest"]}
    for manifest in manifests:
        await client.check_image("crowd", manifest)


async def test_one_upload_that_two_send_to_at_once_is_never_a_mixture(client: Client) -> None:
    location = await client.begin("race")
    got: list[Got] = []

    async def send(data: bytes) -> None:
        got.append(await client.say("PATCH", location, data, content_range=f"0-{len(data) - 1}"))

    pieces = [bytes([number]) * 500_000 for number in range(6)]
    async with trio.open_nursery() as nursery:
        for piece in pieces:
            nursery.start_soon(send, piece)
    assert sorted(answer.status for answer in got) == [202] + [416] * 5
    done = [await client.say("PUT", f"{location}?digest={sum_of(piece)}", b"") for piece in pieces]
    assert sorted(answer.status for answer in done)[:1] == [201]
    assert {answer.status for answer in done} <= {201, 400, 404}


async def test_what_is_deleted_is_gone_for_every_worker_at_once(client: Client) -> None:
    await client.push_blob("gone", b"{}")
    for round_ in range(10):
        manifest = pushed_image(f"round {round_}")
        digest = sum_of(manifest)
        paths = ["/v2/gone/manifests/1", f"/v2/gone/manifests/{digest}"]
        await client.push_manifest("gone", "1", manifest)
        for path in paths * 4:  # every worker remembers it
            assert (await client.say("GET", path)).body == manifest
        assert (await client.say("DELETE", f"/v2/gone/manifests/{digest}")).status == 202
        answers = [(await client.say("HEAD", path)).status for path in paths * 4]
        assert answers == [404] * 8


async def test_a_tag_that_moves_has_moved_for_every_worker(client: Client) -> None:
    await client.push_blob("moving", b"{}")
    for number in range(10):
        manifest = pushed_image(f"{number}")
        assert (await client.push_manifest("moving", "1", manifest)).status == 201
        seen = [(await client.say("GET", "/v2/moving/manifests/1")).body for _ in range(6)]
        assert seen == [manifest] * 6


async def test_ten_thousand_tags_are_listed_whole_and_in_pages(client: Client) -> None:
    await client.push_blob("tags", b"{}")
    manifest = pushed_image("many")
    names = [f"v{number:05}" for number in range(10_000)]
    for start in range(0, len(names), 100):
        query = "&".join(f"tag={name}" for name in names[start : start + 100])
        got = await client.push_manifest("tags", f"{sum_of(manifest)}?{query}", manifest)
        assert got.status == 201
    whole = await client.say("GET", "/v2/tags/tags/list")
    assert json.loads(whole.body)["tags"] == names
    page = await client.say("GET", "/v2/tags/tags/list?n=10&last=v09990")
    assert (json.loads(page.body)["tags"], page.headers.get("link")) == (names[9991:], None)
    page = await client.say("GET", "/v2/tags/tags/list?n=3&last=v00997")
    assert json.loads(page.body)["tags"] == names[998:1001]
    assert page.headers["link"] == '</v2/tags/tags/list?n=3&last=v01000>; rel="next"'
    empty = await client.say("GET", "/v2/tags/tags/list?n=0")
    assert (json.loads(empty.body)["tags"], empty.headers.get("link")) == ([], None)


async def test_a_manifest_of_nearly_four_megabytes_makes_the_round(client: Client) -> None:
    await client.push_blob("big", b"{}")
    manifest = pushed_image("", annotations={f"key{number}": "v" * 1000 for number in range(3850)})
    assert 3_900_000 < len(manifest) < 4 << 20
    assert (await client.push_manifest("big", "1", manifest)).status == 201
    await client.check_image("big", manifest)


@pytest.mark.parametrize(
    "target",
    [
        "/v2/../../etc/passwd/blobs/uploads/",
        "/v2/a/%2e%2e/%2e%2e/blobs/uploads/",
        "/v2/a%2f..%2fb/blobs/uploads/",
        "/v2/a/blobs/uploads/..%2f..%2f..%2fcatalog.sqlite?digest=" + sum_of(b""),
        "/v2/a/blobs/uploads/../../x?digest=" + sum_of(b""),
        "/v2/a/blobs/uploads/%00?digest=" + sum_of(b""),
        "/v2/a/blobs/uploads/x?digest=sha256:..%2f..%2f..%2f" + "a" * 55,
        "/v2/a/manifests/..%2f..%2fx",
        "/v2/a/manifests/%2e%2e",
        "/v2/a/manifests/sha256:..%2f..%2f",
        "/v2/" + "a/" * 4000 + "manifests/x",
    ],
)
async def test_path_tricks_find_nothing_and_leave_nothing(server: Mxart, client: Client, target: str) -> None:
    before = sorted(path for path in server.data.rglob("*") if path.suffix == "")
    for method in ("POST", "PUT", "PATCH", "DELETE", "GET"):
        got = await client.say(method, target, b"")
        assert got.status in (400, 404, 405, 414), (method, got)
        assert json.loads(got.body or b"{}") is not None
    assert sorted(path for path in server.data.rglob("*") if path.suffix == "") == before


async def test_what_is_refused_early_is_refused_with_its_reason_whatever_follows(client: Client) -> None:
    body = bytes(20_000_000)
    for method, target, status in (
        ("PUT", "/v2/a/manifests/1", 413),
        ("POST", "/v2/hub/a/blobs/uploads/", 405),
        ("PATCH", "/v2/a/blobs/uploads/nobody", 404),
    ):
        got = await client.say(method, target, body)
        assert got.status in (status, 0), "the connection may be gone before the answer is read"
    assert (await client.say("GET", "/-/health")).status == 200


async def test_a_client_that_left_in_the_middle_goes_on_from_what_came(client: Client) -> None:
    location = await client.begin("left")
    fields = {"content-length": str(len(LAYER)), "content-range": f"0-{len(LAYER) - 1}"}
    async with await trio.open_tcp_stream("127.0.0.1", client.port) as stream:
        await stream.send_all(head(location, method="PATCH", headers=fields) + LAYER[:1_234_567])
    came, sent = 0, None
    with trio.fail_after(20):
        while sent is None or sent.status in (416, 503):  # until it is noticed that the client has left
            rest = LAYER[came:]
            sent = await client.say("PATCH", location, rest, content_range=f"{came}-{len(LAYER) - 1}")
            if sent.status == 416:
                came = int(sent.headers["range"].removeprefix("0-")) + 1
    assert sent.status == 202
    assert 0 < came <= 1_234_567
    assert (await client.say("PUT", f"{location}?digest={sum_of(LAYER)}", b"")).status == 201
    assert (await client.say("GET", f"/v2/left/blobs/{sum_of(LAYER)}")).body == LAYER


async def test_an_upload_goes_on_after_the_whole_program_was_killed(tmp_path: Path) -> None:
    with mxart(tmp_path, CONFIG, workers=2) as server:
        client = Client(server.port)
        location = await client.begin("app")
        assert (await client.say("PATCH", location, LAYER[:2_000_000])).status == 202
        for pid in workers(server):
            os.kill(pid, signal.SIGKILL)
    with mxart(tmp_path, CONFIG, workers=2) as server:
        client = Client(server.port)
        status = await client.say("GET", location)
        assert (status.status, status.headers["range"]) == (204, "0-1999999")
        done = await client.say("PUT", f"{location}?digest={sum_of(LAYER)}", LAYER[2_000_000:])
        assert done.status == 201
        got = await client.say("GET", f"/v2/app/blobs/{sum_of(LAYER)}")
        assert got.body == LAYER


async def test_workers_killed_at_any_moment_of_a_push_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    choice = random.Random(3)
    acknowledged: list[bytes] = []
    broken: list[str] = []
    with mxart(tmp_path, CONFIG, workers=2) as server:
        client = Client(server.port)

        asked = 0
        at = trio.Event()

        async def push(name: str) -> None:
            """From the beginning until it is acknowledged."""
            nonlocal asked, at
            layer = name.encode() * 20_000
            manifest = pushed_image(name, layer)
            while True:
                asked += 1
                at.set()
                at = trio.Event()
                try:
                    for data in (b"{}", layer):
                        assert (await client.push_blob("app", data)).status == 201
                    assert (await client.push_manifest("app", name, manifest)).status == 201
                except (AssertionError, OSError, KeyError):  # a connection that was cut
                    broken.append(name)
                else:
                    acknowledged.append(manifest)
                    return

        async def pushes(first: int) -> None:
            for number in range(first, first + PUSHES // 4):
                await push(f"tag{number}")

        async def kill() -> None:
            """One after the other, each time some pushes on: where in theirs the others are is chance."""
            for _ in range(KILLS):
                until = asked + choice.randrange(1, 5)
                while asked < until:
                    await at.wait()
                with contextlib.suppress(IndexError, ProcessLookupError):  # the last one has no successor yet
                    os.kill(choice.choice(workers(server)), signal.SIGKILL)

        with trio.fail_after(90):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(kill)
                async with trio.open_nursery() as pushers:
                    for first in range(0, PUSHES, PUSHES // 4):
                        pushers.start_soon(pushes, first)
                nursery.cancel_scope.cancel()
            tags = None
            while tags is None or not tags.complete or tags.status != 200:
                with contextlib.suppress(OSError):  # the last one killed is not followed yet
                    tags = await client.say("GET", "/v2/app/tags/list")
        assert len(acknowledged) == PUSHES
        assert broken, "nobody was hit"
        assert len(json.loads(tags.body)["tags"]) == PUSHES
        for manifest in acknowledged:
            await client.check_image("app", manifest)


async def test_while_space_is_given_back_without_any_grace_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """Layers are mounted while their names elsewhere are deleted, and swept before their manifest comes."""
    acknowledged: list[tuple[str, bytes]] = []
    with mxart(tmp_path, CONFIG, workers=2) as server:
        client = Client(server.port)
        collect = [sys.executable, "-m", "mxart", "--config", str(tmp_path / "mxart.toml"), "--data", str(server.data)]
        collect += ["gc", "--grace", "0", "--json"]

        async def has(package: str, data: bytes) -> None:
            """Mounted from `base` if it can be, else pushed."""
            target = f"/v2/{package}/blobs/uploads/?mount={sum_of(data)}&from=base"
            mounted = await client.say("POST", target, b"")
            assert mounted.status in (201, 202)
            if mounted.status == 202:
                assert (await client.push_blob(package, data)).status in (201, 503)

        async def push(package: str) -> None:
            for number in range(4):
                layer = f"layer {number}".encode() * 10_000
                manifest = pushed_image(f"{package} {number}", layer)
                status = 400
                while status == 400:
                    await has("base", layer)
                    for data in (b"{}", layer):
                        await has(package, data)
                    await client.say("DELETE", f"/v2/base/blobs/{sum_of(layer)}")
                    answer = await client.push_manifest(package, str(number), manifest)
                    status = answer.status
                    assert status == 201 or b"MANIFEST_BLOB_UNKNOWN" in answer.body
                acknowledged.append((package, manifest))

        async def collecting() -> None:
            while True:
                await trio.run_process(collect, capture_stdout=True)

        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(collecting)
                async with trio.open_nursery() as pushers:
                    for name in ("a", "b", "c"):
                        pushers.start_soon(push, name)
                nursery.cancel_scope.cancel()
        assert len(acknowledged) == 12
        await trio.run_process(collect, capture_stdout=True)
        for package, manifest in acknowledged:
            await client.check_image(package, manifest)
