"""Space that comes back by itself, while whole programs serve."""

from __future__ import annotations

import os
import time
from pathlib import Path

from kit.http import get
from kit.registry import Registry, image, running, tar
from kit.servers import mxart, wait_until
from kit.space import DAY, Warehouse

OWN = '[repository.own]\nformat = "oci"\nkind = "local"\npath = "/"\n'


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
            asked = len(registry.asked())
            for blob in images[0].blobs:
                assert (await get(server.port, f"/v2/hub/team/tool/blobs/{blob.digest}")).body == blob.data
            assert len(registry.asked()) > asked
