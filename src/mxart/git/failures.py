"""What git and ssh say when they fail, and what follows from it, in one table. Pure.

Their exit codes say no more than that they failed, so their words are what there is: of LC_ALL=C, which no translation
changes, and by what they always hold.  What is not in the table is a failure, and never "not found".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum

from msgspec import Struct

from mxart.errors import (
    MxartError,
    NotFound,
    Problem,
    StorageFull,
    UpstreamDenied,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnavailable,
)


class Cause(Enum):
    """Why it failed."""

    DENIED = "denied"
    ABSENT = "absent"
    UNREACHABLE = "unreachable"
    BUSY = "busy"
    SILENT = "silent"
    MISTRUSTED = "mistrusted"
    REDIRECTED = "redirected"
    NO_SUCH_REF = "no such ref"
    FULL = "disk full"
    OTHER = "other"


_STATUS = re.compile(r"returned error: (\d{3})")
_STATUSES = {401: Cause.DENIED, 403: Cause.DENIED, 404: Cause.ABSENT, 410: Cause.ABSENT, 407: Cause.UNREACHABLE}

# In order; the first match counts.
_TABLE: tuple[tuple[re.Pattern[str], Cause], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), cause)
    for pattern, cause in (
        (r"No space left on device|Disk quota exceeded", Cause.FULL),
        (r"could not read (Username|Password)|Authentication failed|terminal prompts disabled", Cause.DENIED),
        (r"Host key verification failed|HOST IDENTIFICATION HAS CHANGED|host key .* is known", Cause.MISTRUSTED),
        (r"Permission denied|Too many authentication failures|access denied|not authorized", Cause.DENIED),
        (r"SSL certificate problem|certificate verif|server verification failed|SSL: no alternative", Cause.MISTRUSTED),
        (r"redirect", Cause.REDIRECTED),
        (r"Could(n't| not) resolve|Name or service not known|Temporary failure in name", Cause.UNREACHABLE),
        (r"Connection (refused|timed out|reset)|Failed to connect|No route to host|unreachable", Cause.UNREACHABLE),
        (r"Operation timed out|Operation too slow|Timeout, server .* not responding", Cause.SILENT),
        (r"couldn't find remote ref|not our ref|unadvertised object|no such remote ref", Cause.NO_SUCH_REF),
        (r"(repository|project)[^\n]{0,120}(not found|not exist|not be found)|cannot find repository", Cause.ABSENT),
        (r"does not appear to be a git repository", Cause.ABSENT),
    )
)
_SAID = re.compile(r"(fatal|ERROR|error|remote): *(.*\S)")


def cause_of(stderr: str) -> Cause:
    """What its words mean."""
    status = _STATUS.search(stderr)
    if status is not None:
        code = int(status[1])
        if 300 <= code < 400:
            return Cause.REDIRECTED
        return _STATUSES.get(code, Cause.BUSY if code in (429, 503) else Cause.OTHER)
    return next((cause for pattern, cause in _TABLE if pattern.search(stderr)), Cause.OTHER)


def said(stderr: str) -> str:
    """The line that tells a person most, printable and not long: the one that its meaning was read from, if any was."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", stderr) if line.strip()]
    meant = [line for line in lines if cause_of(line) is not Cause.OTHER]
    own = [line for line in lines if (match := _SAID.match(line)) is not None and match[1] != "remote"]
    text = next(iter(meant or own or lines[-1:] or ["it said nothing"]))
    if (match := _SAID.match(text)) is not None:
        text = match[2]
    return "".join(sign if sign.isprintable() else "?" for sign in text)[:300]


class _Rule(Struct, frozen=True):
    problem: Callable[[str], Problem]
    hint: str = ""


def _unavailable(message: str) -> Problem:
    return UpstreamUnavailable(message, retry_after=10.0)


_RULES = {
    Cause.DENIED: _Rule(UpstreamDenied, "it refuses us: look at the login of its host"),
    Cause.ABSENT: _Rule(NotFound, "there is no such repository, or this login may not see it"),
    Cause.UNREACHABLE: _Rule(_unavailable, "it cannot be reached"),
    Cause.BUSY: _Rule(_unavailable, "it is busy"),
    Cause.SILENT: _Rule(UpstreamTimeout, "it has gone silent"),
    Cause.MISTRUSTED: _Rule(UpstreamFailed, "it is not who it should be: look at ca_file, known_hosts_file"),
    Cause.REDIRECTED: _Rule(UpstreamFailed, "it leads elsewhere, which is not followed: name the right URL in `urls`"),
    Cause.NO_SUCH_REF: _Rule(UpstreamFailed, "it no longer has that"),
    Cause.FULL: _Rule(StorageFull, "the disk is full"),
    Cause.OTHER: _Rule(UpstreamFailed, "git fails"),
}


class GitFailed(MxartError):
    """git ended with another code than 0. `stderr` is the end of what it said."""

    def __init__(self, code: int, stderr: str) -> None:
        super().__init__(said(stderr))
        self.code = code
        self.cause = cause_of(stderr)

    def problem(self, where: str) -> Problem:
        """The answer that it becomes; `where` is the repository."""
        rule = _RULES[self.cause]
        return rule.problem(f"{where}: {rule.hint} ({self})")


class GitSilent(GitFailed):
    """It was ended, because it said nothing for so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(-1, "")
        self.cause = Cause.SILENT
        self.args = (f"nothing was heard for {seconds:g} s",)


class TooMuch(GitFailed):
    """It was ended, because it gave more bytes than make sense."""

    def __init__(self, limit: int) -> None:
        super().__init__(-1, f"fatal: more than {limit} bytes came")


class Gone(UpstreamFailed):
    """A commit is not to be had any more."""


class NotThatWay(UpstreamFailed):
    """The server does not give what was asked for in these words; perhaps in others."""


def no_git(error: OSError) -> Problem:
    """Where git cannot be run at all."""
    return UpstreamUnavailable(f"git cannot be run: {error.strerror}; install it, or see to it that PATH leads to it")
