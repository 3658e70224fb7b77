"""Tokens of registries (distribution's token protocol, and RFC 6750): obtained, remembered, renewed.

Theory of operation
-------------------
A server that wants a token says where to get it: `Bearer realm="https://auth.example/token",service=…,
scope=…`.  We ask there, anonymously or with the upstream's credentials, and keep the token under realm,
service, scopes and credentials until most of its life is over, so that it never ends in mid-pull.  However many
requests need the same token at one time, one of them fetches it: the others wait on its lock, and if it
failed, fail with it.

The realm is the server's word, so it is not trusted: credentials only go to a realm of the upstream's own
registrable domain (CVE-2026-33540), and plain http is used only where the upstream itself is reached so.
"""

from __future__ import annotations

import logging
import time
from base64 import b64encode
from collections.abc import Callable
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import ClassVar, Protocol
from urllib.parse import urlencode

import msgspec
import trio
from msgspec import Struct, field

from mxart.discreet import Discreet
from mxart.upstream.challenge import Challenge
from mxart.upstream.failure import Cause, Trouble, status_trouble
from mxart.upstream.url import Origin, Url, is_ip, same_site

_log = logging.getLogger("mxart.upstream")
_ANSWER_BYTES = 1 << 20
_SHORTEST_LIFE = 60.0  # seconds; also what holds where nothing is said
_REMEMBERED = 1024


class Credentials(Discreet, frozen=True):
    """What an upstream knows us by: a user's name and password, or a static bearer token, or nothing.

    The name "<token>" says that the password is an identity (refresh) token, as docker stores them.
    """

    hidden: ClassVar = frozenset({"password", "token"})

    username: str = ""
    password: str = ""
    token: str = ""

    @property
    def anonymous(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.username or self.password or self.token)

    @property
    def basic(self) -> str | None:
        """The Authorization value with name and password (RFC 7617), None without them."""
        if not self.username and not self.password:
            return None
        return "Basic " + b64encode(f"{self.username}:{self.password}".encode()).decode()


ANONYMOUS = Credentials()


class Fetch(Protocol):
    """One small HTTP exchange."""

    async def __call__(
        self, method: str, url: Url, headers: tuple[tuple[str, str], ...], body: bytes, max_bytes: int
    ) -> tuple[int, bytes, float | None]:
        """Status, body, and the seconds of a Retry-After. Raises Trouble; follows no redirect."""
        ...


class _Answer(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None
    issued_at: str | None = None


class Want(Struct, frozen=True):
    """What a token is to be for: the key under which it is remembered."""

    realm: Url
    service: str
    scopes: tuple[str, ...]
    credentials: Credentials

    @property
    def challenge(self) -> Challenge:
        """The challenge that wants this."""
        parameters = {"realm": f"{self.realm.origin}{self.realm.target}"}
        if self.service:
            parameters["service"] = self.service
        if self.scopes:
            parameters["scope"] = " ".join(self.scopes)
        return Challenge("bearer", parameters)


class _Entry(Struct):
    lock: trio.Lock = field(default_factory=trio.Lock)
    token: str = ""
    renew_at: float = 0.0  # trio's clock
    failed_at: float = -1.0
    failure: Trouble | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class Tokens:
    """The tokens of one upstream."""

    def __init__(self, fetch: Fetch, wall: Callable[[], float] = time.time) -> None:
        self._fetch = fetch
        self._wall = wall
        self._entries: dict[Want, _Entry] = {}

    def want(self, challenge: Challenge, upstream: Origin, credentials: Credentials, scope: str) -> Want:
        """What a challenge by `upstream` asks for. Raises Trouble if its realm must not be asked."""
        try:
            realm = Url.parse(challenge.get("realm"))
        except ValueError as error:
            raise Trouble(Cause.TOKENS, f"{upstream} names no usable token server: {error}") from None
        home = _at_home(upstream, realm.origin)
        if realm.origin.scheme != "https" and not (upstream.scheme == "http" and home):
            raise Trouble(Cause.TOKENS, f"{upstream} names the token server {realm}, which is not https")
        if not home and not credentials.anonymous:
            _log.warning("%s names the token server %s of another domain: it gets no credentials", upstream, realm)
            credentials = ANONYMOUS
        scopes = challenge.get("scope").split()
        for one in scope.split():
            if one not in scopes:
                scopes.append(one)  # behind the challenge's own: some servers read only the first
        return Want(realm, challenge.get("service"), tuple(scopes), credentials)

    def known(self, want: Want) -> str | None:
        """A token that still has some life in it; no I/O."""
        entry = self._entries.get(want)
        return entry.token if entry is not None and entry.token and trio.current_time() < entry.renew_at else None

    def reject(self, want: Want, token: str) -> None:
        """The upstream did not take this token: forget it, unless it was replaced already."""
        entry = self._entries.get(want)
        if entry is not None and entry.token == token:
            entry.token = ""

    async def get(self, want: Want) -> str:
        """A token, from memory or from the realm. Raises Trouble. Cancelled: whoever waits as well fetches it."""
        if (token := self.known(want)) is not None:
            return token
        entry = self._entries.get(want)
        if entry is None:
            self._forget_some()
            entry = self._entries[want] = _Entry()
        since = trio.current_time()
        async with entry.lock:
            if entry.token and trio.current_time() < entry.renew_at:
                return entry.token
            if entry.failure is not None and entry.failed_at >= since:
                raise entry.failure.told_as(entry.failure.detail)  # whoever has it marks it as his own
            try:
                token, life = await self._obtain(want)
            except Trouble as error:
                entry.failure, entry.failed_at = error.told_as(error.detail), trio.current_time()
                raise
            entry.token, entry.failure = token, None
            entry.renew_at = trio.current_time() + life
            return token

    def _forget_some(self) -> None:
        if len(self._entries) >= _REMEMBERED:
            now = trio.current_time()
            idle = [key for key, entry in self._entries.items() if not entry.lock.locked()]
            dead = [key for key in idle if self._entries[key].renew_at <= now]
            for key in dead or idle[: _REMEMBERED // 4]:
                del self._entries[key]

    async def _obtain(self, want: Want) -> tuple[str, float]:
        if want.credentials.username == "<token>":
            status, body, wait = await self._refresh(want)
        else:
            query = [("service", want.service)] if want.service else []
            query += [("scope", scope) for scope in want.scopes]
            headers: tuple[tuple[str, str], ...] = ()
            if basic := want.credentials.basic:
                query.append(("account", want.credentials.username))
                headers = (("authorization", basic),)
            url = want.realm.with_query(urlencode(query))
            status, body, wait = await self._fetch("GET", url, headers, b"", _ANSWER_BYTES)
        if status != 200:
            raise self._refused(want, status, body, wait)
        return self._read(want, body)

    async def _refresh(self, want: Want) -> tuple[int, bytes, float | None]:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": want.credentials.password,
            "service": want.service,
            "client_id": "mxart",
            "scope": " ".join(want.scopes),
        }
        headers = (("content-type", "application/x-www-form-urlencoded"),)
        return await self._fetch("POST", want.realm, headers, urlencode(form).encode(), _ANSWER_BYTES)

    def _refused(self, want: Want, status: int, body: bytes, wait: float | None) -> Trouble:
        if status == 403 and body.lstrip()[:1] == b"<":  # a page for people: of a filter on the way
            return Trouble(Cause.TOKENS, f"the token server {want.realm} answers {status} with a page")
        if status in (400, 401, 403):
            who = "refuses an anonymous token" if want.credentials.anonymous else "refuses the configured credentials"
            return Trouble(Cause.UNAUTHORIZED, f"the token server {want.realm} {who} ({status})")
        if status < 400 or status in (404, 405, 410):
            return Trouble(Cause.TOKENS, f"the token server {want.realm} answers {status}")
        return status_trouble(status, f"the token server {want.realm} answers {status}", wait)

    def _read(self, want: Want, body: bytes) -> tuple[str, float]:
        try:
            answer = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Trouble(Cause.PROTOCOL, f"the token server {want.realm} sent no token, but something else") from None
        token = answer.token or answer.access_token or ""
        if not token or not token.isascii() or not token.isprintable():
            raise Trouble(Cause.PROTOCOL, f"the token server {want.realm} sent no usable token")
        life = max(answer.expires_in or 0.0, _SHORTEST_LIFE)
        return token, max(life - self._age(answer.issued_at, life), 0.0) * 0.8

    def _age(self, issued_at: str | None, life: float) -> float:
        """How old a token is as it comes: some servers hand out one from their own cache.

        Only believed within the token's life; clocks that disagree by more would make every token worthless.
        """
        seconds = _timestamp(issued_at)
        age = 0.0 if seconds is None else self._wall() - seconds
        return age if 0.0 < age < life * 0.75 else 0.0


def _timestamp(text: str | None) -> float | None:
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None


def _at_home(upstream: Origin, realm: Origin) -> bool:
    """Whether a realm belongs to the upstream: the same site; an IP address (of a test, a lab) on any port."""
    if is_ip(upstream.host):
        return upstream.host == realm.host and not (upstream.scheme == "https" and realm.scheme == "http")
    return same_site(upstream, realm)
