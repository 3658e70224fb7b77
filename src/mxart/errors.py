"""What can go wrong, as typed data.

A `Problem` is an answer: it knows the HTTP status it becomes, and says in one sentence what would be
right.  Whoever finds the trouble raises it; the server turns it into a response in one place; the
format words it the way its client shows it to the user.  Nothing matches on the text.

`BodyBroken` and `Disconnected` are not answers: they end a transfer that has already begun.
"""

from __future__ import annotations


class MxartError(Exception):
    """Root of every error this program raises on purpose."""


class ConfigError(MxartError):
    """The configuration is wrong; the text names the place and what would be right."""


class BodyBroken(MxartError):
    """A body that is being sent cannot be finished truthfully.

    The connection (HTTP/1.1) is aborted or the stream (HTTP/2) reset, so that the client sees a
    short body and never a complete wrong one.
    """


class Disconnected(MxartError):
    """The peer is gone, or made no progress for longer than it may."""


class Problem(MxartError):
    """A request that ends in a refusal or a failure.

    `message` is for the client's user; `retry_after` is in seconds; `subject` is what the request
    was about in the format's own words ("blob", "manifest", "name", ...).
    """

    status = 500

    def __init__(
        self,
        message: str,
        *,
        subject: str = "",
        detail: str = "",
        retry_after: float | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.subject = subject
        self.detail = detail
        self.retry_after = retry_after
        self.headers = headers


class BadRequest(Problem):
    """The request is malformed (RFC 9110 section 15.5.1)."""

    status = 400


class Unauthorized(Problem):
    """Credentials are missing or wrong."""

    status = 401


class Forbidden(Problem):
    """The caller may not do this."""

    status = 403


class NotFound(Problem):
    """It is not there, and whoever would know has said so. Never raised for upstream trouble."""

    status = 404


class MethodNotAllowed(Problem):
    """The resource does not take this method; `headers` carries Allow."""

    status = 405


class Conflict(Problem):
    """Other bytes are published under this immutable name."""

    status = 409


class PreconditionFailed(Problem):
    """An If-Match or If-Unmodified-Since did not hold."""

    status = 412


class TooLarge(Problem):
    """A body is larger than the limit allows."""

    status = 413


class UnsupportedMediaType(Problem):
    """The body is of a kind that is not taken here (RFC 9110 section 15.5.16)."""

    status = 415


class UriTooLong(Problem):
    """The target of a request says more than is taken at once (RFC 9110 section 15.5.15)."""

    status = 414


class RangeNotSatisfiable(Problem):
    """No range of the request overlaps the representation (RFC 9110 section 15.5.17)."""

    status = 416


class MisdirectedRequest(Problem):
    """The host is not one that this server answers for (RFC 9110 section 15.5.20)."""

    status = 421


class TooManyRequests(Problem):
    """The caller is over its own limit; `retry_after` says when to come back."""

    status = 429


class UpstreamFailed(Problem):
    """Upstream answered something that cannot be passed on or trusted: 502."""

    status = 502


class UpstreamLoops(UpstreamFailed):
    """The way to upstream leads back to this server, or the request came by too many like it already."""


class UpstreamDenied(UpstreamFailed):
    """Upstream refused us, or the caller whose credentials it was shown, for want of rights.

    `challenge` are the values of WWW-Authenticate with which it asks for a login (RFC 9110 section 11.6.1): its own,
    or the last that is known for what was asked.  `forbidden`: it knows who asks, and refuses all the same (403).
    """

    def __init__(
        self,
        message: str,
        *,
        challenge: tuple[str, ...] = (),
        forbidden: bool = False,
        subject: str = "",
        detail: str = "",
        retry_after: float | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message, subject=subject, detail=detail, retry_after=retry_after, headers=headers)
        self.challenge = challenge
        self.forbidden = forbidden


class UpstreamUnavailable(Problem):
    """Upstream, or room here, is not to be had now; `retry_after` says when: 503."""

    status = 503


class UpstreamTimeout(Problem):
    """Upstream did not answer in time: 504."""

    status = 504


class LoopDetected(Problem):
    """The request has been here before: 508 (RFC 5842 section 7.2)."""

    status = 508


class StorageFull(Problem):
    """The disk is full and the bytes could not be kept: 507."""

    status = 507
