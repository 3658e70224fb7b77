"""In-memory stand-ins for what publishing needs of the store: uploads, and what hangs together."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Container
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from io import BytesIO
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace as changed

from mxart.access.base import Action
from mxart.digest import Digest
from mxart.errors import Forbidden, TooLarge
from mxart.message import Headers, RequestBody
from mxart.store.base import DigestMismatch, FileRecord, Judged, Unjudged, Upload, UploadState, UploadUnknown
from mxart.store.published import (
    Ensure,
    Holder,
    Incomplete,
    Need,
    Occupied,
    Publication,
    Referrer,
    ReferrerRecord,
    Unmet,
    Vanished,
    Withdrawn,
)

if TYPE_CHECKING:
    from kit.repos import FakeBlobs, FakeCatalog


class _All:
    def __contains__(self, name: object) -> bool:
        return True


class Rights:
    """Grants for what is named, each as "repository:package"."""

    delegated = False

    def __init__(self, **actions: Container[str]) -> None:
        self._actions = actions

    def may(self, action: Action, repository: str, path: str) -> bool:
        return f"{repository}:{path}" in self._actions.get(action, ())

    def demand(self, action: Action, repository: str, path: str) -> None:
        if not self.may(action, repository, path):
            raise Forbidden(f"you may not {action} {path} in {repository}")

    def sees(self, repository: str, path: str) -> bool:
        return self.may("read", repository, path)


EVERYTHING = Rights(read=_All(), fetch=_All(), publish=_All(), overwrite=_All(), delete=_All())


def descriptor(data: bytes, media_type: str = "application/vnd.oci.image.layer.v1.tar", **more: object) -> object:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data), **more}


def pushed_image(mark: str = "", *layers: bytes, **more: object) -> bytes:
    """An image's manifest whose config is `{}`. Its white space and unknown fields must survive."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor(b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [descriptor(layer) for layer in layers],
        "annotations": {"mark": mark},
        "unknown": [1.50, "ü"],
        **more,
    }
    return json.dumps(manifest, indent=3, ensure_ascii=False).encode()


class FakePublications:
    """`Publications` over a FakeCatalog."""

    def __init__(self, catalog: FakeCatalog) -> None:
        self._catalog = catalog
        self.links: dict[tuple[str, str], frozenset[Digest]] = {}
        self.relied: dict[tuple[str, str], float] = {}
        self.referring: dict[tuple[str, str], Referrer] = {}

    async def publish(self, publication: Publication, ensure: Ensure, *, replace: bool = True) -> None:
        await trio.lowlevel.checkpoint()
        record, files = publication.record, self._catalog.files
        condition = publication.condition
        if condition is not None:
            held = files.get((record.repository, condition.path))
            if not condition.holds(None if held is None else held.digest):
                raise Unmet(condition.path)
        moved = [
            tag
            for tag, path in publication.tags
            if (old := files.get((record.repository, path))) is not None and old.digest != record.digest
        ]
        if moved and not replace:
            raise Occupied(tuple(moved))
        lacks = [(need, size) for need in publication.needs if (size := self._lacks(record, need)) != need.size]
        if lacks:
            raise Incomplete(tuple(lacks))
        if not ensure():
            raise Vanished(str(record.digest))
        key = (record.repository, record.path)
        files[key] = record
        self.links[key] = frozenset(item.digest for item in (*publication.needs, *publication.beside))
        for item in publication.beside:
            files[item.repository, item.path] = item
        if publication.referrer is not None:
            self.referring[key] = publication.referrer
        for tag, path in publication.tags:
            await self._catalog.put_tag(record.repository, record.package, tag, changed(record, path=path))
        self._catalog.writes += 1

    def _lacks(self, record: FileRecord, need: Need) -> int | None:
        """The size that is there, None where nothing is; what is needed where all is well."""
        found = [self._catalog.files.get((record.repository, path)) for path in need.paths]
        sizes = [item.size for item in found if item is not None]
        if not need.paths or need.size in sizes or (sizes and need.size is None):
            return need.size
        return sizes[0] if sizes else None

    def demand_room(self, repository: str, digest: Digest | None, size: int) -> int | None:
        """Nobody has a quota."""
        return None

    async def rely(self, repository: str, path: str, now: float) -> bool:
        await trio.lowlevel.checkpoint()
        if (repository, path) not in self._catalog.files:
            return False
        self.relied[repository, path] = now
        return True

    async def withdraw(
        self, repository: str, path: str, version: str = "", beside: tuple[str, ...] = ()
    ) -> Withdrawn | None:
        await trio.lowlevel.checkpoint()
        record = self._catalog.files.pop((repository, path), None)
        if record is None:
            return None
        for other in beside:
            self._catalog.files.pop((repository, other), None)
        self.links.pop((repository, path), None)
        self.referring.pop((repository, path), None)
        names = self._catalog.tag_names.get((repository, record.package), {})
        gone = [
            tag for tag, to in names.items() if (version or beside) and str(to.digest) in (version, str(record.digest))
        ]
        for tag in [*gone, path.rpartition("/")[2]]:
            names.pop(tag, None)
            self._catalog.files.pop((repository, path.rpartition("/")[0] + f"/{tag}"), None)
        self._catalog.writes += 1
        needed_by = sum(record.digest in needs for needs in self.links.values())
        return Withdrawn(tuple(sorted(gone)), needed_by)

    def referrers(
        self,
        repository: str,
        package: str,
        subject: str,
        artifact_type: str = "",
        after: str = "",
        limit: int = 1000,
        max_bytes: int = 1 << 20,
    ) -> list[ReferrerRecord]:
        found = [
            ReferrerRecord(record.digest, record.size, record.media_type, said.artifact_type, said.descriptor)
            for key, said in self.referring.items()
            if (record := self._catalog.files[key]).package == package
            and key[0] == repository
            and str(said.subject) == subject
            and artifact_type in ("", said.artifact_type)
            and str(record.digest) > after
        ]
        found = sorted(found, key=lambda item: str(item.digest))[:limit]
        fits = [
            number for number in range(1, len(found) + 1) if sum(len(r.json) + 1 for r in found[:number]) <= max_bytes
        ]
        return found[: max(fits, default=1)]

    def owned(self, repository: str, package: str, companions: str) -> bool:
        tags = self._catalog.tag_names.get((repository, package), {})
        if any(not fnmatchcase(tag, companions) for tag in tags):
            return True
        needed = {digest for key, digests in self.links.items() if key[0] == repository for digest in digests}
        named = {to.digest for to in tags.values()}
        return any(
            key[0] == repository and record.package == package and "/manifests/" in key[1]
            for key, record in self._catalog.files.items()
            if key not in self.referring and record.digest not in needed | named
        )

    def begun(self, repository: str, package: str) -> bool:
        files = self._catalog.files.items()
        paths = [path for (name, path), record in files if name == repository and record.package == package]
        return bool(paths) and not any("/manifests/" in path for path in paths)

    def holders(self, digest: Digest, limit: int = 1000) -> list[Holder]:
        return [
            Holder(repository, record.package, path)
            for (repository, path), record in self._catalog.files.items()
            if record.digest == digest
        ][:limit]

    def tag_names(self, repository: str, package: str, after: str, limit: int) -> list[str]:
        return [version.name for version in self._catalog.tags(repository, package, after, limit)]


class _FakeUpload:
    def __init__(self, uploads: FakeUploads, state: UploadState) -> None:
        self.state = state
        self._uploads = uploads

    async def receive(self, body: RequestBody, limit: int | None) -> None:
        data = self._uploads.data[self.state.id]
        try:
            while chunk := await body.receive():
                if limit is not None and len(data) + len(chunk) > limit:
                    raise TooLarge(f"the most is {limit} bytes")
                data += chunk
        finally:
            self.state.offset = len(data)

    async def review(self, look: Callable[[Unjudged], Judged]) -> Judged:
        data = bytes(self._uploads.data[self.state.id])
        return await trio.to_thread.run_sync(
            look, Unjudged(BytesIO(data), len(data), Digest.of(data, self.state.algorithm), Headers())
        )

    async def commit(self, digest: Digest) -> int:
        await trio.lowlevel.checkpoint()
        data = bytes(self._uploads.data[self.state.id])
        found = Digest.of(data, digest.algorithm)
        if found != digest:
            raise DigestMismatch(digest, found, len(data))
        self._uploads.blobs.kept[digest] = data
        self._uploads.drop(self.state.id)
        return len(data)

    async def discard(self) -> None:
        await trio.lowlevel.checkpoint()
        self._uploads.drop(self.state.id)


class FakeUploads:
    """`Uploads` in dicts."""

    def __init__(self, blobs: FakeBlobs) -> None:
        self.blobs = blobs
        self.states: dict[str, UploadState] = {}
        self.data: dict[str, bytearray] = {}

    async def begin(self, repository: str, package: str, owner: str, algorithm: str = "sha256") -> UploadState:
        await trio.lowlevel.checkpoint()
        name = f"upload-{len(self.states)}"
        state = self.states[name] = UploadState(name, repository, package, owner, algorithm, 0, 0.0)
        self.data[name] = bytearray()
        return state

    def find(self, name: str) -> UploadState | None:
        return self.states.get(name)

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[Upload]:
        if name not in self.states:
            raise UploadUnknown(name)
        yield _FakeUpload(self, self.states[name])

    def drop(self, name: str) -> None:
        self.states.pop(name, None)
        self.data.pop(name, None)
