"""A whole file from an upstream into a sink, whatever happens on the way.

Theory of operation
-------------------
The sink says how many bytes it has; the rest is asked for by Range and written behind them.  When the
body breaks off or stalls, it is asked for again from where it ended: a fresh question, so a fresh
redirect and a fresh token, and a mirror that broke is asked last.  Those who read from the sink notice
nothing but the pause.  It gives up after several attempts in a row that brought no byte.

Whether the bytes are the right ones is not known here: the store checks length and digest.  So a 200
in place of a 206 is fine (what is there already is skipped), as is another mirror's ETag.
"""

from __future__ import annotations

import logging
import random
import re
from typing import Protocol

import trio
from msgspec.structs import replace

from mxart.errors import Problem, UpstreamFailed, UpstreamTimeout, UpstreamUnavailable
from mxart.message import Headers, Tap
from mxart.upstream.base import Ask, Reply, Upstream
from mxart.upstream.failure import RangeRefused
from mxart.upstream.tap import Tapped
from mxart.upstream.timing import Patience, pause

_log = logging.getLogger("mxart.upstream")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)\Z")
_FAST = 65536  # bytes that came at once: more will, and a thread is worth its visit
_RNG = random.Random()  # noqa: S311  # spreads retries, guards nothing; seeding takes longer than all else here
_PATIENCE = Patience(rounds=6, first_pause=0.2, longest_pause=10.0)


class Sink(Protocol):
    """Where the bytes go: the same shape as the store's."""

    @property
    def offset(self) -> int: ...
    @property
    def headers(self) -> Headers | None: ...
    def begin(self, total: int | None, headers: Headers) -> None: ...
    async def write(self, chunk: bytes) -> None: ...
    async def draw(self, tap: Tap) -> None: ...


class _Broken(Exception):
    """The transfer ended early, but may be taken up again."""

    def __init__(self, problem: Problem, origin: str = "") -> None:
        super().__init__(problem.message)
        self.problem = problem
        self.origin = origin


class Download:
    """An origin for the store's transfers: call it with a sink. Use it once.

    Raises the Problem of the last attempt, NotFound, and whatever the sink raises.  Cancellation
    leaves in the sink what had come.
    """

    def __init__(
        self, upstream: Upstream, ask: Ask, *, patience: Patience = _PATIENCE, rng: random.Random | None = None
    ) -> None:
        self._upstream = upstream
        self._ask = replace(ask, bulk=True)
        self._patience = patience
        self._rng = rng or _RNG
        self._whole = False  # Range is of no use here
        self._begun = False
        self._total: int | None = None

    async def __call__(self, sink: Sink) -> None:
        if sink.headers is not None and (length := sink.headers.get("content-length")) and length.isdecimal():
            self._total = int(length)
        fruitless = 0
        while True:
            before = sink.offset
            try:
                return await self._attempt(sink)
            except _Broken as broken:
                problem, origin = broken.problem, broken.origin
            if not self._begun:
                raise problem  # the upstream has tried all it may; nobody is reading yet
            fruitless = 0 if sink.offset > before else fruitless + 1
            if fruitless >= self._patience.rounds:
                raise problem
            await self._recover(problem, origin, fruitless)

    async def _recover(self, problem: Problem, origin: str, fruitless: int) -> None:
        if isinstance(problem, RangeRefused):
            self._whole = True
        if origin:
            self._ask = replace(self._ask, avoid=(origin,))
        wait = pause(self._patience, fruitless, self._rng) if fruitless else 0.0
        if problem.retry_after is not None:
            if problem.retry_after > self._patience.longest_pause * 3:
                raise problem
            wait = max(wait, problem.retry_after)
        _log.debug("%s: taking it up again in %.2f s after: %s", self._upstream.name, wait, problem.message)
        await trio.sleep(wait)

    async def _attempt(self, sink: Sink) -> None:
        offset = sink.offset
        if self._total is not None and sink.headers is not None and offset == self._total:
            sink.begin(self._total, sink.headers)  # everything came before; only nobody has said so
            return
        opened = False
        try:
            async with self._upstream.open(self._question(sink, offset)) as reply:
                opened = True
                await self._copy(reply, sink, offset)
        except (UpstreamFailed, UpstreamTimeout, UpstreamUnavailable) as problem:
            if opened:
                raise  # the sink's own words: `_copy` wraps the upstream's
            if isinstance(problem, RangeRefused) and offset and not self._whole:
                self._begun = True  # by whoever wrote what is there; it goes on without Range
            raise _Broken(problem) from None

    def _question(self, sink: Sink, offset: int) -> Ask:
        if not offset or self._whole:
            return self._ask
        fields = [("range", f"bytes={offset}-")]
        etag = sink.headers.get("etag") if sink.headers is not None else None
        if etag is not None and etag.startswith('"'):  # a strong one (RFC 9110 section 13.1.5)
            fields.append(("if-range", etag))
        return replace(self._ask, headers=self._ask.headers + fields)

    async def _copy(self, reply: Reply, sink: Sink, offset: int) -> None:
        start, total, headers = self._head(reply, offset)
        sink.begin(total, headers)
        self._begun, self._total = True, total
        skip = offset - start
        first = True
        while True:
            try:
                data = await reply.receive()
            except Problem as problem:
                raise _Broken(problem, reply.origin) from None
            if not data:
                break
            if skip:
                skip, data = max(skip - len(data), 0), data[skip:]
                if not data:
                    continue
            await sink.write(data)
            if first or len(data) >= _FAST:
                await _draw(reply, sink)
            first = False
        if skip or (total is not None and sink.offset < total):
            # A 206 may hold less than was asked for (RFC 9110 section 15.3.7); a file may have shrunk.
            raise _Broken(
                UpstreamFailed(f"{self._upstream.name}: {reply.origin} sent {sink.offset} bytes of {total}"),
                reply.origin,
            )

    def _head(self, reply: Reply, offset: int) -> tuple[int, int | None, Headers]:
        """Where the body starts, the length of the whole, and the fields as those of a whole answer."""
        headers = reply.headers
        length = headers.get("content-length")
        if reply.status == 200:
            return 0, int(length) if length is not None and length.isdecimal() else None, headers
        match = _CONTENT_RANGE.match(headers.get("content-range") or "") if reply.status == 206 else None
        if match is None or not offset:
            said = headers.get("content-range") or "nothing"
            self._whole = True
            raise self._refused(reply, f"answers {reply.status} with Content-Range {said[:80]!r}")
        first, last = int(match[1]), int(match[2])
        total = None if match[3] == "*" else int(match[3])
        if first != offset or last < first or (total is not None and last >= total):
            self._whole = True
            raise self._refused(reply, f"was asked for bytes from {offset} and sends {match[0]!r}")
        if self._total is not None and total is not None and total != self._total:
            self._whole = True  # the sink has to say what becomes of another file
            raise self._refused(reply, f"has {total} bytes where there were {self._total}")
        total = self._total if total is None else total
        headers = headers.without("content-range", "content-length")
        return first, total, _with_length(headers, total)

    def _refused(self, reply: Reply, what: str) -> _Broken:
        self._begun = True  # once more, without Range
        return _Broken(UpstreamFailed(f"{self._upstream.name}: {reply.origin} {what}"), reply.origin)


async def _draw(reply: Reply, sink: Sink) -> None:
    """Let the sink take what comes without a pause. How it goes on, or ends, is for `receive` to say."""
    if not isinstance(reply, Tapped) or (tap := reply.tap()) is None:
        return
    before = sink.offset
    try:
        await sink.draw(tap)
    finally:
        reply.drawn(sink.offset - before)


def _with_length(headers: Headers, total: int | None) -> Headers:
    return headers if total is None else Headers([*headers, ("content-length", str(total))])
