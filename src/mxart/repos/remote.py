"""What the parts of a proxy repository share: upstream, the store, the rules of time, and the words about trouble."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Literal, Protocol

import trio
from msgspec import Struct, field
from msgspec.structs import replace

from mxart.digest import Digest
from mxart.errors import NotFound, Problem, StorageFull, UpstreamDenied, UpstreamFailed, UpstreamUnavailable
from mxart.message import Headers, Trace
from mxart.repos.base import Format
from mxart.repos.operations import Artifact, Blob, Document, Facts, File, Found, Listing
from mxart.repos.roles import having
from mxart.repos.stock import Shelf, Stock
from mxart.store.base import FileRecord, Origin
from mxart.upstream.base import Ask, Reply, Upstream
from mxart.upstream.budget import budget_of
from mxart.via import via

_log = logging.getLogger(__name__)

# How long a stale copy is served without asking a failing upstream again, in seconds; never longer than the ttl.
_HOLD = 5.0


class Rules(Struct, frozen=True):
    """How long upstream's word holds, in seconds; `offline`: it is never asked.

    Who waits for a revalidation longer than `patience` gets the old copy: clients give up after 15 to 30.  `relay`
    says what becomes of credentials that callers show (see relay).
    """

    ttl: float = 300.0
    negative_ttl: float = 60.0
    offline: bool = False
    patience: float = 8.0
    relay: Literal["never", "denied", "always"] = "never"

    @property
    def hold(self) -> float:
        """How long a failure to revalidate is not tried again."""
        return min(self.ttl, _HOLD)


class Received(Struct, frozen=True):
    """A file that has come from upstream as a whole, and that its format holds to be right.

    `checksum` is what the format says of it, `headers` are the head that it came with; `trace` is of the request that
    caused it, which may be over.
    """

    digest: Digest
    checksum: str
    headers: Headers
    trace: Trace


class Verifier(Protocol):
    """Whoever knows what upstream's files must be, by another word than the file itself: a checksum database, say."""

    async def verify(self, operation: Document | Artifact, received: Received) -> None:
        """Return if these bytes are the right ones, or if there is nobody to ask about them: a private package.

        Raises UpstreamFailed if they are not, and UpstreamUnavailable or UpstreamTimeout where that cannot be told now:
        then they are asked about again, later.
        """
        ...

    async def answer(self, document: Document, remote: Remote, trace: Trace) -> Found | None:
        """What it says itself, where that is what was asked for; None: this is a document of upstream's.

        `remote` is whose request it is: its shelf, and whether anybody may be asked.  Raises as Repository.file does.
        """
        ...


class Remote(Struct, frozen=True):
    """One upstream as a repository sees it."""

    name: str
    format: Format
    upstream: Upstream
    stock: Stock
    shelf: Shelf
    nursery: trio.Nursery
    origin: Callable[[Ask], Origin]
    rules: Rules = field(default_factory=Rules)
    clock: Callable[[], float] = time.time
    verifier: Verifier | None = None

    def turn(self, path: str) -> AbstractAsyncContextManager[None]:
        """The right to ask upstream for a name of this repository, one worker at a time."""
        return self.stock.turns.take(f"{self.name}\0{path}")

    @asynccontextmanager
    async def open(self, ask: Ask, trace: Trace) -> AsyncIterator[Reply]:
        """`Upstream.open`, noted in the trace of whoever caused it. Raises UpstreamUnavailable when offline."""
        if self.rules.offline:
            raise UpstreamUnavailable(f"repository {self.name} is offline, and this is not kept here")
        trace.upstream_requests += 1
        trace.decided("%s: upstream is asked: %s %s", self.name, ask.method, ask.path)
        started = time.perf_counter()
        try:
            async with self.upstream.open(asked_by(ask, trace)) as reply:
                if (budget := budget_of(reply.headers)) is not None:
                    trace.upstream_remaining = budget.remaining
                yield reply
        finally:
            trace.upstream_seconds += time.perf_counter() - started

    def ask(self, operation: File, method: str) -> Ask:
        """The question about a file, as whoever is to be asked as. The only place where credentials get into one."""
        return self.shown(self.format.ask(operation, method), operation.credential)

    def ask_page(self, listing: Listing, following: str | None) -> Ask:
        """The question for a page of a list, as whoever is to be asked as."""
        return self.shown(having(self.format.paging).ask_page(listing, following), listing.credential)

    def shown(self, ask: Ask, credential: str) -> Ask:
        """A question with a caller's credentials; where they are relayed, a denial counts before all else."""
        if credential:
            ask = replace(ask, headers=Headers((*ask.headers, ("authorization", credential))))
        return ask if self.rules.relay == "never" else replace(ask, firm=True)

    def final(self, problem: Problem) -> bool:
        """Whether what is kept must not be served in spite of this: upstream no longer lets us see it."""
        return self.rules.relay != "never" and isinstance(problem, UpstreamDenied)

    async def verify(self, operation: Document | Artifact, received: Received) -> None:
        """Have somebody confirm what upstream sent, where there is one. Raises as Verifier.verify does."""
        if self.verifier is not None and received.checksum:
            await self.verifier.verify(operation, received)

    async def read(self, reply: Reply, limit: int) -> bytes:
        """A small body whole. Raises UpstreamFailed past `limit`, and as Reply.receive does."""
        declared = reply.headers.get("content-length")
        if declared is not None and declared.isdigit() and int(declared) > limit:
            raise UpstreamFailed(f"{self.upstream.name} sends {declared} bytes where at most {limit} make sense")
        chunks: list[bytes] = []
        size = 0
        while chunk := await reply.receive():
            size += len(chunk)
            if size > limit:
                raise UpstreamFailed(f"{self.upstream.name} sends more than {limit} bytes where fewer make sense")
            chunks.append(chunk)
        return b"".join(chunks)

    def refuse_missing(self, path: str, subject: str, trace: Trace) -> None:
        """Raise NotFound if upstream said so lately."""
        if self.stock.catalog.missing(self.name, path, self.clock()):
            trace.outcome = "negative"
            raise NotFound(f"{self.upstream.name} has no {path}", subject=subject)

    def refuse_offline(self, path: str, subject: str) -> None:
        """Raise UpstreamUnavailable if upstream is never asked."""
        if self.rules.offline:
            raise UpstreamUnavailable(
                f"repository {self.name} is offline, and {path} is not kept here", subject=subject
            )

    async def note_missing(self, path: str) -> None:
        """Remember that upstream says it has no such file."""
        if self.rules.negative_ttl > 0:
            with self.tolerant(path):
                await self.stock.catalog.put_missing(self.name, path, self.clock() + self.rules.negative_ttl)

    def record_of(self, file: Blob | Artifact, digest: Digest, facts: Facts, origin: str, size: int) -> FileRecord:
        """What is noted of an immutable file that upstream has just sent or confirmed."""
        now = self.clock()
        return FileRecord(
            repository=self.name,
            package=file.package,
            path=file.path,
            digest=digest,
            size=size,
            media_type=facts.media_type,
            etag=facts.etag,
            last_modified=facts.last_modified,
            origin=origin,
            created=now,
            validated=now,
            checksum=facts.checksum,
        )

    async def put(self, record: FileRecord) -> None:
        """Record an immutable name unless it is there already with the same bytes."""
        known = self.stock.catalog.file(self.name, record.path)
        if known is None or known.digest != record.digest:
            await self.stock.catalog.put_file(record)

    def tolerant(self, path: str) -> Tolerant:
        """A context in which a full disk is logged and otherwise ignored: the client gets its bytes all the same."""
        return Tolerant(self.name, path)


class Tolerant:
    """Swallows StorageFull, loudly. `failed` tells whether it did."""

    __slots__ = ("_name", "_path", "failed")

    def __init__(self, name: str, path: str) -> None:
        self._name = name
        self._path = path
        self.failed = False

    def __enter__(self) -> Tolerant:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> bool:
        if isinstance(error, StorageFull):
            self.failed = True
            _log.warning("%s: %s is served but not kept: %s", self.name, self._path, error.message)
            return True
        return False

    @property
    def name(self) -> str:
        """The repository's."""
        return self._name


def asked_by(ask: Ask, trace: Trace) -> Ask:
    """The question with the instances that it came by: whoever finds himself among them says so."""
    if not trace.came_by:
        return ask
    came_by = (("via", via(trace.came_by)),)
    return replace(ask, headers=ask.headers + came_by)


def flight_of(path: str, trace: Trace) -> str:
    """The key of the work on a name that a request may begin or join (flights).

    What came by other instances is apart from what came from clients: two that mirror each other, asked for the same
    at one time, would each join what waits for the other's answer; and a Via that a stranger made up would fail the
    question that everybody waits for.
    """
    return f"{path}\0relayed" if trace.came_by else path


def stale_warning(problem: Problem) -> str:
    """A Warning field's value that says why the copy is stale (RFC 7234 sections 5.5.1 and 5.5.2)."""
    text = "".join(char if " " <= char <= "~" and char not in '"\\' else "?" for char in problem.message)
    return f'111 - "Revalidation Failed: {text[:300]}"'


OFFLINE_WARNING = '110 - "Response is Stale: the repository is offline"'
