"""One upstream: its mirrors, credentials, queue and breakers behind `open` (see base.Upstream).

Theory of operation
-------------------
A question goes through the mirrors in their order.  A mirror that is resting (its breaker is open, or its
Retry-After lasts) is passed over.  The first answer that is one (200, 206, 304, and 404 or 410: a
healthy mirror that says "not found" is believed, the next is not asked) ends it.  Anything else is
noted, and the next mirror is asked; when all have failed and one of the failures may pass, there is a
pause and another round, a few times, within a bounded patience.  Then the asker is told the trouble that says most.

Asking one mirror is a walk: redirects are followed, credentials stay behind when it leaves the mirror's
origin, and a 401 is answered once with a token.  Nothing of a signed URL is kept: every question starts
at the mirror's own URL.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio

import mxart
from mxart.errors import ConfigError, NotFound, Problem
from mxart.upstream.authorize import Authorizer, challenge_of
from mxart.upstream.base import Ask, Reply
from mxart.upstream.breaker import Event
from mxart.upstream.budget import budget_of
from mxart.upstream.dial import Dialer
from mxart.upstream.failure import Cause, Trouble, status_trouble
from mxart.upstream.mirror import Mirror
from mxart.upstream.observe import SILENT, Observer
from mxart.upstream.pool import Exchange, Pool
from mxart.upstream.queue import Queue
from mxart.upstream.tap import Tap
from mxart.upstream.timing import USUAL_PATIENCE, USUAL_TIMEOUTS, Patience, Timeouts, parse_retry_after, pause
from mxart.upstream.tls import ClientTls
from mxart.upstream.tokens import ANONYMOUS, Credentials
from mxart.upstream.url import Url, keeps_credentials, registrable_domain, same_site
from mxart.upstream.zones import Reach, Zone
from mxart.via import hops, via

_log = logging.getLogger("mxart.upstream")
_REDIRECTS = 5
_REDIRECT_STATUSES = (301, 302, 303, 307, 308)
_SECRETS = ("authorization", "cookie", "proxy-authorization")


class _Reply:
    """A Reply. Reading it tells the mirror's breaker and the observer how it goes."""

    def __init__(self, remote: Remote, mirror: Mirror, exchange: Exchange, *, headless: bool) -> None:
        self._remote = remote
        self._mirror = mirror
        self._exchange = exchange
        self._headless = headless
        self._moved = False
        self._outcome = Event.SUCCEEDED if headless else Event.ABANDONED
        self.status = exchange.status
        self.headers = exchange.headers
        self.origin = mirror.text

    async def receive(self) -> bytes:
        if self._headless:
            return b""
        try:
            data = await self._exchange.receive()
        except Trouble as error:
            # One that breaks off again and again, but moves, is slow to use and not to be given up.
            self._outcome = Event.ABANDONED if self._moved else Event.FAILED
            self._mirror.last_trouble = error.detail
            self._remote.observer.failed(self._remote.name, error.cause.value)
            _log.debug("%s: %s", self._remote.name, error.detail)
            raise error.problem(self._remote.name) from None
        if data:
            self._moved = True
            self._remote.observer.received(self._remote.name, len(data))
        elif self._outcome is Event.ABANDONED:
            self._outcome = Event.SUCCEEDED
        return data

    def tap(self) -> Tap | None:
        """See tap.Tapped."""
        return None if self._headless else self._exchange.tap()

    def drawn(self, count: int) -> None:
        """See tap.Tapped."""
        self._moved = self._moved or count > 0
        self._remote.observer.received(self._remote.name, count)

    async def aclose(self) -> None:
        """Let go of the connection, and tell the breaker."""
        self._mirror.breaker.note(self._outcome, trio.current_time())
        await self._exchange.aclose()


class Remote:
    """An Upstream over HTTP. `mirrors` are URLs, in order; raises ConfigError for what is none.

    Close it with `aclose`; `sweep` now and then closes connections that nobody uses.
    """

    def __init__(
        self,
        name: str,
        mirrors: Sequence[str],
        dialer: Dialer,
        *,
        proxy: str | None = None,
        tls: ClientTls | None = None,
        credentials: Credentials = ANONYMOUS,
        timeouts: Timeouts = USUAL_TIMEOUTS,
        patience: Patience = USUAL_PATIENCE,
        concurrency: int = 16,
        observer: Observer = SILENT,
        rng: random.Random | None = None,
        pseudonym: str = "",
    ) -> None:
        self.name = name
        self._pseudonym = pseudonym
        self.observer = observer
        self._mirrors = [Mirror.parse(name, text) for text in mirrors]
        if not self._mirrors:
            raise ConfigError(f"repository.{name}: a proxy needs an upstream")
        first = self._mirrors[0].url.origin
        self.site = f"{first.scheme}://{registrable_domain(first.host)}"
        # Where a caller's credentials for this upstream may go. The first mirror is the one that they are for.
        self._home = [mirror for mirror in self._mirrors if same_site(first, mirror.url.origin)]
        self._patience = patience
        self._rng = rng or random.Random()  # noqa: S311  # spreads retries, guards nothing
        self._pool = Pool(dialer, dialer.ways(proxy), tls, timeouts)
        self._authorizer = Authorizer(credentials, self._fetch)
        # Two lines: a page of names does not stand behind gigabytes.
        self._files = Queue(name, concurrency, 64 * concurrency, timeouts.queue)
        self._documents = Queue(name, concurrency, 64 * concurrency, timeouts.queue)

    @asynccontextmanager
    async def open(self, ask: Ask) -> AsyncIterator[Reply]:
        async with (self._files if ask.bulk else self._documents).place():
            mirror, exchange = await self._ask(ask)
            reply = _Reply(self, mirror, exchange, headless=ask.method == "HEAD")
            try:
                yield reply
            finally:
                await reply.aclose()

    def sweep(self) -> None:
        """Close connections that were idle too long. Cheap; for the housekeeping."""
        self._pool.sweep()

    async def aclose(self) -> None:
        """Close every idle connection. Those in use are closed with their replies."""
        self._pool.close()

    # The mirrors, in rounds.

    async def _ask(self, ask: Ask) -> tuple[Mirror, Exchange]:
        started = trio.current_time()
        told: list[Trouble] = []
        candidates = self._home if "authorization" in ask.headers else self._mirrors
        for attempt in range(self._patience.rounds):
            troubles: list[Trouble] = []
            for mirror in sorted(candidates, key=lambda mirror: mirror.text in ask.avoid):
                now = trio.current_time()
                if (rest := mirror.wait(now)) is not None:
                    troubles.append(self._resting(mirror, rest))
                    continue
                try:
                    return mirror, await self._ask_mirror(mirror, ask)
                except Trouble as error:
                    if mirror not in self._home:
                        error.challenge = None  # a login is for the upstream itself, not for whoever mirrors it
                    self._note(mirror, ask, error)
                    troubles.append(error)
                except NotFound:
                    denials = [trouble for trouble in troubles if trouble.denied]
                    if ask.firm and denials:
                        raise self._worst(denials) from None
                    raise
            if not told or any(trouble.cause is not Cause.RESTING for trouble in troubles):
                told = troubles
            if ask.firm and troubles[0].denied:
                break  # the upstream itself has spoken; that a mirror of it may come back changes nothing
            wait = self._wait(troubles, attempt)
            if wait is None or trio.current_time() - started + wait > self._patience.total:
                break
            _log.debug("%s: asking again in %.2f s (%s)", self.name, wait, troubles[-1].detail)
            await trio.sleep(wait)
        raise self._worst(told)

    def _resting(self, mirror: Mirror, rest: float) -> Trouble:
        detail = f"{mirror.url.origin} is not asked for another {rest:.0f} s, because {mirror.last_trouble}"
        return Trouble(Cause.RESTING, detail, retry_after=rest)

    def _note(self, mirror: Mirror, ask: Ask, trouble: Trouble) -> None:
        _log.debug("%s: %s: %s", self.name, trouble.cause.value, trouble.detail)
        mirror.last_trouble = trouble.detail
        self.observer.failed(self.name, trouble.cause.value)
        if trouble.elsewhere or trouble.retry_after is None or "authorization" in ask.headers:
            return  # a caller's own limit is his alone
        if trouble.retry_after > self._patience.longest_pause:
            mirror.rests_until = trio.current_time() + trouble.retry_after

    def _wait(self, troubles: list[Trouble], attempt: int) -> float | None:
        """Seconds until the next round, None if there is none."""
        if attempt + 1 >= self._patience.rounds:
            return None
        hopeful = [trouble for trouble in troubles if trouble.rule.again]
        hints = [trouble.retry_after for trouble in hopeful if trouble.retry_after is not None]
        if not hopeful or (hints and len(hints) == len(hopeful) and min(hints) > self._patience.longest_pause):
            return None
        wait = pause(self._patience, attempt, self._rng)
        if hints and len(hints) == len(hopeful):
            wait = max(wait, min(hints))
        return wait

    def _worst(self, troubles: list[Trouble]) -> Problem:
        """The trouble to tell of: of the first mirror that said something itself, else of the first."""
        said = [trouble for trouble in troubles if trouble.cause is not Cause.RESTING] or troubles
        chosen = said[0]
        if len(troubles) > 1:
            detail = "; ".join(trouble.detail for trouble in troubles)
            chosen = chosen.told_as(detail)
        return chosen.problem(self.name)

    # One mirror.

    async def _ask_mirror(self, mirror: Mirror, ask: Ask) -> Exchange:
        mirror.breaker.note(Event.ADMITTED, trio.current_time())
        event = Event.ABANDONED
        try:
            exchange = await self._walk(mirror, ask)
            event = Event.ANSWERED
        except Trouble as error:
            event = Event.FAILED if error.rule.counts and not error.elsewhere else Event.SUCCEEDED
            if error.rule.by_asker and "authorization" in ask.headers:
                event = Event.ABANDONED
            raise
        except NotFound:
            event = Event.SUCCEEDED
            raise
        finally:
            mirror.breaker.note(event, trio.current_time())
        return exchange

    async def _walk(self, mirror: Mirror, ask: Ask) -> Exchange:
        url = mirror.url.child(ask.path)
        seen = {url}
        trusted = True
        reach: Reach = None
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
                if status not in _REDIRECT_STATUSES:
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
        try:
            following = url.join(location)
        except ValueError as error:
            raise Trouble(Cause.REDIRECT, f"{url} redirects to a place that is none: {error}") from None
        if url.origin.scheme == "https" and following.origin.scheme != "https":
            raise Trouble(Cause.REDIRECT, f"{url} redirects from https to http ({following}), which is refused")
        return following

    def _judge(self, mirror: Mirror, url: Url, ask: Ask, exchange: Exchange, *, trusted: bool) -> None:
        """Let an answer through, or raise what it is."""
        status, headers = exchange.status, exchange.headers
        answered = ask.lenient and 400 <= status < 500 and status not in (407, 408)  # those are about the way
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
        exchange = await self._exchange(url, method, headers, b"", bulk=ask.bulk, reach=reach)
        # What a caller's own credentials have left is not ours to tell.
        if trusted and "authorization" not in ask.headers:
            if (budget := budget_of(exchange.headers)) is not None:
                self.observer.budget(self.name, budget)
            if not ask.bulk and exchange.status == 200:
                self.observer.document(self.name, method)
        return exchange

    async def _exchange(
        self, url: Url, method: str, headers: tuple[tuple[str, str], ...], body: bytes, *, bulk: bool, reach: Reach
    ) -> Exchange:
        started = trio.current_time()
        exchange = await self._pool.ask(method, url.origin, url.target, headers, body=body, bulk=bulk, reach=reach)
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
        exchange = await self._exchange(url, method, headers, body, bulk=False, reach=reach)
        try:
            data = await exchange.read(max_bytes)
        finally:
            await exchange.aclose()
        return exchange.status, data, parse_retry_after(exchange.headers.get("retry-after"), time.time())
