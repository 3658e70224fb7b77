"""One upstream: its mirrors, credentials, queue and breakers behind `open` (see base.Upstream).

Theory of operation
-------------------
A question goes through the mirrors in their order.  A mirror that is resting (its breaker is open, or its
Retry-After lasts) is passed over.  The first answer that is one (200, 206, 304, and 404 or 410: a
healthy mirror that says "not found" is believed, the next is not asked) ends it.  Anything else is
noted, and the next mirror is asked; when all have failed and one of the failures may pass, there is a
pause and another round, a few times, within a bounded patience.  Then the asker is told the trouble that says most.

How one mirror is asked is the walk's affair (see walk).
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from mxart.errors import ConfigError, NotFound, Problem
from mxart.message import Tap
from mxart.upstream.base import Ask, Reply
from mxart.upstream.breaker import Event
from mxart.upstream.dial import Dialer
from mxart.upstream.failure import Cause, Trouble
from mxart.upstream.mirror import Mirror
from mxart.upstream.observe import SILENT, Observer
from mxart.upstream.pool import Exchange, Pool
from mxart.upstream.queue import Queue
from mxart.upstream.timing import USUAL_PATIENCE, USUAL_TIMEOUTS, Patience, Timeouts, pause
from mxart.upstream.tls import ClientTls
from mxart.upstream.tokens import ANONYMOUS, Credentials
from mxart.upstream.url import registrable_domain, same_site
from mxart.upstream.walk import Walker

_log = logging.getLogger("mxart.upstream")


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

    @property
    def located(self) -> str:
        location = self.headers.get("location")
        if location is None:
            return ""
        try:
            url = self._exchange.url.join(location)
        except ValueError:
            return ""
        return f"{url.origin}{url.target}"

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
        self._walker = Walker(name, self._mirrors, self._pool, credentials, observer, pseudonym)
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
                denials = [trouble for trouble in troubles if trouble.denied] if ask.firm else []
                try:
                    exchange = await self._ask_mirror(mirror, ask)
                except Trouble as error:
                    if mirror not in self._home:
                        error.challenge = None  # a login is for the upstream itself, not for whoever mirrors it
                    self._note(mirror, ask, error)
                    troubles.append(error)
                    if ask.once and not error.undone:
                        raise self._worst(troubles[-1:]) from None
                except NotFound:
                    if denials:
                        raise self._worst(denials) from None
                    raise
                else:
                    if denials and exchange.status in ask.expects:
                        await exchange.aclose()
                        raise self._worst(denials)
                    return mirror, exchange
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
            exchange = await self._walker.walk(mirror, ask)
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
