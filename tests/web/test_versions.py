"""Tags and versions of a package, with their sizes and times, as they are and as they go."""

from __future__ import annotations

from pathlib import Path

from kit.api import ADMIN, EVE, ApiWorld, Only, api_world, part
from kit.publishing import Rights
from mxart.access.base import ACTIONS
from mxart.digest import Digest
from mxart.repos.callers import Caller
from mxart.repos.group import Group
from mxart.repos.oci.format import Oci
from mxart.store.base import FileRecord
from mxart.store.published import Need, Publication, Referrer

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
NOW = 1_800_000_000.0


def record(digest: Digest, size: int, kind: str = "blobs", media_type: str = MANIFEST) -> FileRecord:
    return FileRecord("own", "team/app", f"team/app/{kind}/{digest}", digest, size, media_type, created=NOW)


class Shop:
    """What is published in the tests."""

    def __init__(self, world: ApiWorld) -> None:
        self.world = world

    async def blob(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        await self.world.catalog.put_file(record(digest, len(data)))
        return digest

    async def document(
        self,
        mark: bytes,
        *needs: Digest,
        tags: tuple[str, ...] = (),
        subject: Digest | None = None,
        index: bool = False,
    ) -> Digest:
        digest = Digest.of(mark)
        publication = Publication(
            record(digest, len(mark), "manifests", INDEX if index else MANIFEST),
            tuple((tag, f"team/app/manifests/{tag}") for tag in tags),
            tuple(Need(need, None, ()) for need in needs),
            Referrer(subject, "application/x.sbom", b"{}") if subject is not None else None,
        )
        await self.world.publications.publish(publication, lambda: True)
        return digest


async def test_a_tag_is_told_with_its_digest_sizes_and_times(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        shop = Shop(world)
        layer, shared = await shop.blob(b"x" * 1000), await shop.blob(b"y" * 500)
        one = await shop.document(b"manifest one", layer, shared, tags=("1.0", "latest"))
        two = await shop.document(b"manifest two", shared)
        both = await shop.document(b"an index", one, two, tags=("all",), index=True)
        told = await world.call("GET", f"/repositories/own/packages/{part('team/app')}/tags/1.0")
        tags = await world.call("GET", f"/repositories/own/packages/{part('team/app')}/tags")
        absent = await world.call("GET", f"/repositories/own/packages/{part('team/app')}/tags/2.0")
        world.catalog.used("own", "team/app/manifests/1.0", NOW + 99.9)
        await world.catalog.flush(NOW + 100)
        used = await world.call("GET", f"/repositories/own/packages/{part('team/app')}/tags/1.0")
    assert told.json == {
        "name": "1.0",
        "digest": str(one),
        "media_type": MANIFEST,
        "size": 12,
        "total": 12 + 1000 + 500,
        "created": "2027-01-15T08:00:00Z",
        "used": None,
        "repository": "own",
    }
    assert [(item["name"], item["digest"], item["total"]) for item in tags.json["items"]] == [
        ("1.0", str(one), 1512),
        ("all", str(both), 8 + 12 + 12 + 1000 + 500),  # what both need is there once
        ("latest", str(one), 1512),
    ]
    assert used.json["used"] == "2027-01-15T08:01:39Z"
    assert (absent.status, absent.json["field"]) == (404, "tag")


async def test_versions_are_told_those_without_a_tag_and_referrers_too(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        shop = Shop(world)
        layer = await shop.blob(b"x" * 1000)
        one = await shop.document(b"manifest one", layer, tags=("1.0", "latest"))
        bare = await shop.document(b"manifest two", layer)
        sbom = await shop.document(b"sbom", subject=one)
        base = f"/repositories/own/packages/{part('team/app')}/versions"
        every = await world.call("GET", base)
        first = await world.call("GET", f"{base}?limit=1")
        rest = await world.call("GET", f"{base}?after={part(first.json['next'])}")
        told = await world.call("GET", f"{base}/{part(str(one))}")
        listed = await world.call("GET", f"{base}/{sbom}")
        absent = await world.call("GET", f"{base}/{Digest.of(b'?')}")
        odd = await world.call("GET", f"{base}/sha256:..%2F..")
    found = {item["digest"]: item for item in every.json["items"]}
    assert found.keys() == {str(one), str(bare), str(sbom)}, "a layer is no version"
    assert first.json["items"] + rest.json["items"] == every.json["items"]
    assert (told.json["tags"], told.json["total"], told.json["subject"]) == (["1.0", "latest"], 1012, "")
    assert (found[str(bare)]["tags"], found[str(bare)]["total"]) == ([], 1012)
    assert (listed.json["subject"], listed.json["artifact_type"]) == (str(one), "application/x.sbom")
    assert told.json["used"] is not None, "a push is a use"
    assert absent.status == 404
    assert (odd.status, odd.json["field"]) == (400, "digest")


async def test_a_tag_goes_and_its_version_stays_until_it_goes_with_all_its_tags(tmp_path: Path) -> None:
    base = f"/repositories/own/packages/{part('team/app')}"
    async with api_world(tmp_path) as world:
        shop = Shop(world)
        layer = await shop.blob(b"x" * 1000)
        one = await shop.document(b"manifest one", layer, tags=("1.0", "1", "latest"))
        assert (await world.call("DELETE", f"{base}/tags/latest", caller=ADMIN)).status == 204
        assert (await world.call("DELETE", f"{base}/tags/latest", caller=ADMIN)).status == 404
        kept = await world.call("GET", f"{base}/versions/{one}")
        assert kept.json["tags"] == ["1", "1.0"]
        assert (await world.call("DELETE", f"{base}/versions/{one}", caller=ADMIN)).status == 204
        assert (await world.call("GET", f"{base}/versions/{one}")).status == 404
        assert (await world.call("GET", f"{base}/tags")).json["items"] == []
        assert (await world.call("DELETE", f"{base}/versions/{one}", caller=ADMIN)).status == 404


async def test_who_may_not_delete_deletes_nothing(tmp_path: Path) -> None:
    base = f"/repositories/own/packages/{part('team/app')}"
    async with api_world(tmp_path) as world:
        one = await Shop(world).document(b"manifest one", tags=("1.0",))
        for path in (f"{base}/tags/1.0", f"{base}/versions/{one}"):
            assert (await world.call("DELETE", path, caller=EVE)).status == 403
            assert (await world.call("DELETE", path)).status == 401
            other = Caller(name="eve", grants=Only("other/", actions=ACTIONS))
            assert (await world.call("DELETE", path, caller=other)).status == 403
        assert (await world.call("GET", f"{base}/tags/1.0")).status == 200


async def test_names_that_lead_elsewhere_delete_nothing(tmp_path: Path) -> None:
    async with api_world(tmp_path) as world:
        one = await Shop(world).document(b"manifest one", tags=("1.0",))
        for package, rest, status in (
            ("team/../team/app", "tags/1.0", 400),
            ("team/app/", "tags/1.0", 400),
            ("../own/team/app", "tags/1.0", 400),
            ("team/app", f"tags/{one}", 400),
            ("team/app", "tags/..", 400),
            ("team/app", "versions/1.0", 400),
            ("team/app", "tags/1%2F0", 400),
            ("Team/App", "tags/1.0", 400),
        ):
            told = await world.call("DELETE", f"/repositories/own/packages/{part(package)}/{rest}", caller=ADMIN)
            assert told.status == status, (package, rest, told.text)
        assert (await world.call("GET", f"/repositories/own/packages/{part('team/app')}/tags/1.0")).status == 200


async def test_what_is_deleted_in_a_group_goes_from_where_it_publishes_to(tmp_path: Path) -> None:
    """Who may delete there may do it by the group's name, as a push goes; a group that publishes nowhere only reads."""
    base = f"/repositories/all/packages/{part('team/app')}"
    async with api_world(tmp_path) as world:
        await Shop(world).document(b"manifest one", tags=("1.0", "2.0"))
        world.repositories["all"] = Group("all", Oci(), [world.local], "own")
        allowed = Caller(name="eve", grants=Rights(read=["own:team/app", "all:team/app"], delete=["own:team/app"]))
        others = Caller(name="eve", grants=Rights(read=["own:team/app", "all:team/app"], delete=["all:team/app"]))
        assert (await world.call("DELETE", f"{base}/tags/1.0", caller=others)).status == 403
        assert (await world.call("DELETE", f"{base}/tags/1.0", caller=allowed)).status == 204
        assert [item["name"] for item in (await world.call("GET", f"{base}/tags")).json["items"]] == ["2.0"]
        world.repositories["all"] = Group("all", Oci(), [world.local])
        told = await world.call("DELETE", f"{base}/tags/2.0", caller=ADMIN)
        assert (told.status, "publish_to" in told.detail) == (405, True)
