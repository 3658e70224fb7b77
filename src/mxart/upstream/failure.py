"""What goes wrong on the way to another server: each cause, and what follows from it, in one table.

Inside this room failures travel as `Trouble`; `Remote` turns the last one into the Problem that the
rest of the program sees.  Foreign exceptions are turned into Trouble where they are caught, by `trouble_of`.
"""

from __future__ import annotations

import os
import re
import ssl
from enum import Enum

import h11
from msgspec import Struct

from mxart.errors import (
    MxartError,
    Problem,
    UpstreamDenied,
    UpstreamFailed,
    UpstreamLoops,
    UpstreamTimeout,
    UpstreamUnavailable,
)


class Rule(Struct, frozen=True):
    """What follows from a cause: the answer if nothing else helps, and what may be tried before."""

    problem: type[UpstreamFailed | UpstreamTimeout | UpstreamUnavailable]
    again: bool  # the same mirror may be asked again after a pause
    counts: bool  # against the mirror's health: the breaker hears of it
    by_asker: bool = False  # it may come of what the asker showed, so it counts only if that was ours


class Cause(Enum):
    """Why an attempt failed; the value is its name in logs and metrics."""

    UNRESOLVED = "unresolved"
    REFUSED = "refused"
    CONNECT_TIMEOUT = "connect timeout"
    PROXY = "proxy"
    LOOP = "loop"
    CERTIFICATE = "certificate"
    TLS = "tls"
    RESET = "reset"
    SILENT = "no answer"
    STALLED = "stalled"
    PROTOCOL = "protocol"
    REDIRECT = "redirect"
    ENCODED = "encoded"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    TOKENS = "token server"
    TOO_MANY = "too many requests"
    BUSY = "unavailable"
    GATEWAY = "bad gateway"
    SERVER = "server error"
    REQUEST_TIMEOUT = "request timeout"
    RANGE = "range"
    STATUS = "status"
    RESTING = "resting"
    SOURCE = "source"


RULES: dict[Cause, Rule] = {
    Cause.UNRESOLVED: Rule(UpstreamUnavailable, again=True, counts=True),
    Cause.REFUSED: Rule(UpstreamUnavailable, again=True, counts=True),
    Cause.CONNECT_TIMEOUT: Rule(UpstreamTimeout, again=True, counts=True),
    Cause.PROXY: Rule(UpstreamFailed, again=True, counts=True),
    Cause.LOOP: Rule(UpstreamLoops, again=False, counts=False),
    Cause.CERTIFICATE: Rule(UpstreamFailed, again=False, counts=True),
    Cause.TLS: Rule(UpstreamFailed, again=True, counts=True),
    Cause.RESET: Rule(UpstreamFailed, again=True, counts=True, by_asker=True),
    Cause.SILENT: Rule(UpstreamTimeout, again=False, counts=True),  # has cost its asker much time already
    Cause.STALLED: Rule(UpstreamTimeout, again=False, counts=True),
    Cause.PROTOCOL: Rule(UpstreamFailed, again=False, counts=True, by_asker=True),
    Cause.REDIRECT: Rule(UpstreamFailed, again=False, counts=False),
    Cause.ENCODED: Rule(UpstreamFailed, again=False, counts=False),
    Cause.UNAUTHORIZED: Rule(UpstreamDenied, again=False, counts=False),
    Cause.FORBIDDEN: Rule(UpstreamDenied, again=False, counts=False),
    Cause.TOKENS: Rule(UpstreamFailed, again=False, counts=False),
    Cause.TOO_MANY: Rule(UpstreamUnavailable, again=True, counts=False),
    Cause.BUSY: Rule(UpstreamUnavailable, again=True, counts=True, by_asker=True),
    Cause.GATEWAY: Rule(UpstreamFailed, again=True, counts=True, by_asker=True),
    Cause.SERVER: Rule(UpstreamFailed, again=False, counts=True, by_asker=True),
    Cause.REQUEST_TIMEOUT: Rule(UpstreamFailed, again=True, counts=False),
    Cause.RANGE: Rule(UpstreamFailed, again=False, counts=False),
    Cause.STATUS: Rule(UpstreamFailed, again=False, counts=False),
    Cause.RESTING: Rule(UpstreamUnavailable, again=False, counts=False),
    Cause.SOURCE: Rule(UpstreamFailed, again=False, counts=False),  # what was to be sent: no fault of theirs
}

_STATUSES = {
    401: Cause.UNAUTHORIZED,
    403: Cause.FORBIDDEN,
    407: Cause.PROXY,
    408: Cause.REQUEST_TIMEOUT,
    416: Cause.RANGE,
    429: Cause.TOO_MANY,
    502: Cause.GATEWAY,
    503: Cause.BUSY,
    504: Cause.GATEWAY,
    508: Cause.LOOP,
}


class Trouble(MxartError):
    """An attempt that failed. `detail` tells a person what happened and never holds a secret."""

    def __init__(self, cause: Cause, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.cause = cause
        self.detail = detail
        self.retry_after = retry_after
        self.undone = False  # certainly nothing came of the request: it was not sent, or refused for now
        self.elsewhere = False  # behind a redirect: it says nothing about the mirror's own health
        # How the server asks for a login that might lift the refusal; None: nobody can tell, or may be told.
        self.challenge: tuple[str, ...] | None = None

    @property
    def rule(self) -> Rule:
        """What follows from it."""
        return RULES[self.cause]

    @property
    def denied(self) -> bool:
        """Whether it is the upstream's own word that rights are wanting, and not that of something on the way."""
        return self.rule.problem is UpstreamDenied and self.challenge is not None and not self.elsewhere

    def told_as(self, detail: str) -> Trouble:
        """The same in other words."""
        other = Trouble(self.cause, detail, self.retry_after)
        other.elsewhere, other.challenge, other.undone = self.elsewhere, self.challenge, self.undone
        return other

    def problem(self, upstream: str) -> Problem:
        """The answer it becomes."""
        if self.cause is Cause.RANGE:
            return RangeRefused(f"{upstream}: {self.detail}")
        if self.rule.problem is UpstreamDenied:
            if self.challenge is None or self.elsewhere:
                return UpstreamFailed(f"{upstream}: {self.detail}", retry_after=self.retry_after)
            return UpstreamDenied(
                f"{upstream}: {self.detail}", challenge=self.challenge, forbidden=self.cause is Cause.FORBIDDEN
            )
        retry_after = self.retry_after
        if self.rule.problem is UpstreamUnavailable:
            # A client without a hint comes back at once; so does one that is told 0.
            retry_after = 10.0 if retry_after is None else max(1.0, retry_after)
        return self.rule.problem(f"{upstream}: {self.detail}", retry_after=retry_after)


class RangeRefused(UpstreamFailed):
    """416: what upstream has now does not reach to the offset asked for."""


def status_trouble(status: int, detail: str, retry_after: float | None = None) -> Trouble:
    """The trouble that a status outside 2xx, 3xx, 404 and 410 is."""
    cause = _STATUSES.get(status)
    if cause is None:
        cause = Cause.SERVER if status >= 500 else Cause.STATUS
    return Trouble(cause, detail, retry_after)


_SSL_FRAME = re.compile(r"\[[^]]*\]|\(_ssl\.c:\d+\)")

# In order; the first match counts (SSLCertVerificationError is an SSLError is an OSError).
_FOREIGN: tuple[tuple[type[Exception], Cause], ...] = (
    (ssl.SSLCertVerificationError, Cause.CERTIFICATE),
    (ssl.SSLEOFError, Cause.RESET),
    (ssl.SSLError, Cause.TLS),
    (OSError, Cause.RESET),
    (h11.ProtocolError, Cause.PROTOCOL),
)
FOREIGN = (OSError, h11.ProtocolError)


def trouble_of(error: Exception, what: str) -> Trouble:
    """A foreign exception that was caught while doing `what`."""
    for kind, cause in _FOREIGN:
        if isinstance(error, kind):
            return Trouble(cause, f"{what}: {reason(error)}")
    raise error


def reason(error: Exception) -> str:
    """A foreign exception in the words of a person."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        # "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)"
        return "TLS: " + (_SSL_FRAME.sub("", str(error.args[-1])).strip() or str(error.reason).lower())
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__
