"""The token endpoint of a host that we stand for, and what becomes of its tokens at the registry's."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from kit.access import FORM, SUM, Site, basic, bearer
from kit.wire import PEER
from mxart.message import Peer, Response

BLOB = f"/v2/library/a/blobs/{SUM}"
CONFIG = """
[token_server]
hosts = ["auth.docker.io"]
[repository.hub]
format = "oci"
kind = "proxy"
upstream = "https://registry-1.docker.io"
hosts = ["registry-1.docker.io"]
path = "/"
relay = "denied"
"""
PASSWORD = "correct horse"


class World(Site):
    """An air-gapped Docker Hub."""

    async def ask(
        self,
        target: str,
        *fields: tuple[str, str],
        method: str = "GET",
        host: str = "auth.docker.io",
        form: str | None = None,
        peer: Peer = PEER,
    ) -> tuple[Response, dict[str, object]]:
        return await super().ask(target, *fields, method=method, host=host, form=form, peer=peer)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, CONFIG)


PULL = {"type": "repository", "name": "library/a", "actions": ["pull"]}


async def test_anybody_gets_a_token_for_what_anybody_may_do(world: World) -> None:
    scopes = f"scope={quote('repository:library/a:pull,push')}&scope=repository:b:push+registry:catalog:*+nonsense"
    response, answer = await world.ask(
        f"/token?service=registry.docker.io&{scopes}&account=me&client_id=docker&offline_token=true"
    )
    assert response.status == 200
    assert response.headers.get("cache-control") == "no-store"
    assert answer["token"] == answer["access_token"]
    assert (answer["expires_in"], answer["issued_at"]) == (300, "2027-01-15T08:00:00Z")
    assert "refresh_token" not in answer
    claims = world.claims(answer["token"])
    assert (claims["sub"], claims["aud"], claims["access"]) == ("", "registry.docker.io", [PULL])


async def test_a_login_without_a_scope_and_a_post_by_nobody_get_one_too(world: World) -> None:
    _, answer = await world.ask("/token")
    assert (world.claims(answer["token"])["aud"], world.claims(answer["token"])["access"]) == ("auth.docker.io", [])
    _, answer = await world.ask("/token", basic("", ""))
    assert answer["token"]
    form = "grant_type=password&service=registry.docker.io&client_id=x&scope=repository%3Alibrary%2Fa%3Apull"
    response, answer = await world.ask("/token", ("content-type", f"{FORM}; charset=utf-8"), method="POST", form=form)
    assert (response.status, answer["scope"]) == (200, "repository:library/a:pull")
    assert world.claims(answer["token"])["access"] == [PULL]


async def test_a_password_is_refused_in_words_that_clients_show(world: World) -> None:
    form = "grant_type=password&username=me&password=secret"
    asked = [
        await world.ask("/token?service=s", basic("me", "secret")),
        await world.ask("/token", ("content-type", FORM), method="POST", form=form),
    ]
    for response, answer in asked:
        assert response.status == 401
        assert "docker logout" in str(answer["details"])
        assert answer["errors"] == [{"code": "UNAUTHORIZED", "message": answer["details"]}]
        assert answer["error"] == "invalid_grant"
        assert (response.headers.get("www-authenticate") or "").startswith("Basic ")
        assert "secret" not in str(answer)
    form = "grant_type=refresh_token&refresh_token=secret&service=s"
    response, answer = await world.ask("/token", ("content-type", FORM), method="POST", form=form)
    assert (response.status, answer["error"], "log in again" in str(answer)) == (401, "invalid_grant", True)
    response, answer = await world.ask("/token?service=s", ("authorization", "Basic ?broken?"))
    assert (response.status, "cannot be read" in str(answer["details"])) == (401, True)


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
    world: World, target: str, method: str, form: str | None, status: int
) -> None:
    response, answer = await world.ask(target, ("content-type", FORM), method=method, form=form)
    assert response.status == status
    assert answer["details"]


async def test_a_form_in_another_language_is_refused(world: World) -> None:
    response, _ = await world.ask("/token", ("content-type", "application/json"), method="POST", form="{}")
    assert response.status == 400


async def test_a_token_of_ours_is_not_for_upstream_and_others_are(world: World) -> None:
    _, answer = await world.ask("/token?service=registry.docker.io")
    for shown, relayed in ((answer["token"], ""), ("theirs", "Bearer theirs")):
        response, _ = await world.ask(BLOB, ("authorization", f"Bearer {shown}"), host="registry-1.docker.io")
        assert response.status == 404
        assert world.repositories["hub"].callers.pop().authorization == relayed


async def test_an_expired_or_forged_token_of_ours_is_401_with_the_way_to_another(world: World) -> None:
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


async def test_a_user_gets_what_he_may_do_of_what_he_asks_for_and_that_is_no_error(tmp_path: Path) -> None:
    world = Site(tmp_path, LOCAL)
    world.manage.create_user("ann", PASSWORD)
    scopes = "scope=repository:team/app:pull,push,delete&scope=repository:team/x:*+repository:nowhere/x:pull"
    scopes += "+registry:catalog:*"
    response, answer = await world.ask(f"/-/token?service=mxart.test&{scopes}&account=ann", basic("ann", PASSWORD))
    assert response.status == 200
    claims = world.claims(answer["token"])
    assert (claims["sub"], claims["aud"], claims["iss"]) == ("ann", "mxart.test", "mxart-test")
    assert claims["access"] == [
        {"type": "repository", "name": "team/app", "actions": ["pull", "push"]},
        {"type": "repository", "name": "team/x", "actions": ["pull", "push"]},
        {"type": "registry", "name": "catalog", "actions": ["*"]},
    ]
    form = f"grant_type=password&username=ann&password={quote(PASSWORD)}&client_id=x&service=mxart.test&scope="
    response, answer = await world.ask(
        "/-/token",
        ("content-type", FORM),
        method="POST",
        form=form + quote("repository:team/app:delete,pull repository:team/app:push"),
    )
    assert (response.status, answer["scope"]) == (200, "repository:team/app:pull,push")
    assert "refresh_token" not in answer


LOCAL = """
[repository.oci]
format = "oci"
kind = "local"
path = "/team"
[repository.closed]
format = "oci"
kind = "local"
path = "/closed"
[[permission]]
repository = "closed"
groups = "core"
actions = ["read", "publish", "overwrite"]
"""


@pytest.mark.parametrize("way", ["get", "post"])
async def test_a_client_that_keeps_no_password_gets_a_refresh_token(tmp_path: Path, way: str) -> None:
    world = Site(tmp_path, LOCAL)
    world.manage.create_user("ann", PASSWORD)
    post = {"method": "POST", "host": "mxart.test"}
    kind = ("content-type", FORM)
    if way == "get":
        _, answer = await world.ask("/-/token?service=mxart.test&offline_token=true", basic("ann", PASSWORD))
    else:
        form = f"grant_type=password&username=ann&password={quote(PASSWORD)}&access_type=offline&client_id=docker"
        _, answer = await world.ask("/-/token", kind, form=form, **post)
    refresh = str(answer["refresh_token"])
    assert refresh.startswith("mxr_")
    form = f"grant_type=refresh_token&refresh_token={refresh}&service=mxart.test&scope=repository:team/app:push"
    _, answer = await world.ask("/-/token", kind, form=form, **post)
    assert answer["scope"] == "repository:team/app:push"
    assert world.claims(answer["token"])["sub"] == "ann"
    # It is good for nothing else.
    for shown in (bearer(refresh), basic("ann", refresh)):
        response, _ = await world.ask("/v2/", shown)
        assert response.status == 401
    # As an identity token, docker sends it by POST; others as the password of "<token>".
    response, _ = await world.ask("/-/token", basic("<token>", refresh))
    assert response.status == 200
    # And it ends with the password that it was got for.
    world.manage.change_password("ann", "another password")
    response, answer = await world.ask("/-/token", kind, form=form, **post)
    assert (response.status, answer["error"]) == (401, "invalid_grant")


async def test_nobody_gets_no_refresh_token(tmp_path: Path) -> None:
    world = Site(tmp_path, LOCAL)
    _, answer = await world.ask("/-/token?offline_token=true")
    assert "refresh_token" not in answer


async def test_what_is_got_by_a_bounded_token_is_bounded_alike(tmp_path: Path) -> None:
    world = Site(tmp_path, LOCAL)
    world.manage.create_user("ann", PASSWORD)
    kept, text = world.manage.create_token("ann", "ci", actions=["read"], repositories=["oci:app"], seconds=60)
    scope = "scope=repository:team/app:pull,push+repository:team/b:pull"
    _, answer = await world.ask(f"/-/token?service=mxart.test&offline_token=1&{scope}", basic("ann", text))
    only = [{"type": "repository", "name": "team/app", "actions": ["pull"]}]
    assert world.claims(answer["token"])["access"] == only
    form = f"grant_type=refresh_token&refresh_token={answer['refresh_token']}&service=mxart.test&{scope}"
    ask = ("/-/token", ("content-type", FORM))
    _, again = await world.ask(*ask, method="POST", form=form)
    assert world.claims(again["token"])["access"] == only
    # It does not outlive the token that it was got by.
    world.now += 61
    response, _ = await world.ask(*ask, method="POST", form=form)
    assert response.status == 401
    world.directory.revoke(kept.id)
    assert world.directory.tokens() == []


async def test_containerd_shows_a_users_own_token_as_a_refresh_token(tmp_path: Path) -> None:
    world = Site(tmp_path, LOCAL)
    world.manage.create_user("ann", PASSWORD)
    _, text = world.manage.create_token("ann", "ci")
    form = f"grant_type=refresh_token&refresh_token={text}&service=mxart.test&scope=repository:team/app:push"
    _, answer = await world.ask("/-/token", ("content-type", FORM), method="POST", form=form)
    assert answer["scope"] == "repository:team/app:push"


async def test_a_user_of_ours_may_do_more_at_the_registry_that_we_stand_for(tmp_path: Path) -> None:
    """An air-gapped site: docker logs in at auth.docker.io, and its token is for docker.io's own service."""
    closed = 'hosts = ["docker.io", "registry-1.docker.io"]\nkind = "local"\nformat = "oci"\n'
    world = World(tmp_path, f'[token_server]\nhosts = ["auth.docker.io"]\n[repository.hub]\n{closed}')
    world.manage.create_user("ann", PASSWORD)
    _, answer = await world.ask(
        "/token?service=registry.docker.io&scope=repository:library/a:pull,push", basic("ann", PASSWORD)
    )
    assert world.claims(answer["token"])["access"] == [{**PULL, "actions": ["pull", "push"]}]
    response, _ = await world.ask(BLOB, bearer(str(answer["token"])), host="registry-1.docker.io")
    assert response.status == 404
    assert world.repositories["hub"].callers[-1].grants.may("publish", "hub", "library/a")
    assert not world.repositories["hub"].callers[-1].grants.may("publish", "hub", "library/b")
