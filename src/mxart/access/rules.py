"""Permission rules: which of them decides about a request (product.md section 4, `[[permission]]`). Pure.

Of all rules that name the action and whose repository and path match, those with the most specific path decide, and of
these the ones that name the repository rather than "*".  Among them a deny that is for the caller wins, else an allow
that is for him lets him in.  If neither is for him, an allow among them keeps him out: whoever opens `secret/**` to
some closes it to all others.  Denials of others alone say nothing about him, and what is less specific decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Literal

from msgspec import Struct

from mxart.access.base import READING, Action
from mxart.patterns import EVERYWHERE, PathPattern, Specificity

EVERYBODY = "anonymous"
"""The built-in group of whoever asks, with or without a login."""
USERS = "users"
"""The built-in group of whoever is logged in."""
ADMINS = "admins"
"""The group that may do everything, and cannot be denied: nobody locks himself out."""


class Rule(Struct, frozen=True):
    """One `[[permission]]`, or one that is built in. `place` names it: "permission[2]".

    `users` and `groups` are those it is for; `repositories` None: all of them.
    """

    place: str
    effect: Literal["allow", "deny"]
    actions: frozenset[Action]
    repositories: frozenset[str] | None = None
    path: PathPattern = EVERYWHERE
    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    built_in: bool = False

    def is_about(self, action: Action, repository: str, path: str) -> bool:
        """Whether it says anything on this."""
        return (
            action in self.actions
            and (self.repositories is None or repository in self.repositories)
            and self.path.matches(path)
        )

    def is_for(self, user: str, groups: frozenset[str]) -> bool:
        """Whether the caller, "" for nobody, is one of those it names."""
        if EVERYBODY in self.groups or (user and USERS in self.groups):
            return True
        return bool(user) and (user in self.users or not groups.isdisjoint(self.groups))

    @property
    def rank(self) -> tuple[bool, Specificity, bool]:
        """The higher ones decide."""
        return not self.built_in, self.path.specificity, self.repositories is not None

    def __str__(self) -> str:
        names = ", ".join(sorted(self.users))
        who = " and ".join(part for part in (names, ", ".join(sorted(self.groups))) if part)
        where = "*" if self.repositories is None else ", ".join(sorted(self.repositories)) or "no repository"
        what = ", ".join(sorted(self.actions))
        return f"{self.place}: {self.effect} {who} {what} on {self.path.text} of {where}"


class Verdict(Struct, frozen=True):
    """What the rules say, the rule that it was (None: none is about it), and why, for people."""

    allowed: bool
    rule: Rule | None
    why: str


class Rules:
    """All rules. Immutable; their order means nothing."""

    def __init__(self, rules: Iterable[Rule] = (), publishable: Iterable[str] = ()) -> None:
        """`publishable` are the repositories in which users may publish where no rule says otherwise."""
        self.configured = tuple(rules)
        everybody, users = frozenset((EVERYBODY,)), frozenset((USERS,))
        reading, writing = frozenset[Action](("read", "fetch")), frozenset[Action](("publish", "overwrite"))
        built_in = [
            Rule("built in", "allow", reading, groups=everybody, built_in=True),
            Rule("built in", "allow", writing, frozenset(publishable), groups=users, built_in=True),
        ]
        self._rules = sorted((*self.configured, *built_in), key=lambda rule: rule.rank, reverse=True)

    @property
    def every(self) -> tuple[Rule, ...]:
        """All of them, those that decide before others first."""
        return tuple(self._rules)

    def decide(self, user: str, groups: frozenset[str], action: Action, repository: str, path: str) -> Verdict:
        """Whether somebody may do something. `user` "" is nobody in particular, who is in no group."""
        if user and ADMINS in groups:
            return Verdict(True, None, f"{user} is in the group {ADMINS}, which may do everything")
        about = [rule for rule in self._rules if rule.is_about(action, repository, path)]
        for _, tier in groupby(about, key=lambda rule: rule.rank):
            rules = list(tier)
            theirs = [rule for rule in rules if rule.is_for(user, groups)]
            for rule in theirs:
                if rule.effect == "deny":
                    return Verdict(False, rule, f"{rule} (a deny wins)" if len(theirs) > 1 else str(rule))
            if theirs:
                return Verdict(True, theirs[0], str(theirs[0]))
            for rule in rules:
                if rule.effect == "allow":
                    who = user or "somebody who is not logged in"
                    return Verdict(False, rule, f"{rule}, and nothing as specific is for {who}")
        return Verdict(False, None, f"no rule lets anybody but {ADMINS} {action} there")

    def is_open(self, repository: str) -> bool:
        """Whether everybody may read and fetch all of a repository, as far as rules can tell without a path."""
        return not any(
            (rule.effect == "deny") == (EVERYBODY in rule.groups)  # closed to all, or opened to some
            for rule in self._rules
            if not rule.actions.isdisjoint(READING) and (rule.repositories is None or repository in rule.repositories)
        )
