"""Where a checksum database is asked: through the GOPROXY upstream if that passes it on, else at its own URL.

(go.dev/ref/mod, "Checksum database": a proxy that supports a database is the only one asked for it.)
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from mxart.errors import NotFound, UpstreamFailed, UpstreamUnavailable
from mxart.message import Headers, Trace
from mxart.repos.remote import Remote
from mxart.upstream.base import Ask

_HOLDS = 3600.0  # seconds until a GOPROXY is asked again whether it passes the database on
_PLAIN = Headers((("accept-encoding", "identity"),))


class Way(Struct, frozen=True):
    """An upstream and where the database lies below its URL: "sumdb/sum.golang.org/", or "" for its own."""

    remote: Remote
    prefix: str


class Sources:
    """The ways to one database, the first that leads there is gone. The last is not asked whether it does."""

    def __init__(self, ways: Sequence[Way]) -> None:
        self._ways = tuple(ways)
        self._chosen: tuple[float, Way] | None = None

    async def fetch(self, path: str, limit: int, trace: Trace) -> bytes:
        """A whole answer, of at most so many bytes. Raises NotFound, and as Remote.open and read do."""
        way = await self._way(trace)
        return await _get(way, path, limit, trace)

    async def _way(self, trace: Trace) -> Way:
        *proxies, last = self._ways
        if not proxies:
            return last
        now = last.remote.clock()
        if self._chosen is not None and 0 <= now - self._chosen[0] < _HOLDS:
            return self._chosen[1]
        chosen = last
        for way in proxies:
            try:
                await _get(way, "supported", 4096, trace)
            except NotFound:
                continue
            chosen = way
            break
        self._chosen = (now, chosen)
        return chosen


async def _get(way: Way, path: str, limit: int, trace: Trace) -> bytes:
    remote = way.remote
    if remote.rules.offline:
        message = f"repository {remote.name} is offline, and {path} of the checksum database is not kept"
        raise UpstreamUnavailable(message, subject="sumdb")
    ask = Ask("GET", f"{way.prefix}{path}".replace("!", "%21"), _PLAIN)
    async with remote.open(ask, trace) as reply:
        if reply.status != 200:
            raise UpstreamFailed(f"{remote.upstream.name} answers {reply.status} to {ask.path}", subject="sumdb")
        return await remote.read(reply, limit)
