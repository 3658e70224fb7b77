"""Who may what, in the configuration: `[[permission]]` and `[access]`. Values; `access.rules` decides by them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from mxart.actions import Action
from mxart.patterns import PathPattern

_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}\Z")

NAME_RULE = "at most 64 of a-z 0-9 . _ @ -, beginning with a letter or digit"


class Permission(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One rule. What is left out holds for every repository and every path; who and what never are."""

    actions: Action | tuple[Action, ...]
    repository: str | tuple[str, ...] = "*"
    path: str = "**"
    users: str | tuple[str, ...] = ()
    groups: str | tuple[str, ...] = ()
    effect: Literal["allow", "deny"] = "allow"

    @property
    def repositories(self) -> tuple[str, ...] | None:
        """Those it names; None: all."""
        return None if self.repository == "*" else _several(self.repository)

    @property
    def user_names(self) -> tuple[str, ...]:
        """The users it names."""
        return _several(self.users)

    @property
    def group_names(self) -> tuple[str, ...]:
        """The groups it names."""
        return _several(self.groups)

    @property
    def action_names(self) -> frozenset[Action]:
        """The actions it names."""
        return frozenset((self.actions,) if isinstance(self.actions, str) else self.actions)


class AccessSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[access]`. `url` is how clients reach us where it is not what they wrote: behind a reverse proxy."""

    url: str = ""
    audit_bytes: int | str = "64MiB"  # the audit log begins another file at this size


def _several(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def is_user_name(text: str) -> bool:
    """Whether users and groups may be called so."""
    return _NAME.match(text) is not None


def check_permissions(permissions: tuple[Permission, ...], repositories: Collection[str]) -> Iterator[tuple[str, str]]:
    """Every fault: its key, and what would be right."""
    for index, permission in enumerate(permissions):
        place = f"permission[{index}]"
        for name in permission.repositories or ():
            if name not in repositories:
                yield f"{place}.repository", f'there is no [repository.{name}]; "*" is for all of them'
        if permission.repositories == ():
            yield f"{place}.repository", 'name a repository, or "*" for all of them'
        try:
            PathPattern.parse(permission.path)
        except ValueError as error:
            yield f"{place}.path", str(error)
        if not permission.action_names:
            yield f"{place}.actions", 'what is it about? write actions = ["read"]'
        if not permission.user_names and not permission.group_names:
            yield (
                place,
                'whom is it for? write users = ["ann"], groups = ["team"], or groups = "anonymous" for everybody',
            )
        for key, names in (("users", permission.user_names), ("groups", permission.group_names)):
            for name in names:
                if not is_user_name(name):
                    yield f"{place}.{key}", f"{name!r} is no name: {NAME_RULE}"
        for name in permission.user_names:
            if name in ("anonymous", "users"):
                yield f"{place}.users", f'{name} is a group: write groups = "{name}"'


def check_url(url: str) -> Iterator[tuple[str, str]]:
    """Whether `[access] url` can be the beginning of a realm."""
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query):
        yield "access.url", f"{url!r}: write https://host or https://host:port, without a path"
    elif parts.username or parts.password:
        yield "access.url", "a URL that clients are told holds no password"
