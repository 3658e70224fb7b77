"""Maven's format read through every kind: a local repository, a proxy, a group, by its clients' requests."""

from __future__ import annotations

import hashlib
import re

import pytest
import trio.testing

from kit.maven import ALICE, jar, listing, pom
from kit.publishing import Rights
from kit.repos import Answer, FakeUpstream, World, body_of
from mxart.errors import BodyBroken, UpstreamUnavailable
from mxart.message import Response
from mxart.repos.base import Repository
from mxart.repos.callers import Caller
from mxart.repos.group import Group
from mxart.repos.local import Local
from mxart.repos.maven import metadata
from mxart.repos.maven.format import Maven
from mxart.repos.maven.prefixes import MAGIC
from mxart.repos.maven.versions import build_of
from mxart.repos.remote import Rules

APP = "org/example/app"
BUILD = "1.1-20240102.030405-1"


class Bench:
    """A local repository, two proxies of upstreams of their own, and a group of all three."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.own = Local("own", Maven(), world.stock, world.clock)
        self.upstreams = [FakeUpstream(), FakeUpstream()]
        rules = Rules(ttl=100.0, negative_ttl=50.0)
        self.mirrors = [
            world.proxy(name, upstream=upstream, form=Maven(), rules=rules)
            for name, upstream in zip(("one", "two"), self.upstreams, strict=True)
        ]
        self.all = Group("all", Maven(), (self.own, *self.mirrors))

    async def deploy(self, path: str, data: bytes) -> None:
        response = await self.world.send(self.own, "PUT", f"/{path}", data, caller=ALICE)
        assert response.status in (200, 201), await body_of(response)

    def serve(self, path: str, data: bytes, *fields: tuple[str, str], number: int = 0) -> Answer:
        made = Answer(data, [("content-length", str(len(data))), *fields])
        self.upstreams[number].answers[path] = made
        return made

    async def get(self, where: Repository, path: str, *fields: tuple[str, str], method: str = "GET") -> Response:
        return (await self.world.ask(where, f"/{path}", *fields, method=method))[0]

    async def read(self, where: Repository, path: str) -> tuple[int, bytes]:
        response = await self.get(where, path)
        return response.status, await body_of(response)

    async def versions(self, where: Repository, package: str = APP) -> tuple[str, ...]:
        status, data = await self.read(where, f"{package}/maven-metadata.xml")
        assert status == 200
        return metadata.parse(data).versions


@pytest.fixture
def bench(nursery: trio.Nursery) -> Bench:
    return Bench(World(nursery))


def hexes(data: bytes) -> dict[str, str]:
    return {f"x-checksum-{name}": hashlib.new(name, data).hexdigest() for name in ("md5", "sha1", "sha256", "sha512")}


def checksums_of(response: Response) -> dict[str, str]:
    return {name: value for name, value in response.headers if name.startswith("x-checksum-")}


# a repository of our own


async def test_a_release_is_read_with_all_that_clients_look_at(bench: Bench) -> None:
    data = jar()
    await bench.deploy(f"{APP}/1.0/app-1.0.jar", data)
    await bench.deploy(f"{APP}/1.0/app-1.0.pom", pom())
    got = await bench.get(bench.own, f"{APP}/1.0/app-1.0.jar")
    assert await body_of(got) == data
    assert checksums_of(got) == hexes(data)
    assert got.headers.get("content-type") == "application/java-archive"
    assert got.headers.get("accept-ranges") == "bytes"
    assert got.headers.get("x-content-type-options") == "nosniff"
    assert got.headers.get("last-modified")
    assert got.headers.get("etag")
    head = await bench.get(bench.own, f"{APP}/1.0/app-1.0.jar", method="HEAD")
    assert head.headers == got.headers
    head.body.close()
    read = await bench.get(bench.own, f"{APP}/1.0/app-1.0.pom")
    assert read.headers.get("content-type") == "application/xml"
    assert read.headers.get("content-security-policy") == "sandbox"
    assert checksums_of(read) == hexes(pom())


async def test_a_part_of_a_file_as_resolver_asks_for_it(bench: Bench) -> None:
    data = jar()
    await bench.deploy(f"{APP}/1.0/app-1.0.jar", data)
    got = await bench.get(
        bench.own,
        f"{APP}/1.0/app-1.0.jar",
        ("range", "bytes=10-"),
        ("if-unmodified-since", "Fri, 01 Jan 2100 00:00:00 GMT"),
        ("accept-encoding", "identity"),
    )
    assert got.status == 206
    assert got.headers.get("content-range") == f"bytes 10-{len(data) - 1}/{len(data)}"
    assert await body_of(got) == data[10:]
    late = await bench.get(
        bench.own,
        f"{APP}/1.0/app-1.0.jar",
        ("range", "bytes=10-"),
        ("if-unmodified-since", "Sat, 01 Jan 2000 00:00:00 GMT"),
    )
    assert late.status == 412


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
async def test_a_checksum_of_everything(bench: Bench, algorithm: str) -> None:
    await bench.deploy(f"{APP}/1.0/app-1.0.jar", jar())
    await bench.deploy(f"{APP}/1.1-SNAPSHOT/app-{BUILD}.jar", jar("b"))
    await bench.deploy(f"{APP}/1.0/app-1.0.jar.asc", b"-----BEGIN PGP SIGNATURE-----\n")
    for path in (
        f"{APP}/1.0/app-1.0.jar",
        f"{APP}/1.0/app-1.0.jar.asc",
        f"{APP}/1.1-SNAPSHOT/app-{BUILD}.jar",
        f"{APP}/1.1-SNAPSHOT/app-1.1-SNAPSHOT.jar",
        f"{APP}/maven-metadata.xml",
        f"{APP}/1.1-SNAPSHOT/maven-metadata.xml",
        ".meta/prefixes.txt",
    ):
        status, data = await bench.read(bench.own, path)
        assert status == 200, path
        right = hashlib.new(algorithm, data).hexdigest()
        assert await bench.read(bench.own, f"{path}.{algorithm}") == (200, right.encode()), path
    assert (await bench.read(bench.own, f"{APP}/1.0/app-1.0.war.{algorithm}"))[0] == 404


async def test_versions_are_told_in_mavens_order_and_never_in_part(bench: Bench) -> None:
    for version in ("1.10", "1.9", "1.0-rc1"):
        await bench.deploy(f"{APP}/{version}/app-{version}.pom", pom(version=version))
    await bench.deploy(f"{APP}/1.11-SNAPSHOT/app-1.11-20240102.030405-1.pom", pom(version="1.11-SNAPSHOT"))
    got = await bench.get(bench.own, f"{APP}/maven-metadata.xml", ("range", "bytes=3-"))
    assert got.status == 200
    assert got.headers.get("accept-ranges") == "none"
    data = await body_of(got)
    assert checksums_of(got) == hexes(data)
    said = metadata.parse(data)
    assert said.versions == ("1.0-rc1", "1.9", "1.10", "1.11-SNAPSHOT")
    assert (said.group, said.artifact, said.latest, said.release) == ("org.example", "app", "1.11-SNAPSHOT", "1.10")
    assert (await bench.read(bench.own, "org/example/other/maven-metadata.xml"))[0] == 404


async def test_a_list_that_changed_within_the_second_is_another_one(bench: Bench) -> None:
    await bench.deploy(f"{APP}/1.0/app-1.0.pom", pom())
    first = await bench.get(bench.own, f"{APP}/maven-metadata.xml")
    since, etag = first.headers.get("last-modified") or "", first.headers.get("etag") or ""
    assert since
    same = await bench.get(
        bench.own, f"{APP}/maven-metadata.xml", ("if-none-match", etag), ("if-modified-since", since)
    )
    assert same.status == 304
    await bench.deploy(f"{APP}/1.1/app-1.1.pom", pom(version="1.1"))
    again = await bench.get(bench.own, f"{APP}/maven-metadata.xml", ("if-modified-since", since))
    assert again.status == 200
    assert metadata.parse(await body_of(again)).versions == ("1.0", "1.1")
    bench.world.clock.forward(100)
    await bench.deploy(f"{APP}/1.2/app-1.2.pom", pom(version="1.2"))
    since = (await bench.get(bench.own, f"{APP}/maven-metadata.xml")).headers.get("last-modified") or ""
    assert (await bench.world.send(bench.own, "DELETE", f"/{APP}/1.2/", caller=ALICE)).status == 204
    assert (await bench.get(bench.own, f"{APP}/maven-metadata.xml", ("if-modified-since", since))).status == 200


async def test_a_snapshot_by_its_build_and_by_its_name(bench: Bench) -> None:
    base = f"{APP}/1.1-SNAPSHOT"
    newer = "1.1-20240103.000000-2"
    await bench.deploy(f"{base}/app-{BUILD}.jar", jar("a"))
    await bench.deploy(f"{base}/app-{BUILD}-tests.jar", jar("t"))
    await bench.deploy(f"{base}/app-{newer}.jar", jar("b"))
    status, data = await bench.read(bench.own, f"{base}/maven-metadata.xml")
    assert status == 200
    said = metadata.parse(data)
    assert (said.find("", "jar"), said.find("tests", "jar"), said.number) == (newer, BUILD, 2)
    assert await bench.read(bench.own, f"{base}/app-1.1-SNAPSHOT.jar") == (200, jar("b"))
    assert await bench.read(bench.own, f"{base}/app-1.1-SNAPSHOT-tests.jar") == (200, jar("t"))
    assert (await bench.read(bench.own, f"{base}/app-1.1-SNAPSHOT.war"))[0] == 404
    alias = await bench.get(bench.own, f"{base}/app-1.1-SNAPSHOT.jar", method="HEAD")
    alias.body.close()
    assert checksums_of(alias) == hexes(jar("b"))
    assert "immutable" not in (alias.headers.get("cache-control") or "")


def builds_list(value: str) -> bytes:
    """What a client sends when all files of a build are there."""
    _, time, number = build_of(value) or ("", "", 0)
    made = metadata.Build("", "jar", value, time.replace(".", ""))
    said = metadata.Metadata("org.example", "app", "1.1-SNAPSHOT", time=time, number=number, builds=(made,))
    return metadata.render(said)


async def test_a_build_is_shown_when_all_of_it_is_there(bench: Bench) -> None:
    base = f"{APP}/1.1-SNAPSHOT"
    newer = "1.1-20240103.000000-2"
    await bench.deploy(f"{base}/app-{BUILD}.jar", jar("a"))
    await bench.deploy(f"{base}/app-{BUILD}.pom", pom(version="1.1-SNAPSHOT"))
    await bench.deploy(f"{base}/maven-metadata.xml", builds_list(BUILD))
    await bench.deploy(f"{base}/app-{newer}.jar", jar("b"))  # and here its client is killed
    said = metadata.parse((await bench.read(bench.own, f"{base}/maven-metadata.xml"))[1])
    assert (said.number, said.find("", "jar"), said.find("", "pom")) == (1, BUILD, BUILD)
    assert await bench.read(bench.own, f"{base}/app-1.1-SNAPSHOT.jar") == (200, jar("a"))
    assert await bench.read(bench.own, f"{base}/app-{newer}.jar") == (200, jar("b"))
    await bench.deploy(f"{base}/app-{newer}.pom", pom(version="1.1-SNAPSHOT", mark="b"))
    await bench.deploy(f"{base}/maven-metadata.xml", builds_list(newer))
    assert await bench.read(bench.own, f"{base}/app-1.1-SNAPSHOT.jar") == (200, jar("b"))


async def test_a_list_tells_of_no_build_that_never_was(bench: Bench) -> None:
    base = f"{APP}/1.1-SNAPSHOT"
    await bench.deploy(f"{base}/app-{BUILD}.jar", jar("a"))
    await bench.deploy(f"{base}/maven-metadata.xml", builds_list("1.1-20990103.000000-99999"))
    await bench.deploy(f"{base}/app-1.1-20240103.000000-2.jar", jar("b"))
    assert await bench.read(bench.own, f"{base}/app-1.1-SNAPSHOT.jar") == (200, jar("a"))


async def test_builds_of_the_servers_own_are_shown_at_once(bench: Bench) -> None:
    base = f"{APP}/1.1-SNAPSHOT"
    await bench.deploy(f"{base}/app-{BUILD}.jar", jar("a"))
    await bench.deploy(f"{base}/maven-metadata.xml", builds_list(BUILD))
    await bench.deploy(f"{base}/app-1.1-SNAPSHOT.jar", jar("b"))
    assert await bench.read(bench.own, f"{base}/app-1.1-SNAPSHOT.jar") == (200, jar("b"))


async def test_a_name_that_moves_back_is_not_taken_for_unchanged(bench: Bench) -> None:
    base = f"{APP}/1.1-SNAPSHOT"
    newer = "1.1-20240103.000000-2"
    await bench.deploy(f"{base}/app-{BUILD}.jar", jar("a"))
    bench.world.clock.forward(100)
    await bench.deploy(f"{base}/app-{newer}.jar", jar("b"))
    got = await bench.get(bench.own, f"{base}/app-1.1-SNAPSHOT.jar")
    since, etag = got.headers.get("last-modified") or "", got.headers.get("etag") or ""
    assert await body_of(got) == jar("b")
    same = await bench.get(bench.own, f"{base}/app-1.1-SNAPSHOT.jar", ("if-none-match", etag))
    assert same.status == 304
    gone = await bench.world.send(bench.own, "DELETE", f"/{base}/app-{newer}.jar", caller=ALICE)
    assert gone.status == 204
    again = await bench.get(bench.own, f"{base}/app-1.1-SNAPSHOT.jar", ("if-modified-since", since))
    assert again.status == 200
    assert await body_of(again) == jar("a")


async def test_plugins_of_a_group_are_told_while_they_are_here(bench: Bench) -> None:
    plugin = "org/example/site-maven-plugin"
    await bench.deploy(f"{plugin}/1.0/site-maven-plugin-1.0.pom", pom(artifact="site-maven-plugin"))
    said = (
        b"<metadata><plugins><plugin><name>Site</name><prefix>site</prefix><artifactId>site-maven-plugin</artifactId>"
    )
    await bench.deploy("org/example/maven-metadata.xml", said + b"</plugin></plugins></metadata>")
    status, data = await bench.read(bench.own, "org/example/maven-metadata.xml")
    assert status == 200
    assert metadata.parse(data).plugins == (metadata.Plugin("site", "site-maven-plugin", "Site"),)
    gone = await bench.world.send(bench.own, "DELETE", f"/{plugin}/", caller=ALICE)
    assert gone.status == 204
    assert (await bench.read(bench.own, "org/example/maven-metadata.xml"))[0] == 404


async def test_a_directory_is_read_by_people_and_by_coursier(bench: Bench) -> None:
    await bench.deploy(f"{APP}/1.0/app-1.0.jar", jar())
    await bench.deploy(f"{APP}/1.1/app-1.1.pom", pom(version="1.1"))
    for path, names in (
        ("", ["org/"]),
        ("org/", ["example/"]),
        (f"{APP}/", ["1.0/", "1.1/"]),
        (f"{APP}/1.0/", ["app-1.0.jar"]),
    ):
        status, data = await bench.read(bench.own, path)
        assert status == 200
        assert [name for name in re.findall(r'<a href="([^"]+)"', data.decode()) if name != "../"] == names
    assert (await bench.read(bench.own, "org/other/"))[0] == 404
    status, data = await bench.read(bench.own, f"{APP}/1.0")
    assert status == 404
    assert b"directories end with a slash" in data


async def test_prefixes_of_what_is_here(bench: Bench) -> None:
    assert (await bench.read(bench.own, ".meta/prefixes.txt"))[0] == 404
    await bench.deploy(f"{APP}/1.0/app-1.0.jar", jar())
    await bench.deploy("junit/junit/4.0/junit-4.0.pom", pom("junit", "junit", "4.0"))
    await bench.deploy("com/a/b/c/1.0/c-1.0.pom", pom("com.a.b", "c"))
    assert await bench.read(bench.own, ".meta/prefixes.txt") == (
        200,
        f"{MAGIC}\n/com/a\n/junit\n/org/example\n".encode(),
    )


# an upstream's


async def test_a_file_comes_through_a_proxy_and_stays(bench: Bench) -> None:
    (proxy, _), data = bench.mirrors, jar()
    bench.serve(f"{APP}/1.0/app-1.0.jar", data)
    bench.serve(f"{APP}/1.0/app-1.0.pom", pom())
    assert await bench.read(proxy, f"{APP}/1.0/app-1.0.jar") == (200, data)
    assert await bench.read(proxy, f"{APP}/1.0/app-1.0.pom") == (200, pom())
    bench.upstreams[0].trouble = UpstreamUnavailable("away")
    for path, right in ((f"{APP}/1.0/app-1.0.jar", data), (f"{APP}/1.0/app-1.0.pom", pom())):
        again = await bench.get(proxy, path)
        assert await body_of(again) == right
        assert checksums_of(again) == hexes(right)
        assert await bench.read(proxy, f"{path}.sha1") == (200, hashlib.sha1(right).hexdigest().encode())


async def test_the_checksum_of_a_file_that_is_not_kept_yet(bench: Bench) -> None:
    proxy = bench.mirrors[0]
    bench.serve(f"{APP}/1.0/app-1.0.pom", pom())
    right = hashlib.md5(pom()).hexdigest().encode()
    assert await bench.read(proxy, f"{APP}/1.0/app-1.0.pom.md5") == (200, right)
    assert (await bench.read(proxy, f"{APP}/1.0/app-1.0.war.sha1"))[0] == 404


LIES = {
    "a page for a jar": ("app-1.0.jar", b"<!DOCTYPE html><html>login</html>", ()),
    "a page that says so": ("app-1.0.jar", jar(), (("content-type", "text/html"),)),
    "packed bytes": ("app-1.0.jar", jar(), (("content-encoding", "gzip"),)),
    "half a jar": ("app-1.0.jar", jar()[:50], ()),
    "an empty jar": ("app-1.0.jar", b"", ()),
    "an empty POM": ("app-1.0.pom", b"", ()),
    "half a POM": ("app-1.0.pom", pom()[:-20], ()),
    "a page for a POM": ("app-1.0.pom", b"<html><body>404</body></html>", ()),
    "a page for a signature": ("app-1.0.jar.asc", b"<html><body>404</body></html>", ()),
}


@pytest.mark.parametrize("name", LIES)
async def test_what_is_not_the_file_is_a_bad_gateway_and_not_kept(bench: Bench, name: str) -> None:
    file, data, fields = LIES[name]
    path = f"{APP}/1.0/{file}"
    bench.serve(path, data, *fields)
    (proxy, _) = bench.mirrors
    try:
        response = await bench.get(proxy, path)
        await body_of(response)
        status = response.status
    except BodyBroken:  # cut before its end: nobody has had the last of it
        status = 502
    assert status == 502
    assert bench.world.catalog.file("one", path) is None


LISTS = {
    "a page": b"<html><body>login</body></html>",
    "entities": b'<!DOCTYPE m [<!ENTITY a "b">]><metadata><groupId>&a;</groupId></metadata>',
    "half": listing("1.0")[:-10],
    "nothing": b"",
}


@pytest.mark.parametrize("name", LISTS)
async def test_a_list_that_is_none_is_never_a_short_list(bench: Bench, name: str) -> None:
    bench.serve(f"{APP}/maven-metadata.xml", LISTS[name])
    bench.serve(f"{APP}/maven-metadata.xml", listing("2.0"), number=1)
    assert (await bench.read(bench.mirrors[0], f"{APP}/maven-metadata.xml"))[0] == 502
    status, data = await bench.read(bench.all, f"{APP}/maven-metadata.xml")
    assert status == 502
    assert b"maven-metadata.xml is refused" in data


async def test_upstreams_list_passes_through_with_what_we_do_not_know(bench: Bench) -> None:
    strange = listing("1.0", more="<extra>1</extra>")
    bench.serve(f"{APP}/maven-metadata.xml", strange)
    assert await bench.read(bench.mirrors[0], f"{APP}/maven-metadata.xml") == (200, strange)
    assert await bench.read(bench.all, f"{APP}/maven-metadata.xml") == (200, strange)


async def test_a_snapshots_name_is_asked_for_by_its_build(bench: Bench) -> None:
    base = f"{APP}/1.1-SNAPSHOT"
    said = metadata.Metadata(
        "org.example", "app", "1.1-SNAPSHOT", builds=(metadata.Build("", "jar", BUILD, "20240102030405"),)
    )
    bench.serve(f"{base}/maven-metadata.xml", metadata.render(said))
    bench.serve(f"{base}/app-{BUILD}.jar", jar())
    assert await bench.read(bench.mirrors[0], f"{base}/app-1.1-SNAPSHOT.jar") == (200, jar())
    assert f"GET {base}/app-1.1-SNAPSHOT.jar" not in bench.upstreams[0].asked


async def test_builds_may_be_commits_where_an_upstream_builds_what_it_is_asked_for(bench: Bench) -> None:
    """As jitpack.io: its list names a commit instead of a time, and itself by the build."""
    base, value = "com/github/shamoh/tool/master-SNAPSHOT", "master-7d2306cde8-1"
    snapshot = "<snapshot><timestamp>7d2306cde8</timestamp><buildNumber>1</buildNumber></snapshot>"
    told = f"<metadata><version>{value}</version><versioning>{snapshot}</versioning></metadata>".encode()
    bench.serve(f"{base}/maven-metadata.xml", told)
    bench.serve(f"{base}/tool-{value}.jar", jar())
    assert await bench.read(bench.mirrors[0], f"{base}/tool-master-SNAPSHOT.jar") == (200, jar())
    assert await bench.read(bench.mirrors[0], f"{base}/tool-{value}.jar") == (200, jar())
    refused = await bench.world.send(bench.own, "PUT", f"/{base}/tool-{value}.jar", jar(), caller=ALICE)
    assert refused.status == 400
    assert b"is no build of master-SNAPSHOT" in await body_of(refused)


@pytest.mark.parametrize(
    "value", ["../../../secret", "1.1-SNAPSHOT", "2.0-20240102.030405-1", "1.1", "", "x/1.1-20240102.030405-1"]
)
async def test_upstreams_word_leads_to_builds_of_the_same_version_only(bench: Bench, value: str) -> None:
    base = f"{APP}/1.1-SNAPSHOT"
    said = metadata.Metadata(
        "org.example", "app", "1.1-SNAPSHOT", builds=(metadata.Build("", "jar", value, "20240102030405"),)
    )
    bench.serve(f"{base}/maven-metadata.xml", metadata.render(said))
    assert (await bench.read(bench.mirrors[0], f"{base}/app-1.1-SNAPSHOT.jar"))[0] == 404
    assert len(bench.upstreams[0].asked) == 1


# groups


async def test_a_group_tells_what_all_its_members_tell(bench: Bench) -> None:
    lib = "org/other/lib"
    bench.serve(f"{lib}/maven-metadata.xml", listing("1.10", "1.9", artifact="lib", group="org.other"))
    bench.serve(
        f"{lib}/maven-metadata.xml", listing("2.0-SNAPSHOT", "1.9", artifact="lib", group="org.other"), number=1
    )
    assert await bench.versions(bench.all, lib) == ("1.9", "1.10", "2.0-SNAPSHOT")
    bench.world.clock.forward(200)
    bench.upstreams[1].trouble = UpstreamUnavailable("away")
    stale = await bench.get(bench.all, f"{lib}/maven-metadata.xml")
    assert stale.headers.get("warning")
    assert metadata.parse(await body_of(stale)).versions == ("1.9", "1.10", "2.0-SNAPSHOT")


async def test_a_member_that_fails_without_a_copy_is_never_left_out(bench: Bench) -> None:
    bench.serve(f"{APP}/maven-metadata.xml", listing("1.0"))
    bench.upstreams[1].trouble = UpstreamUnavailable("away")
    assert (await bench.read(bench.all, f"{APP}/maven-metadata.xml"))[0] == 503


async def test_what_is_ours_is_never_asked_of_others(bench: Bench) -> None:
    await bench.deploy(f"{APP}/1.0/app-1.0.jar", jar())
    bench.serve(f"{APP}/maven-metadata.xml", listing("666"))
    bench.serve(f"{APP}/666/app-666.jar", jar("evil"))
    assert await bench.versions(bench.all) == ("1.0",)
    assert (await bench.read(bench.all, f"{APP}/666/app-666.jar"))[0] == 404
    assert not bench.upstreams[0].asked
    assert not bench.upstreams[1].asked


async def test_prefixes_of_a_group_are_all_or_none(bench: Bench) -> None:
    await bench.deploy(f"{APP}/1.0/app-1.0.jar", jar())
    bench.serve(".meta/prefixes.txt", f"{MAGIC}\n/net/a\n".encode())
    assert (await bench.read(bench.all, ".meta/prefixes.txt"))[0] == 404
    bench.world.clock.forward(60)
    bench.serve(".meta/prefixes.txt", f"{MAGIC}\n/io/b\n".encode(), number=1)
    assert await bench.read(bench.all, ".meta/prefixes.txt") == (
        200,
        f"{MAGIC}\n/io/b\n/net/a\n/org/example\n".encode(),
    )


async def test_a_bad_path_is_the_clients_mistake_and_says_what_is_wrong(bench: Bench) -> None:
    response = await bench.get(bench.all, "org/%2e%2e/secret")
    assert response.status == 400
    assert response.reason.startswith("Bad Request: ")
    assert response.headers.get("content-type") == "application/problem+json"
    assert (await bench.world.send(bench.own, "PATCH", f"/{APP}/1.0/app-1.0.jar", b"")).status == 405


# snapshots in a group


def builds(*numbers: int) -> bytes:
    """The list of a snapshot's builds as another server has it."""
    items = "".join(
        f"<snapshotVersion><extension>{kind}</extension><value>1.1-2024010{number}.030405-{number}</value>"
        f"<updated>2024010{number}030405</updated></snapshotVersion>"
        for number in numbers
        for kind in ("jar", "pom")
    )
    last = max(numbers)
    return (
        "<metadata><groupId>org.example</groupId><artifactId>app</artifactId><version>1.1-SNAPSHOT</version><versioning>"
        f"<snapshot><timestamp>2024010{last}.030405</timestamp><buildNumber>{last}</buildNumber></snapshot>"
        f"<lastUpdated>2024010{last}030405</lastUpdated><snapshotVersions>{items}</snapshotVersions></versioning>"
        "</metadata>"
    ).encode()


def build(number: int, kind: str = "jar") -> str:
    return f"{APP}/1.1-SNAPSHOT/app-1.1-2024010{number}.030405-{number}.{kind}"


async def test_a_build_comes_from_the_member_that_has_it(bench: Bench) -> None:
    for number, which in ((1, 0), (2, 1)):
        bench.serve(f"{APP}/1.1-SNAPSHOT/maven-metadata.xml", builds(number), number=which)
        bench.serve(build(number), jar(f"build {number}"), number=which)
    status, data = await bench.read(bench.all, f"{APP}/1.1-SNAPSHOT/maven-metadata.xml")
    assert (status, b"<buildNumber>2</buildNumber>" in data) == (200, True)
    assert await bench.read(bench.all, f"{APP}/1.1-SNAPSHOT/app-1.1-SNAPSHOT.jar") == (200, jar("build 2"))
    assert await bench.read(bench.all, build(1)) == (200, jar("build 1"))
    digest = hashlib.sha1(jar("build 2")).hexdigest().encode()
    assert await bench.read(bench.all, f"{APP}/1.1-SNAPSHOT/app-1.1-SNAPSHOT.jar.sha1") == (200, digest)
    # Whoever has given out a part of a build gives out the rest of it, whatever an earlier member has by then.
    await trio.testing.wait_all_tasks_blocked()
    bench.serve(build(2, "pom"), pom(mark="of the other"), number=0)
    bench.serve(build(2, "pom"), pom(mark="of the right one"), number=1)
    assert await bench.read(bench.all, build(2, "pom")) == (200, pom(mark="of the right one"))


async def test_a_member_that_fails_hides_no_builds_of_others_and_no_newer_ones(bench: Bench) -> None:
    bench.serve(f"{APP}/1.1-SNAPSHOT/maven-metadata.xml", builds(1), number=0)
    bench.serve(build(1), jar("build 1"), number=0)
    bench.upstreams[1].trouble = UpstreamUnavailable("two is down")
    assert await bench.read(bench.all, build(1)) == (200, jar("build 1"))
    for name in ("maven-metadata.xml", "app-1.1-SNAPSHOT.jar", "maven-metadata.xml.sha1"):
        # An older build under the name of the newest would be a lie.
        assert (await bench.get(bench.all, f"{APP}/1.1-SNAPSHOT/{name}")).status == 503
    bench.upstreams[1].trouble = None
    bench.serve(f"{APP}/1.1-SNAPSHOT/maven-metadata.xml", builds(1, 2), number=1)
    bench.serve(build(2), jar("build 2"), number=1)
    assert await bench.read(bench.all, f"{APP}/1.1-SNAPSHOT/app-1.1-SNAPSHOT.jar") == (200, jar("build 2"))
    bench.upstreams[1].trouble = UpstreamUnavailable("two is down")
    bench.world.clock.forward(101)
    got = await bench.get(bench.all, f"{APP}/1.1-SNAPSHOT/app-1.1-SNAPSHOT.jar")
    assert (got.status, await body_of(got)) == (200, jar("build 2"))
    assert "two is down" in (got.headers.get("warning") or "")


async def test_builds_of_our_own_are_mixed_with_nobodys(bench: Bench) -> None:
    await bench.deploy(f"{APP}/1.1-SNAPSHOT/app-1.1-SNAPSHOT.jar", jar("ours"))
    bench.serve(f"{APP}/1.1-SNAPSHOT/maven-metadata.xml", builds(9), number=0)
    bench.serve(build(9), jar("theirs"), number=0)
    assert await bench.read(bench.all, f"{APP}/1.1-SNAPSHOT/app-1.1-SNAPSHOT.jar") == (200, jar("ours"))
    assert (await bench.get(bench.all, build(9))).status == 404
    assert not bench.upstreams[0].asked


# who may see what, and groups of groups


async def test_what_a_caller_may_not_read_has_no_name_that_he_may(bench: Bench) -> None:
    secret = "org/example/secret"
    await bench.deploy(f"{APP}/1.0/app-1.0.jar", jar())
    await bench.deploy(f"{secret}/1.0/secret-1.0.jar", jar("s"))
    await bench.deploy(f"{secret}/1.1-SNAPSHOT/secret-{BUILD}.jar", jar("s"))
    bob = Caller(name="bob", grants=Rights(read={f"own:{APP}", f"all:{APP}"}))

    async def status(where: Repository, path: str) -> int:
        response, _ = await bench.world.ask(where, f"/{path}", caller=bob)
        response.body.close()
        return response.status

    for where in (bench.own, bench.all):
        for path in (
            f"{secret}/1.0/secret-1.0.jar",
            f"{secret}/1.0/secret-1.0.jar.sha1",
            f"{secret}/maven-metadata.xml",
            f"{secret}/maven-metadata.xml.md5",
            f"{secret}/1.1-SNAPSHOT/maven-metadata.xml",
            f"{secret}/1.1-SNAPSHOT/secret-1.1-SNAPSHOT.jar",
            f"{secret}/1.1-SNAPSHOT/secret-1.1-SNAPSHOT.jar.sha1",
            ".meta/prefixes.txt",
        ):
            assert await status(where, path) == 403, path
        assert await status(where, f"{APP}/1.0/app-1.0.jar") == 200
        assert await status(where, f"{APP}/maven-metadata.xml.sha1") == 200
        response, _ = await bench.world.ask(where, "/org/example/", caller=bob)
        page = (await body_of(response)).decode()
        assert 'href="app/"' in page
        assert "secret" not in page


async def test_a_group_within_a_group_answers_as_one(bench: Bench) -> None:
    lib, base = "org/other/lib", "org/other/lib/1.1-SNAPSHOT"
    outer = Group("outer", Maven(), (bench.all, bench.world.proxy("three", upstream=FakeUpstream(), form=Maven())))
    bench.serve(f"{lib}/maven-metadata.xml", listing("1.0", artifact="lib", group="org.other"))
    bench.serve(f"{lib}/maven-metadata.xml", listing("1.1-SNAPSHOT", artifact="lib", group="org.other"), number=1)
    value = "1.1-20240103.000000-2"
    for number, told in enumerate((BUILD, value)):
        made = metadata.Build("", "jar", told, told[4:].partition("-")[0].replace(".", ""))
        said = metadata.Metadata("org.other", "lib", "1.1-SNAPSHOT", builds=(made,))
        bench.serve(f"{base}/maven-metadata.xml", metadata.render(said), number=number)
        bench.serve(f"{base}/lib-{told}.jar", jar(told), number=number)
    assert await bench.versions(outer, lib) == ("1.0", "1.1-SNAPSHOT")
    assert await bench.read(outer, f"{base}/lib-1.1-SNAPSHOT.jar") == (200, jar(value))
    assert await bench.read(outer, f"{base}/lib-{BUILD}.jar") == (200, jar(BUILD))
    both = await bench.read(outer, f"{lib}/maven-metadata.xml")
    assert await bench.read(outer, f"{lib}/maven-metadata.xml.sha1") == (
        200,
        hashlib.sha1(both[1]).hexdigest().encode(),
    )


async def test_a_version_is_deleted_by_the_api_as_by_its_clients(bench: Bench) -> None:
    await bench.deploy(f"{APP}/1.0/app-1.0.jar", jar())
    await bench.deploy(f"{APP}/1.1/app-1.1.jar", jar())
    path = bench.own.format.path_of(APP, "1.0")
    assert (await bench.world.send(bench.own, "DELETE", path, caller=ALICE)).status == 204
    assert await bench.versions(bench.own) == ("1.1",)
