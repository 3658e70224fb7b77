"""Who may what, and why: the rules that hold, and the decision about one question, as `mxart check --as` tells it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mxart.access.base import Action
from mxart.access.control import Access, principal_of
from mxart.access.directory import Directory
from mxart.access.rules import EVERYBODY, Rule
from mxart.errors import NotFound
from mxart.web.operations import Asked, Needs, Nothing, Operation, Record, operation

_MANAGE = Needs("manage")


class RuleShown(Record, frozen=True, kw_only=True):
    """A rule. `place` names it: permission[2] of the configuration, or built in; `repositories` null: all of them."""

    place: str
    effect: Literal["allow", "deny"]
    actions: list[str]
    repositories: list[str] | None
    path: str
    users: list[str]
    groups: list[str]


class RulesShown(Record, frozen=True, kw_only=True):
    """All rules; those that are looked at first come first."""

    items: list[RuleShown]


class Question(Record, frozen=True, kw_only=True):
    """May somebody do something? `as`: a user, or "anonymous"; empty: you yourself, with your password."""

    action: Action
    repository: Annotated[str, Meta(min_length=1, max_length=64, description='A repository, or "*".')]
    as_: Annotated[str, Meta(max_length=128, description="A user, or anonymous; empty: you.")] = msgspec.field(
        name="as", default=""
    )
    path: Annotated[str, Meta(max_length=255, description="A package; empty: the repository as a whole.")] = ""
    token: Annotated[str, Meta(max_length=64, description="Within the ceiling of this token of the user's.")] = ""


class Explained(Record, frozen=True, kw_only=True):
    """The answer, and why. `by`: rules; ceiling, the token's; user, who is disabled. `rule` is the one that decided."""

    allowed: bool
    by: str
    rule: str
    why: str


class PermissionOperations:
    """Rules and decisions."""

    def __init__(self, access: Access, directory: Directory, clock: Callable[[], float] = time.time) -> None:
        self._access = access
        self._directory = directory
        self._clock = clock

    def operations(self) -> Iterator[Operation[Record, Record]]:
        """This part of the table."""
        yield operation(
            "listPermissions", "GET", "/permissions", "The rules that hold.", _MANAGE, self._rules, tag="permissions"
        )
        yield operation(
            "explain",
            "GET",
            "/explain",
            "Whether somebody may do something, and which rule says so; about others: for those who manage everything.",
            Needs(login=True),
            self._explain,
            tag="permissions",
        )

    async def _rules(self, asked: Asked[Nothing, Nothing]) -> RulesShown:
        return RulesShown(items=[_shown(rule) for rule in self._access.rules.every])

    async def _explain(self, asked: Asked[Question, Nothing]) -> Explained:
        where, caller = asked.where, asked.caller
        name = where.as_ or caller.name
        if name != caller.name:
            caller.grants.demand("manage", "*", "")
        user = "" if name == EVERYBODY else name
        principal = principal_of(self._directory, user, where.token, self._clock())
        if isinstance(principal, str):
            raise NotFound(principal, subject="token" if where.token else "as")
        decision = self._access.decide(principal, where.action, where.repository, where.path)
        # A whole rule may name other people: that is for those who manage.
        full = caller.grants.may("manage", "*", "")
        return Explained(
            allowed=decision.allowed,
            by=decision.by,
            rule=decision.rule,
            why=decision.why if full or decision.by != "rules" else f"{decision.rule or 'no rule'} decides",
        )


def _shown(rule: Rule) -> RuleShown:
    return RuleShown(
        place=rule.place,
        effect=rule.effect,
        actions=sorted(rule.actions),
        repositories=sorted(rule.repositories) if rule.repositories is not None else None,
        path=rule.path.text,
        users=sorted(rule.users),
        groups=sorted(rule.groups),
    )
