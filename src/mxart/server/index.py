"""The old API of Docker's index, below /v1/ (docker search, podman search): forwarded, never kept.

Nothing of ours is shown there; a caller's own credentials are where the repository relays them.  What the index
answers, 4xx too, goes to the client as it is; whatever else comes is a failure of upstream's.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from mxart.body import Body
from mxart.errors import BadRequest, MethodNotAllowed, UpstreamFailed, UpstreamUnavailable
from mxart.message import Headers, Request, Response
from mxart.repos.callers import Caller
from mxart.repos.remote import asked_by
from mxart.upstream.base import Ask, Reply, Upstream

_MAX_ANSWER = 8 << 20
_READS = ("GET", "HEAD")
_ALLOW = (("allow", "GET, HEAD"),)
_PASSED_ON = ("content-type", "retry-after", "x-docker-registry-standalone", "x-docker-registry-version")
_DOTS = re.compile(r"(?:^|[/\\])\.{1,2}(?:[/\\]|\Z)")


class Index:
    """One repository's index. `relays`: whether a caller's credentials are shown to it."""

    def __init__(self, upstream: Upstream, *, relays: bool, offline: bool = False) -> None:
        self._upstream = upstream
        self._relays = relays
        self._offline = offline

    async def answer(self, request: Request, caller: Caller) -> Response:
        """Forward one question.

        Raises MethodNotAllowed, BadRequest, and what Upstream.open raises for all that is no answer.
        """
        if request.method not in _READS:
            raise MethodNotAllowed("the old API below /v1/ is only read here", headers=_ALLOW)
        if self._offline:
            raise UpstreamUnavailable(f"repository {self._upstream.name} is offline, and its index is not kept")
        if _DOTS.search(unquote(request.path)):
            raise BadRequest("the path holds a component that leads elsewhere")
        fields = [("accept", request.headers.get("accept") or "*/*")]
        if self._relays and caller.authorization:
            fields.append(("authorization", caller.authorization))
        ask = Ask(request.method, request.target[1:], Headers(fields), bare=True, lenient=True)
        ask = asked_by(ask, request.trace)
        request.trace.upstream_requests += 1
        async with self._upstream.open(ask) as reply:
            data = await self._read(reply)
        request.trace.outcome = "forwarded"
        names = (*_PASSED_ON, "www-authenticate") if self._relays else _PASSED_ON
        kept = tuple((name, value) for name, value in reply.headers if name in names)
        return Response(reply.status, Headers((*kept, ("cache-control", "no-store"))), Body([data]))

    async def _read(self, reply: Reply) -> bytes:
        data = bytearray()
        while chunk := await reply.receive():
            data += chunk
            if len(data) > _MAX_ANSWER:
                raise UpstreamFailed(f"{self._upstream.name}: the index answers with more than {_MAX_ANSWER} bytes")
        return bytes(data)
