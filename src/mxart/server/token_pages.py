"""The token endpoint of a registry that we stand for, as clients ask it (distribution, docs/content/spec/auth).

    GET /token?service=registry.docker.io&scope=repository:library/alpine:pull      (token.md; Basic: a password)
    POST /token   grant_type=password&service=...&scope=...&username=...            (oauth.md)

Everybody gets a token for what everybody may do.  There are no users, so a password is always wrong, and its owner is
told what to do; the answer's forms are those that docker ("details"), every registry client ("errors") and OAuth
clients ("error", RFC 6749 section 5.2) show.
"""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import msgspec

from mxart.access.scopes import ANONYMOUS, granted, parse_scopes
from mxart.body import Body
from mxart.errors import BadRequest, MethodNotAllowed, NotFound, Problem, TooLarge, Unauthorized
from mxart.message import Headers, Request, Response

if TYPE_CHECKING:  # signing takes a while to import, and few servers do it
    from mxart.access.tokens import Tokens

PATH = "/token"

_MAX_FORM = 65536  # bytes
_MAX_FIELDS = 500
_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,255}\Z")
_NO_USERS = (
    "this server has no users: images are read without a login. Log out (docker logout), or leave the user's name and "
    "password away"
)
_OAUTH = {400: "invalid_request", 401: "invalid_grant", 413: "invalid_request"}
_CODES = {401: "UNAUTHORIZED", 403: "DENIED", 429: "TOOMANYREQUESTS"}

Fields = dict[str, list[str]]


class TokenPages:
    """Answers on the hosts of the token server."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def answer(self, request: Request) -> Response:
        """Raises Problem, to be worded by `word`; what reading the body raises."""
        if request.path != PATH:
            raise NotFound(f"there is no {request.path} here: this host gives out tokens, at {PATH}")
        if request.method in ("GET", "HEAD"):
            fields = _fields(request.query)
            if _has_password(request.headers.get("authorization")):
                raise _refused()
        elif request.method == "POST":
            fields = _fields(await _form(request))
            _check_grant(fields)
        else:
            raise MethodNotAllowed(f"{PATH} takes GET and POST", headers=(("allow", "GET, HEAD, POST"),))
        return self._token(fields, request)

    def _token(self, fields: Fields, request: Request) -> Response:
        service = fields.get("service", [""])[0] or request.authority.partition(":")[0]
        if not _SERVICE.match(service):
            raise BadRequest("service is not the name of one")
        access = granted(parse_scopes(fields.get("scope", [])), ANONYMOUS)
        minted = self._tokens.mint("", service, access)
        answer = {
            "token": minted.text,
            "access_token": minted.text,
            "expires_in": minted.expires_in,
            "issued_at": datetime.fromtimestamp(minted.issued_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        if request.method == "POST":
            answer["scope"] = " ".join(map(str, access))
        return _json(200, answer)

    def word(self, problem: Problem) -> Response:
        """The answer to what went wrong, in the forms that token clients show."""
        error = {"code": _CODES.get(problem.status, "UNKNOWN"), "message": problem.message}
        return _json(
            problem.status,
            {
                "details": problem.message,
                "errors": [error],
                "error": _OAUTH.get(problem.status, "server_error" if problem.status >= 500 else "invalid_request"),
                "error_description": problem.message,
            },
            problem.headers if problem.retry_after is None else (*problem.headers, _retry(problem.retry_after)),
        )


def _fields(text: str) -> Fields:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="replace", max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise BadRequest(f"more than {_MAX_FIELDS} parameters") from None
    found: Fields = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


async def _form(request: Request) -> str:
    media_type = (request.headers.get("content-type") or "").partition(";")[0].strip().lower()
    if media_type not in ("", "application/x-www-form-urlencoded"):
        raise BadRequest("send a form: application/x-www-form-urlencoded")
    data = b""
    while part := await request.body.receive():
        data += part
        if len(data) > _MAX_FORM:
            raise TooLarge(f"a form here has at most {_MAX_FORM} bytes")
    return data.decode("ascii", "replace")


def _check_grant(fields: Fields) -> None:
    """There is nobody whom a password or a refresh token could be of; nobody in particular may ask as well."""
    grant = fields.get("grant_type", [""])[0]
    if grant not in ("password", "refresh_token"):
        raise BadRequest("grant_type is to be password or refresh_token")
    if any(fields.get(name, [""])[0] for name in ("username", "password", "refresh_token")):
        raise _refused()


def _has_password(authorization: str | None) -> bool:
    scheme, _, text = (authorization or "").strip().partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        return base64.b64decode(text.strip(), validate=True).strip() not in (b"", b":")
    except ValueError:
        return True


def _refused() -> Unauthorized:
    return Unauthorized(_NO_USERS, headers=(("www-authenticate", 'Basic realm="mxart", charset="UTF-8"'),))


def _json(status: int, content: dict[str, object], more: tuple[tuple[str, str], ...] = ()) -> Response:
    fields = [("content-type", "application/json"), ("cache-control", "no-store"), *more]
    return Response(status, Headers(fields), Body([msgspec.json.encode(content)]))


def _retry(seconds: float) -> tuple[str, str]:
    return "retry-after", str(max(0, round(seconds + 0.5)))
