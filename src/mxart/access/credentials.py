"""What users and programs prove themselves with: passwords, which people choose, and tokens, which nobody does.

A password is kept as argon2id (RFC 9106), which makes each guess cost some memory and tens of milliseconds, so these
functions block: they are for a thread.  A token is random enough that nobody guesses it: a plain hash will do, in
microseconds.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from functools import lru_cache
from hmac import compare_digest
from typing import TYPE_CHECKING

from msgspec import Struct

from mxart.errors import BadRequest

if TYPE_CHECKING:  # it takes a while to import, and is needed when somebody logs in
    from argon2 import PasswordHasher

API_PREFIX, LOGIN_PREFIX = "mxt", "mxr"
MIN_PASSWORD, MAX_PASSWORD = 8, 1024

_TOKEN = re.compile(r"(mxt|mxr)_([0-9a-f]{12})_([0-9a-f]{48})\Z")
_SECRET = re.compile(r"(?i:(mx[tr]_[0-9a-f]{12}_)[0-9a-f]+)")


@lru_cache(maxsize=1)
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher  # noqa: PLC0415  # see above

    # Above OWASP's least (19 MiB, 2 passes); one lane, so that a login takes one processor, not all of them.
    return PasswordHasher(time_cost=3, memory_cost=32 << 10, parallelism=1)


def check_password(password: str) -> None:
    """Raises BadRequest for one that is not fit to be a user's."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise BadRequest(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    if not password.isprintable():
        raise BadRequest("a password has no control characters in it")


def hash_password(password: str) -> str:
    """What to keep of a password. Tens of milliseconds; blocks."""
    return _hasher().hash(password)


def verify_password(kept: str, password: str) -> bool:
    """Whether it is that password. `kept` "" is nobody's: it takes as long, and is wrong. Blocks."""
    from argon2.exceptions import InvalidHashError, VerificationError  # noqa: PLC0415  # see above

    try:
        right = _hasher().verify(kept or _nobodys(), password[:MAX_PASSWORD])
    except (VerificationError, InvalidHashError):
        return False
    return right and bool(kept) and len(password) <= MAX_PASSWORD


@lru_cache(maxsize=1)
def _nobodys() -> str:
    return hash_password(secrets.token_hex(16))


class NewToken(Struct, frozen=True):
    """A token that was made just now: the text, to be shown once, and what is kept of it."""

    text: str
    id: str
    hash: bytes


def new_token(prefix: str) -> NewToken:
    """A token of 192 random bits."""
    name, secret = secrets.token_hex(6), secrets.token_hex(24)
    return NewToken(f"{prefix}_{name}_{secret}", name, _hash(secret))


class ShownToken(Struct, frozen=True):
    """A token as somebody shows it."""

    prefix: str
    id: str
    secret: str

    def is_kept_as(self, hash_: bytes) -> bool:
        """Whether it is the one of which that was kept."""
        return compare_digest(_hash(self.secret), hash_)


def parse_token(text: str) -> ShownToken | None:
    """A token of ours, by its looks; None for anything else."""
    match = _TOKEN.match(text)
    return ShownToken(match[1], match[2], match[3]) if match is not None else None


def holds_token(text: str) -> bool:
    """Whether a token of ours is anywhere in it: shown in the wrong place, with quotes around it, cut short."""
    return _SECRET.search(text) is not None


def without_secrets(text: str) -> str:
    """The same, for a log: of tokens of ours only their numbers."""
    return _SECRET.sub(r"\1...", text) if "_" in text else text


def _hash(secret: str) -> bytes:
    return hashlib.blake2b(secret.encode(), digest_size=32, person=b"mxart-token").digest()
