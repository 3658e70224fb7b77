"""Finding the repository of a module: what the configuration names, what a path tells, and what the host says.

The host's word is a page (repos.go.imports).  If it speaks of another path than was asked for, that path's own page has
to say the same: who may write to one page of a host does not say where all of its modules are (`cmd/go`, vcs).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct

from mxart.errors import NotFound, Problem, UpstreamDenied, UpstreamFailed, UpstreamUnavailable
from mxart.git.logins import Logins
from mxart.git.url import GitUrl
from mxart.message import Headers
from mxart.repos.go.hosts import Root, Urls, well_known
from mxart.repos.go.imports import MAX_PAGE, Import, check_folder, choose, read
from mxart.repos.vcs.hosts import Hosts
from mxart.upstream.base import Ask

_MAX_KNOWN = 4096
_TROUBLE = (500, 501, 502, 503, 504)
_FIELDS = Headers((("accept-encoding", "identity"), ("accept", "text/html")))


class Found(Struct, frozen=True):
    """The root that a module is below, and its repository. `named_by` is the host that named it, "" for nobody else."""

    root: Root
    url: GitUrl
    named_by: str = ""


class Roots:
    """Those of one repository of ours. What a host says holds for `ttl` seconds."""

    def __init__(
        self, urls: Urls, logins: Logins, hosts: Hosts, ttl: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._urls = urls
        self._logins = logins
        self._hosts = hosts
        self._ttl = ttl
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, Found]] = OrderedDict()

    async def find(self, module: str) -> Found:
        """Where a module is.

        Raises NotFound where it is nowhere; UpstreamDenied, UpstreamFailed, UpstreamUnavailable, UpstreamTimeout where
        its host is in the way of an answer.
        """
        named = self._urls.find(module)
        if named is not None:
            return Found(named, self._parsed(named.url, "`urls`"))
        try:
            known = well_known(module)
        except LookupError as error:
            raise NotFound(str(error), subject="module") from None
        if known is not None:
            return Found(known, self._parsed(known.url, "its path"))
        since, found = self._known.get(module, (float("-inf"), None))
        if found is not None and 0 <= self._clock() - since < self._ttl:
            return found
        found = await self._ask(module)
        self._known.pop(module, None)
        self._known[module] = (self._clock(), found)
        if len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)
        return found

    async def _ask(self, module: str) -> Found:
        said, page = await self._said(module, module)
        if said.root != module:
            again, _ = await self._said(said.root, module)
            if again != said:
                message = f"{page} and the page of {said.root} do not say the same of {module}"
                raise UpstreamFailed(message, subject="module")
        try:
            check_folder(said.folder)
        except ValueError as error:
            raise UpstreamFailed(f"{page}: {error}", subject="module") from None
        url = self._parsed(said.url, page)
        return Found(Root(said.root, said.url, said.folder), url, module.partition("/")[0])

    async def _said(self, path: str, module: str) -> tuple[Import, str]:
        """What the page of a path says of a module, and the page's URL."""
        host, _, rest = path.partition("/")
        schemes = ("https", "http") if self._logins.of(host).insecure else ("https",)
        problem: Problem | None = None
        for scheme in schemes:
            page = f"{scheme}://{path}?go-get=1"
            try:
                status, text = await self._get(f"{scheme}://{host}", f"{rest}?go-get=1")
            except (UpstreamFailed, UpstreamUnavailable) as error:
                problem = problem or error
                continue
            try:
                return choose(read(text), module), page
            except LookupError as error:
                raise _nothing(page, status, str(error)) from None
        assert problem is not None, "there is a scheme"
        raise problem

    async def _get(self, origin: str, path: str) -> tuple[int, bytes]:
        """Status and page, as much of it as may count: whatever the status is, it is the page that counts."""
        ask = Ask("GET", path, _FIELDS, lenient=True, expects=_TROUBLE)
        text = bytearray()
        async with self._hosts.at(origin).open(ask) as reply:
            while len(text) < MAX_PAGE and (piece := await reply.receive()):
                text += piece
            return reply.status, bytes(text)

    def _parsed(self, text: str, by: str) -> GitUrl:
        try:
            url = GitUrl.parse(text)
        except ValueError as error:
            raise UpstreamFailed(f"{by}: {error}", subject="module") from None
        if url.scheme == "http" and not self._logins.of(url.host).insecure:
            message = (
                f"{by} names {url}, which would be read in plain text: say insecure = true in a login of {url.host}"
            )
            raise UpstreamFailed(message, subject="module")
        return url


def _nothing(page: str, status: int, why: str) -> Problem:
    """A page that does not say where a module is: by what its server meant."""
    if status in (401, 403):
        message = f"{page} is answered with {status} and {why}: look at the login of its host"
        return UpstreamDenied(message, subject="module")
    if status == 429 or status >= 500:
        return UpstreamUnavailable(f"{page} is answered with {status} and {why}", subject="module", retry_after=10.0)
    return NotFound(f"{page} is answered with {status} and {why}", subject="module")
