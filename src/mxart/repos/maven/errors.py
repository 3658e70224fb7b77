"""Problems as build tools show them: RFC 9457 for resolver, and the reason beside the status for all the others. Pure.

Resolver prints the fields of `application/problem+json`; wagon and Gradle print nothing but the status line.  404 sends
them to the next repository, Gradle also 403; everything else stops the build.
"""

from __future__ import annotations

import math
from http import HTTPStatus

import msgspec

from mxart.body import Body
from mxart.errors import Problem
from mxart.message import Headers, Response

MEDIA_TYPE = "application/problem+json"
_MAX_REASON = 200


def word(problem: Problem) -> Response:
    """The answer that says why."""
    title = _title(problem.status)
    detail = f"{problem.message}; {problem.detail}" if problem.detail else problem.message
    # A type that is not told is about:blank; then the title is the status's own (section 4.2.1).
    body = msgspec.json.encode({"title": title, "status": problem.status, "detail": detail}) + b"\n"
    fields = [("content-type", MEDIA_TYPE), ("cache-control", "no-store"), *problem.headers]
    if problem.retry_after is not None:
        fields.append(("retry-after", str(max(0, math.ceil(problem.retry_after)))))
    return Response(problem.status, Headers(fields), Body((body,)), _reason(title, problem.message))


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _reason(title: str, message: str) -> str:
    """One line of what a status line may have (RFC 9112 section 4)."""
    text = " ".join(f"{title}: {message}".split())
    text = "".join(sign if " " <= sign <= "~" else "?" for sign in text)
    return text if len(text) <= _MAX_REASON else text[: _MAX_REASON - 3] + "..."
