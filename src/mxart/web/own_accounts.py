"""What a user does for himself, and those who manage everything for him: password, tokens.

A token's text is in the answer that makes it, and nowhere else ever again.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import Annotated

import trio
from msgspec import Meta

from mxart.access.base import Action
from mxart.access.credentials import MAX_PASSWORD, verify_password
from mxart.access.management import Management, parse_life
from mxart.access.people import Token
from mxart.errors import BadRequest, Forbidden, NotFound
from mxart.web.operations import ANYBODY, Asked, Needs, Nothing, Operation, Paged, Record, operation, when
from mxart.web.users import HASHING, OneUser, UserName, UserShown, shown

TokenId = Annotated[str, Meta(pattern=r"^[0-9a-f]{1,64}\Z", description="A token's id: the middle of its text.")]

_OWN = Needs("manage", own="user")


class WhoAmI(Record, frozen=True, kw_only=True):
    """Whom the server takes you for. `user` null: nobody in particular."""

    user: UserShown | None


class NewPassword(Record, frozen=True, kw_only=True):
    """A password to be. `current` is the one until now: needed for your own."""

    password: Annotated[str, Meta(max_length=MAX_PASSWORD)]
    current: Annotated[str, Meta(max_length=MAX_PASSWORD)] = ""


class TokensOf(Paged, frozen=True, kw_only=True):
    """The tokens of a user."""

    user: UserName


class OneToken(Record, frozen=True, kw_only=True):
    """A token of a user."""

    user: UserName
    token: TokenId


class NewToken(Record, frozen=True, kw_only=True):
    """A token to be made. It may do what its user may, and no more than `actions` in `repositories`, if they are given.

    A repository may come with a pattern of paths.
    """

    name: Annotated[str, Meta(min_length=1, max_length=128, description="To know it by.")]
    expires: Annotated[str, Meta(max_length=32, description="In how long: 12h, 30d, 52w, or never.")] = "90d"
    actions: tuple[Action, ...] = ()
    repositories: Annotated[tuple[str, ...], Meta(max_length=100, examples=[["oci", "oci:team/**"]])] = ()


class TokenShown(Record, frozen=True, kw_only=True):
    """A token, without its text. `kind` login: what a client keeps instead of a password."""

    id: str
    user: str
    kind: str
    name: str
    created: datetime
    expires: datetime | None
    actions: list[str]
    repositories: list[str]


class TokenMade(Record, frozen=True, kw_only=True):
    """A token that was made just now. `text` is to be kept: nobody can get it again."""

    text: str
    token: TokenShown


class TokensShown(Record, frozen=True, kw_only=True):
    """A page of tokens, by their ids."""

    items: list[TokenShown]
    next: str = ""


class OwnAccounts:
    """Passwords and tokens."""

    def __init__(self, management: Management) -> None:
        self._management = management
        self._directory = management.directory
        self._hashing = trio.CapacityLimiter(HASHING)

    def operations(self) -> Iterator[Operation[Record, Record]]:
        """This part of the table."""
        yield operation("whoAmI", "GET", "/whoami", "Whom the server takes you for.", ANYBODY, self._who, tag="users")
        yield operation(
            "changePassword",
            "PUT",
            "/users/{user}/password",
            "Change a password; logins made with the old one end.",
            _OWN,
            self._password,
            tag="users",
        )
        yield operation(
            "listTokens", "GET", "/users/{user}/tokens", "The tokens of a user.", _OWN, self._tokens, tag="tokens"
        )
        yield operation(
            "createToken",
            "POST",
            "/users/{user}/tokens",
            "Make a token; the answer is the only one that shows it.",
            _OWN,
            self._create,
            tag="tokens",
            status=201,
            secret=True,
        )
        yield operation(
            "revokeToken",
            "DELETE",
            "/users/{user}/tokens/{token}",
            "Revoke a token, at once, with all that was got by it.",
            _OWN,
            self._revoke,
            tag="tokens",
        )

    async def _who(self, asked: Asked[Nothing, Nothing]) -> WhoAmI:
        user = self._directory.user(asked.caller.name) if asked.caller.name else None
        return WhoAmI(user=shown(user) if user is not None else None)

    async def _password(self, asked: Asked[OneUser, NewPassword]) -> Nothing:
        name, body = asked.where.user, asked.body
        kept = self._directory.password(name) if name == asked.caller.name else None

        def change() -> None:
            if kept is not None and not verify_password(kept, body.current):
                raise Forbidden("the current password is another one", subject="current")
            self._management.change_password(name, body.password)

        await trio.to_thread.run_sync(change, limiter=self._hashing)
        return Nothing()

    async def _tokens(self, asked: Asked[TokensOf, Nothing]) -> TokensShown:
        where = asked.where
        self._management.user(where.user)
        tokens = sorted(self._directory.tokens(where.user), key=lambda token: token.id)
        left = [token for token in tokens if token.id > where.after]
        items = [_shown(token) for token in left[: where.limit]]
        return TokensShown(items=items, next=items[-1].id if len(left) > len(items) else "")

    async def _create(self, asked: Asked[OneUser, NewToken]) -> TokenMade:
        body = asked.body
        create = partial(
            self._management.create_token,
            asked.where.user,
            body.name,
            seconds=_life(body.expires),
            actions=body.actions,
            repositories=body.repositories,
        )
        token, text = await trio.to_thread.run_sync(create)
        asked.request.trace.about = f"token {token.id} {token.name!r}: {token.ceiling}"
        return TokenMade(text=text, token=_shown(token))

    async def _revoke(self, asked: Asked[OneToken, Nothing]) -> Nothing:
        token = self._directory.token(asked.where.token)
        if token is None or token.user != asked.where.user:
            raise NotFound(f"{asked.where.user} has no token {asked.where.token}", subject="token")
        await trio.to_thread.run_sync(self._directory.revoke, token.id)
        return Nothing()


def _life(text: str) -> float | None:
    try:
        return parse_life(text)
    except BadRequest as problem:
        problem.subject = "expires"
        raise


def _shown(token: Token) -> TokenShown:
    actions, places = token.ceiling.words()
    return TokenShown(
        id=token.id,
        user=token.user,
        kind=token.kind,
        name=token.name,
        created=when(token.created),
        expires=when(token.expires) if token.expires is not None else None,
        actions=list(actions),
        repositories=list(places),
    )
