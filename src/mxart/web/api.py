"""The API below /-/api/v1/: JSON over HTTP, as the table of operations says.

Writes are JSON and say so, which no form of another site can; a browser that tells where a request comes from is
believed; nothing is said about CORS.  So a page elsewhere can change nothing here with a user's own password.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import parse_qsl, urlencode

import msgspec

from mxart import __version__
from mxart.body import Body
from mxart.conditional import respond
from mxart.digest import Digest
from mxart.errors import (
    BadRequest,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    Problem,
    TooLarge,
    Unauthorized,
    UnsupportedMediaType,
)
from mxart.message import Headers, Request, Response
from mxart.repos.callers import Caller
from mxart.web.openapi import Document, ProblemDetails, document
from mxart.web.operations import ANYBODY, Asked, Nothing, Operation, Record, Table, operation
from mxart.web.prefix import PREFIX

MAX_BODY = 256 << 10  # bytes

_JSON = "application/json"
_SAFE = ("content-type", _JSON), ("x-content-type-options", "nosniff")
_CHALLENGE = ("www-authenticate", 'Basic realm="mxart", charset="UTF-8"')


class Api:
    """Answers below PREFIX. Shared by all requests of a worker."""

    def __init__(self, operations: Iterable[Operation[Record, Record]]) -> None:
        """Raises ValueError where the operations contradict each other."""
        ours = operation(
            "describe",
            "GET",
            "/openapi.json",
            "This API, as an OpenAPI document.",
            ANYBODY,
            self._describe,
            tag="about",
        )
        self.table = Table((ours, *operations))
        self._document: Document | None = None

    async def answer(self, request: Request, caller: Caller) -> Response:
        """Raises Problem, to be worded by `word`; what reading the body raises."""
        match = self.table.find(request.path.removeprefix(PREFIX)) if request.path.startswith(f"{PREFIX}/") else None
        if match is None:
            raise NotFound(f"there is nothing at {request.path}; {PREFIX}/openapi.json tells what there is")
        line = match.of(request.method)
        if line is None:
            raise MethodNotAllowed(f"this resource takes {match.allow}", headers=(("allow", match.allow),))
        if line.changes:
            _refuse_other_sites(request)
        if line.needs.login and not caller.name:
            wanted = f"{line.summary[:1].lower()}{line.summary[1:].removesuffix('.')}"
            raise Unauthorized(f"this needs a login: {wanted}")
        where = line.parameters(request.query, match.in_path)
        _demand(line, where, caller)
        body = line.sent(await _body(request) if line.takes_body else b"")
        try:
            result = await line.do(Asked(request, caller, where, body))
        except Problem as problem:
            # Where a format says what it is about, in its own words, that is no field of ours.
            known = (*line.where.__struct_encode_fields__, *line.body.__struct_encode_fields__)
            problem.subject = problem.subject if problem.subject in known else ""
            raise
        return _respond(line, request, result)

    def word(self, problem: Problem) -> Response:
        """A problem as RFC 9457 has it."""
        told = ProblemDetails(
            title=HTTPStatus(problem.status).phrase,
            status=problem.status,
            detail=problem.message,
            field=problem.subject,
        )
        fields = [
            ("content-type", "application/problem+json"),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            *problem.headers,
        ]
        if problem.status == 401 and not any(name == _CHALLENGE[0] for name, _ in problem.headers):
            fields.append(_CHALLENGE)
        if problem.retry_after is not None:
            fields.append(("retry-after", str(max(0, math.ceil(problem.retry_after)))))
        return Response(problem.status, Headers(fields), Body([msgspec.json.encode(told)]))

    async def _describe(self, asked: Asked[Nothing, Nothing]) -> Document:
        if self._document is None:
            self._document = document(self.table.operations, __version__)
        return self._document


def _refuse_other_sites(request: Request) -> None:
    """Raises Forbidden where a browser says that a page of another site asks (Fetch Metadata, section 2.3)."""
    if request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise Forbidden("a page of another site may change nothing here")


async def _body(request: Request) -> bytes:
    """Raises UnsupportedMediaType, TooLarge, and what reading it raises."""
    media_type = (request.headers.get("content-type") or "").partition(";")[0].strip().lower()
    if media_type != _JSON:
        raise UnsupportedMediaType(f"send JSON, with Content-Type: {_JSON}", headers=(("accept", _JSON),))
    if request.headers.get("content-encoding") not in (None, "identity"):
        raise UnsupportedMediaType("send the JSON as it is, without a Content-Encoding")
    if (request.body.length or 0) > MAX_BODY:
        raise TooLarge(f"a body here has at most {MAX_BODY} bytes")
    data = bytearray()
    while part := await request.body.receive():
        data += part
        if len(data) > MAX_BODY:
            raise TooLarge(f"a body here has at most {MAX_BODY} bytes")
    if not data:
        raise BadRequest("the body is empty: send a JSON object, {} at least")
    return bytes(data)


def _demand(line: Operation[Record, Record], where: Record, caller: Caller) -> None:
    """Raises Unauthorized or Forbidden where the caller lacks what the operation needs."""
    needs = line.needs
    if needs.action is None or needs.by_work:
        return
    if needs.own and caller.name and caller.name == getattr(where, needs.own):
        # A token is good for what it was made for; were it good for other tokens, nothing would bound it.
        if not line.changes or not caller.grants.delegated:
            return
        if not caller.grants.may(needs.action, "*", ""):
            raise Forbidden(f"a token is not enough for this: show the password of {caller.name}")
    repository = str(getattr(where, needs.repository)) if needs.repository else "*"
    caller.grants.demand(needs.action, repository, str(getattr(where, needs.package)) if needs.package else "")


def _respond(line: Operation[Record, Record], request: Request, result: Record) -> Response:
    if line.answers is Nothing:
        return Response(line.status, Headers((("cache-control", "no-store"),)))
    data = msgspec.json.encode(result)
    following = getattr(result, "next", "")
    more = (("link", f'<{_next(request, following)}>; rel="next"'),) if following else ()
    if line.changes or line.secret:
        return Response(line.status, Headers((*_SAFE, ("cache-control", "no-store"), *more)), Body([data]))
    # What is shown depends on who asks, and only he may keep it.
    kept = (("cache-control", "private, no-cache"), ("vary", "authorization"))
    headers = Headers((*_SAFE, *kept, *more))
    return respond(request, headers, data, etag=f'"{Digest.of(data).hex[:32]}"')


def _next(request: Request, after: str) -> str:
    """The query of the next page; whatever prefix a server before us has put before our path stays the client's."""
    kept = [(name, value) for name, value in parse_qsl(request.query, keep_blank_values=True) if name != "after"]
    return "?" + urlencode([*kept, ("after", after)])
