"""`Access.decide`: the one function that decides who may do what, and says why.

What the rules let a user do is cut down by the ceiling of the token that he shows, and by the scopes of a signed one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct, field

from mxart.access.base import Action
from mxart.access.directory import Directory
from mxart.access.people import UNBOUNDED, Ceiling, User
from mxart.access.rules import Rule, Rules
from mxart.config import Config
from mxart.patterns import PathPattern

Place = tuple[str, str]
"""A repository and a package."""


class Scopes(Struct, frozen=True):
    """What a signed token says that it is for. `catalog`: the names of all packages, too."""

    places: Mapping[Place, frozenset[Action]] = field(default_factory=dict)
    catalog: bool = False


class Principal(Struct, frozen=True):
    """Who asks. `user` None: nobody in particular.

    `token` is the number of the API or login token that stands behind the request, "" for none; `scopes` None: the
    credentials set no bounds of their own.
    """

    user: User | None = None
    token: str = ""
    ceiling: Ceiling = UNBOUNDED
    scopes: Scopes | None = None

    @property
    def name(self) -> str:
        """The user's name; "" for nobody."""
        return self.user.name if self.user is not None else ""


NOBODY = Principal()


class Decision(Struct, frozen=True):
    """Whether somebody may do something; who or what decided, and why in words for people.

    `by`: rules, ceiling (of his token), scopes (of a signed token: another may be had), user (he is disabled).
    `rule` names the rule of the configuration, as "permission[2]"; "built in", "admins", or "" where there is none.
    """

    allowed: bool
    by: Literal["rules", "ceiling", "scopes", "user"]
    rule: str
    why: str


class Access:
    """The rules of a configuration."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    def decide(self, principal: Principal, action: Action, repository: str, path: str) -> Decision:
        """May the principal do this to a package, "" for the repository as a whole? Tens of microseconds."""
        user = principal.user
        if user is not None and user.disabled:
            return Decision(False, "user", "", f"{user.name} is disabled")
        groups = user.groups if user is not None else frozenset[str]()
        verdict = self.rules.decide(principal.name, groups, action, repository, path)
        rule = verdict.rule.place if verdict.rule is not None else ("admins" if verdict.allowed else "")
        if verdict.allowed and not principal.ceiling.allows(action, repository, path):
            why = f"the token {principal.token} is only good for {principal.ceiling}"
            return Decision(False, "ceiling", rule, why)
        if verdict.allowed and not _within(principal.scopes, action, repository, path):
            return Decision(False, "scopes", rule, f"the token that was shown was not asked for to {action} there")
        return Decision(verdict.allowed, "rules", rule, verdict.why)


def _within(scopes: Scopes | None, action: Action, repository: str, path: str) -> bool:
    if scopes is None:
        return True
    return action in scopes.places.get((repository, path), ()) or (
        scopes.catalog and action == "read" and not path  # the list of names; which of them, is decided for each
    )


def rules_of(config: Config) -> Rules:
    """The rules of a configuration, with those that are built in."""
    rules = (
        Rule(
            f"permission[{index}]",
            permission.effect,
            permission.action_names,
            frozenset(permission.repositories) if permission.repositories is not None else None,
            PathPattern.parse(permission.path),
            frozenset(permission.user_names),
            frozenset(permission.group_names),
        )
        for index, permission in enumerate(config.permissions)
    )
    return Rules(rules, publishable(config))


def publishable(config: Config) -> frozenset[str]:
    """The repositories that take what is published: local ones, and groups that hand it on to one."""
    return frozenset(
        name for name, repository in config.repositories.items() if repository.kind == "local" or repository.targets
    )


def principal_of(directory: Directory, user: str, token: str = "", now: float = 0.0) -> Principal | str:
    """Who somebody is, by name ("" for nobody), with the ceiling of one of his tokens; or why there is no such one."""
    if not user:
        return NOBODY
    found = directory.user(user)
    if found is None:
        return f"there is no user {user}"
    if not token:
        return Principal(found)
    kept = directory.token(token)
    if kept is None or kept.user != user:
        return f"{user} has no token {token}"
    if kept.is_over(now):
        return f"the token {token} has expired"
    return Principal(found, token, kept.ceiling)
