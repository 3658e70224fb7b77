"""An image's repository as it is read: manifests that are checked, referrers by either way, blobs from any offset."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import trio

from mxart.digest import Digest
from mxart.errors import MxartError, NotFound, UpstreamFailed
from mxart.message import Headers
from mxart.replicate.manifests import MAX_MANIFEST, Manifest, Part, read_manifest, referrers_of, referrers_tag
from mxart.replicate.openers import Answered, Opener
from mxart.repos.oci import media
from mxart.upstream.payload import Pieces

_PAGES = 1000
_NEXT = re.compile(r'<[^>?]*\?([^>]*)>\s*;[^,]*\brel\s*=\s*"?next\b', re.IGNORECASE)


class _Tags(msgspec.Struct):
    tags: tuple[str, ...] | None = None


class Short(UpstreamFailed):
    """A blob at the source is shorter than its manifest says."""


class Source:
    """One repository to read from. `place` is its name in messages."""

    def __init__(self, opener: Opener, name: str, place: str) -> None:
        self._opener = opener
        self._name = name
        self.place = place
        self._listing = trio.Lock()
        self._listed: frozenset[str] | None = None
        self._lists = True

    async def manifest(self, reference: str) -> Manifest:
        """By tag or digest. Raises NotFound; UpstreamFailed if the bytes are not those named, or no manifest."""
        fields = Headers((("accept", media.ACCEPT), ("accept-encoding", "identity")))
        try:
            async with self._opener.open(self._name, f"manifests/{reference}", fields, bulk=False) as answered:
                data = await _whole(answered, f"the manifest {reference}")
        except NotFound:
            raise NotFound(f"{self.place} has no {reference}", subject="manifest") from None
        named = reference if ":" in reference else answered.headers.get("docker-content-digest") or ""
        try:
            claimed: Digest | None = Digest.parse(named)
        except ValueError:
            claimed = None
        digest = Digest.of(data, claimed.algorithm if claimed is not None else "sha256")
        media_type = media.manifest_type(answered.headers.get("content-type"), data)
        if claimed is not None and digest != claimed and not media.is_legacy(media_type):
            raise UpstreamFailed(f"{self.place} sent {digest} for {claimed}")
        return read_manifest(digest, media_type, data)

    async def referrers(self, subject: Digest) -> list[Part]:
        """All that refers to a manifest: by the API, else by the tag that stands for it; maybe none."""
        found: list[Part] = []
        try:
            async for answered, data in self._pages(f"referrers/{subject}", media.INDEX):
                if media.essence(answered.headers.get("content-type")) != media.INDEX:
                    raise NotFound("that is no list of referrers")
                found += referrers_of(data)
        except NotFound:
            stands_for_it = await self.maybe(referrers_tag(subject))
            found = list(stands_for_it.manifests) if stands_for_it is not None else []
        return found

    async def maybe(self, tag: str) -> Manifest | None:
        """What is under a tag that few images have; None if it is not there.

        The list of tags, read once, is looked at first: Docker Hub counts every question for a manifest, and there
        would be several for each.  A registry without such a list is asked all the same.
        """
        async with self._listing:
            if self._listed is None:
                try:
                    self._listed = frozenset(await self.tags())
                except MxartError:
                    self._listed, self._lists = frozenset(), False
        if self._lists and tag not in self._listed:
            return None
        try:
            return await self.manifest(tag)
        except NotFound:
            return None

    async def tags(self) -> list[str]:
        """Every tag. Raises NotFound if the repository is unknown."""
        tags: list[str] = []
        try:
            async for _, data in self._pages("tags/list", "application/json"):
                tags += msgspec.json.decode(data, type=_Tags).tags or ()
        except msgspec.MsgspecError:
            raise UpstreamFailed(f"{self.place} sent no list of tags") from None
        return list(dict.fromkeys(tags))

    async def _pages(self, path: str, accept: str) -> AsyncIterator[tuple[Answered, bytes]]:
        query = ""
        for _ in range(_PAGES):
            fields = Headers((("accept", accept), ("accept-encoding", "identity")))
            asked = f"{path}?{query}" if query else path
            async with self._opener.open(self._name, asked, fields, bulk=False) as answered:
                data = await _whole(answered, path)
            yield answered, data
            # Only the query: the next page is at the same place, whatever host the registry believes to have.
            following = _NEXT.search(answered.headers.combined("link") or "")
            if following is None:
                return
            query = following[1]
        raise UpstreamFailed(f"{self.place} sent more than {_PAGES} pages of {path}")

    def blob(self, part: Part) -> Reader:
        """To read a blob by; close it."""
        return Reader(self._opener, self._name, part)


async def _whole(answered: Answered, what: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    while data := await answered.receive():
        size += len(data)
        if size > MAX_MANIFEST:
            raise UpstreamFailed(f"{what} is larger than {MAX_MANIFEST} bytes")
        parts.append(data)
    return b"".join(parts)


class Reader:
    """The bytes of a blob from wherever they are wanted: in order by one question, a step elsewhere by another."""

    def __init__(self, opener: Opener, name: str, part: Part) -> None:
        self._opener = opener
        self._name = name
        self._part = part
        self._stack = AsyncExitStack()
        self._answered: Answered | None = None
        self._at = 0
        self._rest = b""

    def chunk(self, start: int, end: int, moved: Callable[[int], None]) -> Chunk:
        """The bytes between two offsets as a payload; `moved` is told how far it has been read."""
        return Chunk(self, start, end, moved)

    async def seek(self, offset: int) -> None:
        """Be ready to give the bytes from here on. Raises Problems."""
        if self._answered is not None and offset == self._at:
            return
        await self.aclose()
        fields = [("accept-encoding", "identity"), *([("range", f"bytes={offset}-")] if offset else [])]
        opened = self._opener.open(self._name, f"blobs/{self._part.digest}", Headers(fields), bulk=True)
        self._answered = await self._stack.enter_async_context(opened)
        self._at = offset if self._answered.status == 206 else 0
        while self._at < offset:  # a registry without ranges gives all of it
            await self.receive(offset - self._at)

    async def receive(self, most: int) -> bytes:
        """The next bytes, at most so many. Raises Short where the blob ends before its size."""
        if self._answered is None:
            raise UpstreamFailed(f"{self._part.digest} is not open")
        try:
            data = self._rest or await self._answered.receive()
            if not data:
                size = self._part.size
                raise Short(f"{self._part.digest} ends after {self._at} bytes; its manifest says {size}")
        except MxartError:
            await self.aclose()  # the next attempt asks anew
            raise
        data, self._rest = data[:most], data[most:]
        self._at += len(data)
        return data

    async def aclose(self) -> None:
        """Give back or close the connection. Idempotent."""
        self._answered = None
        self._rest = b""
        await self._stack.aclose()
        self._stack = AsyncExitStack()


class Chunk:
    """A Payload: part of a blob."""

    def __init__(self, reader: Reader, start: int, end: int, moved: Callable[[int], None]) -> None:
        self._reader = reader
        self._start = self._at = start
        self._end = end
        self._moved = moved
        self.length = end - start

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Pieces]:
        await self._reader.seek(self._start)
        self._at = self._start
        yield self

    async def receive(self) -> bytes:
        if self._at == self._end:
            return b""
        self._moved(self._at)
        data = await self._reader.receive(self._end - self._at)
        self._at += len(data)
        return data
