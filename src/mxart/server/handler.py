"""From a request to its response, and to its log line: routing, the repository's answer, every error.

This is the one place where an error becomes a response.  A `Problem` is worded by the format that the
request is for; anything else is a fault of ours: 500, with its traceback in the log.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from mxart.body import Body
from mxart.errors import LoopDetected, MxartError, Problem, TooManyRequests, UpstreamFailed
from mxart.logs import SILENT, EventLog
from mxart.message import Headers, Peer, Request, Response, Sent
from mxart.metrics import Metrics
from mxart.repos.answers import Deputy, answer
from mxart.repos.base import Format, Repository
from mxart.repos.callers import Caller
from mxart.repos.computed import Given
from mxart.repos.operations import Static
from mxart.server import metrics as series
from mxart.server.authentication import Identity
from mxart.server.challenges import TOKEN_PATH
from mxart.server.index import Index
from mxart.server.own import OwnPages, page
from mxart.server.rates import Limiter
from mxart.server.reception import Demands, Reception
from mxart.server.routes import Routes, ToIndex, ToOwn, ToRepository, ToTokens
from mxart.server.token_pages import TokenPages
from mxart.via import MAX_HOPS, hops, via
from mxart.web.prefix import PREFIX as API_PREFIX

if TYPE_CHECKING:  # it takes a while to import, and is needed when somebody calls it
    from mxart.web.api import Api

log = logging.getLogger(__name__)

_READS = ("GET", "HEAD")
_REGISTRY = "/v2"
_NEVER_REFUSED = frozenset(("/-/health", "/-/ready"))  # who asks for these decides whether we live


class _Place(Struct):
    """How far a request has come: what its refusal, and the audit log, have to say."""

    repository: Repository | None = None
    to: ToRepository | None = None
    identity: Identity | None = None
    demands: Demands | None = None
    changes: bool = False
    word: Callable[[Problem], Response] | None = None  # where no repository's format does


class Gate:
    """The handler of every connection (message.Handler)."""

    def __init__(
        self,
        routes: Routes,
        repositories: Mapping[str, Repository],
        own: OwnPages,
        metrics: Metrics,
        exchanges: EventLog = SILENT,
        *,
        indexes: Mapping[str, Index] | None = None,
        limiter: Limiter | None = None,
        pseudonym: str = "",
        reception: Reception | None = None,
        token_pages: TokenPages | None = None,
        api: Callable[[], Awaitable[Api]] | None = None,
        deputy: Deputy | None = None,
        url: str = "",
    ) -> None:
        """`url` is how clients reach us where it is not what they wrote: `[access] url`."""
        self._routes = routes
        self._repositories = repositories
        self._formats: dict[str, Format] = {r.format.name: r.format for r in repositories.values()}
        self._own = own
        self._metrics = metrics
        self._exchanges = exchanges
        self._indexes = indexes or {}
        self._limiter = limiter
        self._pseudonym = pseudonym
        self._reception = reception
        self._token_pages = token_pages
        self._api = api
        self._given = Given()
        self._deputy = deputy
        self._url = url

    async def handle(self, request: Request) -> Response:
        at = _Place()
        try:
            response = await self._answer(request, at)
        except Problem as problem:
            response = self._refusal(problem, request, at)
        except MxartError as error:  # a body that broke before it began, or a client that left while sending one
            request.trace.notes.append(str(error))
            response = self._word(UpstreamFailed(str(error)), request, at)
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            request.trace.notes.append("internal error")
            response = self._word(Problem("internal error; the server's log tells more"), request, at)
        if at.changes and self._reception is not None:
            name = at.repository.name if at.repository is not None else ""
            self._reception.wrote(request, at.identity, at.demands, name, response.status)
        return response

    async def _answer(self, request: Request, at: _Place) -> Response:
        if request.path not in _NEVER_REFUSED:
            if self._limiter is not None:
                self._limit(self._limiter, request)
            if came_by := hops(request.headers):
                self._refuse_loop(came_by, request)
        to = self._routes.find(request.authority, request.peer.sni, request.path, request.query)
        if isinstance(to, ToOwn | ToTokens):
            request.trace.outcome = "own"
            return await self._own_page(request, to, at)
        at.repository = repository = self._repositories[to.repository]
        request.trace.repository = to.repository
        if isinstance(to, ToIndex):
            caller = await self._caller(request, to, at, relays=True)
            caller.grants.demand("fetch", to.repository, "")  # it is asked of upstream, each time
            return await self._indexes[to.repository].answer(request, caller)
        at.to = to
        caller = await self._caller(request, to, at, relays=bool(repository.site))
        return await self._ask(repository, to, request, caller, at)

    async def _own_page(self, request: Request, to: ToOwn | ToTokens, at: _Place) -> Response:
        if self._token_pages is not None and (isinstance(to, ToTokens) or to.path == TOKEN_PATH):
            at.word = self._token_pages.word
            return await self._token_pages.answer(request)
        if self._api is not None and request.path.startswith(API_PREFIX):
            api = await self._api()
            at.word = api.word
            return await api.answer(request, await self._caller(request, None, at, relays=False))
        return self._own.answer(request)

    def _refusal(self, problem: Problem, request: Request, at: _Place) -> Response:
        request.trace.notes.append(f"{problem.status}: {problem.message}")
        if self._reception is not None:
            if self._reception.denied(problem, request, at.identity):
                at.changes = False  # it is noted
            form = self._format(request, at)
            if at.word is None:
                # The old API knows no token endpoint.
                name = form.name if form is not None and request.path.startswith("/v2") else ""
                problem = self._reception.told(problem, request, at.to, name, at.identity)
        return self._word(problem, request, at)

    def _refuse_loop(self, came_by: tuple[str, ...], request: Request) -> None:
        """Raises LoopDetected if the request came from ourselves, or by too many of us."""
        request.trace.came_by = came_by
        host = request.authority or request.peer.sni or "this request"
        if self._pseudonym in came_by:
            message = f"loop: {host} leads back to this server itself; set upstreams.resolve or nameservers"
        elif len(came_by) >= MAX_HOPS:
            message = f"loop: {host} was asked for by {len(came_by)} servers like this one, each for the next"
        else:
            return
        log.warning("%s: %s %s: %s", request.peer.address, request.method, request.path, message)
        raise LoopDetected(message, headers=(("via", via((self._pseudonym,))),))

    def _limit(self, limiter: Limiter, request: Request) -> None:
        """Raises TooManyRequests."""
        wait = limiter.wait(request.peer.address)
        if wait > 0.0:
            self._metrics.add(series.LIMITED)
            raise TooManyRequests(
                f"too many requests from {request.peer.address}; the limit is {limiter}", retry_after=wait
            )

    async def _ask(
        self, repository: Repository, to: ToRepository, request: Request, caller: Caller, at: _Place
    ) -> Response:
        root = "" if request.path.startswith(_REGISTRY) else _root(request, to, self._url)
        operation = repository.format.parse(request.method, to.path, request.query, request.headers, root)
        request.trace.decided("%s %s: repository %s, %r", request.method, request.target, to.repository, operation)
        if (
            isinstance(operation, Static)
            and request.path.startswith(_REGISTRY)
            and self._reception is not None
            and at.identity is not None
            and self._reception.knock(to, at.identity)
        ):
            request.trace.outcome = "static"
            response = operation.response
        else:
            response = await answer(repository, operation, request, caller, self._given, self._deputy)
        if to.namespace:  # distribution-spec, "Registry Proxying"
            return replace(response, headers=Headers((*response.headers, ("oci-namespace", to.namespace))))
        return response

    async def _caller(self, request: Request, to: ToRepository | ToIndex | None, at: _Place, *, relays: bool) -> Caller:
        """Who asks. Raises Unauthorized for credentials that are not good, TooManyRequests."""
        at.changes = request.method not in _READS
        if self._reception is None:
            return Caller.of(request.headers)
        at.identity = identity = await self._reception.identify(request, to, relays=relays)
        request.trace.user = identity.caller.name
        if not at.changes:
            return identity.caller
        at.demands = Demands(identity.caller.grants)
        return replace(identity.caller, grants=at.demands)

    def _format(self, request: Request, at: _Place) -> Format | None:
        if at.repository is not None:
            return at.repository.format
        if request.path == "/v2" or request.path.startswith("/v2/"):
            return self._formats.get("oci")
        return None

    def _word(self, problem: Problem, request: Request, at: _Place) -> Response:
        if at.word is not None:
            return at.word(problem)
        form = self._format(request, at)
        return form.word(problem) if form is not None else plain_problem(problem)

    def refuse(self, status: int, message: str, peer: Peer) -> Response:
        self._metrics.add(series.REFUSED)
        self._exchanges(f"refused: {message}", {"client": peer.address, "status": status})
        return page(status, "text/plain; charset=utf-8", f"{message}\n".encode())

    def finished(self, request: Request, response: Response | None, sent: Sent) -> None:
        trace = request.trace
        status = response.status if response is not None else 0
        cut = sent.error is not None
        self._metrics.add(
            series.EXCHANGES, trace.repository, trace.outcome or "none", "cut" if cut else f"{status // 100}xx"
        )
        self._metrics.add(series.SENT, trace.repository, amount=sent.body_bytes)
        if sent.first_byte is not None:
            self._metrics.observe(series.FIRST_BYTE, trace.repository, seconds=sent.first_byte - sent.started)
        if not self._exchanges:
            return
        fields: dict[str, object] = {
            "client": request.peer.address,
            "exchange": trace.number,
            "method": request.method,
            "path": request.path,
            "host": request.authority,
            "protocol": request.version if request.peer.scheme == "http" else f"{request.version}+tls",
            "status": status,
            "repository": trace.repository,
            "outcome": trace.outcome,
            **({"user": trace.user} if trace.user else {}),
            "bytes": sent.body_bytes,
            "first_byte_ms": _ms(sent.first_byte - sent.started) if sent.first_byte is not None else None,
            "total_ms": _ms(sent.finished - sent.started),
            "upstream_requests": trace.upstream_requests,
            "upstream_ms": _ms(trace.upstream_seconds),
            **({} if trace.upstream_remaining is None else {"upstream_remaining": trace.upstream_remaining}),
            "agent": request.headers.get("user-agent") or "",
        }
        if sent.error is not None:
            fields["error"] = sent.error
        if trace.notes:
            fields["why"] = "; ".join(trace.notes)
        self._exchanges(f"{request.method} {request.path} {status}", fields)


def _root(request: Request, to: ToRepository, ours: str) -> str:
    """The repository's own URL, as the client has it. A host of its own stays that, whatever `ours` says."""
    prefix = request.path.removesuffix(to.path)
    if ours and to.by == "path":
        return f"{ours.rstrip('/')}{prefix}"
    scheme = ours.partition("://")[0] or request.absolute or request.peer.scheme
    return f"{scheme}://{request.authority or request.peer.sni or ''}{prefix}"


def _ms(seconds: float) -> float:
    return int(seconds * 100_000 + 0.5) / 100  # round() is five times as dear


def plain_problem(problem: Problem) -> Response:
    """A problem where no format words it: one line of text."""
    fields = [("content-type", "text/plain; charset=utf-8"), *problem.headers]
    if problem.retry_after is not None:
        fields.append(("retry-after", str(max(0, math.ceil(problem.retry_after)))))
    return Response(problem.status, Headers(fields), Body([f"{problem.message}\n".encode()]))
