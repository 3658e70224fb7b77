"""Who sends a request, and what he may do: passwords, tokens of every kind, good, forged, old and revoked."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey

from kit.access import SUM, Site, basic, bearer, challenge
from kit.wire import PEER
from mxart.access.key_files import KeyFiles, new_key
from mxart.access.keys import Keys
from mxart.access.scopes import Scope
from mxart.access.tokens import Tokens
from mxart.errors import Unauthorized
from mxart.message import Peer
from mxart.repos.operations import Listed
from mxart.server import authentication, passwords

PASSWORD = "correct horse"
CONFIG = """
[repository.oci]
format = "oci"
kind = "local"
path = "/"
[repository.hub]
format = "oci"
kind = "proxy"
upstream = "https://registry-1.docker.io"
hosts = ["registry-1.docker.io"]
path = "/docker.io"
relay = "denied"
[repository.plain]
format = "oci"
kind = "proxy"
upstream = "https://quay.io"
hosts = ["quay.io"]
path = "/quay.io"
[[permission]]
repository = "oci"
path = "secret/**"
groups = "core"
actions = ["read", "publish"]
"""
APP = f"/v2/app/blobs/{SUM}"
SECRET = f"/v2/secret/app/blobs/{SUM}"


class World(Site):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder, CONFIG)
        self.manage.create_user("ann", PASSWORD)
        self.directory.add_group("core")

    async def status(self, target: str, *fields: tuple[str, str], host: str = "mxart.test") -> int:
        return (await self.ask(target, *fields, host=host))[0].status

    def may_publish(self, package: str = "app") -> bool:
        """Of whom the repository was asked by last."""
        return self.repositories["oci"].callers[-1].grants.may("publish", "oci", package)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_nobody_reads_what_everybody_may_and_is_asked_to_log_in_for_the_rest(world: World) -> None:
    assert await world.status(APP) == 404
    response, answer = await world.ask(SECRET)
    assert response.status == 401
    assert challenge(response) == (
        'Bearer realm="http://mxart.test/-/token",service="mxart.test",scope="repository:secret/app:pull"'
    )
    assert answer["errors"] == [
        {"code": "UNAUTHORIZED", "message": "to read secret/app in repository oci needs a login"}
    ]


async def test_a_password_a_token_as_one_and_a_token_as_bearer_all_let_in(world: World) -> None:
    _, text = world.manage.create_token("ann", "ci")
    for shown in (basic("ann", PASSWORD), basic("ann", text), basic("anything", text), basic("", text), bearer(text)):
        for _ in range(2):
            assert await world.status(APP, shown) == 404
            caller = world.repositories["oci"].callers[-1]
            assert (caller.name, caller.authorization) == ("ann", "")
            assert bool(caller.token) == (shown != basic("ann", PASSWORD))
            assert world.may_publish()
    response, answer = await world.ask(SECRET, basic("ann", PASSWORD))
    assert response.status == 403
    assert answer["errors"] == [
        {"code": "DENIED", "message": "ann may not read secret/app in repository oci: by permission[0]"}
    ]


async def test_a_group_opens_what_is_closed_and_closes_it_again_at_once(world: World) -> None:
    shown = basic("ann", PASSWORD)
    for _ in range(2):
        assert await world.status(SECRET, shown) == 403
        world.manage.directory.add_member("core", "ann")  # as another process would
        assert await world.status(SECRET, shown) == 404
        world.manage.directory.remove_member("core", "ann")


@pytest.mark.parametrize("user", ["ann", "nobody", "", "ann@evil"])
async def test_a_wrong_password_is_refused_whoevers_it_is(world: World, user: str) -> None:
    response, answer = await world.ask(APP, basic(user, "wrong"))
    assert response.status == 401
    assert challenge(response).startswith('Bearer realm="http://mxart.test/-/token"')
    assert "wrong user name or password" in str(answer)


async def test_credentials_that_cannot_be_read_are_nobodys(world: World) -> None:
    for value in ("Basic", "Basic ?", "Basic " + base64.b64encode(b"no-colon").decode(), "Bearer", "Bearer a.b.c"):
        assert await world.status(APP, ("authorization", value)) == 401
    # Of several, or of another kind, none is looked at.
    assert await world.status(APP, ("authorization", "Digest x")) == 404
    assert await world.status(APP, basic("ann", PASSWORD), basic("ann", PASSWORD)) == 404
    assert not world.may_publish()


async def test_whoever_is_deleted_disabled_or_revoked_is_out_at_once(world: World) -> None:
    token, text = world.manage.create_token("ann", "ci")
    signed = await world.token(basic("ann", PASSWORD), scope="repository:app:pull")
    by_token = await world.token(basic("", text), scope="repository:app:pull")
    shown = [basic("ann", PASSWORD), bearer(text), bearer(signed), bearer(by_token)]
    assert [await world.status(APP, one) for one in shown] == [404] * 4
    world.manage.directory.set_disabled("ann", True)
    assert [await world.status(APP, one) for one in shown] == [401] * 4
    world.manage.directory.set_disabled("ann", False)
    assert [await world.status(APP, one) for one in shown] == [404] * 4
    world.manage.directory.revoke(token.id)
    assert [await world.status(APP, one) for one in shown] == [404, 401, 404, 401]
    world.manage.change_password("ann", "another password")
    assert [await world.status(APP, one) for one in shown] == [401] * 4
    signed = await world.token(basic("ann", "another password"), scope="repository:app:pull")
    assert await world.status(APP, bearer(signed)) == 404
    world.manage.directory.delete_user("ann")
    world.manage.create_user("ann", "another password")  # another ann
    assert await world.status(APP, bearer(signed)) == 401
    assert await world.status(APP, basic("ann", "another password")) == 404


async def test_a_token_is_good_until_it_expires_and_for_no_more_than_its_ceiling(world: World) -> None:
    _, text = world.manage.create_token("ann", "ci", seconds=60, actions=["read"], repositories=["oci:app"])
    assert await world.status(APP, bearer(text)) == 404
    assert not world.may_publish()
    response, answer = await world.ask(f"/v2/other/blobs/{SUM}", bearer(text))
    assert response.status == 403
    assert "more than his token is good for" in str(answer)
    signed = await world.token(basic("ann", text), scope="repository:app:pull,push+repository:other:pull")
    assert await world.status(APP, bearer(signed)) == 404
    assert not world.may_publish()
    world.now += 59
    assert await world.status(APP, bearer(text)) == 404
    world.now += 1
    response, answer = await world.ask(APP, bearer(text))
    assert response.status == 401
    assert "expired" in str(answer)
    assert await world.status(APP, bearer(signed)) == 401


async def test_a_signed_token_grants_what_it_was_asked_for_and_never_more_than_its_user_may_now(world: World) -> None:
    world.manage.directory.add_member("core", "ann")
    signed = await world.token(basic("ann", PASSWORD), scope="repository:secret/app:pull,push+repository:app:pull")
    assert await world.status(SECRET, bearer(signed)) == 404
    assert world.may_publish("secret/app")
    assert not world.may_publish("app")
    response, _ = await world.ask(f"/v2/other/blobs/{SUM}", bearer(signed))
    assert response.status == 401
    assert 'scope="repository:other:pull",error="insufficient_scope"' in challenge(response)
    world.manage.directory.remove_member("core", "ann")
    assert await world.status(SECRET, bearer(signed)) == 403


async def test_nobodys_signed_token_is_as_good_as_none(world: World) -> None:
    signed = await world.token()
    assert await world.status(APP, bearer(signed)) == 404
    assert await world.status(SECRET, bearer(signed)) == 401
    assert await world.status("/v2/", bearer(signed)) == 200


async def test_tokens_that_are_forged_expired_or_for_another_service_are_refused(world: World) -> None:
    good = (await world.token(basic("ann", PASSWORD), scope="repository:app:pull")).removeprefix("Bearer ")
    head, claims, signature = good.split(".")
    keys = Keys.load(world.files)

    def part(content: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    stolen = {**world.claims(good), "uid": 1, "sub": "admin"}
    another = await world.token(basic("ann", PASSWORD), service="elsewhere.test")
    rotated_out = Tokens(Keys(keys.issuer, [ECKey.generate_key("P-256")]), clock=world.clock)
    for text in (
        f"{head}.{part(stolen)}.{signature}",
        f"{part({'alg': 'none', 'kid': keys.signing_id})}.{claims}.",
        f"{part({'alg': 'none'})}.{claims}.",
        f"{part({'alg': 'HS256', 'kid': keys.signing_id})}.{claims}.{signature}",
        jwt.encode({"alg": "ES256"}, stolen, ECKey.generate_key("P-256"), algorithms=["ES256"]),
        rotated_out.mint("ann", "mxart.test", [Scope("repository", "app", ("pull",))]).text,
        another.removeprefix("Bearer "),
    ):
        response, _ = await world.ask(APP, bearer(text))
        assert response.status == 401, text
        assert 'error="invalid_token"' in challenge(response)
    assert await world.status(APP, bearer(good)) == 404
    world.now += 300
    response, answer = await world.ask(APP, bearer(good))
    assert (response.status, "expired" in str(answer)) == (401, True)


async def test_a_token_of_a_key_that_has_a_successor_is_good(world: World) -> None:
    old = await world.token(basic("ann", PASSWORD), scope="repository:app:pull")
    world.authenticator.signer = authentication.Signer(
        KeyFiles(world.files.issuer, (new_key(), *world.files.keys)), world.clock
    )
    assert await world.status(APP, bearer(old)) == 404


async def test_the_door_asks_for_a_login_where_somebody_may_want_one(world: World) -> None:
    response, _ = await world.ask("/v2/")
    assert response.status == 401
    assert challenge(response) == 'Bearer realm="http://mxart.test/-/token",service="mxart.test"'
    for host in ("registry-1.docker.io", "quay.io"):
        assert await world.status("/v2/", host=host) == 200  # nothing of ours is behind it
    assert await world.status("/v2/", basic("ann", PASSWORD)) == 200
    assert world.repositories["hub"].callers[-1].name == ""
    # Not a denial that anybody has to hear of.
    assert world.audited() == []


async def test_where_everybody_may_read_all_and_nobody_publish_the_door_is_open(tmp_path: Path) -> None:
    hub = '[repository.hub]\nformat = "oci"\nkind = "proxy"\nupstream = "https://a.test"\npath = "/"\n'
    assert (await Site(tmp_path, hub).ask("/v2/"))[0].status == 200
    denying = '[[permission]]\ngroups = "anonymous"\nactions = "read"\neffect = "deny"\n'
    (tmp_path / "b").mkdir()
    assert (await Site(tmp_path / "b", hub + denying).ask("/v2/"))[0].status == 401


async def test_realms_are_as_clients_reach_us(tmp_path: Path) -> None:
    tls = Peer("192.0.2.7", 1, scheme="https", local_address="192.0.2.1", local_port=443)
    site = Site(tmp_path, CONFIG)
    for host, shown in (("a.test:8443", "a.test:8443"), ('evil"host', "192.0.2.1:443"), ("", "192.0.2.1:443")):
        response, _ = await site.ask("/v2/", host=host, peer=tls)
        assert f'realm="https://{shown}/-/token",service="{shown}"' in challenge(response)
    (tmp_path / "b").mkdir()
    site = Site(tmp_path / "b", '[access]\nurl = "https://registry.example"\n' + CONFIG)
    response, _ = await site.ask("/v2/", host="10.0.0.1:8080")
    assert challenge(response) == 'Bearer realm="https://registry.example/-/token",service="registry.example"'
    site.manage.create_user("ann", PASSWORD)
    signed = await site.token(basic("ann", PASSWORD), service="registry.example", host="10.0.0.1:8080")
    assert (await site.ask("/v2/", bearer(signed), host="10.0.0.1:8080"))[0].status == 200


async def test_somebody_elses_credentials_are_for_upstream_only(world: World) -> None:
    theirs = basic("hubuser", "hubs-password")
    blob = f"/v2/library/a/blobs/{SUM}"
    # Where the repository relays them, whichever way it was found.
    assert await world.status(blob, theirs, host="registry-1.docker.io") == 404
    assert world.repositories["hub"].callers[-1].authorization == theirs[1]
    assert await world.status(f"/v2/docker.io/library/a/blobs/{SUM}", theirs) == 404
    assert world.repositories["hub"].callers[-1].authorization == theirs[1]
    # Where it does not, they are not looked at if the client means upstream, and wrong if it means us.
    for shown in (theirs, bearer("of.quay.io")):
        assert await world.status(blob, shown, host="quay.io") == 404
        assert world.repositories["plain"].callers[-1].authorization == ""
        assert await world.status(f"/v2/quay.io/a/blobs/{SUM}", shown) == 401
        assert await world.status(APP, shown) == 401


async def test_ours_are_never_shown_to_an_upstream(world: World) -> None:
    token, text = world.manage.create_token("ann", "ci")
    signed = await world.token(
        basic("ann", PASSWORD), scope="repository:library/a:pull", service="docker.io", host="registry-1.docker.io"
    )
    blob = f"/v2/library/a/blobs/{SUM}"
    hub = {"host": "registry-1.docker.io"}
    good = [basic("ann", PASSWORD), basic("hubuser", text), bearer(text), bearer(signed)]
    assert [await world.status(blob, shown, **hub) for shown in good] == [404] * 4
    world.manage.directory.revoke(token.id)
    bad = [basic("ann", "her hub password"), basic("hubuser", text), bearer(text), bearer(signed[:-4] + "AAAA")]
    assert [await world.status(blob, shown, **hub) for shown in bad] == [401] * 4
    assert {caller.authorization for caller in world.repositories["hub"].callers} == {""}


async def test_what_was_meant_for_us_and_mistyped_is_never_shown_to_an_upstream(world: World) -> None:
    _, text = world.manage.create_token("ann", "ci")
    login = world.manage.create_login("ann", "docker")
    mistyped = [
        basic(text, ""),  # a token as the user's name, as other servers have it
        basic(text, "x-oauth-basic"),
        basic("hubuser", f"{text}\n"),
        basic("hubuser", f" {text}"),
        basic("hubuser", login),
        basic("Ann", PASSWORD),
        basic(" ann ", PASSWORD),
        basic("ANN", "her hub password"),
        bearer(f"token={text}"),
        bearer(f'"{text}"'),
        bearer(login),
    ]
    for shown in mistyped:
        for host in ("registry-1.docker.io", "quay.io"):
            assert await world.status(f"/v2/library/a/blobs/{SUM}", shown, host=host) == 401
            world.now += 30
    assert world.repositories["hub"].callers == []
    raw = "".join(str(entry) for entry in world.audited())
    assert text.rpartition("_")[2] not in raw
    assert PASSWORD not in raw


async def test_an_upstreams_challenge_sends_nobodys_password_for_us_to_its_realm(world: World) -> None:
    theirs = 'Bearer realm="https://auth.docker.io/token"'
    world.repositories["hub"].raising = Unauthorized("hub wants a login", headers=(("www-authenticate", theirs),))
    response, _ = await world.ask(f"/v2/library/a/blobs/{SUM}", host="registry-1.docker.io")
    assert (response.status, challenge(response)) == (401, theirs)
    response, _ = await world.ask(f"/v2/library/a/blobs/{SUM}?ns=registry-1.docker.io")
    assert (response.status, challenge(response)) == (401, theirs)
    response, answer = await world.ask(f"/v2/docker.io/library/a/blobs/{SUM}")
    assert (response.status, challenge(response)) == (403, "")
    assert "by its own host name" in str(answer)
    # Whoever has logged in here has a client that would show his password for us there.
    signed = await world.token(
        basic("ann", PASSWORD), scope="repository:library/a:pull", service="docker.io", host="registry-1.docker.io"
    )
    for shown in (basic("ann", PASSWORD), bearer(signed)):
        response, _ = await world.ask(f"/v2/library/a/blobs/{SUM}", shown, host="registry-1.docker.io")
        assert (response.status, challenge(response)) == (403, "")


async def test_who_may_fetch_nothing_has_no_index_asked(tmp_path: Path) -> None:
    hub = 'format = "oci"\nkind = "proxy"\nupstream = "https://a.test"\nhosts = ["a.test"]\n'
    index = 'index = "https://index.test"\n'
    rule = '[[permission]]\nrepository = "hub"\ngroups = "core"\nactions = ["read", "fetch"]\n'
    site = Site(tmp_path, f"[repository.hub]\n{hub}{index}{rule}")
    site.directory.add_group("core")
    site.manage.create_user("ann", PASSWORD, groups=["core"])
    site.manage.create_user("bob", PASSWORD)
    response, _ = await site.ask("/v1/search?q=x", host="a.test")
    assert (response.status, challenge(response)[:5]) == (401, "Basic")
    assert (await site.ask("/v1/search?q=x", basic("bob", PASSWORD), host="a.test"))[0].status == 403
    assert site.index.callers == []
    assert (await site.ask("/v1/search?q=x", basic("ann", PASSWORD), host="a.test"))[0].status == 200
    assert [caller.authorization for caller in site.index.callers] == [""]


async def test_by_host_neither_where_users_of_ours_log_in_there(tmp_path: Path) -> None:
    hub = '[repository.hub]\nformat = "oci"\nkind = "proxy"\nupstream = "https://a.test"\nrelay = "denied"\n'
    mine = '[repository.mine]\nformat = "oci"\nkind = "local"\n'
    both = '[repository.all]\nformat = "oci"\nkind = "group"\nmembers = ["mine", "hub"]\nhosts = ["all.test"]\n'
    for publish, status in (("", 401), ('publish_to = "mine"\n', 403)):
        folder = tmp_path / str(status)
        folder.mkdir()
        site = Site(folder, hub + mine + both + publish)
        site.repositories["all"].raising = Unauthorized("a login", headers=(("www-authenticate", "Basic realm=x"),))
        response, _ = await site.ask(APP, host="all.test")
        assert response.status == status


async def test_by_path_too_where_nobody_of_ours_ever_logs_in(tmp_path: Path) -> None:
    hub = (
        '[repository.hub]\nformat = "oci"\nkind = "proxy"\nupstream = "https://a.test"\npath = "/"\nrelay = "denied"\n'
    )
    site = Site(tmp_path, hub)
    site.repositories["hub"].raising = Unauthorized("a login", headers=(("www-authenticate", "Basic realm=x"),))
    response, _ = await site.ask(APP)
    assert (response.status, challenge(response)) == (401, "Basic realm=x")


async def test_a_short_name_that_is_not_ours_by_ns_gets_a_realm_that_keeps_it(world: World) -> None:
    """containerd asks a mirror for docker.io's images with `ns`; so must the token be asked for."""
    target = f"/v2/alpine/blobs/{SUM}?ns=registry-1.docker.io"
    world.manage.directory.set_disabled("ann", True)
    response, _ = await world.ask(target, basic("ann", PASSWORD))
    assert 'realm="http://mxart.test/-/token?ns=registry-1.docker.io"' in challenge(response)
    world.manage.directory.set_disabled("ann", False)
    _, answer = await world.ask(
        "/-/token?ns=registry-1.docker.io&service=mxart.test&scope=repository:alpine:pull", basic("ann", PASSWORD)
    )
    assert await world.status(target, bearer(str(answer["token"]))) == 404
    assert world.repositories["hub"].callers[-1].grants.may("read", "hub", "library/alpine")


async def test_a_catalog_shows_what_one_may_see_with_any_credentials(world: World) -> None:
    async def names(*shown: tuple[str, str]) -> object:
        return (await world.ask("/v2/_catalog", *shown))[1].get("repositories")

    assert await names() == ["team/app", "team/secret"]
    signed = await world.token(basic("ann", PASSWORD), scope="registry:catalog:*")
    assert await names(bearer(signed)) == ["team/app", "team/secret"]
    response, _ = await world.ask("/v2/_catalog", bearer(await world.token(basic("ann", PASSWORD))))
    assert response.status == 401
    assert 'scope="registry:catalog:*",error="insufficient_scope"' in challenge(response)


async def test_a_catalog_of_many_names_keeps_nobody_else_waiting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"secret/app{number}" for number in range(5000)]

    async def listing(*_: object) -> Listed:
        return Listed(names, more=False)

    monkeypatch.setattr(world.repositories["oci"], "listing", listing)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        response, _ = await world.ask("/v2/_catalog")
        nursery.cancel_scope.cancel()
    assert response.status == 200
    assert turns >= 20


async def test_every_denied_request_and_every_write_is_in_the_audit_log_and_no_secret(world: World) -> None:
    token, text = world.manage.create_token("ann", "ci")
    await world.ask(SECRET)
    await world.ask(SECRET, bearer(text))
    await world.ask(APP, basic("ann", "guessed-wrong"))
    await world.ask("/v2/app/manifests/1", basic("ann", PASSWORD), method="DELETE")
    await world.ask(APP + "?secret=in-the-query", method="PUT")
    await world.ask(APP)
    lines = world.audited()
    assert [(line.who, line.token, line.action, line.repository, line.path, line.outcome) for line in lines[:3]] == [
        ("", "", "read", "oci", "secret/app", "denied"),
        ("ann", token.id, "read", "oci", "secret/app", "denied"),
        ("ann", "", "read", "", "", "denied"),
    ]
    assert lines[0].rule == lines[1].rule == "permission[0]"
    assert {line.source for line in lines} == {PEER.address}
    assert len(lines) == 5
    raw = (world.audit._directory / "audit.jsonl").read_text()
    for secret in (PASSWORD, text, "guessed-wrong", "in-the-query", "authorization"):
        assert secret not in raw


async def test_many_requests_at_once_verify_a_password_once_or_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    verify = passwords.verify_password

    def counting(kept: str, password: str) -> bool:
        asked.append(password)
        return verify(kept, password)

    monkeypatch.setattr(passwords, "verify_password", counting)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(world.status, APP, basic("ann", PASSWORD))
    assert set(asked) == {PASSWORD}
    assert len(asked) <= 2
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(world.status, APP, basic("ann", "wrong"))
    assert len(asked) <= 4
    assert await world.status(APP, basic("ann", "wrong")) == 401
    assert len(asked) <= 4


async def test_changes_to_others_cost_nobody_another_verification(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await world.status(APP, basic("ann", PASSWORD)) == 404
    monkeypatch.setattr(passwords, "verify_password", lambda kept, password: pytest.fail("looked at again"))
    world.manage.directory.add_group("another")
    assert await world.status(APP, basic("ann", PASSWORD)) == 404
    _, answer = await world.ask("/-/token", basic("ann", PASSWORD))
    assert world.claims(answer["token"])["sub"] == "ann"


async def test_a_password_that_is_changed_while_it_is_looked_at_lets_in_nobody_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = passwords.verify_password

    def meanwhile(kept: str, password: str) -> bool:
        good = verify(kept, password)
        if password == PASSWORD:
            world.manage.change_password("ann", "another password")
        return good

    monkeypatch.setattr(passwords, "verify_password", meanwhile)
    await world.status(APP, basic("ann", PASSWORD))
    for _ in range(2):
        assert await world.status(APP, basic("ann", PASSWORD)) == 401
    assert await world.status(APP, basic("ann", "another password")) == 404


async def test_strangers_do_not_fill_the_memory(world: World) -> None:
    for number in range(50):
        await world.status(f"/v2/docker.io/a/blobs/{SUM}", basic(f"{number}", "x" * 50_000))
    kept = sum(len(key) for key in world.authenticator._known if isinstance(key, str))
    assert kept < 50_000


async def test_a_stranger_with_many_tokens_fills_no_memory(world: World) -> None:
    signed = [await world.token(scope="repository:app:pull") for _ in range(3)]
    for shown in signed:
        assert await world.status(APP, bearer(shown)) == 404
    kept = {id(identity.caller.grants) for identity in world.authenticator._known.values()}
    assert len(kept) == 1  # what was decided for nobody in particular is remembered once
    # A group tells failures to whoever shows a token, and asks all others to log in.
    await world.status(APP)
    assert [caller.grants.delegated for caller in world.repositories["oci"].callers] == [True] * 3 + [False]


odd = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=60)
schemes = st.sampled_from(["Basic ", "basic  ", "Bearer ", "Bearer mxt_", "Digest ", "", "Basic:"])


@given(schemes, odd | odd.map(lambda text: base64.b64encode(text.encode()).decode()))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_nothing_that_is_shown_is_a_fault_of_ours(world: World, scheme: str, rest: str) -> None:
    for target, host in ((APP, "mxart.test"), ("/v2/", "quay.io"), ("/-/token", "mxart.test")):
        assert await world.status(target, ("authorization", scheme + rest), host=host) in {200, 401, 404, 429}
