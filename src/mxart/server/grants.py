"""What one caller may do, decided once for each thing he asks for, and remembered while nothing changes."""

from __future__ import annotations

from mxart.access.base import Action, Denied, LoginWanted, NotAllowed
from mxart.access.control import Access, Decision, Principal

_MAX_DECISIONS = 10_000


class Granted:
    """The grants of a principal (access.base.Grants). Thrown away by who made it when users or tokens change."""

    __slots__ = ("_access", "_decisions", "_signed", "principal")

    def __init__(self, access: Access, principal: Principal, *, signed: bool = False) -> None:
        """`signed`: by a signed token, nobody's own too."""
        self._access = access
        self.principal = principal
        self._signed = signed
        self._decisions: dict[tuple[Action, str, str], Decision] = {}

    def decision(self, action: Action, repository: str, path: str) -> Decision:
        """May he, and why."""
        key = (action, repository, path)
        found = self._decisions.get(key)
        if found is None:
            if len(self._decisions) >= _MAX_DECISIONS:
                self._decisions.clear()
            found = self._decisions[key] = self._access.decide(self.principal, action, repository, path)
        return found

    def may(self, action: Action, repository: str, path: str) -> bool:
        return self.decision(action, repository, path).allowed

    def demand(self, action: Action, repository: str, path: str) -> None:
        decision = self.decision(action, repository, path)
        if decision.allowed:
            return
        denied = Denied(action, repository, path, decision.rule, decision.why)
        what = f"{action} {path}" if path else action
        name = self.principal.name
        if not name:
            raise LoginWanted(f"to {what} in repository {repository} needs a login", denied)
        if decision.by == "scopes":
            raise LoginWanted(
                f"the token was not asked for to {what} in repository {repository}", denied, error="insufficient_scope"
            )
        # The whole rule may name other people: that is for the administrator's eyes.
        why = {
            "rules": f"by {decision.rule}" if decision.rule else "no rule lets him",
            "ceiling": "it is more than his token is good for",
            "user": "he is disabled",
            "scopes": "",
        }[decision.by]
        raise NotAllowed(f"{name} may not {what} in repository {repository}: {why}", denied)

    def sees(self, repository: str, path: str) -> bool:
        if self.may("read", repository, path):
            return True
        scopes = self.principal.scopes
        if scopes is None or not scopes.catalog:
            return False
        unscoped = Principal(self.principal.user, self.principal.token, self.principal.ceiling)
        return self._access.decide(unscoped, "read", repository, path).allowed

    @property
    def delegated(self) -> bool:
        return self._signed or bool(self.principal.token)
