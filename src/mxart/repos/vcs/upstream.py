"""Git repositories as an upstream that speaks GOPROXY: what a proxy repository keeps is made here, of commits.

So everything that a proxy does holds for modules from git as well: one question for all who ask, lists that are served
in spite of trouble, files that are judged before anybody has the last of them, kept for good, and served offline.

A version is the commit that its tag meant when it was first told.  `.info` says which one, and is kept for good before
`.mod` or `.zip` are made (see kind): whatever becomes of the tag, all three are of one commit.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import BinaryIO
from urllib.parse import unquote

import trio

from mxart.errors import NotFound, StorageFull, UpstreamFailed
from mxart.git.clones import Clones
from mxart.git.failures import Gone
from mxart.message import Headers
from mxart.repos.go.commits import Place
from mxart.repos.go.errors import TEXT
from mxart.repos.go.requests import Wanted, read
from mxart.repos.vcs.modules import Module
from mxart.repos.vcs.revisions import Pin, Revision
from mxart.repos.vcs.roots import Roots
from mxart.store.base import Origin
from mxart.store.paths import GitPaths
from mxart.upstream.base import Ask, Reply
from mxart.upstream.download import Download

_PIECE = 1 << 18
_PACKERS = 2  # threads of one repository that pack zips, in one worker

Kept = Callable[[str], Awaitable[bytes | None]]
"""A small file that is kept under a path, None if there is none."""


class _Reply:
    """A Reply of our own making."""

    status = 200
    located = ""

    def __init__(self, origin: str, media_type: str, content: bytes | BinaryIO, size: int, etag: str = "") -> None:
        self.origin = origin
        fields = [("content-type", media_type), ("content-length", str(size))]
        self.headers = Headers((*fields, ("etag", f'"{etag}"')) if etag else fields)
        self._content = content

    async def receive(self) -> bytes:
        if isinstance(self._content, bytes):
            data, self._content = self._content, b""
            await trio.lowlevel.checkpoint()
            return data
        return await trio.to_thread.run_sync(self._content.read, _PIECE)


class GitModules:
    """See upstream.base.Upstream. `kept` tells what was told of a version before; `max_age` as in Module."""

    site = ""

    def __init__(self, name: str, roots: Roots, clones: Clones, paths: GitPaths, kept: Kept, max_age: float) -> None:
        self.name = name
        self._roots = roots
        self._clones = clones
        self._paths = paths
        self._kept = kept
        self._max_age = max_age
        self._packers = trio.CapacityLimiter(_PACKERS)

    def origin(self, ask: Ask) -> Origin:
        """A whole file into a sink."""
        return Download(self, ask)

    @asynccontextmanager
    async def open(self, ask: Ask) -> AsyncIterator[Reply]:
        wanted = read(unquote(ask.path))
        module, place = await self._module(wanted)
        if wanted.kind == "zip":
            revision = await self._revision(module, wanted)
            if ask.method == "HEAD":
                # How many bytes it has nobody knows before it is made; a question for the head makes none.
                reply = _Reply(module.where, "application/zip", b"", 0)
                reply.headers = reply.headers.without("content-length")
                yield reply
                return
            with self._scratch() as out, self._scratch() as scratch:
                await module.zip(revision, out, scratch)
                size, digest = await trio.to_thread.run_sync(partial(_measured, out))
                yield _Reply(module.where, "application/zip", out, size, digest)
            return
        data, media_type = await self._document(module, place, wanted)
        content = b"" if ask.method == "HEAD" else data
        yield _Reply(module.where, media_type, content, len(data))

    async def _document(self, module: Module, place: Place, wanted: Wanted) -> tuple[bytes, str]:
        match wanted.kind:
            case "list":
                return "".join(f"{version}\n" for version in await module.versions()).encode(), TEXT
            case "latest":
                found = await module.latest()
            case "mod":
                return await module.mod(await self._revision(module, wanted)), TEXT
            case _:
                found = await module.find(wanted.version)
        return found.info(module.where, place.folder), "application/json"

    async def _module(self, wanted: Wanted) -> tuple[Module, Place]:
        found = await self._roots.find(wanted.module)
        try:
            place = Place.of(wanted.module, found.root.path, found.root.folder)
        except ValueError as error:
            raise NotFound(str(error), subject="module") from None
        return Module(place, self._clones.of(found.url, found.named_by), self._max_age, self._packers), place

    async def _revision(self, module: Module, wanted: Wanted) -> Revision:
        """The commit of a version, which is for good what it was at first."""
        info = await self._kept(f"{wanted.path.rpartition('.')[0]}.info")
        pin = Pin.read(info) if info is not None else None
        if pin is None:
            return await module.find(wanted.version)
        try:
            return await module.pinned(wanted.version, pin)
        except Gone as gone:
            raise UpstreamFailed(
                f"{wanted.module}@{wanted.version} was commit {pin.commit[:12]} when it was first told here, and stays"
                f" that: {gone.message}; tag what is there now as a new version",
                subject=wanted.kind,
            ) from None

    @contextmanager
    def _scratch(self) -> Iterator[BinaryIO]:
        """A file without a name: it goes however this ends."""
        try:
            file = tempfile.TemporaryFile(dir=self._paths.temporary)  # noqa: SIM115 closed below
        except OSError as error:
            raise StorageFull(f"{self._paths.temporary}: {error.strerror}") from None
        with file:
            yield file


def _measured(file: BinaryIO) -> tuple[int, str]:
    """How many bytes a file has, and their digest, which tells it from any other one."""
    digest = hashlib.sha256()
    while piece := file.read(_PIECE):
        digest.update(piece)
    size = file.tell()
    file.seek(0)
    return size, digest.hexdigest()
