"""Files are deployed one by one: what is published, what is refused, and before the body where that can be known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from msgspec.structs import replace

from kit.bodies import GivenBody
from kit.changing import FakeChanges
from kit.maven import Deploying, jar, listing, pom, sample, sums
from kit.publishing import Rights
from kit.repos import World
from mxart.repos.callers import Caller
from mxart.repos.group import Group
from mxart.repos.maven import metadata
from mxart.repos.maven.format import Maven
from mxart.repos.maven.writes import Policy
from mxart.store.changes import Change, Decide

BASE = "org/example/app/1.0/app-1.0"
MOVING = "org/example/app/1.1-SNAPSHOT/app-1.1"


@pytest.fixture
def shop(nursery: trio.Nursery) -> Deploying:
    return Deploying(World(nursery))


async def test_a_version_is_there_with_its_first_file_and_has_the_name_of_its_pom(shop: Deploying) -> None:
    assert await shop.put(f"{BASE}.jar", jar()) == 201
    assert shop.versions() == ["1.0"]
    assert await shop.put(f"{BASE}.pom", pom()) == 201
    assert await shop.put(f"{BASE}-sources.jar", jar("sources"), method="POST") == 201
    assert await shop.get(f"{BASE}.jar") == jar()
    assert await shop.get(f"{BASE}-sources.jar") == jar("sources")
    view = shop.world.changes.view()
    tag = view.tag("own", "org/example/app", "1.0")
    assert tag is not None
    assert tag.digest.hex == sums(pom())["sha256"]
    assert {path: view.file("own", path).media_type for path in shop.names()} == {  # type: ignore[union-attr]  # it is there
        f"{BASE}-sources.jar": "application/java-archive",
        f"{BASE}.jar": "application/java-archive",
        f"{BASE}.pom": "application/xml",
    }


async def test_an_answer_tells_the_checksums_of_what_is_there_now(shop: Deploying) -> None:
    for status in (201, 200):
        assert await shop.put(f"{BASE}.jar", jar()) == status
        assert {name: shop.fields[f"x-checksum-{name}"] for name in sums(jar())} == sums(jar())
        assert shop.fields["etag"] == f'"sha256:{sums(jar())["sha256"]}"'
        assert "location" not in shop.fields


@pytest.mark.parametrize("path", [f"{BASE}.jar", f"{BASE}.jar.asc", f"{MOVING}-20240102.030405-6.jar"])
async def test_a_file_never_changes_and_the_same_again_is_well(shop: Deploying, path: str) -> None:
    assert await shop.put(path, sample(path)) == 201
    made = len(shop.world.changes.made)
    shop.world.clock.forward(60)
    assert await shop.put(path, sample(path)) == 200
    assert len(shop.world.changes.made) == made
    assert await shop.put(path, sample(path, "other")) == 409
    assert "never changes: deploy a new " in shop.said
    assert await shop.get(path) == sample(path)
    assert shop.world.uploads.states == {}


async def test_a_large_file_comes_in_an_upload_of_which_nothing_stays(shop: Deploying) -> None:
    data = bytes(range(256)) * 4096
    for status, body in ((201, GivenBody(data)), (200, GivenBody(data, length=None)), (409, GivenBody(data[:-1]))):
        assert await shop.put(f"{BASE}.bin", body) == status
    assert await shop.put(f"{BASE}.txt", GivenBody(b"", length=None)) == 201
    assert await shop.get(f"{BASE}.bin") == data
    assert shop.world.uploads.states == {}


@pytest.mark.parametrize("size", [1000, 500_000])
async def test_a_client_that_leaves_in_the_middle_leaves_nothing(shop: Deploying, size: int) -> None:
    await shop.put(f"{BASE}.pom", pom())
    before = shop.names()
    with pytest.raises(Exception, match="left in the middle"):
        await shop.put(f"{BASE}.jar", GivenBody(bytes(size), length=size, breaks_at=size // 2))
    assert shop.names() == before
    assert shop.world.uploads.states == {}


class CancelledBody(GivenBody):
    """Its request is cancelled when so much of it was taken."""

    def __init__(self, data: bytes, scope: trio.CancelScope, at: int) -> None:
        super().__init__(data, chunk=1000)
        self._scope = scope
        self._at = at

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if self.taken >= self._at:
            self._scope.cancel()
        return await super().receive(max_bytes)


@pytest.mark.parametrize("size", [5_000, 200_000])
@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
async def test_who_is_cancelled_leaves_nothing_but_what_is_whole(shop: Deploying, size: int, part: float) -> None:
    with trio.CancelScope() as scope:
        await shop.put(f"{BASE}.bin", CancelledBody(bytes(size), scope, int(size * part)))
    assert scope.cancelled_caught
    assert shop.names() == []
    assert shop.world.uploads.states == {}
    with trio.CancelScope() as scope:
        await shop.put(f"{BASE}.jar.sha1", CancelledBody(b"0" * 40, scope, int(40 * part)))
    assert shop.world.changes.made == []


class Swept(FakeChanges):
    """A collection without grace takes the bytes away that were just put, so many times."""

    def __init__(self, world: World, times: int) -> None:
        super().__init__(world.catalog)
        self._blobs = world.blobs
        self._times = times

    async def change(self, decide: Decide, ensure: Callable[[], bool]) -> Change:
        if self._times:
            self._times -= 1
            self._blobs.kept.clear()
        return await super().change(decide, ensure)


@pytest.mark.parametrize(
    ("times", "size", "status"), [(2, 100, 201), (3, 100, 503), (1, 500_000, 503), (0, 500_000, 201)]
)
async def test_what_is_swept_in_that_moment_is_put_again_or_the_client_is_told_to(
    nursery: trio.Nursery, times: int, size: int, status: int
) -> None:
    world = World(nursery)
    world.stock = replace(world.stock, changes=Swept(world, times))
    shop = Deploying(world)
    assert await shop.put(f"{BASE}.bin", bytes(size)) == status
    assert bool(shop.names()) == (status == 201)
    assert await shop.put(f"{BASE}.bin", bytes(size)) in (200, 201)
    assert await shop.get(f"{BASE}.bin") == bytes(size)
    assert shop.world.uploads.states == {}


# checksums


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
async def test_a_checksum_is_compared_and_changes_nothing(shop: Deploying, algorithm: str) -> None:
    right, wrong = sums(jar())[algorithm], sums(b"")[algorithm]
    assert await shop.put(f"{BASE}.jar.{algorithm}", right.encode()) == 404
    assert "deploy the file first" in shop.said
    await shop.put(f"{BASE}.jar", jar())
    made, kept = len(shop.world.changes.made), dict(shop.world.blobs.kept)
    for text in (right, right.upper(), f"{right}  app-1.0.jar\n"):
        assert await shop.put(f"{BASE}.jar.{algorithm}", text.encode()) == 201
    assert await shop.put(f"{BASE}.jar.{algorithm}", wrong.encode()) == 409
    assert "delete it here, and deploy it again" in shop.said
    for text in ("", "zz", right[:-1], f"{right} {wrong}", "<html>"):
        assert await shop.put(f"{BASE}.jar.{algorithm}", text.encode()) == 400
        assert "hexadecimal digits" in shop.said
    assert await shop.put(f"{BASE}.jar.{algorithm}", b"0" * 5000) == 413
    assert (len(shop.world.changes.made), shop.world.blobs.kept) == (made, kept)


async def test_a_signature_has_checksums_too(shop: Deploying) -> None:
    data = sample(f"{BASE}.jar.asc")
    await shop.put(f"{BASE}.jar.asc", data)
    assert await shop.put(f"{BASE}.jar.asc.sha1", sums(data)["sha1"].encode()) == 201
    assert await shop.put(f"{BASE}.jar.sha1", sums(data)["sha1"].encode()) == 404


async def test_what_a_header_says_of_a_file_is_compared_before_it_is_published(shop: Deploying) -> None:
    for algorithm, text in sums(jar()).items():
        name = f"X-Checksum-{algorithm.title()}"
        assert await shop.put(f"{BASE}.jar", jar("other"), (name, text)) == 409
        assert "as its header says" in shop.said
        assert shop.names() == []
        assert await shop.put(f"{BASE}.jar", jar(), (name, text[:-1])) == 400
    assert (
        await shop.put(f"{BASE}.jar", jar(), *((f"x-checksum-{name}", text) for name, text in sums(jar()).items()))
        == 201
    )


async def test_who_says_by_a_header_that_it_is_another_file_need_not_send_it(shop: Deploying) -> None:
    await shop.put(f"{BASE}.jar", jar())
    body = GivenBody(jar("other"))
    assert await shop.put(f"{BASE}.jar", body, ("X-Checksum-Sha1", sums(jar("other"))["sha1"])) == 409
    assert body.taken == 0
    assert await shop.put(f"{BASE}.jar", jar(), ("X-Checksum-Sha1", sums(jar())["sha1"])) == 200


# who may, and what is taken


@pytest.mark.parametrize(
    ("path", "data", "why"),
    [
        (f"{BASE}.pom", b"<project>", "not well-formed"),
        (f"{BASE}.pom", pom(artifact="other"), "artifact 'other', and its path is that of app"),
        (f"{BASE}.pom", pom(version="1.1"), "version '1.1'"),
        (f"{BASE}.pom", b'<!DOCTYPE p [<!ENTITY a "b">]><project>&a;</project>', "declares entities"),
        (f"{BASE}.pom", b"<metadata/>", "root element is 'metadata'"),
        (f"{BASE}.pom", pom("org.evil"), "POM of group 'org.evil', and its path is that of org.example"),
    ],
    ids=range(6),
)
async def test_a_pom_is_that_of_its_path_or_refused_and_leaves_nothing(
    shop: Deploying, path: str, data: bytes, why: str
) -> None:
    assert await shop.put(path, data) == 400
    assert why in shop.said
    assert shop.world.catalog.files == {}
    assert shop.world.uploads.states == {}


async def test_a_pom_that_is_too_long_is_refused_before_it_comes(shop: Deploying) -> None:
    body = GivenBody(bytes(11 << 20))
    assert await shop.put(f"{BASE}.pom", body) == 413
    assert body.taken == 0


@pytest.mark.parametrize(
    ("policy", "path", "says"),
    [
        (
            "releases",
            f"{MOVING}-SNAPSHOT.jar",
            "own takes releases only, and 1.1-SNAPSHOT is a snapshot: deploy it to elsewhere",
        ),
        ("releases", f"{MOVING}-20240102.030405-6.jar.sha1", "takes releases only"),
        ("releases", "org/example/app/1.1-SNAPSHOT/maven-metadata.xml", "takes releases only"),
        ("snapshots", f"{BASE}.jar", "own takes snapshots only, and 1.0 is a release: deploy it to elsewhere"),
        ("snapshots", f"{BASE}.jar.md5", "takes snapshots only"),
    ],
)
async def test_what_the_policy_refuses_is_refused_before_the_body(
    nursery: trio.Nursery, policy: Policy, path: str, says: str
) -> None:
    shop = Deploying(World(nursery), policy)
    body = GivenBody(jar())
    assert await shop.put(path, body) == 409
    assert says in shop.said
    assert body.taken == 0


async def test_each_policy_takes_its_own(nursery: trio.Nursery) -> None:
    for policy, path in (("releases", f"{BASE}.jar"), ("snapshots", f"{MOVING}-SNAPSHOT.jar")):
        assert await Deploying(World(nursery), policy).put(path, jar()) == 201


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("org/example/app/1.0/other-1.0.jar", 400),
        ("org/example/app/1.0/app-1.1.jar", 400),
        ("org/example/app/1.0/app-1.0", 400),
        ("org/example/app/1.0/", 400),
        ("app-1.0.jar", 400),
        ("", 400),
        ("org/../app/1.0/app-1.0.jar", 400),
        ("org/%2e%2e/app/1.0/app-1.0.jar", 400),
        ("org/example/app/1.0/..%2fapp-1.0.jar", 400),
        ("org/example/app/1.0/app-1.0.jar%00", 400),
        ("org/example/app/1.0/app-1.0%5c.jar", 400),
        ("org//app/1.0/app-1.0.jar", 400),
        ("/org/app/1.0/app-1.0.jar", 400),
        ("org/example/app/1.0/app-1.0.jar/", 400),
        ("org/example/app/1.0/.app-1.0.jar", 400),
        ("org/example/./app/1.0/app-1.0.jar", 400),
        ("org/example/app/1.0/app-1.0.jar%ff", 400),
        ("org/example/app/1.0/app-1.0.jar%2", 400),
        ("org/example/app/1.0/app-1.0." + "j" * 300, 400),
        (".meta/prefixes.txt", 405),
        (".meta/prefixes.txt.sha1", 201),
        ("org/example/app/1.1-SNAPSHOT/app-1.1-20240102.030405.jar", 400),
        ("org/example/app/1.1-SNAPSHOT/app-1.1-20240102.030405-0.jar", 400),
    ],
)
async def test_a_path_that_is_no_file_of_a_version_is_refused_before_the_body(
    shop: Deploying, path: str, status: int
) -> None:
    body = GivenBody(sums(b"")["sha1"].encode())
    assert await shop.put(path, body) == status
    assert status == 201 or body.taken == 0
    assert shop.world.catalog.files == {}


@pytest.mark.parametrize(
    ("field", "status"),
    [
        (("Content-Range", "bytes 0-9/20"), 400),
        (("Content-Encoding", "gzip"), 415),
        (("Content-Encoding", "identity"), 201),
        (("X-Checksum-Sha1", "zz"), 400),
    ],
)
async def test_a_body_that_is_not_the_file_is_refused(shop: Deploying, field: tuple[str, str], status: int) -> None:
    assert await shop.put(f"{BASE}.jar", jar(), field) == status


async def test_who_may_not_publish_is_told_before_the_body(shop: Deploying) -> None:
    bob = Caller(name="bob", grants=Rights(publish={"own:org/example/lib"}))
    for path in (f"{BASE}.jar", f"{BASE}.jar.sha1", "org/example/app/1.1-SNAPSHOT/maven-metadata.xml"):
        body = GivenBody(jar())
        assert await shop.put(path, body, caller=bob) == 403
        assert body.taken == 0
    assert await shop.put("org/example/lib/1.0/lib-1.0.jar", jar(), caller=bob) == 201


# snapshots without a build of their own


async def test_a_snapshot_without_a_build_gets_one_and_its_files_come_together(shop: Deploying) -> None:
    assert await shop.put(f"{MOVING}-SNAPSHOT.jar", jar("1")) == 201
    assert shop.fields["location"] == "app-1.1-20270115.080000-1.jar"
    assert await shop.put(f"{MOVING}-SNAPSHOT.jar.sha1", sums(jar("1"))["sha1"].encode()) == 201
    shop.world.clock.forward(5)
    assert await shop.put(f"{MOVING}-SNAPSHOT.pom", sample(f"{MOVING}-SNAPSHOT.pom")) == 201
    assert await shop.put(f"{MOVING}-SNAPSHOT-sources.jar", jar("s")) == 201
    first = [f"{MOVING}-20270115.080000-1{end}" for end in ("-sources.jar", ".jar", ".pom")]
    assert shop.names() == first
    assert shop.versions() == ["1.1-SNAPSHOT"]
    assert await shop.put(f"{MOVING}-SNAPSHOT.jar", jar("1")) == 200  # sent again, because an answer was lost
    shop.world.clock.forward(5)
    assert await shop.put(f"{MOVING}-SNAPSHOT.jar", jar("2")) == 201
    assert await shop.put(f"{MOVING}-SNAPSHOT.pom", sample(f"{MOVING}-SNAPSHOT.pom")) == 201
    assert shop.names() == sorted([*first, *(f"{MOVING}-20270115.080010-2{end}" for end in (".jar", ".pom"))])
    for mark in ("1", "2"):
        assert await shop.put(f"{MOVING}-SNAPSHOT.jar.md5", sums(jar(mark))["md5"].encode()) == 201
    assert await shop.put(f"{MOVING}-SNAPSHOT.jar.md5", sums(b"")["md5"].encode()) == 409
    assert await shop.put(f"{MOVING}-SNAPSHOT.war.md5", sums(b"")["md5"].encode()) == 404


async def test_a_build_number_is_never_given_away_twice(shop: Deploying) -> None:
    await shop.put(f"{MOVING}-20240102.030405-6.jar", jar())
    await shop.put(f"{MOVING}-20240101.030405-4.jar", jar())
    await shop.put(f"{MOVING}-SNAPSHOT.jar", jar("a"))
    assert f"{MOVING}-20270115.080000-7.jar" in shop.names()
    assert await shop.delete("org/example/app/1.1-SNAPSHOT/") == 204
    assert shop.names() == []
    listed = await shop.get("org/example/app/1.1-SNAPSHOT/maven-metadata.xml")
    assert listed is not None  # for clients, who count on from what they read here
    said = metadata.parse(listed)
    assert (said.version, said.number, said.time, said.builds) == ("1.1-SNAPSHOT", 7, "", ())
    assert await shop.get("org/example/app/maven-metadata.xml") is None
    await shop.put(f"{MOVING}-SNAPSHOT.jar", jar("b"))
    assert shop.names() == [f"{MOVING}-20270115.080000-8.jar"]
    await shop.put(f"{MOVING}-SNAPSHOT.pom", sample(f"{MOVING}-SNAPSHOT.pom"))
    assert await shop.delete(f"{MOVING}-20270115.080000-8.jar") == 204
    await shop.put(f"{MOVING}-SNAPSHOT.jar", jar("c"))
    assert shop.names() == [f"{MOVING}-20270115.080000-8.pom", f"{MOVING}-20270115.080000-9.jar"]


async def test_there_is_a_last_build_number(shop: Deploying) -> None:
    assert await shop.put(f"{MOVING}-20240102.030405-999999999.jar", jar()) == 201
    assert await shop.put(f"{MOVING}-SNAPSHOT.jar", jar("a")) == 409
    assert "the last one" in shop.said


# deleting


async def fill(shop: Deploying) -> None:
    for version in ("1.0", "2.0"):
        for end in (".jar", ".jar.asc", ".jar.sigstore.json", ".pom", "-sources.jar"):
            path = f"org/example/app/{version}/app-{version}{end}"
            assert await shop.put(path, sample(path, end)) == 201
    await shop.put("org/example/lib/1.0/lib-1.0.jar", jar())
    await shop.put("org/example/app/tool/1.0/tool-1.0.jar", jar())


async def test_a_file_goes_with_its_signatures(shop: Deploying) -> None:
    await fill(shop)
    assert await shop.delete(f"{BASE}.jar") == 204
    assert shop.names("org/example/app/1.0") == [f"{BASE}-sources.jar", f"{BASE}.pom"]
    assert await shop.delete(f"{BASE}.jar") == 404
    assert await shop.delete(f"{BASE}.pom") == 204
    assert shop.versions() == ["1.0", "2.0"]
    assert await shop.delete(f"{BASE}-sources.jar") == 204
    assert shop.versions() == ["2.0"]
    assert await shop.put(f"{BASE}.jar", jar("another")) == 201


@pytest.mark.parametrize("path", ["org/example/app/1.0", "org/example/app/1.0/"])
async def test_a_version_goes_with_all_its_files(shop: Deploying, path: str) -> None:
    await fill(shop)
    assert await shop.delete(path) == 204
    assert shop.names("org/example/app/1.0") == []
    assert shop.versions() == ["2.0"]
    assert await shop.delete(path) == 404


async def test_an_artifact_goes_with_all_its_versions_and_nothing_else(shop: Deploying) -> None:
    await fill(shop)
    assert await shop.delete("org/example/app/") == 204
    assert shop.names() == ["org/example/app/tool/1.0/tool-1.0.jar", "org/example/lib/1.0/lib-1.0.jar"]
    assert shop.versions() == []
    assert not shop.world.catalog.has_package("own", "org/example/app")
    assert await shop.delete("org/example/app/") == 405  # what is there still is a group


async def test_what_is_a_version_and_an_artifact_is_not_deleted_by_that_name(shop: Deploying) -> None:
    await shop.put("org/example/app/example-app.jar", jar())
    await shop.put(f"{BASE}.jar", jar())
    assert await shop.delete("org/example/app/") == 409
    assert await shop.delete("org/example/app/1.0/") == 204
    assert await shop.delete("org/example/app/") == 204


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("org/example/", 405),
        ("org/", 405),
        ("", 405),
        ("org/nothing/", 404),
        ("org/example/app/3.0/", 404),
        (f"{BASE}.war", 404),
        (f"{BASE}.jar.sha1", 405),
        ("org/example/app/maven-metadata.xml", 405),
        (".meta/prefixes.txt", 405),
        ("org/example/app/../app/", 400),
        ("org/%2e%2e/", 400),
    ],
)
async def test_what_is_no_file_version_or_artifact_is_not_deleted(shop: Deploying, path: str, status: int) -> None:
    await fill(shop)
    before = shop.names()
    assert await shop.delete(path) == status
    assert shop.names() == before


async def test_only_who_may_delete_a_package_deletes_of_it(shop: Deploying) -> None:
    await fill(shop)
    bob = Caller(name="bob", grants=Rights(delete={"own:org/example/app"}, publish={"own:org/example/lib"}))
    for path in ("org/example/lib/", "org/example/lib/1.0/", "org/example/lib/1.0/lib-1.0.jar", "org/nothing/"):
        assert await shop.delete(path, bob) == 403
    for path in (f"{BASE}.jar", "org/example/app/1.0/", "org/example/app/"):
        assert await shop.delete(path, bob) == 204
    assert await shop.delete("org/example/app/", Caller(grants=Rights())) == 403


# lists


def plugin(artifact: str, prefix: str) -> str:
    return f"<plugin><name>Of {artifact}</name><prefix>{prefix}</prefix><artifactId>{artifact}</artifactId></plugin>"


LIST = "org/example/app/maven-metadata.xml"


async def test_a_list_of_versions_is_listened_to_and_changes_nothing(shop: Deploying) -> None:
    await shop.put(f"{BASE}.jar", jar())
    before = shop.names(), shop.versions(), len(shop.world.changes.made)
    sent = listing("0.9", "1.0", "9.9")
    assert await shop.put(LIST, sent) == 201
    for algorithm, text in sums(sent).items():
        assert await shop.put(f"{LIST}.{algorithm}", text.encode()) == 201
        assert await shop.put(f"{LIST}.{algorithm}", b"no checksum") == 400
    assert (shop.names(), shop.versions(), len(shop.world.changes.made)) == before
    served = await shop.get(LIST)
    assert served is not None
    assert metadata.parse(served).versions == ("1.0",)
    for algorithm, text in sums(served).items():
        assert await shop.get(f"{LIST}.{algorithm}") == text.encode()


@pytest.mark.parametrize(
    ("data", "status", "why"),
    [
        (b"", 400, "not well-formed"),
        (b"<metadata>", 400, "not well-formed"),
        (b"<html></html>", 400, "root element is 'html'"),
        (b"\x00" * 100, 400, "not well-formed"),
        (listing("1.0", artifact="other"), 400, "names the artifact 'other', and is that of app"),
        (listing("1.0", group="org.other"), 400, "names the group 'org.other'"),
        (b"<!DOCTYPE metadata><metadata/>", 400, "document type"),
        (b'<!DOCTYPE m [<!ENTITY a "b">]><metadata>&a;</metadata>', 400, "document type"),
        (b'<!DOCTYPE m SYSTEM "file:///etc/passwd"><metadata/>', 400, "document type"),
        (b"<metadata>" + b"<a>" * 100 + b"</a>" * 100 + b"</metadata>", 400, "nested deeper"),
        (b"<metadata>" + b" " * (10 << 20) + b"</metadata>", 413, "more than"),
        (listing("1.0", more=f"<plugins>{plugin('a/../b', 'x')}</plugins>"), 400, "no plugin's"),
        (listing("1.0", more=f"<plugins>{plugin('a', 'x y')}</plugins>"), 400, "no plugin's"),
    ],
    ids=range(13),
)
async def test_what_is_no_list_of_this_artifact_is_refused_with_the_reason(
    shop: Deploying, data: bytes, status: int, why: str
) -> None:
    assert await shop.put(LIST, data) == status
    assert why in shop.said
    assert shop.world.changes.made == []


async def test_a_list_that_says_how_long_it_is_is_refused_before_it_comes(shop: Deploying) -> None:
    body = GivenBody(b"<metadata>" + b" " * (11 << 20))
    assert await shop.put(LIST, body) == 413
    assert body.taken == 0


async def test_a_list_of_ten_megabytes_that_is_right_is_read(shop: Deploying) -> None:
    sent = listing("1.0", more=f"<!--{'x' * ((10 << 20) - 300)}-->")
    assert await shop.put(LIST, sent) == 201


async def test_the_prefixes_of_a_groups_plugins_are_noted_for_those_that_are_here(shop: Deploying) -> None:
    group = "org/example/maven-metadata.xml"
    await shop.put("org/example/site-maven-plugin/1.0/site-maven-plugin-1.0.jar", jar())

    def said(*plugins: str) -> bytes:
        return f"<metadata><plugins>{''.join(plugins)}</plugins></metadata>".encode()

    sent = said(plugin("site-maven-plugin", "site"), plugin("of-others", "others"))
    assert await shop.put(group, sent) == 201
    noted = shop.world.changes.said["own", "org/example"]
    assert noted == {"plugin site-maven-plugin": "site Of site-maven-plugin"}
    assert await shop.put(group, sent) == 201
    await shop.put("org/example/of-others/1.0/of-others-1.0.jar", jar())
    bob = Caller(name="bob", grants=Rights(publish={"own:org/example/of-others"}))
    assert await shop.put(group, said(plugin("site-maven-plugin", "mine"), plugin("of-others", "o")), caller=bob) == 201
    assert noted["plugin site-maven-plugin"] == "site Of site-maven-plugin"
    assert noted["plugin of-others"] == "o Of of-others"
    assert await shop.put(group, said(plugin("site-maven-plugin", "mine")), caller=bob) == 403
    assert await shop.put(group, said(), caller=bob) == 403
    assert await shop.delete("org/example/site-maven-plugin/") == 204
    assert list(noted) == ["plugin of-others"]
    served = await shop.get(group)
    assert served is not None
    assert metadata.parse(served).plugins == (metadata.Plugin("o", "of-others", "Of of-others"),)


# where it goes by a group


async def test_a_group_publishes_to_the_first_member_whose_policy_takes_it(nursery: trio.Nursery) -> None:
    shop = Deploying(World(nursery))
    releases, snapshots = shop.repository("releases", "releases"), shop.repository("snapshots", "snapshots")
    group = Group("maven", Maven(), (releases, snapshots), publish_to=("releases", "snapshots"))
    for path in (f"{BASE}.jar", f"{MOVING}-20240102.030405-6.jar"):
        assert await shop.put(path, jar(), to=group) == 201
        assert await shop.put(f"{path}.sha1", sums(jar())["sha1"].encode(), to=group) == 201
    assert shop.names(repository="releases") == [f"{BASE}.jar"]
    assert shop.names(repository="snapshots") == [f"{MOVING}-20240102.030405-6.jar"]
    for path in ("org/example/app/maven-metadata.xml", "org/example/app/1.1-SNAPSHOT/maven-metadata.xml"):
        assert await shop.put(path, listing("1.0"), to=group) == 201
    assert await shop.put("org/example/app/1.1-SNAPSHOT/", b"", to=group, method="DELETE") == 204
    assert shop.names(repository="snapshots") == []
    assert await shop.put("org/example/app/", b"", to=group, method="DELETE") == 204
    assert shop.names(repository="releases") == []


async def test_what_is_said_of_plugins_by_a_group_is_heard_where_they_are(
    nursery: trio.Nursery,
) -> None:
    shop = Deploying(World(nursery))
    releases, snapshots = shop.repository("releases", "releases"), shop.repository("snapshots", "snapshots")
    group = Group("maven", Maven(), (releases, snapshots), publish_to=("releases", "snapshots"))
    await shop.put("org/example/x-maven-plugin/1-SNAPSHOT/x-maven-plugin-1-SNAPSHOT.jar", jar(), to=group)
    data = f"<metadata><plugins>{plugin('x-maven-plugin', 'x')}</plugins></metadata>".encode()
    path = "org/example/maven-metadata.xml"
    carol = Caller(name="carol", grants=Rights(publish={"snapshots:org/example/x-maven-plugin"}))
    assert await shop.put(path, data, to=group, caller=carol) == 201
    assert await shop.put(path, data, to=group) == 201
    served = await shop.get(path, group)
    assert served is not None
    assert [one.prefix for one in metadata.parse(served).plugins] == ["x"]
    bob = Caller(name="bob", grants=Rights())
    assert await shop.put(path, data, to=group, caller=bob) == 403
    body = GivenBody(data + bytes(10 << 20))
    assert await shop.put(path, body, to=group) == 413
    assert await shop.put(path, b"<metadata>", to=group) == 400


async def test_what_no_member_takes_is_refused_as_by_the_first(nursery: trio.Nursery) -> None:
    shop = Deploying(World(nursery))
    one, two = shop.repository("one", "releases"), shop.repository("two", "releases")
    group = Group("maven", Maven(), (one, two), publish_to=["one", "two"])
    assert await shop.put(f"{MOVING}-SNAPSHOT.jar", jar(), to=group) == 409
    assert "one takes releases only" in shop.said


async def test_rights_are_those_on_the_member_that_takes_it(nursery: trio.Nursery) -> None:
    shop = Deploying(World(nursery))
    releases, snapshots = shop.repository("releases", "releases"), shop.repository("snapshots", "snapshots")
    group = Group("maven", Maven(), (releases, snapshots), publish_to=("releases", "snapshots"))
    bob = Caller(name="bob", grants=Rights(publish={"snapshots:org/example/app"}))
    assert await shop.put(f"{MOVING}-SNAPSHOT.jar", jar(), to=group, caller=bob) == 201
    assert await shop.put(f"{BASE}.jar", jar(), to=group, caller=bob) == 403
