"""What the rest of the program sees of another server."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

from mxart.message import Headers
from mxart.upstream.payload import Outgoing


class Ask(Struct, frozen=True):
    """One question to an upstream.

    `path` is escaped, with its query, relative to the upstream's URL, without a leading slash.  An
    `authorization` among the headers is the asker's own: it is shown as it is instead of ours, to the first mirror
    and those of its site and to nobody else.
    """

    method: str
    path: str  # "v2/library/alpine/manifests/3.20"
    headers: Headers = Headers()
    scope: str = ""  # what a token must cover, as the token protocol has it: "repository:library/alpine:pull,push"
    bulk: bool = False  # a file that may be large: it gets a connection of its own, and a place among the transfers
    avoid: tuple[str, ...] = ()  # `Reply.origin`s that are to be asked last: they broke a body off
    bare: bool = False  # nothing of ours is shown: how upstream asks for a login is the answer that is wanted
    firm: bool = False  # a refusal (401, 403) is told, even if another mirror says "not found"
    lenient: bool = False  # 4xx is an answer like any other
    body: Outgoing = b""
    once: bool = False  # not to be sent again unless nothing can have come of it (RFC 9110 section 9.2.2)
    expects: tuple[int, ...] = ()  # statuses that are answers, too; a redirect among them is not followed
    # A whole URL instead of `path`, that the upstream has named by a Location.  It is shown credentials only at the
    # upstream's own origin, and dialled only where that may lead us.
    url: str = ""


class Reply(Protocol):
    """An answer of upstream whose head has arrived.

    200, 206 or 304, and any 2xx to a method that writes; any 4xx to a lenient question; what the question expects.
    """

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def origin(self) -> str:
        """The configured URL of the mirror that was asked, never a signed one."""
        ...

    @property
    def located(self) -> str:
        """The whole URL that its Location means; "" if there is none, or it is none."""
        ...

    async def receive(self) -> bytes:
        """The next bytes of the body as they come; b"" at its end.

        Raises UpstreamFailed when the body breaks off or its framing is wrong, UpstreamTimeout when
        it stalls.  Cancellation abandons the connection.
        """
        ...


class Upstream(Protocol):
    """One remote repository: its mirrors, credentials, queue and breaker. Shared by all requests of a worker."""

    @property
    def name(self) -> str: ...
    @property
    def site(self) -> str:
        """Scheme and registrable domain of the first mirror: whose users' credentials may be shown to it."""
        ...

    def open(self, ask: Ask) -> AbstractAsyncContextManager[Reply]:
        """Ask, following redirects, obtaining tokens, retrying what may be retried, trying the mirrors in order.

        Entering raises NotFound on 404 and 410; UpstreamDenied (502) on 401 and 403 where a login may help;
        UpstreamFailed (502) on those elsewhere, other 4xx and 5xx,
        redirect loops, wrong certificates, broken framing; UpstreamUnavailable (503) on 429, 503 (with what
        Retry-After says),
        an open breaker or a queue too long; UpstreamTimeout (504).  Every message names the upstream and the
        cause.  Leaving the
        context gives the connection back, or closes it if the body was not read to its end.
        """
        ...
