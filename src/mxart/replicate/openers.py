"""Two ways to read from a registry: a repository of this process, and any registry by URL."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import trio

from mxart.body import Segment
from mxart.errors import BodyBroken, NotFound
from mxart.message import Headers, Peer, Request, Response
from mxart.repos.answers import answer
from mxart.repos.base import Repository
from mxart.repos.callers import Caller
from mxart.upstream.base import Ask, Upstream

_PIECE = 1 << 20


class Answered(Protocol):
    """An answer with status 200 or 206."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Headers: ...

    async def receive(self) -> bytes:
        """The next bytes of the body, b"" at its end. Raises MxartError."""
        ...


class Opener(Protocol):
    """Asks a registry. Shared by all that reads from it."""

    def open(self, name: str, rest: str, fields: Headers, *, bulk: bool) -> AbstractAsyncContextManager[Answered]:
        """GET `/v2/<name>/<rest>`. Raises NotFound, also for what the registry does not know at all; other Problems."""
        ...


class UpstreamOpener:
    """A registry elsewhere."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    @asynccontextmanager
    async def open(self, name: str, rest: str, fields: Headers, *, bulk: bool) -> AsyncIterator[Answered]:
        # What an old registry says of a path that it does not know.
        ask = Ask("GET", f"v2/{name}/{rest}", fields, f"repository:{name}:pull", bulk=bulk, expects=(400, 405, 501))
        async with self._upstream.open(ask) as reply:
            if reply.status in ask.expects:
                raise NotFound(f"{self._upstream.name}: {reply.origin} answers {reply.status} to {ask.path}")
            yield reply


class RepositoryOpener:
    """A repository of this process, asked as a client would ask it, with what its caller may."""

    def __init__(self, repository: Repository, caller: Caller) -> None:
        self._repository = repository
        self._caller = caller

    @asynccontextmanager
    async def open(self, name: str, rest: str, fields: Headers, *, bulk: bool) -> AsyncIterator[Answered]:
        request = Request("GET", f"/v2/{name}/{rest}", "", fields, Peer("127.0.0.1", 0))
        operation = self._repository.format.parse("GET", request.path, request.query, fields)
        response = await answer(self._repository, operation, request, self._caller)
        try:
            yield _Local(response)
        finally:
            response.body.close()


class _Local:
    """The body of a response, read as the wire would."""

    def __init__(self, response: Response) -> None:
        self.status = response.status
        self.headers = response.headers
        self._rest: list[Segment] = list(response.body.segments)
        self._at: int | None = None  # in the source of the first of them

    async def receive(self) -> bytes:
        while self._rest:
            segment = self._rest[0]
            if isinstance(segment, bytes):
                self._rest.pop(0)
                if segment:
                    return segment
                continue
            at = segment.offset if self._at is None else self._at
            end = None if segment.length is None else segment.offset + segment.length
            until = at if at == end else await segment.source.available(at)
            if until == at:
                self._rest.pop(0)
                self._at = None
                continue
            size = min(_PIECE, until - at, _PIECE if end is None else end - at)
            # In a thread: what nobody has read for long comes from the disk.
            data = await trio.to_thread.run_sync(os.pread, segment.source.fileno(), size, at)
            if not data:
                raise BodyBroken("a file is shorter than it said")
            self._at = at + len(data)
            return data
        return b""
