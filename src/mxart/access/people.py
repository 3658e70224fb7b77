"""Users, tokens, and what bounds a token: values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

import msgspec
from msgspec import Struct

from mxart.access.base import ACTIONS, Action
from mxart.discreet import Discreet
from mxart.errors import BadRequest
from mxart.patterns import EVERYWHERE, PathPattern

Kind = Literal["api", "login"]
"""api: made by a user, for programs.  login: what `docker login` keeps instead of a password (a refresh token)."""


class User(Struct, frozen=True):
    """Somebody who can log in. `id` is never another's; `changed` is when the password was last set (Unix time).

    A robot has no password, only tokens.
    """

    id: int
    name: str
    groups: frozenset[str] = frozenset()
    robot: bool = False
    disabled: bool = False
    created: float = 0.0
    changed: float = 0.0


class Ceiling(Struct, frozen=True):
    """The most that a token is good for. `actions` None: all; `places` None: everywhere.

    A place is a repository, "*" for every one, and a pattern of paths in it.
    """

    actions: frozenset[Action] | None = None
    places: tuple[tuple[str, PathPattern], ...] | None = None

    @classmethod
    def of(cls, actions: Iterable[str] = (), places: Iterable[str] = ()) -> Ceiling:
        """From words: "publish", and "oci" or "oci:team/**". None of a kind sets no bound. Raises BadRequest."""
        actions, places = tuple(actions), tuple(places)
        for action in actions:
            if action not in ACTIONS:
                raise BadRequest(f"{action!r} is no action: {', '.join(ACTIONS)}")
        return cls(
            frozenset(action for action in ACTIONS if action in actions) if actions else None,
            tuple(map(_place, places)) if places else None,
        )

    def allows(self, action: Action, repository: str, path: str) -> bool:
        """Whether it lets this pass."""
        if self.actions is not None and action not in self.actions:
            return False
        return self.places is None or any(
            name in {"*", repository} and pattern.matches(path) for name, pattern in self.places
        )

    def words(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Actions and places, as `of` takes them."""
        actions = () if self.actions is None else tuple(action for action in ACTIONS if action in self.actions)
        return actions, tuple(f"{name}:{pattern.text}" for name, pattern in self.places or ())

    def encode(self) -> str:
        """As text, for the database."""
        return msgspec.json.encode(self.words()).decode()

    @classmethod
    def decode(cls, text: str) -> Ceiling:
        """What `encode` made."""
        return cls.of(*msgspec.json.decode(text, type=tuple[tuple[str, ...], tuple[str, ...]]))

    def __str__(self) -> str:
        actions, places = self.words()
        return f"{', '.join(actions) or 'everything'} in {', '.join(places) or 'every repository'}"


UNBOUNDED = Ceiling()


def _place(text: str) -> tuple[str, PathPattern]:
    name, colon, pattern = text.partition(":")
    if not name:
        raise BadRequest(f'{text!r}: write a repository, "oci", or one with a pattern of paths, "oci:team/**"')
    try:
        return name, PathPattern.parse(pattern) if colon else EVERYWHERE
    except ValueError as error:
        raise BadRequest(str(error)) from None


class Token(Discreet, frozen=True):
    """What is kept of a token. `expires` None: never. A `parent` is the token that it was asked for with."""

    hidden: ClassVar = frozenset({"hash"})

    id: str
    user: str
    kind: Kind
    name: str
    created: float
    expires: float | None
    ceiling: Ceiling
    parent: str | None = None
    hash: bytes = b""

    def is_over(self, now: float) -> bool:
        """Whether it has expired."""
        return self.expires is not None and now >= self.expires
