"""The token endpoint, as clients of registries ask it (distribution, docs/content/spec/auth): `/-/token` on every host,
and `/token` on the hosts of registries' token servers that we stand for.

    GET /-/token?service=...&scope=repository:team/app:pull,push     Basic: a password, or a token  (token.md)
    POST /-/token   grant_type=password&service=...&scope=...&username=...&password=...             (oauth.md)
                    grant_type=refresh_token&refresh_token=...

Who shows nothing gets a token for what everybody may do.  A scope is cut down to what its asker may do, and that is
no error; a wrong password is one.  The answer's forms are those that docker ("details"), every registry client
("errors") and OAuth clients ("error", RFC 6749 section 5.2) show.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import msgspec
import trio

from mxart.access.base import WrongCredentials
from mxart.access.control import Principal
from mxart.access.management import Management
from mxart.access.scopes import Scope, parse_scopes
from mxart.body import Body
from mxart.errors import BadRequest, MethodNotAllowed, NotFound, Problem, TooLarge
from mxart.message import Headers, Request, Response
from mxart.server.authentication import Authenticator, basic_of
from mxart.server.challenges import BASIC, TOKEN_PATH
from mxart.server.names import words_granted

if TYPE_CHECKING:  # signing takes a while to import
    from mxart.access.tokens import Holder

PATH = "/token"

_MAX_FORM = 65536  # bytes
_MAX_FIELDS = 500
_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,255}\Z")
_OAUTH = {400: "invalid_request", 401: "invalid_grant", 413: "invalid_request"}
_CODES = {401: "UNAUTHORIZED", 403: "DENIED", 429: "TOOMANYREQUESTS"}

Fields = dict[str, list[str]]


class TokenPages:
    """Answers for the paths of the token endpoint."""

    def __init__(self, authenticator: Authenticator, management: Management) -> None:
        self._authenticator = authenticator
        self._management = management

    async def answer(self, request: Request) -> Response:
        """Raises Problem, to be worded by `word`; what reading the body raises."""
        if request.path not in {PATH, TOKEN_PATH}:
            raise NotFound(f"there is no {request.path} here: this host gives out tokens, at {PATH}")
        address = request.peer.address
        if request.method in ("GET", "HEAD"):
            fields = _fields(request.query)
            user, password = basic_of(request.headers)
            principal = await self._login(user, password, address)
            offline = _first(fields, "offline_token").lower() in {"true", "1"} and bool(password)
        elif request.method == "POST":
            fields = _fields(await _form(request))
            principal = await self._granted(fields, address)
            offline = _first(fields, "access_type") == "offline" and _first(fields, "grant_type") == "password"
        else:
            raise MethodNotAllowed(f"{request.path} takes GET and POST", headers=(("allow", "GET, HEAD, POST"),))
        return await self._token(fields, request, principal, offline=offline)

    async def _login(self, user: str, password: str, address: str) -> Principal:
        if not user and not password:
            return Principal()
        return await self._authenticator.login(user, password, address)

    async def _granted(self, fields: Fields, address: str) -> Principal:
        grant = _first(fields, "grant_type")
        if grant == "password":
            return await self._login(_first(fields, "username"), _first(fields, "password"), address)
        if grant == "refresh_token":
            if shown := _first(fields, "refresh_token"):
                return await self._authenticator.refresh(shown, address)
            return Principal()
        raise BadRequest("grant_type is to be password or refresh_token")

    async def _token(self, fields: Fields, request: Request, principal: Principal, *, offline: bool) -> Response:
        service = _first(fields, "service") or request.authority
        if not _SERVICE.match(service):
            raise BadRequest("service is not the name of one")
        asked = parse_scopes(fields.get("scope", []))
        access = [scope for one in asked if (scope := self._reduced(one, request, service, principal)).actions]
        tokens = await self._authenticator.signer.ready()
        minted = tokens.mint(principal.name, service, access, _holder(principal))
        answer = {
            "token": minted.text,
            "access_token": minted.text,
            "expires_in": minted.expires_in,
            "issued_at": datetime.fromtimestamp(minted.issued_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        if request.method == "POST":
            answer["scope"] = " ".join(map(str, access))
        if offline and principal.user is not None:
            name = f"{_first(fields, 'client_id') or 'a client'} at {request.peer.address}"
            answer["refresh_token"] = await trio.to_thread.run_sync(
                self._management.create_login, principal.name, name, principal.ceiling, principal.token or None
            )
        return _json(200, answer)

    def _reduced(self, scope: Scope, request: Request, service: str, principal: Principal) -> Scope:
        """The part of a scope that its asker may have."""
        access = self._authenticator.access
        if scope.type == "registry" and scope.name == "catalog":
            return Scope(scope.type, scope.name, ("*",) if principal.user is not None and "*" in scope.actions else ())
        place = self._authenticator.names.place(request, scope.name, service) if scope.type == "repository" else None
        if place is None:
            return Scope(scope.type, scope.name, ())
        words = words_granted(scope.actions, lambda action: access.decide(principal, action, *place).allowed)
        return Scope(scope.type, scope.name, words)

    def word(self, problem: Problem) -> Response:
        """The answer to what went wrong, in the forms that token clients show."""
        if isinstance(problem, WrongCredentials) and not problem.headers:
            problem.headers = (("www-authenticate", BASIC),)
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


def _first(fields: Fields, name: str) -> str:
    return fields.get(name, [""])[0]


def _holder(principal: Principal) -> Holder:
    from mxart.access.tokens import Holder  # noqa: PLC0415  # see above

    user = principal.user
    return Holder(user.name, user.id, user.changed, principal.token) if user is not None else Holder()


def _json(status: int, content: dict[str, object], more: tuple[tuple[str, str], ...] = ()) -> Response:
    fields = [("content-type", "application/json"), ("cache-control", "no-store"), *more]
    return Response(status, Headers(fields), Body([msgspec.json.encode(content)]))


def _retry(seconds: float) -> tuple[str, str]:
    return "retry-after", str(max(0, round(seconds + 0.5)))
