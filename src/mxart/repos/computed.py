"""Answers that are computed: indexes, and what stands for something else: aliases, and checksums as files of their own.

An index and its checksum are asked for in two requests, and whoever publishes in between must not make the second one
contradict the first.  So what a connection was given is remembered for a while: a checksum that it asks for then is of
that.  Whoever asks for the checksum alone gets that of what there is now.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from email.utils import formatdate

import trio
from msgspec.structs import replace

from mxart.body import Body, Source
from mxart.digest import Digest
from mxart.errors import NotFound
from mxart.message import Headers, Peer, Request, Response
from mxart.repos.base import Repository
from mxart.repos.callers import Caller
from mxart.repos.operations import Alias, Artifact, Checksum, Document, Found, Index, Indexed
from mxart.repos.roles import having
from mxart.repos.stock import moving
from mxart.repos.streams import complete

_SECONDS = 60.0  # for which it is remembered what a connection was given
_MAX_BYTES = 8 << 20
_MAX_ENTRIES = 4096
_PIECE = 1 << 20

_Key = tuple[str, int, str, str]


class Given:
    """The indexes that connections were given lately, by connection. One for all requests of a worker."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held = 0
        self._entries: OrderedDict[_Key, tuple[float, Indexed]] = OrderedDict()

    def put(self, peer: Peer, repository: str, path: str, indexed: Indexed) -> None:
        """A connection is given this."""
        key = (peer.address, peer.port, repository, path)
        self._drop(key)
        self._entries[key] = (self._clock(), indexed)
        self._held += len(indexed.data)
        while self._held > _MAX_BYTES or len(self._entries) > _MAX_ENTRIES:
            self._drop(next(iter(self._entries)))

    def get(self, peer: Peer, repository: str, path: str) -> Indexed | None:
        """What the connection was given of it, if that was a moment ago."""
        since, indexed = self._entries.get((peer.address, peer.port, repository, path), (0.0, None))
        return indexed if indexed is not None and self._clock() - since < _SECONDS else None

    def _drop(self, key: _Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._held -= len(entry[1].data)


async def index_found(
    repository: Repository, operation: Index, request: Request, caller: Caller, given: Given
) -> Found:
    """An index with the header fields that it is answered with. Raises as Repository.index does."""
    indexed = await repository.index(operation, request.trace, caller)
    if not operation.head:
        given.put(request.peer, repository.name, operation.path, indexed)
    if indexed.found is None:
        indexed.found = _described(repository, operation, indexed)
    return indexed.found


def _described(repository: Repository, operation: Index, indexed: Indexed) -> Found:
    digest = Digest.of(indexed.data)
    etag = f'"{digest.hex[:32]}"'
    last_modified = formatdate(indexed.modified, usegmt=True) if indexed.modified else ""
    fields = [
        *having(repository.format.indexing).index_fields(operation, indexed.data),
        ("cache-control", "no-cache"),
        ("accept-ranges", "none"),  # the next one may be another
    ]
    return _found(indexed.data, digest, fields, etag, last_modified, indexed.warning)


_TIMES = ("if-modified-since", "if-unmodified-since")
_DIVIDING = ("range", "if-range", *_TIMES)


def undivided(request: Request) -> Request:
    """The request without its wish for a part: of an index, the next one may be another's. Undated as well."""
    return _without(request, _DIVIDING)


def undated(request: Request) -> Request:
    """The request without conditions on times, but for the one that guards a part.

    What moves changes twice within a second, and becomes older when its newest goes. Its entity tag tells (RFC 9110
    section 8.8.2.2).
    """
    return _without(request, _TIMES[:1])


def _without(request: Request, names: tuple[str, ...]) -> Request:
    if not any(name in names for name, _ in request.headers):
        return request
    return replace(request, headers=request.headers.without(*names))


async def alias_found(repository: Repository, operation: Alias, request: Request, caller: Caller) -> Found:
    """The file that an alias stands for now. Raises as Repository.file does."""
    indexed = await repository.index(operation.index, request.trace, caller)
    file = having(repository.format.aliasing).resolve(operation, indexed.data)
    if file is None:
        message = f"{repository.name} has no {operation.path}: {operation.index.path} tells of none"
        raise NotFound(message, subject=operation.subject)
    request.trace.decided("%s: stands for %s", operation.path, file.path)
    return moving(await repository.file(file, request.trace, caller), indexed.warning)


async def checksum_found(
    repository: Repository, operation: Checksum, request: Request, caller: Caller, given: Given
) -> Found:
    """A checksum. A file that is not kept yet is fetched for it. Raises as Repository.file and index do."""
    match operation.of:
        case Index() as index:
            indexed = given.get(request.peer, repository.name, index.path)
            if indexed is None:
                indexed = await repository.index(index, request.trace, caller)
            text = hashlib.new(operation.algorithm, indexed.data, usedforsecurity=False).hexdigest()
            return _text(text, [("cache-control", "no-cache"), ("accept-ranges", "none")], indexed.warning)
        case Alias() as alias:
            found = await alias_found(repository, alias, request, caller)
        case Document() as file:
            found = await repository.file(file, request.trace, caller)
        case Artifact() as file:
            found = await _described_or_opened(repository, file, request, caller)
    return _text(await _sum(repository, operation.algorithm, found), [("cache-control", _caching(found))])


async def _described_or_opened(repository: Repository, file: Artifact, request: Request, caller: Caller) -> Found:
    """What is kept need not be opened for what is known of it; all else comes, and is waited for."""
    try:
        found = await repository.file(replace(file, head=True, kept=True), request.trace, caller)
    except NotFound:
        found = None
    if found is not None and found.checksum:
        return found
    if found is not None:
        found.close()
    return await repository.file(file, request.trace, caller)


async def _sum(repository: Repository, algorithm: str, found: Found) -> str:
    """Closes `found`. Raises BodyBroken where it is cut."""
    try:
        if found.digest is not None:
            known = having(repository.format.summing).known(algorithm, found.digest, found.checksum)
            if known:
                return known
        if isinstance(found.content, bytes):
            return hashlib.new(algorithm, found.content, usedforsecurity=False).hexdigest()
        assert found.content is not None, "not its head alone was asked for"
        return await _hashed(algorithm, found.content)
    finally:
        found.close()


async def _hashed(algorithm: str, source: Source) -> str:
    """Of a file that may still be arriving. The last of it is there only once it is right."""
    end = await complete(source)

    def work() -> str:
        hashing = hashlib.new(algorithm, usedforsecurity=False)
        offset = 0
        while offset < end:
            piece = os.pread(source.fileno(), min(_PIECE, end - offset), offset)
            hashing.update(piece)
            offset += len(piece)
        return hashing.hexdigest()

    return await trio.to_thread.run_sync(work)


def _caching(found: Found) -> str:
    return found.headers.get("cache-control") or "no-cache"


def _text(text: str, fields: list[tuple[str, str]], warning: str = "") -> Found:
    data = text.encode()
    return _found(data, Digest.of(data), [("content-type", "text/plain"), *fields], f'"{text}"', "", warning)


def _found(
    data: bytes, digest: Digest, fields: list[tuple[str, str]], etag: str, last_modified: str, warning: str
) -> Found:
    if warning:
        fields.append(("warning", warning))
    fields.append(("etag", etag))
    if last_modified:
        fields.append(("last-modified", last_modified))
    headers = Headers(fields)
    ready = Response(200, headers, Body((data,)))
    return Found(digest, len(data), data, headers, etag, last_modified, stale=bool(warning), ready=ready)
