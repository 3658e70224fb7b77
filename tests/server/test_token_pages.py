"""The token endpoint of a host that we stand for, and what becomes of its tokens at the registry's."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from joserfc import jwt

from kit.wire import PEER
from mxart.access.keys import Keys
from mxart.access.tokens import Tokens
from mxart.digest import Digest
from mxart.errors import NotFound
from mxart.message import Headers, Request, Response, Trace
from mxart.metrics import Metrics
from mxart.repos.base import NOBODY, Caller, File, Found, Listed, Listing
from mxart.repos.oci.format import Oci
from mxart.server.handler import Gate
from mxart.server.metrics import families
from mxart.server.own import OwnPages
from mxart.server.routes import Mount, Routes

SUM = Digest.of(b"x")
BLOB = f"/v2/library/a/blobs/{SUM}"
FORM = "application/x-www-form-urlencoded"


class Repository:
    """Knows nothing, and remembers who asked."""

    def __init__(self) -> None:
        self.name = "hub"
        self.format = Oci()
        self.callers: list[Caller] = []

    def owns(self, package: str) -> bool:
        return False

    async def admit(self, caller: Caller, trace: Trace) -> None:
        self.callers.append(caller)

    async def file(self, operation: File, trace: Trace, caller: Caller = NOBODY) -> Found:
        self.callers.append(caller)
        raise NotFound("nothing here", subject="blob")

    async def listing(self, operation: Listing, trace: Trace, caller: Caller = NOBODY) -> Listed:
        raise AssertionError


class Form:
    """A request's body, in two pieces."""

    def __init__(self, data: bytes) -> None:
        self.length: int | None = len(data)
        half = len(data) // 2
        self._parts = [part for part in (data[:half], data[half:]) if part]

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return self._parts.pop(0) if self._parts else b""


class World:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.keys = Keys.ephemeral()
        self.repository = Repository()
        metrics = Metrics(families(["hub"]), 1)
        self.gate = Gate(
            Routes([Mount("hub", "oci", ("registry-1.docker.io",), "/")], ["auth.docker.io"]),
            {"hub": self.repository},
            OwnPages(metrics, lambda: True, lambda: b""),
            metrics,
            tokens=Tokens(self.keys, "https://auth.docker.io/token", clock=lambda: self.now),
        )

    async def ask(
        self,
        target: str,
        *fields: tuple[str, str],
        method: str = "GET",
        host: str = "auth.docker.io",
        form: str | None = None,
    ) -> tuple[Response, dict[str, object]]:
        body = {} if form is None else {"body": Form(form.encode())}
        request = Request(method, target, host, Headers(fields), PEER, **body)
        response = await self.gate.handle(request)
        text = b"".join(part for part in response.body.segments if isinstance(part, bytes))
        return response, json.loads(text) if "json" in (response.headers.get("content-type") or "") else {}

    def claims(self, answer: dict[str, object]) -> dict[str, object]:
        return jwt.decode(str(answer["token"]), self.keys.signing, algorithms=["ES256"]).claims


def basic(user: str, password: str) -> tuple[str, str]:
    return "authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


PULL = {"type": "repository", "name": "library/a", "actions": ["pull"]}


async def test_anybody_gets_a_token_for_what_anybody_may_do() -> None:
    world = World()
    scopes = f"scope={quote('repository:library/a:pull,push')}&scope=repository:b:push+registry:catalog:*+nonsense"
    response, answer = await world.ask(
        f"/token?service=registry.docker.io&{scopes}&account=me&client_id=docker&offline_token=true"
    )
    assert response.status == 200
    assert response.headers.get("cache-control") == "no-store"
    assert answer["token"] == answer["access_token"]
    assert (answer["expires_in"], answer["issued_at"]) == (300, "2027-01-15T08:00:00Z")
    assert "refresh_token" not in answer
    claims = world.claims(answer)
    assert (claims["sub"], claims["aud"], claims["access"]) == ("", "registry.docker.io", [PULL])


async def test_a_login_without_a_scope_and_a_post_by_nobody_get_one_too() -> None:
    world = World()
    _, answer = await world.ask("/token")
    assert (world.claims(answer)["aud"], world.claims(answer)["access"]) == ("auth.docker.io", [])
    _, answer = await world.ask("/token", basic("", ""))
    assert answer["token"]
    form = "grant_type=password&service=registry.docker.io&client_id=x&scope=repository%3Alibrary%2Fa%3Apull"
    response, answer = await world.ask("/token", ("content-type", f"{FORM}; charset=utf-8"), method="POST", form=form)
    assert (response.status, answer["scope"]) == (200, "repository:library/a:pull")
    assert world.claims(answer)["access"] == [PULL]


async def test_a_password_is_refused_in_words_that_clients_show() -> None:
    world = World()
    asked = [await world.ask("/token?service=s", basic("me", "secret"))]
    asked += [await world.ask("/token?service=s", ("authorization", "Basic ?broken?"))]
    for form in (
        "grant_type=password&username=me&password=secret",
        "grant_type=refresh_token&refresh_token=secret&service=s",
    ):
        asked.append(await world.ask("/token", ("content-type", FORM), method="POST", form=form))
    for response, answer in asked:
        assert response.status == 401
        assert "docker logout" in str(answer["details"])
        assert answer["errors"] == [{"code": "UNAUTHORIZED", "message": answer["details"]}]
        assert answer["error"] == "invalid_grant"
        assert (response.headers.get("www-authenticate") or "").startswith("Basic ")
        assert "secret" not in str(answer)


@pytest.mark.parametrize(
    ("target", "method", "form", "status"),
    [
        ("/token?" + "&".join(["scope=repository:a:pull"] * 101), "GET", None, 400),
        ("/token?scope=" + "x" * 20000, "GET", None, 400),
        ("/token?" + "a=b&" * 501, "GET", None, 400),
        ("/token?service=%22quoted%22", "GET", None, 400),
        ("/token?service=%ff", "GET", None, 400),
        ("/token", "POST", "grant_type=authorization_code&code=x", 400),
        ("/token", "POST", "", 400),
        ("/token", "POST", "grant_type=password&scope=" + "x" * 70000, 413),
        ("/token", "PUT", None, 405),
        ("/", "GET", None, 404),
        ("/v2/", "GET", None, 404),
        ("/token/", "GET", None, 404),
    ],
)
async def test_what_no_client_means_is_refused_and_nothing_else_is_there(
    target: str, method: str, form: str | None, status: int
) -> None:
    response, answer = await World().ask(target, ("content-type", FORM), method=method, form=form)
    assert response.status == status
    assert answer["details"]


async def test_a_form_in_another_language_is_refused() -> None:
    response, _ = await World().ask("/token", ("content-type", "application/json"), method="POST", form="{}")
    assert response.status == 400


async def test_a_token_of_ours_is_not_for_upstream_and_others_are() -> None:
    world = World()
    _, answer = await world.ask("/token?service=registry.docker.io")
    for shown, relayed in ((answer["token"], ""), ("theirs", "Bearer theirs")):
        response, _ = await world.ask(BLOB, ("authorization", f"Bearer {shown}"), host="registry-1.docker.io")
        assert response.status == 404
        assert world.repository.callers.pop().authorization == relayed


async def test_an_expired_or_forged_token_of_ours_is_401_with_the_way_to_another() -> None:
    world = World()
    _, answer = await world.ask("/token?service=registry.docker.io")
    token = str(answer["token"])
    forged = f"{token[:-6]}AAAAAA"
    for shown in (forged, token):
        response, told = await world.ask(BLOB, ("authorization", f"Bearer {shown}"), host="registry-1.docker.io")
        if shown == token:
            assert response.status == 404
            world.now += 301
            response, told = await world.ask(BLOB, ("authorization", f"Bearer {token}"), host="registry-1.docker.io")
        assert response.status == 401
        assert 'realm="https://auth.docker.io/token"' in (response.headers.get("www-authenticate") or "")
        ((error),) = (told["errors"],)
        assert "UNAUTHORIZED" in str(error)
