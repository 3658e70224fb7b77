"""Problems as build tools show them: RFC 9457 for resolver, and the reason beside the status for all the others. Pure.

Resolver prints the fields of `application/problem+json`; wagon and Gradle print nothing but the status line.  404 sends
them to the next repository, Gradle also 403; everything else stops the build.

But resolver 1.9 from 1.9.24 on, Maven 3.9's, has an exception of its own for such a body, and asks only the other one
for its status: so 404 would stop the build, and 412 the download that it resumes.  Those two have a plain text.
"""

from __future__ import annotations

import math
from http import HTTPStatus

import msgspec

from mxart.body import Body
from mxart.errors import Problem
from mxart.message import Headers, Response

PROBLEM = "application/problem+json"
TEXT = "text/plain; charset=utf-8"
_PLAIN = (404, 412)
_MAX_REASON = 200


def word(problem: Problem) -> Response:
    """The answer that says why."""
    title = _title(problem.status)
    detail = f"{problem.message}; {problem.detail}" if problem.detail else problem.message
    if problem.status in _PLAIN:
        media_type, body = TEXT, f"{detail}\n".encode()
    else:
        # A type that is not told is about:blank; then the title is the status's own (section 4.2.1).
        media_type = PROBLEM
        body = msgspec.json.encode({"title": title, "status": problem.status, "detail": detail}) + b"\n"
    fields = [("content-type", media_type), ("cache-control", "no-store"), *problem.headers]
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
