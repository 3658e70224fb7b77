"""A Maven upstream is believed as far as its files are what it says itself, and asked for what is not ours."""

from __future__ import annotations

import hashlib

import pytest
import trio.testing

from kit.maven import ALICE, jar, pom
from kit.repos import Answer, FakeUpstream, World, body_of, request
from mxart.errors import BodyBroken, Problem, UpstreamDenied, UpstreamFailed, UpstreamUnavailable
from mxart.message import Response, Trace
from mxart.repos.answers import answer
from mxart.repos.base import Repository
from mxart.repos.group import Group
from mxart.repos.local import Local
from mxart.repos.maven.closed import Closed, Groups
from mxart.repos.maven.format import Maven
from mxart.repos.maven.writes import Policy
from mxart.repos.proxy import Proxy
from mxart.repos.remote import Remote, Rules
from mxart.repos.stock import Shelf
from mxart.repos.upstream_sums import UpstreamSums

APP = "org/example/app"
JAR = jar("the right one")
PATH = f"{APP}/1.0/app-1.0.jar"
POM_PATH = f"{APP}/1.0/app-1.0.pom"


def hexed(algorithm: str, data: bytes) -> str:
    return hashlib.new(algorithm, data).hexdigest()


class Bench:
    """A proxy of one upstream, whose files are verified; what is private is not asked of it."""

    def __init__(self, world: World, *private: str, policy: Policy = "mixed") -> None:
        self.world = world
        self.upstream = FakeUpstream()
        form, rules = Maven(), Rules(ttl=100.0, negative_ttl=50.0)
        shelf = Shelf("central", form, world.stock)
        nursery, origin = world.nursery, self.upstream.origin
        remote = Remote("central", form, self.upstream, world.stock, shelf, nursery, origin, rules, world.clock)
        self.central = Proxy(
            "central",
            form,
            self.upstream,
            world.stock,
            nursery=nursery,
            origin=origin,
            rules=rules,
            clock=world.clock,
            verifier=UpstreamSums(remote),
            closed=Closed(Groups(private), policy),
        )

    def serve(self, path: str, data: bytes, *fields: tuple[str, str]) -> Answer:
        made = Answer(data, [("content-length", str(len(data))), *fields])
        self.upstream.answers[path] = made
        return made

    async def get(self, path: str, where: Repository | None = None) -> tuple[int, bytes, Trace]:
        """Status, body, and what the log line would say; a body that is cut is a bad gateway, as clients see it."""
        where = where or self.central
        asked = request("GET", f"/{path}")
        try:
            response = await answer(where, where.format.parse("GET", asked.path, "", asked.headers), asked)
            return response.status, await body_of(response), asked.trace
        except Problem as problem:
            return problem.status, problem.message.encode(), asked.trace
        except BodyBroken as error:
            return 502, str(error).encode(), asked.trace


@pytest.fixture
def bench(nursery: trio.Nursery) -> Bench:
    return Bench(World(nursery))


@pytest.mark.parametrize(
    "fields",
    [
        ("x-checksum-sha1", hexed("sha1", JAR)),
        ("x-checksum-md5", hexed("md5", JAR).upper()),
        ("x-checksum-sha512", hexed("sha512", JAR)),
        ("x-goog-meta-checksum-sha1", hexed("sha1", JAR)),
        ("x-amz-meta-checksum-sha256", hexed("sha256", JAR)),
        ("etag", f'"{{SHA1{{{hexed("sha1", JAR)}}}}}"'),
    ],
    ids=lambda fields: fields[0],
)
async def test_a_checksum_in_the_head_saves_a_question(bench: Bench, fields: tuple[str, str]) -> None:
    bench.serve(PATH, JAR, fields)
    bench.serve(POM_PATH, pom(), (fields[0], fields[1].replace(hexed("sha1", JAR), hexed("sha1", pom()))))
    assert (await bench.get(PATH))[:2] == (200, JAR)
    assert bench.upstream.asked == [f"GET {PATH}"]


@pytest.mark.parametrize("name", ["x-checksum-sha1", "etag"])
@pytest.mark.parametrize("path", [PATH, POM_PATH])
async def test_a_file_that_its_head_contradicts_is_nobodys(bench: Bench, name: str, path: str) -> None:
    wrong = "0" * 40
    data = JAR if path == PATH else pom()
    bench.serve(path, data, (name, f'"{{SHA1{{{wrong}}}}}"' if name == "etag" else wrong))
    status, text, _ = await bench.get(path)
    assert (status, b"says that it is 0000" in text or b"broken" in text) == (502, True), text
    assert not bench.world.catalog.files
    assert not bench.world.blobs.kept
    bench.world.clock.forward(60)
    bench.serve(
        path, JAR if path == PATH else pom(), ("x-checksum-sha1", hexed("sha1", JAR if path == PATH else pom()))
    )
    assert (await bench.get(path))[0] == 200  # upstream has mended it


@pytest.mark.parametrize(
    ("files", "asked", "status", "noted"),
    [
        ({"sha1": hexed("sha1", JAR)}, ["sha1"], 200, False),
        ({"sha1": f"{hexed('sha1', JAR).upper()}  app-1.0.jar\n"}, ["sha1"], 200, False),
        ({"md5": hexed("md5", JAR)}, ["sha1", "md5"], 200, False),
        ({}, ["sha1", "md5"], 200, True),
        ({"sha1": "<html>no such file</html>", "md5": "x" * 5000}, ["sha1", "md5"], 200, True),
        ({"sha1": "1" * 40, "md5": hexed("md5", JAR)}, ["sha1"], 502, False),
        ({"md5": "1" * 32}, ["sha1", "md5"], 502, False),
    ],
    ids=["sha1", "with a name", "md5", "none", "pages", "wrong sha1", "wrong md5"],
)
async def test_else_the_file_beside_is_asked_for(
    bench: Bench, files: dict[str, str], asked: list[str], status: int, noted: bool
) -> None:
    bench.serve(PATH, JAR)
    for algorithm, text in files.items():
        bench.serve(f"{PATH}.{algorithm}", text.encode())
    found, _, trace = await bench.get(PATH)
    assert found == status
    assert bench.upstream.asked == [f"GET {PATH}", *(f"GET {PATH}.{algorithm}" for algorithm in asked)]
    assert any("unverified" in note for note in trace.notes) == noted
    await trio.testing.wait_all_tasks_blocked()
    assert bool(bench.world.catalog.files) == (status == 200)


async def test_where_the_checksum_cannot_be_had_now_the_file_is_verified_by_whoever_asks_next(bench: Bench) -> None:
    bench.serve(POM_PATH, pom())
    bench.serve(f"{POM_PATH}.sha1", b"").problem = UpstreamFailed("it answers 500")
    status, text, _ = await bench.get(POM_PATH)
    assert (status, b"nobody can tell" in text) == (503, True)
    bench.serve(f"{POM_PATH}.sha1", b"").problem = UpstreamUnavailable("too many requests", retry_after=7.0)
    assert (await bench.get(POM_PATH))[0] == 503
    assert not bench.world.catalog.files
    bench.serve(f"{POM_PATH}.sha1", hexed("sha1", pom()).encode())
    assert (await bench.get(POM_PATH))[:2] == (200, pom())


async def test_an_object_store_denies_what_is_not_there(bench: Bench) -> None:
    bench.serve(POM_PATH, pom())
    bench.serve(f"{POM_PATH}.sha1", b"").problem = UpstreamDenied("403", forbidden=True)
    assert (await bench.get(POM_PATH))[0] == 200


async def test_signatures_and_lists_are_compared_with_their_head_only(bench: Bench) -> None:
    signature = b"-----BEGIN PGP SIGNATURE-----\n\nabc\n-----END PGP SIGNATURE-----\n"
    versions = b"<metadata><groupId>org.example</groupId><artifactId>app</artifactId></metadata>"
    bench.serve(f"{PATH}.asc", signature)
    bench.serve(f"{APP}/maven-metadata.xml", versions, ("x-checksum-sha1", hexed("sha1", versions)))
    assert (await bench.get(f"{PATH}.asc"))[0] == (await bench.get(f"{APP}/maven-metadata.xml"))[0] == 200
    assert bench.upstream.asked == [f"GET {PATH}.asc", f"GET {APP}/maven-metadata.xml"]
    bench.world.clock.forward(101)
    bench.serve(f"{APP}/maven-metadata.xml", versions + b"\n", ("x-checksum-sha1", hexed("sha1", versions)))
    response = await bench.get(f"{APP}/maven-metadata.xml")
    assert (response[0], response[1]) == (200, versions)  # the last that was right, marked


async def test_what_is_missing_is_missing_for_a_while_and_nothing_else_is(bench: Bench) -> None:
    for path in (PATH, POM_PATH, f"{APP}/maven-metadata.xml"):
        for _ in range(3):
            assert (await bench.get(path))[0] == 404
        assert bench.upstream.asked.count(f"GET {path}") == 1
        bench.upstream.asked.clear()
        for problem, status in (
            (UpstreamDenied("403 Forbidden", forbidden=True), 502),
            (UpstreamUnavailable("429 Too Many Requests", retry_after=30.0), 503),
            (UpstreamFailed("500"), 502),
        ):
            bench.world.clock.forward(51)
            bench.serve(path, b"").problem = problem
            assert (await bench.get(path))[0] == status
            assert (await bench.get(path))[0] == status
            assert bench.upstream.asked.count(f"GET {path}") == 2  # asked again: it was no word on the file
            bench.upstream.asked.clear()
        del bench.upstream.answers[path]


async def test_upstreams_wish_to_be_left_alone_reaches_the_client(bench: Bench) -> None:
    bench.serve(POM_PATH, b"").problem = UpstreamUnavailable("429 Too Many Requests", retry_after=30.0)
    response: Response = (await bench.world.ask(bench.central, f"/{POM_PATH}"))[0]
    assert (response.status, response.headers.get("retry-after")) == (503, "30")


# what is ours


async def test_private_groups_are_asked_of_no_upstream(nursery: trio.Nursery) -> None:
    bench = Bench(World(nursery), "com.example.*", "org.acme")
    own = Local("own", Maven(), bench.world.stock, bench.world.clock)
    both = Group("both", Maven(), (own, bench.central))
    private = ["com/example/app", "com/example/deep/er/app", "org/acme/app"]
    for package in private:
        for path in (f"{package}/1.0/app-1.0.pom", f"{package}/1.0/app-1.0.jar", f"{package}/maven-metadata.xml"):
            for where in (bench.central, both):
                status, text, _ = await bench.get(path, where)
                assert (status, b"private here" in text or where is both) == (404, True)
    assert (await bench.get("com/example/maven-metadata.xml"))[0] == 404
    assert (await bench.get("com/example/app/1.0/app-1.0.jar.sha1"))[0] == 404
    assert not bench.upstream.asked
    for package in ("com/examples/app", "org/acme/sub/app", "com/app"):
        assert (await bench.get(f"{package}/1.0/app-1.0.pom"))[0] == 404
    assert len(bench.upstream.asked) == 3
    data = pom("com.example", "app")
    await bench.world.send(own, "PUT", "/com/example/app/1.0/app-1.0.pom", data, caller=ALICE)
    assert (await bench.get("com/example/app/1.0/app-1.0.pom", both))[:2] == (200, data)


async def test_what_a_proxy_kept_of_a_group_that_became_private_is_not_served(nursery: trio.Nursery) -> None:
    world = World(nursery)
    before, after = Bench(world), Bench(world, "org.example")
    before.serve(POM_PATH, pom(), ("x-checksum-sha1", hexed("sha1", pom())))
    assert (await before.get(POM_PATH))[0] == 200
    assert (await after.get(POM_PATH))[0] == 404


async def test_an_upstream_of_releases_is_asked_for_no_snapshots(nursery: trio.Nursery) -> None:
    bench = Bench(World(nursery), policy="releases")
    own = Local("own", Maven("snapshots"), bench.world.stock, bench.world.clock)
    both = Group("both", Maven(), (own, bench.central))
    bench.upstream.trouble = UpstreamUnavailable("it is down")
    folder = f"{APP}/1.1-SNAPSHOT"
    paths = ("maven-metadata.xml", "app-1.1-SNAPSHOT.pom", "app-1.1-20240102.030405-1.pom", "app-1.1-SNAPSHOT.jar.sha1")
    for path in paths:
        for where in (bench.central, both):  # so a first deploy, which asks for the list, needs no upstream
            assert (await bench.get(f"{folder}/{path}", where))[0] == 404
    assert b"releases only" in (await bench.get(f"{folder}/{paths[0]}"))[1]
    assert not bench.upstream.asked
    assert (await bench.get(POM_PATH))[0] == (await bench.get(f"{APP}/maven-metadata.xml"))[0] == 503
    assert len(bench.upstream.asked) == 2


async def test_an_upstream_of_snapshots_is_asked_for_no_releases(nursery: trio.Nursery) -> None:
    bench = Bench(World(nursery), policy="snapshots")
    assert (await bench.get(POM_PATH))[0] == (await bench.get(PATH))[0] == 404
    assert not bench.upstream.asked
    for path in (f"{APP}/maven-metadata.xml", f"{APP}/1.1-SNAPSHOT/maven-metadata.xml", ".meta/prefixes.txt"):
        assert (await bench.get(path))[0] == 404
    assert len(bench.upstream.asked) == 3


@pytest.mark.parametrize("pattern", ["com/example", "com..example", "*", ".*", "com.**", "com. example", "**.x"])
def test_a_pattern_that_is_none_is_refused_with_what_would_be_right(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"com\.example"):
        Groups((pattern,))


def test_patterns_may_stand_in_one_text_and_have_stars_within_a_name() -> None:
    groups = Groups(("com.example, org.acme-*.*",))
    assert [groups.hold(path) for path in ("com/example/x", "org/acme-one/x", "org/acme-two/three/x")] == [True] * 3
    assert not any(groups.hold(path) for path in ("com/example/x/y", "org/acme/x", "com", ""))
