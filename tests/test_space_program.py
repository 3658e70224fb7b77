"""Space that comes back by itself, while whole programs serve."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from functools import partial
from pathlib import Path

import trio

from kit.http import Got, get
from kit.publishing import pushed_image
from kit.registry import Registry, image, running, tar
from kit.servers import mxart, wait_until
from kit.space import DAY, Warehouse
from mxart.digest import Digest
from mxart.store.paths import DataPaths
from mxart.store.space.round import Breaths, once
from mxart.store.space.task import Member, Task

OPEN = (
    '[[permission]]\nrepository = "own"\ngroups = "anonymous"\nactions = ["read", "publish", "overwrite", "delete"]\n'
)
OWN = '[repository.own]\nformat = "oci"\nkind = "local"\npath = "/"\n'


MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Client:
    """Pushes as clients do; whatever is answered is returned."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def push_blob(self, data: bytes, package: str = "app") -> Got:
        begun = await get(self.port, f"/v2/{package}/blobs/uploads/", method="POST", body=b"")
        location = begun.headers["location"]
        return await get(self.port, f"{location}?digest={Digest.of(data)}", method="PUT", body=data)

    async def push_manifest(self, data: bytes, tag: str, package: str = "app") -> Got:
        target = f"/v2/{package}/manifests/{tag}"
        return await get(self.port, target, method="PUT", body=data, headers={"content-type": MANIFEST})


def blobs(data: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(data / "store" / "blobs"))


async def test_on_schedule_one_worker_collects_for_all(tmp_path: Path) -> None:
    old = time.time() - 3 * DAY
    house = Warehouse(tmp_path / "data")
    kept = await house.push_image("1", at=old)
    unlinked = await house.push_blob(b"a layer whose manifest never came", at=old)
    await house.put(b"a push that was broken off", at=old)
    house.close()
    house.paths.gc.touch()
    os.utime(house.paths.gc, (old, old))
    with mxart(tmp_path, OWN + '[gc]\nevery = "1d"\n', workers=2) as server:
        wait_until(lambda: blobs(server.data) == len(kept) or None, "a collection")
        assert (await get(server.port, f"/v2/app/blobs/{unlinked}")).status == 404
        for digest in kept[1:]:
            assert (await get(server.port, f"/v2/app/blobs/{digest}")).status == 200
        wait_until(lambda: server.log().count("gave back") == 1 or None, "a word about it")
        assert time.time() - house.paths.gc.stat().st_mtime < 60


async def test_a_schedule_begins_with_the_first_start_and_outlives_the_next(tmp_path: Path) -> None:
    with mxart(tmp_path, OWN) as server:
        lock = wait_until(lambda: (server.data / "gc").exists() or None, "the schedule's file") and server.data / "gc"
        began = lock.stat().st_mtime
    with mxart(tmp_path, OWN) as server:
        assert (await get(server.port, "/v2/")).status in (200, 401)
        assert lock.stat().st_mtime == began


async def test_a_cache_is_kept_to_its_size_and_what_went_is_fetched_again(tmp_path: Path) -> None:
    images = [image(tar({f"file{number}": os.urandom(200_000)})) for number in range(4)]
    with running(Registry(tmp_path / "root", tmp_path / "registry")) as registry:
        for number, item in enumerate(images):
            registry.publish_image("team/tool", str(number), item)
        config = (
            f'[repository.hub]\nformat = "oci"\nkind = "proxy"\nupstream = "{registry.url}"\npath = "/hub"\n'
            'max_bytes = "500KiB"\n'
        )
        with mxart(tmp_path, config, workers=2) as server:
            for number, item in enumerate(images):
                got = await get(server.port, f"/v2/hub/team/tool/manifests/{number}")
                assert got.body == item.manifest.data
                for blob in item.blobs:
                    assert (await get(server.port, f"/v2/hub/team/tool/blobs/{blob.digest}")).body == blob.data

            def small() -> bool | None:
                sizes = [path.stat().st_size for path in (server.data / "store" / "blobs").rglob("*") if path.is_file()]
                return sum(sizes) <= 500 * 1024 or None

            wait_until(small, "room in the cache", 30)
            db = sqlite3.connect(server.data / "catalog.sqlite")
            needs = db.execute("SELECT count(*) FROM links").fetchall()
            lacks = db.execute(
                "SELECT l.digest FROM links l JOIN files m ON m.id = l.file WHERE NOT EXISTS"
                " (SELECT 1 FROM files f WHERE f.package = m.package AND f.digest = l.digest)"
            ).fetchall()
            db.close()
            assert needs != [(0,)]
            assert lacks == [], "what a kept manifest needs went"
            asked = len(registry.asked())
            for blob in images[0].blobs:
                assert (await get(server.port, f"/v2/hub/team/tool/blobs/{blob.digest}")).body == blob.data
            assert len(registry.asked()) > asked


async def test_what_an_older_program_kept_is_evicted_no_earlier_than_who_needs_it(tmp_path: Path) -> None:
    """Its catalog knows no links; whoever goes on with it learns them before anything is evicted."""
    images = [image(tar({f"file{number}": os.urandom(100_000)})) for number in range(4)]
    with running(Registry(tmp_path / "root", tmp_path / "registry")) as registry:
        for number, item in enumerate(images):
            registry.publish_image("team/tool", str(number), item)
        config = f'[repository.hub]\nformat = "oci"\nkind = "proxy"\nupstream = "{registry.url}"\npath = "/hub"\n'
        with mxart(tmp_path, config) as server:
            for number, item in enumerate(images):
                for blob in item.blobs:
                    await get(server.port, f"/v2/hub/team/tool/blobs/{blob.digest}")
                assert (await get(server.port, f"/v2/hub/team/tool/manifests/{number}")).status == 200
        with sqlite3.connect(tmp_path / "data" / "catalog.sqlite") as db:
            db.execute("DELETE FROM links")
        db.close()
        (tmp_path / "data" / "linked").unlink()
        with mxart(tmp_path, config + 'max_bytes = "250KiB"\n', workers=2) as server:
            db = sqlite3.connect(server.data / "catalog.sqlite")
            wait_until(lambda: db.execute("SELECT 1 FROM usage WHERE bytes <= 256000").fetchall() or None, "room", 30)
            kept = {digest for (digest,) in db.execute("SELECT digest FROM files").fetchall()}
            db.close()
        whole = [item for item in images if item.manifest.digest in kept]
        assert 0 < len(whole) < 4
        assert {blob.digest for item in whole for blob in item.blobs} <= kept


async def test_a_repository_never_holds_more_than_its_quota_and_says_so_in_numbers(tmp_path: Path) -> None:
    config = OWN + 'quota = "1MiB"\n' + OPEN
    with mxart(tmp_path, config, workers=2) as server:
        client = Client(server.port)
        first = os.urandom(700_000)
        assert (await client.push_blob(first)).status == 201
        assert (await client.push_blob(first, "another")).status == 201, "the same bytes count once"
        full = await client.push_blob(os.urandom(400_000))
        assert full.status == 507
        for number in (b"1048576 bytes", b"700000 of them are used", b"400000 more"):
            assert number in full.body
        never = await client.push_blob(os.urandom(1_100_000))
        assert never.status == 413
        assert b"can never hold this" in never.body
        for _ in range(2):
            assert (await client.push_blob(b"{}")).status == 201
        assert (await client.push_manifest(pushed_image("small", first), "1")).status == 201
        assert (await get(server.port, "/v2/app/manifests/1")).status == 200


async def test_pushes_go_on_while_it_is_collected_again_and_again(tmp_path: Path) -> None:
    """Without a grace, which is for them: some are refused, and all that was acknowledged stays whole."""
    acknowledged: list[tuple[str, bytes]] = []
    refused: list[int] = []
    with mxart(tmp_path, OWN + OPEN, workers=2) as server:
        client = Client(server.port)

        async def push(number: int) -> None:
            for round_ in range(12):
                layer = f"layer {(number + round_) % 5}".encode() * 1000
                manifest = pushed_image(f"{number} {round_}", layer)
                tag = f"{number}.{round_}"
                for _ in range(5):  # as its user would
                    await client.push_blob(b"{}")
                    await client.push_blob(layer)
                    answer = await client.push_manifest(manifest, tag)
                    if answer.status == 201:
                        acknowledged.append((tag, manifest))
                        break
                    refused.append(answer.status)
                if round_ % 3 == 2 and acknowledged:
                    _, old = acknowledged.pop(0)
                    gone = await get(server.port, f"/v2/app/manifests/{Digest.of(old)}", method="DELETE")
                    assert gone.status == 202

        async def collect() -> None:
            paths = DataPaths(server.data)
            task = Task(
                catalog=str(paths.catalog),
                generation=str(paths.generation),
                lock=str(paths.gc),
                stores={"default": str(paths.store)},
                members=(Member("own", "default", part="blobs"),),
                grace=0,
            )
            while True:
                await trio.to_thread.run_sync(partial(once, task, pause=Breaths()))

        async with trio.open_nursery() as collecting:
            collecting.start_soon(collect)
            async with trio.open_nursery() as pushing:
                for number in range(4):
                    pushing.start_soon(push, number)
            collecting.cancel_scope.cancel()
        assert acknowledged
        assert set(refused) <= {400, 404, 503}
        for tag, manifest in acknowledged:
            got = await get(server.port, f"/v2/app/manifests/{tag}")
            assert (got.status, got.body) == (200, manifest)
            for item in [json.loads(manifest)["config"], *json.loads(manifest)["layers"]]:
                assert (await get(server.port, f"/v2/app/blobs/{item['digest']}")).status == 200
