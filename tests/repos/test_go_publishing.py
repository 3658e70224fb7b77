"""Modules are published by their zip: what follows from it, what is refused, and who comes second."""

from __future__ import annotations

import json
import zipfile

import pytest
import trio

from kit.bodies import GivenBody
from kit.modules import COMMIT, OLD, TOML, TOOLS, Module, zipped
from kit.publishing import EVERYTHING, Rights
from kit.repos import Answer, World, body_of
from mxart.repos.callers import Caller
from mxart.repos.go import gomod
from mxart.repos.go.archives import MAX_ENTRIES
from mxart.repos.go.format import Go
from mxart.repos.group import Group
from mxart.repos.local import Local

APP = "example.com/app"
ONE = Module(APP, "v1.0.0")
ALICE = Caller(name="alice", grants=EVERYTHING)


class Shop:
    """A local repository, a group that publishes to it, and a proxy behind that."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.own = world.local(form=Go())
        self.mirror = world.proxy("mirror", form=Go())
        self.group = Group("go", Go(), (self.own, self.mirror), publish_to="own")

    async def put(
        self,
        module: Module,
        data: bytes | GivenBody | None = None,
        to: Local | Group | None = None,
        caller: Caller = ALICE,
    ) -> tuple[int, str]:
        sent = module.zip if data is None else data
        response = await self.world.send(to or self.own, "PUT", f"/{module.base}.zip", sent, caller=caller)
        return response.status, (await body_of(response)).decode()

    async def get(self, path: str, repository: Local | Group | None = None) -> tuple[int, bytes]:
        response, _ = await self.world.ask(repository or self.own, f"/{path}")
        return response.status, await body_of(response)

    async def latest(self, module: str = APP) -> str:
        status, data = await self.get(f"{module}/@latest")
        assert status == 200
        return str(json.loads(data)["Version"])


@pytest.fixture
def shop(nursery: trio.Nursery) -> Shop:
    return Shop(World(nursery))


def of(files: dict[str, bytes], module: Module = ONE) -> bytes:
    return zipped({f"{module.path}@{module.version}/{name}": data for name, data in files.items()})


@pytest.mark.parametrize("module", [ONE, TOML, TOOLS, COMMIT, OLD], ids=lambda module: module.version)
async def test_a_zip_makes_a_version_with_all_its_files(shop: Shop, module: Module) -> None:
    status, text = await shop.put(module)
    assert status == 201
    assert text.startswith("published: h1:")
    assert await shop.get(f"{module.base}.zip") == (200, module.zip)
    assert await shop.get(f"{module.base}.mod") == (200, module.mod)
    status, info = await shop.get(f"{module.base}.info")
    assert status == 200
    commit = module is COMMIT
    assert json.loads(info) == {
        "Version": module.version,
        "Time": "2024-01-02T03:04:05Z" if commit else "2027-01-15T08:00:00Z",
    }
    listed = b"" if commit else f"{module.version}\n".encode()
    assert await shop.get(f"{module.base.rpartition('/')[0]}/list") == (200, listed)
    assert shop.world.uploads.states == {}


async def test_what_has_no_go_mod_gets_one(shop: Shop) -> None:
    assert (await shop.put(ONE, of({"a.go": b"package a\n"})))[0] == 201
    assert await shop.get(f"{ONE.base}.mod") == (200, f"module {APP}\n".encode())


async def test_the_same_again_is_no_error_and_changes_nothing(shop: Shop) -> None:
    await shop.put(ONE)
    before = dict(shop.world.catalog.files)
    shop.world.clock.forward(60)
    files = dict(reversed({f"{APP}@v1.0.0/{name}": data for name, data in ONE.files.items()}.items()))
    status, text = await shop.put(ONE, zipped(files, zipfile.ZIP_STORED))  # other bytes, the same module
    assert status == 200
    assert "the same" in text
    assert shop.world.catalog.files == before


async def test_a_version_never_changes_whoever_asks(shop: Shop) -> None:
    await shop.put(ONE)
    before = dict(shop.world.catalog.files)
    status, text = await shop.put(Module(APP, "v1.0.0", says="other"))
    assert status == 409
    assert "published already, with other content" in text.splitlines()[0]
    assert "new version" in text.splitlines()[0]
    assert shop.world.catalog.files == before
    assert shop.world.uploads.states == {}
    assert await shop.get(f"{ONE.base}.zip") == (200, ONE.zip)


async def test_of_two_who_publish_a_version_at_once_one_wins(shop: Shop) -> None:
    for other, expected in ((ONE, [200, 201]), (Module(APP, "v1.0.0", says="other"), [201, 409])):
        statuses: list[int] = []

        async def publish(module: Module, statuses: list[int] = statuses) -> None:
            statuses.append((await shop.put(module))[0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish, ONE)
            nursery.start_soon(publish, other)
        assert sorted(statuses) == expected
        assert await shop.get(f"{APP}/@v/list") == (200, b"v1.0.0\n")
        response = await shop.world.send(shop.own, "DELETE", f"/{ONE.base}.zip", caller=ALICE)
        assert response.status == 200


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"no zip", "not a zip archive"),
        (ONE.zip[:-40], "only a part of one"),
        (Module(APP, "v1.0.1").zip, "begin with example.com/app@v1.0.0/"),
        (Module("example.com/other", "v1.0.0").zip, "begin with example.com/app@v1.0.0/"),
        (of({}), "no files"),
        (of({"dir/": b""}), "no files"),
        (of({"../a": b""}), "no file name"),
        (of({"readme": b"", "README": b""}), "differ in case only"),
        (of({"go.mod": b"module example.com/fork\n"}), "'example.com/fork', not of example.com/app"),
        (of({"go.mod": b"go 1.17\n"}), "names no module"),
        (of({"go.mod": b"\xff\xfe"}), "no text"),
        (of({"go.mod": b"module example.com/app\n" + b"//" + b"a" * (4 << 20)}), "at most 4194304"),
    ],
)
async def test_what_is_no_zip_of_the_version_is_refused_and_leaves_nothing(shop: Shop, data: bytes, why: str) -> None:
    status, text = await shop.put(ONE, data)
    assert status == 400
    assert why in text.splitlines()[0]
    assert shop.world.catalog.files == {}
    assert shop.world.blobs.kept == {}
    assert shop.world.uploads.states == {}


async def test_a_flood_of_names_is_refused(shop: Shop) -> None:
    status, text = await shop.put(ONE, of({f"a{number}": b"" for number in range(MAX_ENTRIES + 1)}))
    assert status == 400
    assert f"at most {MAX_ENTRIES}" in text


async def test_a_bomb_is_unpacked_no_further_than_it_says(shop: Shop) -> None:
    bomb = bytearray(of({"zeros": bytes(50_000_000)}))
    at = bomb.rindex(b"PK\x01\x02") + 24
    bomb[at : at + 4] = (100).to_bytes(4, "little")
    status, text = await shop.put(ONE, bytes(bomb))
    assert status == 400
    assert "larger than the 100 bytes" in text


async def test_only_whole_versions_that_the_path_can_have_are_published(shop: Shop) -> None:
    for version, why in (
        ("v1.0", "v1.0.0 instead of v1.0"),
        ("main", "is none"),
        ("v1.0.0+meta", "v1.0.0 instead"),
        ("v2.0.0", "from v2 on"),
        ("v1.0.0+incompatible", "v0 and v1 are never"),
    ):
        status, text = await shop.put(Module(APP, version), b"")
        assert status == 400
        assert why in text


async def test_what_has_a_go_mod_is_not_incompatible(shop: Shop) -> None:
    module = Module(APP, "v2.0.0+incompatible")
    status, text = await shop.put(module, of({"go.mod": f"module {APP}\n".encode()}, module))
    assert status == 400
    assert "/v2" in text


async def test_who_may_not_publish_sends_nothing(shop: Shop) -> None:
    body = GivenBody(ONE.zip)
    reader = Caller(name="bob", grants=Rights(read=[f"own:{APP}"]))
    status, text = await shop.put(ONE, body, caller=reader)
    assert status == 403
    assert "publish" in text
    assert body.taken == 0


async def test_a_client_that_leaves_has_published_nothing(shop: Shop) -> None:
    with trio.fail_after(5), pytest.raises(Exception, match="left"):
        await shop.put(ONE, GivenBody(ONE.zip, breaks_at=100))
    assert shop.world.catalog.files == {}
    assert shop.world.uploads.states == {}


async def test_who_may_delete_takes_a_version_away_with_all_its_files(shop: Shop) -> None:
    await shop.put(ONE)
    await shop.put(Module(APP, "v1.1.0"))
    publisher = Caller(name="bob", grants=Rights(read=[f"own:{APP}"], publish=[f"own:{APP}"]))
    response = await shop.world.send(shop.own, "DELETE", f"/{ONE.base}.zip", caller=publisher)
    assert response.status == 403
    response = await shop.world.send(shop.own, "DELETE", f"/{ONE.base}.zip", caller=ALICE)
    assert response.status == 200
    for kind in ("zip", "mod", "info"):
        assert (await shop.get(f"{ONE.base}.{kind}"))[0] == 404
    assert await shop.get(f"{APP}/@v/list") == (200, b"v1.1.0\n")
    response = await shop.world.send(shop.own, "DELETE", f"/{ONE.base}.zip", caller=ALICE)
    assert response.status == 404


async def test_a_group_publishes_where_it_says_and_then_asks_no_upstream(shop: Shop) -> None:
    shop.world.upstream.answers[f"{APP}/@v/list"] = Answer(b"v9.0.0\n")
    shop.world.upstream.answers[f"{APP}/@latest"] = Answer(b'{"Version":"v1.9.0"}')
    assert (await shop.put(ONE, to=shop.group))[0] == 201
    assert await shop.get(f"{APP}/@v/list", shop.group) == (200, b"v1.0.0\n")
    assert await shop.get(f"{ONE.base}.zip", shop.group) == (200, ONE.zip)
    status, info = await shop.get(f"{APP}/@latest", shop.group)
    assert (status, json.loads(info)["Version"]) == (200, "v1.0.0")
    assert shop.world.upstream.asked == []


@pytest.mark.parametrize("target", ["/upload", "/v2.3.0.zip"])
async def test_the_zip_alone_tells_what_it_is(shop: Shop, target: str) -> None:
    response = await shop.world.send(shop.group, "PUT", target, TOOLS.zip, caller=ALICE)
    assert response.status == 201
    assert await shop.get(f"{TOOLS.base}.zip") == (200, TOOLS.zip)
    assert (await shop.put(TOOLS))[0] == 200


@pytest.mark.parametrize(
    ("target", "data", "why"),
    [
        ("/upload", b"no zip", "this is no zip of a module: it is not a zip archive"),
        ("/upload", zipped({}), "no files"),
        ("/upload", zipped({"a.go": b""}), "<module>@<version>/"),
        ("/upload", zipped({"../../x@v1.0.0/a.go": b""}), "no module path"),
        ("/upload", zipped({"Example.com/x@v1.0.0/a.go": b""}), "no module path"),
        ("/upload", zipped({f"{APP}@v1.0/a.go": b""}), "v1.0.0 instead"),
        ("/upload", zipped({f"{APP}@v1.0.0+incompatible/a.go": b""}), "never +incompatible"),
        ("/upload", zipped({f"{APP}@v1.0.0/a.go": b"", f"{APP}@v1.0.1/b.go": b""}), f"begin with {APP}@v1.0.0/"),
        ("/upload", zipped({f"{APP}/@v/v1.0.0.zip@v1.0.0/a.go": b""}), "no module path"),
        ("/v1.2.4.zip", TOML.zip, "version 'v1.2.0', not 'v1.2.4'"),
    ],
)
async def test_a_zip_that_tells_nothing_good_is_refused(shop: Shop, target: str, data: bytes, why: str) -> None:
    response = await shop.world.send(shop.own, "PUT", target, data, caller=ALICE)
    assert response.status == 400
    assert why in (await body_of(response)).decode().splitlines()[0]
    assert shop.world.catalog.files == {}


async def test_what_the_zip_is_decides_who_may_publish_it(shop: Shop) -> None:
    for name, expected in (("bob", 403), ("", 403)):
        caller = Caller(name=name, grants=Rights(publish=[f"own:{APP}"]))
        body = GivenBody(TOOLS.zip)
        response = await shop.world.send(shop.own, "PUT", "/upload", body, caller=caller)
        assert (response.status, body.taken > 0) == (expected, name != "")
        response = await shop.world.send(shop.own, "PUT", "/upload", ONE.zip, caller=caller)
        assert response.status == (201 if name else 403)
    assert {record.package for record in shop.world.catalog.files.values()} == {APP}


async def test_a_proxy_takes_nothing(shop: Shop) -> None:
    response = await shop.world.send(shop.mirror, "PUT", f"/{ONE.base}.zip", ONE.zip, caller=ALICE)
    assert response.status == 405


async def test_the_latest_is_the_highest_release_that_was_not_retracted(shop: Shop) -> None:
    assert (await shop.get(f"{APP}/@latest"))[0] == 404
    commit = Module(APP, "v0.0.0-20240102030405-0123456789ab")
    for module, latest in (
        (commit, commit.version),
        (Module(APP, "v1.3.0-rc.1"), "v1.3.0-rc.1"),
        (Module(APP, "v1.9.0"), "v1.9.0"),
        (Module(APP, "v1.10.0"), "v1.10.0"),
        (Module(APP, "v1.11.0-rc.1"), "v1.10.0"),
    ):
        assert (await shop.put(module))[0] == 201
        assert await shop.latest() == latest
    text = f"module {APP}\n\nretract (\n\tv1.10.0 // a bug\n\t[v1.12.0, v1.12.9]\n)\n".encode()
    taking_back = Module(APP, "v1.12.0")
    assert (await shop.put(taking_back, of({"go.mod": text}, taking_back)))[0] == 201
    assert await shop.latest() == "v1.9.0"
    assert (await shop.get(f"{APP}/@v/list"))[1].split()[-2:] == [b"v1.11.0-rc.1", b"v1.12.0"]


async def test_what_one_repository_takes_back_is_not_the_latest_of_a_group_that_has_it_from_another(shop: Shop) -> None:
    other = shop.world.local("other", form=Go())
    inner = Group("inner", Go(), (other,))
    both = Group("both", Go(), (shop.own, inner, shop.mirror))
    for version in ("v1.9.0", "v1.10.0"):
        assert (await shop.put(Module(APP, version)))[0] == 201
    taking_back = Module(APP, "v1.9.1")
    text = f"module {APP}\n\nretract [v1.9.1, v1.10.0]\n".encode()
    assert (await shop.put(taking_back, of({"go.mod": text}, taking_back), other))[0] == 201
    # Whoever is newest says what counts: v1.9.1 is not.
    assert json.loads((await shop.get(f"{APP}/@latest", both))[1])["Version"] == "v1.10.0"
    newest = Module(APP, "v1.10.1")
    text = f"module {APP}\n\nretract [v1.9.1, v1.10.1]\n".encode()
    assert (await shop.put(newest, of({"go.mod": text}, newest), other))[0] == 201
    for repository in (both, Group("turned", Go(), (inner, shop.own))):
        assert json.loads((await shop.get(f"{APP}/@latest", repository))[1])["Version"] == "v1.9.0"
    assert not shop.world.upstream.asked
    assert (await shop.get(f"{APP}/@latest", both))[0] == 200
    assert (await shop.get("example.com/none/@latest", both))[0] == 404


def test_a_go_mod_is_read_as_far_as_it_matters() -> None:
    said = gomod.read(
        b'// retract v0.0.1\nmodule "example.com/a" // the name\n\ngo 1.24rc1\ntoolchain go1.25.0\n'
        b"require (\n\tretract v1.0.0\n)\nretract v1.0.0\nretract [v1.2.0,v1.3.0] // all of them\nretract `v2.0.0`\n"
        b"retract latest\nretract [v1.0.0\n"
    )
    assert (said.module, said.go) == ("example.com/a", (1, 24))
    assert said.retracted == (("v1.0.0", "v1.0.0"), ("v1.2.0", "v1.3.0"), ("v2.0.0", "v2.0.0"))
    assert gomod.read(b"module (\n example.com/b\n)\n").module == "example.com/b"
    assert gomod.read(b"").module == ""
