"""Refusals as build tools show them, and the page of a directory."""

from __future__ import annotations

import json

import pytest

from mxart.errors import BadRequest, Conflict, NotFound, PreconditionFailed, Problem, UpstreamUnavailable
from mxart.message import Response
from mxart.proto.heads import render_head
from mxart.repos.maven.errors import word
from mxart.repos.maven.listing import Pages
from mxart.repos.operations import Directory, Entry


def body(response: Response) -> dict[str, object]:
    found = json.loads(b"".join(part for part in response.body.segments if isinstance(part, bytes)))
    assert isinstance(found, dict)
    return found


def test_resolver_reads_a_problem_and_the_others_the_status_line() -> None:
    answer = word(Conflict("com.example:app:1.0 is released already, with other bytes", detail="publish 1.1"))
    assert answer.status == 409
    assert answer.reason == "Conflict: com.example:app:1.0 is released already, with other bytes"
    assert answer.headers.get("content-type") == "application/problem+json"
    assert body(answer) == {
        "title": "Conflict",
        "status": 409,
        "detail": "com.example:app:1.0 is released already, with other bytes; publish 1.1",
    }


@pytest.mark.parametrize(
    "problem", [NotFound("it is not here", detail="nor there"), PreconditionFailed("it is another")]
)
def test_what_resolver_acts_on_has_a_plain_text(problem: Problem) -> None:
    """Maven 3.9.10 and later take a 404 or a 412 with problem details for an error like any other."""
    answer = word(problem)
    assert answer.headers.get("content-type") == "text/plain; charset=utf-8"
    (text,) = answer.body.segments
    assert text == {404: b"it is not here; nor there\n", 412: b"it is another\n"}[problem.status]
    assert answer.reason.startswith(("Not Found: it is not here", "Precondition Failed: it is another"))


def test_headers_of_a_problem_go_along() -> None:
    answer = word(UpstreamUnavailable("come back", retry_after=2.1, headers=(("warning", "x"),)))
    assert answer.headers.get("retry-after") == "3"
    assert answer.headers.get("warning") == "x"
    assert answer.headers.get("cache-control") == "no-store"


@pytest.mark.parametrize(
    "problem",
    [BadRequest("a\r\nSet-Cookie: b=c"), BadRequest("ümlaut \0 \x7f \u2028"), BadRequest("x" * 5000), BadRequest("")],
    ids=["lines", "signs", "long", "empty"],
)
def test_the_reason_is_one_line_whatever_a_stranger_wrote(problem: Problem) -> None:
    answer = word(problem)
    assert answer.reason.isascii()
    assert answer.reason.isprintable()
    assert len(answer.reason) <= 200
    sent = render_head(
        answer.status, answer.headers.items, 0, head=False, version="1.1", keep_alive=True, reason=answer.reason
    )
    assert sent.before == f"HTTP/1.1 {answer.status} {answer.reason}\r\n".encode()
    assert body(answer)["detail"] == problem.message


def test_a_status_without_words() -> None:
    class Odd(Problem):
        status = 499

    assert word(Odd("why")).reason == "Error: why"


def test_a_directory_is_a_page_with_relative_links() -> None:
    shown = (Entry("a b+c&d<e>"), Entry("app"), Entry("maven-metadata.xml", 1234, 0.0))
    headers, data = Pages().render_directory(Directory("com/example", "com/example", "directory"), shown, "/")
    assert headers.get("content-type") == "text/html; charset=utf-8"
    text = data.decode()
    assert "<title>/com/example/</title>" in text
    assert '<a href="../">../</a>' in text
    assert '<a href="app/">app/</a>' in text
    assert '<a href="a%20b+c%26d%3Ce%3E/">a b+c&amp;d&lt;e&gt;/</a>' in text
    assert '<a href="maven-metadata.xml">maven-metadata.xml</a>' in text
    assert "1970-01-01 00:00         1234" in text
    assert '<a href="../">' not in Pages().render_directory(Directory("", "", "directory"), shown, "/")[1].decode()
