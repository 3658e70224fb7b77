"""Tokens of ours: signed, and recognised when they are shown (distribution, docs/content/spec/auth/jwt.md; RFC 7519).

A token that is shown may be anybody's: a caller may have it from the registry that we stand for.  It is ours if it says
so, by the key that it names or by its issuer; then it has to be good, and is never for anyone else to see.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from msgspec import Struct

from mxart.access.base import WrongCredentials
from mxart.access.keys import Keys
from mxart.access.scopes import Scope

LIFE = 300
"""Seconds that a token is good for; clients take less than 60 for a mistake."""

_T = TypeVar("_T", bound=msgspec.Struct)
_ALGORITHM = "ES256"
_SKEW = 60  # seconds; between the machines of a cluster, and after a clock was set back
_MAX_CHARACTERS = 65536
_REMEMBERED = 512


class _Access(msgspec.Struct):
    type: str
    name: str
    actions: list[str]


class _Head(msgspec.Struct):
    kid: str = ""


class _Issuer(msgspec.Struct):
    iss: str = ""


class _Claims(msgspec.Struct):
    iss: str
    sub: str
    aud: str
    exp: int
    nbf: int
    access: list[_Access] = []
    uid: int = 0
    set: float = 0.0
    tid: str = ""


class Minted(Struct, frozen=True):
    """A new token. Times are Unix times, in whole seconds."""

    text: str
    issued_at: int
    expires_in: int = LIFE


class Holder(Struct, frozen=True):
    """Whom a token is made for: a user, when his password was last set, and the number of the token that he showed."""

    name: str = ""
    user: int = 0
    password_set: float = 0.0
    token: str = ""


NOBODY = Holder()


class Shown(Struct, frozen=True):
    """What a token of ours says. `subject` is the user's name, "" for nobody in particular."""

    subject: str
    service: str
    access: tuple[Scope, ...]
    until: int
    holder: Holder = NOBODY


class Tokens:
    """Signs and recognises. One for a worker; `recognise` takes a quarter of a millisecond the first time."""

    def __init__(self, keys: Keys, *, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._clock = clock
        self._known: dict[str, Shown] = {}

    def mint(self, subject: str, service: str, access: Sequence[Scope], holder: Holder = NOBODY) -> Minted:
        """A token for a service, granting what is given. Two tenths of a millisecond."""
        now = int(self._clock())
        claims: jwt.Claims = {
            "iss": self._keys.issuer,
            "sub": subject,
            "aud": service,
            "exp": now + LIFE,
            "nbf": now,
            "iat": now,
            "jti": secrets.token_urlsafe(16),
            "access": [{"type": one.type, "name": one.name, "actions": list(one.actions)} for one in access],
            **({"uid": holder.user, "set": holder.password_set, "tid": holder.token} if holder.user else {}),
        }
        head = {"typ": "JWT", "alg": _ALGORITHM, "kid": self._keys.signing_id}
        return Minted(jwt.encode(head, claims, self._keys.signing, algorithms=[_ALGORITHM]), now)

    def recognise(self, authorization: str | None) -> Shown | None:
        """What the token of an Authorization field says; None if there is none, or it is not ours.

        Raises WrongCredentials (RFC 6750 section 3.1) for one that says it is ours and is not good.
        """
        scheme, _, text = (authorization or "").strip().partition(" ")
        text = text.strip()
        if scheme.lower() != "bearer" or len(text) > _MAX_CHARACTERS:
            return None
        shown = self._known.get(text)
        if shown is None:
            parts = text.split(".")
            if len(parts) != 3:
                return None
            key_id = _peek(parts[0], _Head()).kid
            if self._keys.find(key_id) is None and _peek(parts[1], _Issuer()).iss != self._keys.issuer:
                return None
            shown = self._verify(text, key_id)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[text] = shown
        if self._clock() >= shown.until:
            raise _refusal("the token has expired")
        return shown

    def _verify(self, text: str, key_id: str) -> Shown:
        key = self._keys.find(key_id)
        if key is None:
            raise _refusal("the token is signed with a key that is not in use any more")
        try:
            token = jwt.decode(text, key, algorithms=[_ALGORITHM])
            claims = msgspec.convert(token.claims, _Claims)
        except (JoseError, msgspec.ValidationError, ValueError, TypeError, RecursionError):
            # The last two: a stranger's head is read before its signature, and joserfc expects JSON of the usual types.
            raise _refusal("the token's signature is wrong, or it was changed") from None
        if claims.iss != self._keys.issuer or claims.nbf > self._clock() + _SKEW:
            raise _refusal("the token is not for use here, or not yet")
        access = tuple(Scope(one.type, one.name, tuple(one.actions)) for one in claims.access)
        holder = Holder(claims.sub, claims.uid, claims.set, claims.tid) if claims.uid else NOBODY
        return Shown(claims.sub, claims.aud, access, claims.exp, holder)


def _refusal(why: str) -> WrongCredentials:
    return WrongCredentials(f"{why}: get another", error="invalid_token")


def _peek(part: str, nothing: _T) -> _T:
    """What a part of a token says, unverified; nothing if it cannot be read."""
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        return msgspec.json.decode(data, type=type(nothing))
    except (ValueError, msgspec.DecodeError, RecursionError):
        return nothing
