"""Who sends a request: the Authorization field becomes a user of ours, somebody of an upstream's, or nobody.

Ours are a user's password (Basic), a token that a user made (`mxt_…`, as Bearer or as anybody's Basic password), and
the signed tokens that we hand out (Bearer).  What has been verified is remembered by the field's own text until users
or tokens change, whoever changes them, so that it is looked up once and is a dictionary's question from then on.
Anything else is somebody else's: an upstream may know him.
"""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio
from msgspec import Struct
from msgspec.structs import replace

from mxart.access.base import WrongCredentials
from mxart.access.control import NOBODY, Access, Principal
from mxart.access.credentials import API_PREFIX, LOGIN_PREFIX, ShownToken, holds_token, parse_token
from mxart.access.directory import Directory
from mxart.access.people import UNBOUNDED, Token, User
from mxart.message import Headers, Request
from mxart.repos.callers import Caller
from mxart.server.grants import Granted
from mxart.server.guesses import Guesses
from mxart.server.names import Names
from mxart.server.passwords import Passwords
from mxart.server.routes import query_value

if TYPE_CHECKING:  # signing takes a while to import, and is only wanted when a signed token is shown or made
    from mxart.access.key_files import KeyFiles
    from mxart.access.tokens import Shown, Tokens

_REMEMBERED = 2048
_MAX_TEXT = 8192  # longer credentials are looked at each time: memory is not for strangers to fill


class Identity(Struct, frozen=True):
    """Who asks. `ours`: by credentials of ours.  `foreign`: by somebody else's, which the caller holds for upstream.

    `until` is when what was shown runs out, in Unix time.
    """

    caller: Caller
    principal: Principal
    ours: bool = False
    foreign: bool = False
    until: float = math.inf


class Signer:
    """Our signed tokens, ready when they are first wanted."""

    def __init__(self, files: KeyFiles, clock: Callable[[], float] = time.time) -> None:
        self._files = files
        self._clock = clock
        self._tokens: Tokens | None = None
        self._turn = trio.Lock()

    async def ready(self) -> Tokens:
        """What signs and recognises."""
        if self._tokens is None:
            async with self._turn:
                if self._tokens is None:
                    self._tokens = await trio.to_thread.run_sync(self._load)
        return self._tokens

    def _load(self) -> Tokens:
        from mxart.access.keys import Keys  # noqa: PLC0415  # see above
        from mxart.access.tokens import Tokens  # noqa: PLC0415  # joserfc takes a while

        return Tokens(Keys.load(self._files), clock=self._clock)


class Authenticator:
    """Of one worker."""

    def __init__(
        self,
        access: Access,
        directory: Directory,
        signer: Signer,
        guesses: Guesses,
        names: Names,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory = directory
        self.access = access
        self.names = names
        self.signer = signer
        self._passwords = Passwords(directory, guesses, clock)
        self._clock = clock
        self._version = -1
        self._known: dict[object, Identity] = {}
        self._nobody = self._identity(NOBODY)
        self._nobodys_token = self._identity(NOBODY, ours=True, signed=True)

    # who sends a request

    def known(self, request: Request) -> Identity | None:
        """Who it is, if that needs no waiting: a microsecond or two."""
        self._settle()
        values = request.headers.get_all("authorization")
        if not values:
            return self._nobody
        text = values[0]
        found = self._known.get(text) or self._known.get(_signed_key(text, request))
        if found is None or len(values) > 1 or self._clock() >= found.until:
            return None
        return found

    async def identify(self, request: Request, by: str = "path") -> Identity:
        """Who it is; `by` is how the request was routed (ToRepository.by).

        Raises WrongCredentials for credentials of ours that are not good, TooManyRequests.
        """
        found = self.known(request)
        if found is not None:
            return found
        before = self._version
        caller = Caller.of(request.headers)  # who sends several fields, or of a kind that nobody takes, shows nothing
        text, address = caller.authorization, request.peer.address
        if not text:
            return self._nobody
        if caller.scheme == "basic":
            found = await self._basic(text, address)
        else:
            shown = text.partition(" ")[2].strip()
            token = parse_token(shown)
            if token is not None:
                found = self._by_token(await self._good(token, API_PREFIX, "", address))
            else:
                found = await self._signed(caller, request, by)
                if found is not None:
                    return self._remember(text, _signed_key(text, request), found, before)
        return self._remember(text, text, found or self._foreign(caller), before)

    def _foreign(self, caller: Caller) -> Identity:
        """Raises WrongCredentials for what was meant for us: an upstream would read it."""
        text = caller.authorization
        if caller.scheme == "basic":
            user, password = _decoded(text)
            if not user and not password:
                return replace(self._nobody, foreign=True)  # nobody can read it, and whose it is
            text = f"{user}:{password}"
        _refuse_token_in(text)
        return replace(
            self._nobody, caller=replace(self._nobody.caller, authorization=caller.authorization), foreign=True
        )

    async def refuse(self, request: Request) -> WrongCredentials:
        """The answer to credentials of nobody whom we know, where no upstream is asked about them.

        It takes as long as a wrong password. Raises TooManyRequests.
        """
        text, address = Caller.of(request.headers).authorization, request.peer.address
        if text[:5].lower() != "basic":
            return WrongCredentials("this token was not made here: get another", error="invalid_token")
        user, password = _decoded(text)
        await self._passwords.verify(user, password, address)
        return WrongCredentials("log in")  # he was made meanwhile: the next attempt is good

    async def _basic(self, text: str, address: str) -> Identity | None:
        user, password = _decoded(text)
        _refuse_token_in(user)
        token = parse_token(password)
        if token is not None:
            return self._by_token(await self._good(token, API_PREFIX, user, address))
        if self.directory.user(user.strip().lower()) is None:  # a name of ours, mistyped, is wrong and nobody else's
            return None
        return self._by_user(await self._passwords.verify(user, password, address))

    async def login(self, user: str, password: str, address: str) -> Principal:
        """Who shows a name and a password, or a token for one: at the token endpoint.

        Raises WrongCredentials, TooManyRequests.
        """
        _refuse_token_in(user)
        token = parse_token(password)
        if token is not None:
            prefix = token.prefix if user in {"", "<token>"} else API_PREFIX
            return self._by_token(await self._good(token, prefix, user, address)).principal
        return Principal(await self._passwords.verify(user, password, address))

    async def refresh(self, text: str, address: str) -> Principal:
        """Who shows a refresh token, or a token of a user's own in its place. Raises as `login`."""
        token = parse_token(text)
        if token is None:
            await self._passwords.slowly("", address)
            self._passwords.guessed("", address)
            raise WrongCredentials("this is no refresh token of ours: log in again")
        return self._by_token(await self._good(token, token.prefix, "", address)).principal

    # tokens

    async def _good(self, shown: ShownToken, prefix: str, user: str, address: str) -> Token:
        """A token that is good, and of the kind that is wanted; shown by the user of that name, if by one of ours."""
        kept = self.directory.token(shown.id)
        kind = {API_PREFIX: "api", LOGIN_PREFIX: "login"}[shown.prefix]
        if kept is None or kept.kind != kind or not shown.is_kept_as(kept.hash):
            await self._passwords.slowly("", address)
            self._passwords.guessed("", address)
            raise WrongCredentials("this token is not good: it was revoked, or never made here", who=user)
        if shown.prefix != prefix:
            raise WrongCredentials("a login token is for the token endpoint only: log in again", who=kept.user)
        return kept

    def _by_token(self, token: Token) -> Identity:
        """Raises WrongCredentials if it has expired, or its user may not come in."""
        until = self._lasts(token)
        user = self.directory.user(token.user)
        if user is None or user.disabled:
            raise WrongCredentials(f"the user {token.user} is disabled, or gone", who=token.user)
        return self._identity(Principal(user, token.id, token.ceiling), ours=True, until=until)

    def _lasts(self, token: Token) -> float:
        """Until when a token is good, with the one that it was got by. Raises WrongCredentials if it is over."""
        until = math.inf
        link: Token | None = token
        while link is not None:
            if link.is_over(self._clock()):
                raise WrongCredentials("this token has expired: make another", who=token.user)
            until = min(until, math.inf if link.expires is None else link.expires)
            link = self.directory.token(link.parent) if link.parent else None
        return until

    def _by_user(self, user: User) -> Identity:
        return self._identity(Principal(user), ours=True)

    async def _signed(self, caller: Caller, request: Request, by: str) -> Identity | None:
        """The bearer of a signed token; None if it is not one of ours."""
        if caller.authorization.count(".") != 2:
            return None
        shown = (await self.signer.ready()).recognise(caller.authorization)
        if shown is None:
            return None
        if not self.names.is_service(shown.service, request, by):
            raise WrongCredentials(
                f"the token is for {shown.service}, not for here: get another", error="invalid_token"
            )
        principal, until = self._holder(shown, request)
        if principal is NOBODY:  # with what was decided for nobody in particular: strangers may have many tokens
            return replace(self._nobodys_token, until=shown.until)
        return self._identity(principal, ours=True, signed=True, until=min(until, shown.until))

    def _holder(self, shown: Shown, request: Request) -> tuple[Principal, float]:
        """For whom a signed token was made, as he is now, and until when his own token lasts."""
        holder = shown.holder
        if not holder.user:
            return NOBODY, math.inf
        user = self.directory.user_of(holder.user)
        if user is None or user.disabled:
            raise WrongCredentials(f"{holder.name} is disabled, or gone", who=holder.name, error="invalid_token")
        ceiling, until = UNBOUNDED, math.inf
        if holder.token:
            token = self.directory.token(holder.token)
            if token is None:
                raise WrongCredentials("the token behind this one was revoked", who=user.name, error="invalid_token")
            ceiling, until = token.ceiling, self._lasts(token)
        elif user.changed != holder.password_set:
            raise WrongCredentials("the password has been changed since", who=user.name, error="invalid_token")
        return Principal(user, holder.token, ceiling, self.names.scopes(request, shown.access)), until

    # memory

    def _identity(
        self, principal: Principal, *, ours: bool = False, signed: bool = False, until: float = math.inf
    ) -> Identity:
        caller = Caller(
            name=principal.name, token=principal.token, grants=Granted(self.access, principal, signed=signed)
        )
        return Identity(caller, principal, ours=ours, until=until)

    def _settle(self) -> int:
        """Forget what may hold no longer; the number of what is remembered from here on."""
        version = self.directory.version()
        if version != self._version:
            self._version = version
            self._known.clear()
            self._nobody = self._identity(NOBODY)
            self._nobodys_token = self._identity(NOBODY, ours=True, signed=True)
        return version

    def _remember(self, text: str, key: object, identity: Identity, before: int) -> Identity:
        if before != self._settle() or len(text) > _MAX_TEXT:
            return identity  # if something has changed while we looked, the next request looks again
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[key] = identity
        return identity


def _signed_key(text: str, request: Request) -> tuple[str, str, str | None, str | None]:
    """A signed token's scopes are names as clients see them: by this host, and for this `ns`."""
    namespace = query_value(request.query, "ns") if "ns=" in request.target else None
    return text, request.authority, request.peer.sni, namespace


def basic_of(headers: Headers) -> tuple[str, str]:
    """User and password of a request's Basic credentials; both "" if it shows none.

    Raises WrongCredentials if it shows some that cannot be read.
    """
    caller = Caller.of(headers)
    if caller.scheme != "basic":
        return "", ""
    found = _decoded(caller.authorization)
    if found == ("", "") and caller.authorization[6:].strip() != "Og==":
        raise WrongCredentials("the credentials cannot be read: Basic is user:password in base64")
    return found


def _refuse_token_in(text: str) -> None:
    """Raises WrongCredentials where a token of ours stands in a place that is not a token's."""
    if holds_token(text):
        raise WrongCredentials("show a token as it is: as the password, beside any user name, or behind Bearer")


def _decoded(authorization: str) -> tuple[str, str]:
    """User and password of Basic credentials (RFC 7617); both "" if they cannot be read."""
    try:
        data = base64.b64decode(authorization.partition(" ")[2].strip(), validate=True)
    except ValueError:
        return "", ""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    user, colon, password = text.partition(":")
    return (user, password) if colon else ("", "")
