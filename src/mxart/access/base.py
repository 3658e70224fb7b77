"""The words in which a request's rights are asked for: actions, and what one request is granted. Pure values.

An action is on a package of a repository: "library/alpine", a Go module's path, a Maven group and artifact.  Paths are
names within the repository, without a slash at either end; "" is the repository as a whole.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from mxart.actions import ACTIONS, READING, Action
from mxart.errors import Forbidden, Unauthorized

__all__ = (
    "ACTIONS",
    "ANYBODY",
    "READING",
    "Action",
    "Anybody",
    "Denied",
    "Grants",
    "LoginWanted",
    "NotAllowed",
    "WrongCredentials",
)


class Denied(Struct, frozen=True):
    """What was denied, and by which rule: for the audit log."""

    action: Action
    repository: str
    path: str
    rule: str = ""
    why: str = ""


class Grants(Protocol):
    """What one request may do. Made by the server; asked by whoever is about to do it."""

    def may(self, action: Action, repository: str, path: str) -> bool:
        """Whether the caller may do this. A few microseconds at most; nothing is logged."""
        ...

    def demand(self, action: Action, repository: str, path: str) -> None:
        """Return if the caller may do this.

        Raises Unauthorized, with the challenge that the client understands, for a caller who has not logged in, else
        Forbidden, which says which rule it was; a denial is audited.
        """
        ...

    def sees(self, repository: str, path: str) -> bool:
        """Whether a package's name may stand in a list that the caller is shown (a catalog)."""
        ...

    @property
    def delegated(self) -> bool:
        """Whether the caller shows a token: less than a password, even where it may do all that its user may."""
        ...


class Anybody:
    """Reads and fetches everything, and does nothing else: what holds where no users are."""

    def may(self, action: Action, repository: str, path: str) -> bool:
        return action in READING

    def demand(self, action: Action, repository: str, path: str) -> None:
        if not self.may(action, repository, path):
            raise LoginWanted(
                f"to {action} {path or 'anything'} in {repository} needs a login", Denied(action, repository, path)
            )

    def sees(self, repository: str, path: str) -> bool:
        return True

    @property
    def delegated(self) -> bool:
        return False


ANYBODY = Anybody()


class LoginWanted(Unauthorized):
    """A caller who has not logged in may not do this, or his token was not asked for it (`error`, RFC 6750 3.1).

    `beside` is the package that the request is about, where what was denied is another one that it needs, too.  The
    server adds the challenge that the client understands.
    """

    def __init__(self, message: str, denied: Denied, *, error: str = "", beside: str = "") -> None:
        super().__init__(message)
        self.denied = denied
        self.error = error
        self.beside = beside


class NotAllowed(Forbidden):
    """A caller who has logged in may not do this."""

    def __init__(self, message: str, denied: Denied) -> None:
        super().__init__(message)
        self.denied = denied


class WrongCredentials(Unauthorized):
    """A password or a token that is not good; `who` is the name that was given with it."""

    def __init__(self, message: str, *, who: str = "", error: str = "") -> None:
        super().__init__(message)
        self.who = who
        self.error = error
