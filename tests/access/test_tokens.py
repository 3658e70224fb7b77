"""Keys and tokens: ours are good while they last, others' are left alone, forged ones are refused, not stumbled on."""

from __future__ import annotations

import base64
import json
import multiprocessing
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey

from mxart.access.base import WrongCredentials
from mxart.access.key_files import KEEP_SECONDS, ROTATE_SECONDS
from mxart.access.keys import Keys
from mxart.access.scopes import Scope
from mxart.access.tokens import LIFE, Holder, Tokens
from mxart.errors import ConfigError

PULL = (Scope("repository", "library/alpine", ("pull",)),)
NOW = 1_800_000_000.0


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_keys_are_made_once_and_for_their_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "data" / "tokens"
    made, again = Keys.open(directory, now=NOW), Keys.open(directory, now=NOW + 5)
    assert (made.signing_id, made.issuer) == (again.signing_id, again.issuer)
    assert sorted(path.name for path in directory.iterdir()) == ["001800000000.pem", "issuer"]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert Keys.open(tmp_path / "other").issuer != made.issuer


def _open(directory: Path) -> str:
    return Keys.open(directory).signing_id


def test_processes_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert len(set(pool.map(_open, [tmp_path / "tokens"] * 8, chunksize=1))) == 1


def test_an_old_key_gets_a_successor_and_verifies_until_its_tokens_have_ended(tmp_path: Path) -> None:
    clock = Clock()
    old = Keys.open(tmp_path, now=NOW)
    token = "Bearer " + Tokens(old, clock=clock).mint("", "s", PULL).text
    assert Keys.open(tmp_path, now=NOW + ROTATE_SECONDS - 1).signing_id == old.signing_id
    new = Keys.open(tmp_path, now=NOW + ROTATE_SECONDS)
    assert new.signing_id != old.signing_id
    assert new.issuer == old.issuer
    assert Tokens(new, clock=clock).recognise(token) is not None
    much_later = Keys.open(tmp_path, now=NOW + ROTATE_SECONDS + KEEP_SECONDS)
    assert much_later.signing_id == new.signing_id
    assert [path.name for path in tmp_path.glob("*.pem")] == [f"{int(NOW + ROTATE_SECONDS):012d}.pem"]
    with pytest.raises(WrongCredentials, match="a key that is not in use any more"):
        Tokens(much_later, clock=clock).recognise(token)


def test_keys_that_cannot_be_used_are_refused_with_their_file(tmp_path: Path) -> None:
    Keys.open(tmp_path, now=NOW)
    (path,) = tmp_path.glob("*.pem")
    for content in (b"", b"no key", ECKey.generate_key("P-384").as_pem(), ECKey.generate_key().as_pem(private=False)):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=rf"{path.name} is not a P-256 private key"):
            Keys.open(tmp_path, now=NOW)
    path.unlink()
    (tmp_path / "issuer").write_text('with "quotes"')
    with pytest.raises(ConfigError, match="issuer does not hold a name"):
        Keys.open(tmp_path, now=NOW)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be opened"):
        Keys.open(tmp_path / "file")


def test_a_token_says_what_registries_expect_and_anyone_can_verify_it_with_the_public_key() -> None:
    keys, clock = Keys.ephemeral("mxart-1"), Clock()
    minted = Tokens(keys, clock=clock).mint("", "registry.docker.io", PULL)
    public = ECKey.import_key(keys.signing.as_dict(private=False))
    token = jwt.decode(minted.text, public, algorithms=["ES256"])
    assert token.header == {"typ": "JWT", "alg": "ES256", "kid": keys.signing.thumbprint()}
    identifier = token.claims.pop("jti")
    assert len(identifier) >= 16
    assert token.claims == {
        "iss": "mxart-1",
        "sub": "",
        "aud": "registry.docker.io",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + LIFE,
        "access": [{"type": "repository", "name": "library/alpine", "actions": ["pull"]}],
    }
    assert (minted.issued_at, minted.expires_in) == (NOW, LIFE)


def test_ours_is_recognised_until_it_expires() -> None:
    clock = Clock()
    tokens = Tokens(Keys.ephemeral(), clock=clock)
    shown = "bearer   " + tokens.mint("", "registry.docker.io", PULL).text
    found = tokens.recognise(shown)
    assert found is not None
    assert (found.subject, found.service, found.access) == ("", "registry.docker.io", PULL)
    clock.now += LIFE - 1
    assert tokens.recognise(shown) == found
    clock.now += 1
    with pytest.raises(WrongCredentials, match="expired") as caught:
        tokens.recognise(shown)
    assert caught.value.error == "invalid_token"


def encoded(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def test_what_says_it_is_ours_and_is_not_is_refused() -> None:
    keys, clock = Keys.ephemeral("mxart-1"), Clock()
    tokens = Tokens(keys, clock=clock)
    good = tokens.mint("", "s", PULL).text
    head, claims, signature = good.split(".")
    strange = ECKey.generate_key("P-256")
    other = {"iss": "mxart-1", "sub": "", "aud": "s", "exp": int(NOW) + 9, "nbf": int(NOW)}
    late = int(NOW) + 61
    forged = [
        f"{head}.{claims}.{signature[:-4]}AAAA",
        f"{head}.{claims}.",
        f"{head}.{encoded({**other, 'sub': 'admin'})}.{signature}",
        f"{encoded({'alg': 'none', 'kid': keys.signing_id})}.{claims}.",
        f"{encoded({'alg': 'HS256', 'kid': keys.signing_id})}.{claims}.{signature}",
        f"{encoded({'alg': 'ES256', 'kid': keys.signing_id, 'crit': ['x']})}.{claims}.{signature}",
        f"{encoded({'alg': 'ES256'})}.{claims}.{signature}",  # names no key
        jwt.encode({"alg": "ES256"}, {"iss": "mxart-1"}, strange, algorithms=["ES256"]),
        jwt.encode({"alg": "ES256", "kid": "x"}, {"iss": "mxart-1"}, strange, algorithms=["ES256"]),
        # Signed by us, as if by a fault of another version:
        jwt.encode({"alg": "ES256", "kid": keys.signing_id}, {**other, "iss": "?"}, keys.signing, algorithms=["ES256"]),
        jwt.encode({"alg": "ES256", "kid": keys.signing_id}, {**other, "exp": "x"}, keys.signing, algorithms=["ES256"]),
        jwt.encode(
            {"alg": "ES256", "kid": keys.signing_id},
            {**other, "nbf": late},
            keys.signing,
            algorithms=["ES256"],
        ),
    ]
    for text in forged:
        with pytest.raises(WrongCredentials) as caught:
            tokens.recognise(f"Bearer {text}")
        assert caught.value.error == "invalid_token"


def test_what_is_others_is_left_alone() -> None:
    tokens = Tokens(Keys.ephemeral("mxart-1"))
    theirs = Tokens(Keys.ephemeral("mxart-2")).mint("", "s", PULL).text
    for text in (
        None,
        "",
        "Basic dTpw",
        "Bearer",
        "Bearer x",
        f"Bearer {theirs}",
        "Bearer a.b.c",
        "Bearer ..",
        "x y z",
    ):
        assert tokens.recognise(text) is None
    assert tokens.recognise("Bearer " + "a" * 100_000) is None


@given(st.text(max_size=80), st.integers(0, 400), st.text('abcXYZ-_.= {}"é', max_size=3))
def test_nothing_that_is_shown_is_more_than_a_refusal(text: str, place: int, instead: str) -> None:
    tokens = Tokens(Keys.ephemeral())
    good = tokens.mint("", "s", PULL).text
    changed = good[:place] + instead + good[place + 1 :]
    for shown in (f"Bearer {text}", f"Bearer {changed}"):
        try:
            found = tokens.recognise(shown)
        except WrongCredentials:
            continue
        assert found is None or changed.split(".")[:2] == good.split(".")[:2]


def test_what_is_remembered_is_bounded() -> None:
    tokens = Tokens(Keys.ephemeral())
    for _ in range(600):
        assert tokens.recognise("Bearer " + tokens.mint("", "s", ()).text) is not None
    assert len(tokens._known) <= 512


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


DEEP = b'{"a":' + b"[" * 20000 + b"]" * 20000 + b"}"


@pytest.mark.parametrize(
    ("head", "payload"), [(DEEP, b"{}"), (b"{}", DEEP), (DEEP, b'{"iss":"mxart-test"}'), (b"[" * 40000, b"[" * 40000)]
)
def test_brackets_without_end_are_no_token_of_ours(head: bytes, payload: bytes) -> None:
    tokens = Tokens(Keys.ephemeral(), clock=Clock())
    text = f"Bearer {_part(head)}.{_part(payload)}.AAAA"
    if b"iss" in payload:
        with pytest.raises(WrongCredentials):
            tokens.recognise(text)
    else:
        assert tokens.recognise(text) is None


@pytest.mark.parametrize("crit", [5, True, {"a": 1}, [1], [["b64"]], None, "b64"])
def test_a_head_with_our_key_and_fields_of_a_wrong_type_is_refused_as_any_forgery(crit: object) -> None:
    keys = Keys.ephemeral()
    head = json.dumps({"alg": "ES256", "kid": keys.signing_id, "crit": crit}).encode()
    with pytest.raises(WrongCredentials, match="signature is wrong"):
        Tokens(keys, clock=Clock()).recognise(f"Bearer {_part(head)}.{_part(b'{}')}.{'A' * 86}")


def test_a_users_token_says_for_whom_it_was_made() -> None:
    tokens = Tokens(Keys.ephemeral(), clock=Clock())
    holder = Holder("ann", 7, 1_700_000_000.123456, "0123456789ab")
    found = tokens.recognise("Bearer " + tokens.mint("ann", "s", PULL, holder).text)
    assert found is not None
    assert (found.subject, found.holder) == ("ann", holder)
