"""One HTTP exchange as values, the same for HTTP/1.1 and HTTP/2.

Field names are lower case; names and values are text (latin-1 on the wire), values without
surrounding white space.  `Request` and `Response` know nothing of connections; `Trace` is the one
mutable thing, the notes that the parts of the program take about an exchange for its log line.

What is made anew for every exchange is a msgspec Struct: a frozen dataclass takes ten times as long to make.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Protocol, runtime_checkable

from msgspec import Struct, field

from mxart.body import EMPTY, Body

_SECRET = ("authorization", "cookie", "proxy-authorization", "set-cookie")


class Headers:
    """An ordered, immutable list of header fields; look-ups ignore case, and `repr` shows no credentials."""

    __slots__ = ("items",)

    items: tuple[tuple[str, str], ...]

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        self.items = tuple((name.lower(), value) for name, value in items)

    @classmethod
    def lowered(cls, items: tuple[tuple[str, str], ...]) -> Headers:
        """From items whose names are known to be lower case; nothing is copied."""
        self = cls.__new__(cls)
        self.items = items
        return self

    def get(self, name: str) -> str | None:
        """The first value under a lower-case name."""
        for key, value in self.items:
            if key == name:
                return value
        return None

    def get_all(self, name: str) -> list[str]:
        """Every value under a lower-case name, in order."""
        return [value for key, value in self.items if key == name]

    def combined(self, name: str) -> str | None:
        """The values of a list-valued field as one (RFC 9110 section 5.3)."""
        values = self.get_all(name)
        return ", ".join(values) if values else None

    def __contains__(self, name: str) -> bool:
        return any(key == name for key, _ in self.items)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.items)

    def __add__(self, more: Iterable[tuple[str, str]]) -> Headers:
        return Headers.lowered(self.items + Headers(more).items)

    def without(self, *names: str) -> Headers:
        """A copy that lacks the given lower-case names."""
        return Headers.lowered(tuple(item for item in self.items if item[0] not in names))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self.items == other.items

    def __hash__(self) -> int:
        return hash(self.items)

    def __repr__(self) -> str:
        shown = [(name, "…" if name in _SECRET else value) for name, value in self.items]
        return f"Headers({shown!r})"


class RequestBody(Protocol):
    """The body of a request, read at most once, as it arrives."""

    @property
    def length(self) -> int | None:
        """Its Content-Length; 0 where there is no body; None when only the end tells."""
        ...

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """The next bytes; b"" at the end.

        The first call lets an `Expect: 100-continue` client go on.  Raises Disconnected when the
        client leaves or stalls, BadRequest on broken framing, TooLarge past the limit.  Cancellation loses nothing
        but leaves the connection unusable for a further request.
        """
        ...


class Tap(Protocol):
    """Where a thread draws the bytes of a body from, past the event loop, as they come: the fast way for large ones."""

    def take(self, buffer: memoryview, wait: float) -> int:
        """Fill `buffer` from its front with what is there, waiting at most `wait` seconds for the first byte of it.

        Returns how many bytes it was; 0 if nothing came, or if nothing will: `receive` tells which.  Never raises.
        """
        ...


@runtime_checkable
class TappedBody(RequestBody, Protocol):
    """The body of a request that need not come through `receive`. Only some are."""

    def tap(self) -> Tap | None:
        """For a thread to take over from `receive`, until it gets 0; None where, for now, only `receive` will do.

        While a thread draws, nobody calls `receive`.
        """
        ...

    def drawn(self, count: int) -> None:
        """So many bytes were taken from the tap, and no thread is at it any more. Never raises."""
        ...


class NoBody:
    """The body of a request that has none."""

    length: int | None = 0

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """At the end already."""
        return b""


NO_BODY = NoBody()


_numbers = count(1)
_decisions = logging.getLogger("mxart.decisions")


class Trace(Struct):
    """Notes on one exchange for its log line and metrics; written by whoever knows."""

    repository: str = ""
    user: str = ""  # who has logged in
    outcome: str = ""  # hit, miss, joined, revalidated, stale, local, ...
    upstream_seconds: float = 0.0
    upstream_requests: int = 0
    upstream_remaining: int | None = None  # how many requests upstream said it will still take
    notes: list[str] = field(default_factory=list)
    came_by: tuple[str, ...] = ()  # the instances of this program between the client and us (mxart.via)
    about: str = ""  # what a write was about, where its path does not say it: for the audit log, so no secrets
    number: int = field(default_factory=_numbers.__next__)  # of the exchange, in this worker

    def decided(self, text: str, *values: object) -> None:
        """Tell, at level debug, what was decided for this exchange; formatted as logging does."""
        if _decisions.isEnabledFor(logging.DEBUG):
            _decisions.debug(f"exchange %d: {text}", self.number, *values)


class Peer(Struct, frozen=True):
    """Who is at the other end of a connection, and how it came."""

    address: str  # IP address text, of the PROXY header where one is trusted
    port: int
    local_address: str = ""
    local_port: int = 0
    scheme: str = "http"  # or https
    sni: str | None = None  # lower case


class Request(Struct, frozen=True):
    """A request whose head has been read. `target` is the origin form as sent: path and query, still escaped.

    That of a CONNECT is the host and port that `authority` holds, too.
    """

    method: str
    target: str
    authority: str  # Host or :authority as sent, "" if the client sent none (HTTP/1.0)
    headers: Headers
    peer: Peer
    version: str = "1.1"  # 1.0, 1.1, 2
    body: RequestBody = NO_BODY
    trace: Trace = field(default_factory=Trace)
    absolute: str = ""  # the scheme, http or https, if the target was sent as a whole URL: to us as a proxy

    @property
    def path(self) -> str:
        """The target without its query, still escaped."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """What follows the first question mark, still escaped."""
        return self.target.partition("?")[2]


class Response(Struct, frozen=True):
    """Status, fields and body. Framing fields (Content-Length, Transfer-Encoding, Connection, Date) are the wire's.

    The answer to a HEAD carries the body that GET would have; the wire sends its length only and
    closes it unread.  Whoever holds a response and does not hand it on calls `body.close()`.
    """

    status: int
    headers: Headers = Headers()
    body: Body = EMPTY
    reason: str = ""  # instead of the usual words beside the status, where HTTP/1.1 has them; "": those


class Sent(Struct, frozen=True):
    """How an exchange went on the wire. Times are of `time.perf_counter`, in seconds."""

    started: float  # when the head of the request was complete
    first_byte: float | None  # when the first byte of the response left; None if none did
    finished: float
    body_bytes: int
    error: str | None = None  # why it ended early, if it did


class Handler(Protocol):
    """What a wire engine calls for each request. One handler serves many connections at once."""

    async def handle(self, request: Request) -> Response:
        """Answer a request.

        Never raises but for cancellation: every error becomes a response.  Cancelled when the
        client leaves before the answer is there.
        """
        ...

    def refuse(self, status: int, message: str, peer: Peer) -> Response:
        """The answer to bytes that did not become a request: 400, 408, 413, 431, 505 ..."""
        ...

    def finished(self, request: Request, response: Response | None, sent: Sent) -> None:
        """Told exactly once for each request given to `handle`, after its last byte or its failure. Never raises."""
        ...
