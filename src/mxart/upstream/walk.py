"""One walk: a question asked of one mirror, along its redirects, with what the mirror knows us by.

Redirects are followed, credentials stay behind when they leave the mirror's origin, and a 401 is answered once with a
token.  Nothing of a signed URL is kept: every question starts at the mirror's own URL.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial

import trio

import mxart
from mxart.errors import NotFound
from mxart.upstream.authorize import Authorizer, challenge_of
from mxart.upstream.base import Ask
from mxart.upstream.budget import budget_of
from mxart.upstream.failure import Cause, Trouble, status_trouble
from mxart.upstream.mirror import Mirror
from mxart.upstream.observe import Observer
from mxart.upstream.pool import Exchange, Pool
from mxart.upstream.timing import parse_retry_after
from mxart.upstream.tokens import Credentials
from mxart.upstream.url import Url, keeps_credentials
from mxart.upstream.zones import Reach, Zone
from mxart.via import hops, via

_log = logging.getLogger("mxart.upstream")
_REDIRECTS = 5
_REDIRECT_STATUSES = (301, 302, 303, 307, 308)
_SAME_METHOD = (307, 308)  # the others make a GET of what writes (RFC 9110 section 15.4)
_SECRETS = ("authorization", "cookie", "proxy-authorization")


class Walker:
    """Asks the mirrors of one upstream, whichever it is told."""

    def __init__(
        self,
        name: str,
        mirrors: Sequence[Mirror],
        pool: Pool,
        credentials: Credentials,
        observer: Observer,
        pseudonym: str,
    ) -> None:
        self.name = name
        self.observer = observer
        self._mirrors = mirrors
        self._pool = pool
        self._pseudonym = pseudonym
        self._authorizer = Authorizer(credentials, self._fetch)

    async def walk(self, mirror: Mirror, ask: Ask) -> Exchange:
        """The answer, if it is one. Raises Trouble, NotFound. Cancellation closes what was opened."""
        url, trusted, reach = await self._start(mirror, ask)
        seen = {url}
        method = ask.method
        while True:
            try:
                send = partial(self._send, url, method, ask, trusted, reach)
                exchange = await self._authorizer.exchange(mirror, url.origin, ask, send, trusted=trusted)
            except Trouble as error:
                error.elsewhere = not trusted
                raise
            try:
                status = exchange.status
                if status in ask.expects and status >= 300:
                    return exchange
                writes = method not in ("GET", "HEAD")
                if status not in (_SAME_METHOD if writes else _REDIRECT_STATUSES):
                    if method == "HEAD" and status in (405, 501):
                        # Some servers have no HEAD; the head of a GET says the same, and its body stays unread.
                        method = "GET"
                        await exchange.finish()
                        continue
                    self._judge(mirror, url, ask, exchange, trusted=trusted)
                    return exchange
                following = self._follow(url, exchange)
                await exchange.finish()
            except Trouble as error:
                error.elsewhere = not trusted
                await exchange.aclose()
                raise
            except BaseException:
                await exchange.aclose()
                raise
            if following in seen:
                raise Trouble(Cause.REDIRECT, f"{following} redirects to itself, in a circle")
            if len(seen) > _REDIRECTS:
                raise Trouble(Cause.REDIRECT, f"{mirror.url.origin} redirects more than {_REDIRECTS} times")
            seen.add(following)
            trusted = trusted and keeps_credentials(url.origin, following.origin)
            reach = await self._reach(following, mirror)
            _log.debug("%s: %s redirects to %s", self.name, url, following)
            url = following

    async def _start(self, mirror: Mirror, ask: Ask) -> tuple[Url, bool, Reach]:
        """Where to, whether that is the mirror itself, and what may be dialled for it. Raises Trouble."""
        if not ask.url:
            return mirror.url.child(ask.path), True, None
        url = _checked(mirror.url, "named", ask.url)
        return url, keeps_credentials(mirror.url.origin, url.origin), await self._reach(url, mirror)

    async def _reach(self, url: Url, *by: Mirror) -> Reach:
        """What may be dialled for a URL that one of these mirrors named. Raises Trouble."""
        if any(url.origin.host == mirror.url.origin.host for mirror in self._mirrors):
            return None
        reach: frozenset[Zone] | None = None
        unknown: Trouble | None = None
        for mirror in by:
            try:
                found = await self._pool.reach(mirror.url.origin)
            except Trouble as error:  # a mirror that has no address named nothing, and is in nobody's way
                unknown = error
            else:
                reach = found if reach is None else reach | found
        if reach is None and unknown is not None:
            raise unknown
        return reach or frozenset()

    def _follow(self, url: Url, exchange: Exchange) -> Url:
        location = exchange.headers.get("location")
        if location is None:
            raise Trouble(Cause.REDIRECT, f"{url} redirects ({exchange.status}) without saying where")
        return _checked(url, "redirects to", location)

    def _judge(self, mirror: Mirror, url: Url, ask: Ask, exchange: Exchange, *, trusted: bool) -> None:
        """Let an answer through, or raise what it is."""
        status, headers = exchange.status, exchange.headers
        answered = ask.lenient and 400 <= status < 500 and status not in (407, 408)  # those are about the way
        answered = answered or status in ask.expects or (200 <= status < 300 and ask.method not in ("GET", "HEAD"))
        if status in (404, 410) and not answered:
            raise NotFound(f"{self.name}: {mirror.url.origin} answers {status} to {ask.method} {url}")
        ranged = "range" in ask.headers
        conditional = "if-none-match" in ask.headers or "if-modified-since" in ask.headers
        if answered or status == 200 or (status == 206 and ranged) or (status == 304 and conditional):
            coding = (headers.combined("content-encoding") or "identity").strip().lower()
            if coding not in ("identity", ""):
                raise Trouble(Cause.ENCODED, f"{url} is encoded as {coding[:40]!r}, although identity was asked for")
            return
        wait = parse_retry_after(headers.get("retry-after"), time.time())
        if status == 508 and self._pseudonym in hops(headers):
            detail = f"loop: {url.origin} leads back to this server; set upstreams.resolve or nameservers"
            raise Trouble(Cause.LOOP, detail)
        hint = "" if wait is None else f", to be asked again in {wait:.0f} s"
        if status == 401:
            hint = " (credentials are wrong or missing)"
        trouble = status_trouble(status, f"{url.origin} answers {status} to {ask.method} {url}{hint}", wait)
        trouble.undone = status == 429
        if status in (401, 403) and trusted:
            trouble.challenge = challenge_of(mirror, ask, status, headers)
        raise trouble

    # One request.

    async def _send(
        self, url: Url, method: str, ask: Ask, trusted: bool, reach: Reach, authorization: str | None
    ) -> Exchange:
        fields = ask.headers.without("accept-encoding", "host", "user-agent", "authorization", "via")
        if not trusted:
            fields = fields.without(*_SECRETS)
        headers = (*fields.items, ("user-agent", f"mxart/{mxart.__version__}"), ("accept-encoding", "identity"))
        if self._pseudonym:
            headers = (*headers, ("via", via((*hops(ask.headers), self._pseudonym))))
        if authorization is not None:
            headers = (*headers, ("authorization", authorization))
        exchange = await self._exchange(url, method, headers, ask, reach)
        # What a caller's own credentials have left is not ours to tell.
        if trusted and "authorization" not in ask.headers:
            if (budget := budget_of(exchange.headers)) is not None:
                self.observer.budget(self.name, budget)
            if not ask.bulk and exchange.status == 200:
                self.observer.document(self.name, method)
        return exchange

    async def _exchange(
        self, url: Url, method: str, headers: tuple[tuple[str, str], ...], ask: Ask, reach: Reach
    ) -> Exchange:
        started = trio.current_time()
        exchange = await self._pool.ask(
            method, url.origin, url.target, headers, body=ask.body, bulk=ask.bulk, reach=reach, once=ask.once
        )
        seconds = trio.current_time() - started
        self.observer.answered(self.name, exchange.status, seconds)
        _log.debug("%s: %s %s: %d in %.3f s", self.name, method, url, exchange.status, seconds)
        return exchange

    async def _fetch(
        self, method: str, url: Url, headers: tuple[tuple[str, str], ...], body: bytes, max_bytes: int
    ) -> tuple[int, bytes, float | None]:
        """For the tokens."""
        headers = (
            *headers,
            ("accept", "application/json"),
            ("accept-encoding", "identity"),
            ("user-agent", f"mxart/{mxart.__version__}"),
            *((("via", via((self._pseudonym,))),) if self._pseudonym else ()),
        )
        reach = await self._reach(url, *self._mirrors)
        exchange = await self._exchange(url, method, headers, Ask(method, "", body=body), reach)
        try:
            data = await exchange.read(max_bytes)
        finally:
            await exchange.aclose()
        return exchange.status, data, parse_retry_after(exchange.headers.get("retry-after"), time.time())


def _checked(base: Url, how: str, location: str) -> Url:
    """Where a Location leads. Raises Trouble for a place that is none, or less safe than who named it."""
    try:
        following = base.join(location)
    except ValueError as error:
        raise Trouble(Cause.REDIRECT, f"{base} {how} a place that is none: {error}") from None
    if base.origin.scheme == "https" and following.origin.scheme != "https":
        raise Trouble(Cause.REDIRECT, f"{base} {how} {following}: from https to http, which is refused")
    return following
