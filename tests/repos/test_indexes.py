"""Documents that tell what there is: composed, fetched or merged, never short, and always as their checksums say."""

from __future__ import annotations

import hashlib

import msgspec.structs
import pytest
import trio
import trio.testing
from msgspec.structs import replace

from kit.boxes import Boxes, sums
from kit.repos import Answer, FakeUpstream, World, body_of, request
from mxart.digest import Digest
from mxart.errors import BodyBroken, Problem, UpstreamFailed, UpstreamUnavailable
from mxart.message import Response
from mxart.repos.answers import answer
from mxart.repos.base import Repository
from mxart.repos.computed import Given
from mxart.repos.group import Group
from mxart.repos.local import Local
from mxart.repos.proxy import Proxy
from mxart.repos.remote import Rules
from mxart.store.base import FileRecord, VersionRecord

DATE = "Wed, 03 Jan 2024 03:04:05 GMT"
SAW = "tools/saw"


class Bench:
    """A local repository, two proxies of upstreams of their own, and a group of all three."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.own: Local = world.local("own", form=Boxes())
        self.upstreams = [FakeUpstream(), FakeUpstream()]
        rules = Rules(ttl=100.0, negative_ttl=50.0)
        self.mirrors: list[Proxy] = [
            world.proxy(name, upstream=upstream, form=Boxes(), rules=rules)
            for name, upstream in zip(("one", "two"), self.upstreams, strict=True)
        ]
        self.all = Group("all", Boxes(), (self.own, *self.mirrors))
        self.given = Given(clock=world.clock)

    def publish(self, version: str, data: bytes = b"a saw", package: str = SAW, repository: str = "own") -> None:
        now = self.world.clock()
        path = f"{package}/{version}/{package.rpartition('/')[2]}.bin"
        digest = Digest.of(data)
        self.world.blobs.kept[digest] = data
        record = FileRecord(repository, package, path, digest, len(data), "a/b", created=now, checksum=sums(data))
        self.world.catalog.files[repository, path] = record
        tags = self.world.catalog.tag_names.setdefault((repository, package), {})
        tags[version] = VersionRecord(version, digest, now)
        self.world.catalog.writes += 1

    def serve(self, number: int, path: str, data: bytes, *fields: tuple[str, str]) -> Answer:
        made = Answer(data, [("content-length", str(len(data))), *fields])
        self.upstreams[number].answers[path] = made
        return made

    async def get(
        self, repository: Repository, path: str, *fields: tuple[str, str], method: str = "GET", port: int = 1
    ) -> Response:
        asked = request(method, f"/{path}", *fields)
        asked = msgspec.structs.replace(asked, peer=replace(asked.peer, port=port))
        try:
            operation = repository.format.parse(method, asked.path, asked.query, asked.headers)
            return await answer(repository, operation, asked, given=self.given)
        except Problem as problem:
            return repository.format.word(problem)
        except BodyBroken as error:  # as the server has it
            return repository.format.word(UpstreamFailed(str(error)))

    async def text(self, repository: Repository, path: str, *, port: int = 1) -> tuple[int, str]:
        response = await self.get(repository, path, port=port)
        return response.status, (await body_of(response)).decode()


@pytest.fixture
def bench(nursery: trio.Nursery) -> Bench:
    return Bench(World(nursery))


async def test_a_local_repositorys_index_follows_what_is_published(bench: Bench) -> None:
    assert (await bench.text(bench.own, f"{SAW}/versions"))[0] == 404
    bench.publish("1.0")
    first = await bench.get(bench.own, f"{SAW}/versions")
    assert (await body_of(first), first.headers.get("cache-control")) == (b"1.0\n", "no-cache")
    assert first.headers.get("x-checksum-sha1") == hashlib.sha1(b"1.0\n").hexdigest()
    assert first.headers.get("last-modified") == "Fri, 15 Jan 2027 08:00:00 GMT"
    assert await bench.get(bench.own, f"{SAW}/versions") is first  # made once, sent often
    bench.publish("1.0", package="tools/axe")
    assert await bench.get(bench.own, f"{SAW}/versions") is first  # something else has changed
    bench.publish("1.1")
    assert await bench.text(bench.own, f"{SAW}/versions") == (200, "1.0\n1.1\n")


async def test_an_index_is_confirmed_by_its_tag_and_has_no_ranges(bench: Bench) -> None:
    bench.publish("1.0")
    whole = await bench.get(bench.own, f"{SAW}/versions")
    etag = whole.headers.get("etag") or ""
    assert whole.headers.get("accept-ranges") == "none"
    assert (await bench.get(bench.own, f"{SAW}/versions", ("if-none-match", etag))).status == 304
    part = await bench.get(bench.own, f"{SAW}/versions", ("range", "bytes=1-2"), ("if-range", etag))
    assert (part.status, await body_of(part)) == (200, b"1.0\n")
    head = await bench.get(bench.own, f"{SAW}/versions", method="HEAD")
    assert head.headers == whole.headers
    bench.publish("1.1")
    changed = await bench.get(bench.own, f"{SAW}/versions", ("if-none-match", etag))
    assert changed.status == 200


async def test_a_proxys_index_is_upstreams_and_stale_where_upstream_fails(bench: Bench) -> None:
    mirror, upstream = bench.mirrors[0], bench.upstreams[0]
    bench.serve(0, f"{SAW}/versions", b"1.0\n", ("last-modified", DATE))
    for _ in range(2):
        response = await bench.get(mirror, f"{SAW}/versions")
        assert (await body_of(response), response.headers.get("last-modified")) == (b"1.0\n", DATE)
    assert len(upstream.asked) == 1
    bench.serve(0, f"{SAW}/versions", b"1.0\n2.0\n")
    bench.world.clock.forward(101)
    assert await bench.text(mirror, f"{SAW}/versions") == (200, "1.0\n2.0\n")
    upstream.trouble = UpstreamUnavailable("it is down")
    bench.world.clock.forward(101)
    response = await bench.get(mirror, f"{SAW}/versions")
    assert (await body_of(response), response.status) == (b"1.0\n2.0\n", 200)
    assert "it is down" in (response.headers.get("warning") or "")
    upstream.trouble = None
    del upstream.answers[f"{SAW}/versions"]
    bench.world.clock.forward(101)
    assert (await bench.text(mirror, f"{SAW}/versions"))[0] == 404  # its own word makes it go away


@pytest.mark.parametrize("body", [b"<html>sign in</html>", b"", b" \n"], ids=["page", "empty", "blank"])
async def test_what_is_no_index_is_upstreams_failure_and_not_kept(bench: Bench, body: bytes) -> None:
    mirror = bench.mirrors[0]
    bench.serve(0, f"{SAW}/versions", body)
    assert (await bench.text(mirror, f"{SAW}/versions"))[0] == 502
    assert (await bench.text(bench.all, f"{SAW}/versions"))[0] == 502
    assert not bench.world.catalog.files
    bench.serve(0, f"{SAW}/versions", b"1.0\n")
    assert await bench.text(mirror, f"{SAW}/versions") == (200, "1.0\n")  # nor is it remembered as missing
    bench.serve(0, f"{SAW}/versions", body)
    bench.world.clock.forward(101)
    response = await bench.get(mirror, f"{SAW}/versions")
    assert (await body_of(response), "warning" in response.headers) == (b"1.0\n", True)


async def test_a_groups_index_is_that_of_all_its_members(bench: Bench) -> None:
    bench.serve(0, f"{SAW}/versions", b"1.0\n3.0\n")
    bench.serve(1, f"{SAW}/versions", b"2.0\n3.0\n")
    response = await bench.get(bench.all, f"{SAW}/versions")
    assert await body_of(response) == b"1.0\n2.0\n3.0\n"
    assert await bench.get(bench.all, f"{SAW}/versions") is response
    outer = Group("outer", Boxes(), (bench.all,))
    assert await bench.text(outer, f"{SAW}/versions") == (200, "1.0\n2.0\n3.0\n")
    del bench.upstreams[1].answers[f"{SAW}/versions"]
    bench.world.clock.forward(101)
    assert await bench.text(bench.all, f"{SAW}/versions") == (200, "1.0\n3.0\n")
    del bench.upstreams[0].answers[f"{SAW}/versions"]
    bench.world.clock.forward(101)
    assert (await bench.text(bench.all, f"{SAW}/versions"))[0] == 404


async def test_a_member_that_fails_leaves_nothing_out(bench: Bench) -> None:
    bench.serve(0, f"{SAW}/versions", b"1.0\n")
    bench.serve(1, f"{SAW}/versions", b"2.0\n")
    bench.upstreams[1].trouble = UpstreamUnavailable("two is down")
    status, text = await bench.text(bench.all, f"{SAW}/versions")
    assert (status, "two is down" in text) == (503, True)  # nothing is known of it: short would be a lie
    bench.upstreams[1].trouble = None
    assert await bench.text(bench.all, f"{SAW}/versions") == (200, "1.0\n2.0\n")
    bench.upstreams[1].trouble = UpstreamFailed("two sends pages")
    bench.world.clock.forward(101)
    bench.serve(0, f"{SAW}/versions", b"1.0\n1.1\n")
    response = await bench.get(bench.all, f"{SAW}/versions")
    assert await body_of(response) == b"1.0\n1.1\n2.0\n"  # the last that is known
    assert "two sends pages" in (response.headers.get("warning") or "")
    bench.upstreams[1].trouble = None
    bench.world.clock.forward(101)
    fine = await bench.get(bench.all, f"{SAW}/versions")
    assert (await body_of(fine), "warning" in fine.headers) == (b"1.0\n1.1\n2.0\n", False)


async def test_members_are_asked_at_once(bench: Bench) -> None:
    gate = trio.Event()
    for number in (0, 1):
        bench.serve(number, f"{SAW}/versions", b"%d.0\n" % number).gate = gate
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.text, bench.all, f"{SAW}/versions")
        await trio.testing.wait_all_tasks_blocked()
        assert [len(upstream.asked) for upstream in bench.upstreams] == [1, 1]
        gate.set()


async def test_an_index_that_only_makes_sense_whole_is_there_if_every_member_has_one(bench: Bench) -> None:
    bench.publish("1.0")
    bench.serve(0, "everything", b"org\n")
    assert (await bench.text(bench.all, "everything"))[0] == 404
    bench.serve(1, "everything", b"com\n")
    bench.world.clock.forward(101)
    assert await bench.text(bench.all, "everything") == (200, "com\norg\ntools\n")


async def test_what_is_published_here_is_asked_of_no_upstream(bench: Bench) -> None:
    bench.publish("1.0")
    bench.serve(0, f"{SAW}/versions", b"99.0\n")
    assert await bench.text(bench.all, f"{SAW}/versions") == (200, "1.0\n")
    assert await bench.text(bench.all, f"{SAW}/newest.bin") == (200, "a saw")
    assert (await bench.text(bench.all, f"{SAW}/99.0/saw.bin"))[0] == 404
    assert not bench.upstreams[0].asked


# checksums


async def test_an_index_and_its_checksum_agree_on_one_connection_whatever_is_published_between(bench: Bench) -> None:
    bench.publish("1.0")
    before, after = (hashlib.sha1(text).hexdigest() for text in (b"1.0\n", b"1.0\n1.1\n"))
    assert await bench.text(bench.own, f"{SAW}/versions", port=1) == (200, "1.0\n")
    bench.publish("1.1")
    assert await bench.text(bench.own, f"{SAW}/versions.sha1", port=1) == (200, before)
    assert await bench.text(bench.own, f"{SAW}/versions.sha1", port=2) == (200, after)
    assert await bench.text(bench.own, f"{SAW}/versions", port=1) == (200, "1.0\n1.1\n")
    assert await bench.text(bench.own, f"{SAW}/versions.sha1", port=1) == (200, after)
    bench.publish("1.2")
    bench.world.clock.forward(61)
    newest = hashlib.sha1(b"1.0\n1.1\n1.2\n").hexdigest()
    assert await bench.text(bench.own, f"{SAW}/versions.sha1", port=1) == (200, newest)


async def test_what_many_connections_were_given_fills_no_memory(bench: Bench) -> None:
    bench.publish("1.0")
    for port in range(1, 5000):
        await bench.text(bench.own, f"{SAW}/versions", port=port)
    bench.publish("1.1")
    first, last = [await bench.text(bench.own, f"{SAW}/versions.md5", port=port) for port in (1, 4999)]
    assert first == (200, hashlib.md5(b"1.0\n1.1\n").hexdigest())  # forgotten
    assert last == (200, hashlib.md5(b"1.0\n").hexdigest())


async def test_a_head_gives_nothing_that_a_checksum_would_be_of(bench: Bench) -> None:
    bench.publish("1.0")
    await bench.get(bench.own, f"{SAW}/versions", method="HEAD")
    bench.publish("1.1")
    assert await bench.text(bench.own, f"{SAW}/versions.sha1") == (200, hashlib.sha1(b"1.0\n1.1\n").hexdigest())


async def test_the_checksum_of_a_file_is_what_it_is_served_as(bench: Bench) -> None:
    bench.publish("1.0", b"sharp")
    path = f"{SAW}/1.0/saw.bin"
    for algorithm in ("sha1", "md5", "sha256"):
        response = await bench.get(bench.own, f"{path}.{algorithm}")
        assert (await body_of(response)).decode() == hashlib.new(algorithm, b"sharp").hexdigest()
        assert response.headers.get("cache-control") == "max-age=31536000, immutable"
        assert response.headers.get("content-type") == "text/plain"
    assert (await bench.get(bench.own, path)).headers.get("x-checksum-sha1") == hashlib.sha1(b"sharp").hexdigest()
    assert (await bench.text(bench.own, f"{SAW}/2.0/saw.bin.sha1"))[0] == 404
    assert not bench.world.blobs.opened


async def test_a_checksum_asked_for_first_fetches_the_file(bench: Bench) -> None:
    data = b"blade" * 40_000
    bench.serve(0, f"{SAW}/1.0/saw.bin", data)
    wanted = hashlib.sha1(data).hexdigest()
    assert await bench.text(bench.mirrors[0], f"{SAW}/1.0/saw.bin.sha1") == (200, wanted)
    assert await bench.text(bench.mirrors[0], f"{SAW}/1.0/saw.bin.sha1") == (200, wanted)
    assert await bench.text(bench.all, f"{SAW}/1.0/saw.bin") == (200, data.decode())
    assert len(bench.upstreams[0].asked) == 1
    assert not bench.world.blobs.opened


async def test_a_large_file_is_not_opened_for_its_head_or_its_checksum(bench: Bench) -> None:
    data = b"blade" * 40_000
    bench.publish("1.0", data)
    whole = await bench.get(bench.own, f"{SAW}/1.0/saw.bin")
    whole.body.close()
    opens = bench.world.blobs.opens
    head = await bench.get(bench.own, f"{SAW}/1.0/saw.bin", method="HEAD")
    assert (head.headers, head.body.length) == (whole.headers, len(data))
    for where in (bench.own, bench.all):
        wanted = hashlib.sha1(data).hexdigest()
        assert await bench.text(where, f"{SAW}/1.0/saw.bin.sha1") == (200, wanted)
    assert bench.world.blobs.opens == opens
    bench.world.blobs.kept.clear()  # published, and lost
    assert (await bench.get(bench.own, f"{SAW}/1.0/saw.bin", method="HEAD")).status == 500


@pytest.mark.parametrize("broken", [False, True], ids=["judged wrong", "broken off"])
async def test_there_is_no_checksum_of_a_file_that_is_not_right(bench: Bench, broken: bool) -> None:
    made = bench.serve(0, f"{SAW}/1.0/saw.bin", b"bad" * 1000)
    if broken:
        made.broken = UpstreamUnavailable("it broke off")
    status, text = await bench.text(bench.mirrors[0], f"{SAW}/1.0/saw.bin.sha1")
    assert (status, "it broke off" in text if broken else "a bad file" in text) == (502, True)
    assert not bench.world.catalog.files
    assert not bench.world.blobs.opened


async def test_the_checksum_of_a_file_that_is_missing_is_missing_for_a_while(bench: Bench) -> None:
    for _ in range(3):
        assert (await bench.text(bench.mirrors[0], f"{SAW}/1.0/saw.txt.sha1"))[0] == 404
    assert bench.upstreams[0].asked == [f"GET {SAW}/1.0/saw.txt"]


# aliases


async def test_an_alias_is_the_file_that_its_index_tells(bench: Bench) -> None:
    bench.publish("1.0", b"old")
    bench.publish("1.1", b"new")
    response = await bench.get(bench.own, f"{SAW}/newest.bin")
    assert (await body_of(response), response.headers.get("cache-control")) == (b"new", "no-cache")
    assert response.headers.get("etag") == f'"{Digest.of(b"new")}"'
    assert await bench.text(bench.own, f"{SAW}/newest.bin.sha1") == (200, hashlib.sha1(b"new").hexdigest())
    part = await bench.get(bench.own, f"{SAW}/newest.bin", ("range", "bytes=1-"))
    assert (part.status, await body_of(part)) == (206, b"ew")
    bench.publish("1.2", b"newer")
    assert await bench.text(bench.own, f"{SAW}/newest.bin") == (200, "newer")
    assert (await bench.text(bench.own, "tools/axe/newest.bin"))[0] == 404


async def test_an_alias_of_a_stale_index_is_marked(bench: Bench) -> None:
    bench.serve(0, f"{SAW}/versions", b"1.0\n")
    bench.serve(0, f"{SAW}/1.0/saw.bin", b"steel")
    assert await bench.text(bench.all, f"{SAW}/newest.bin") == (200, "steel")
    bench.world.clock.forward(101)
    bench.upstreams[0].trouble = UpstreamUnavailable("it is down")
    response = await bench.get(bench.mirrors[0], f"{SAW}/newest.bin")
    assert (await body_of(response), response.status) == (b"steel", 200)
    assert "it is down" in (response.headers.get("warning") or "")
    bench.world.clock.forward(101)
    bench.upstreams[0].trouble = None
    bench.serve(0, f"{SAW}/versions", b"none\n")
    assert (await bench.text(bench.mirrors[0], f"{SAW}/newest.bin"))[0] == 404
