"""Who comes in, what they are told if they may not, and what is noted of it: all of it for one worker.

The credentials that an upstream is shown are only ever somebody else's.  Its challenge is passed on where it can lead
to nothing but a login there: by `ns`, where the client means that upstream; by host or path, where no user of ours ever
logs in at that door.  Where some do, their clients would answer an upstream's challenge with their passwords for us, so
they are refused instead; and so is whoever has logged in here already.
"""

from __future__ import annotations

from msgspec.structs import replace

from mxart.access.audit import Audit, Entry
from mxart.access.base import Action, Denied, Grants, LoginWanted, NotAllowed, WrongCredentials
from mxart.errors import Forbidden, Problem, Unauthorized
from mxart.message import Request
from mxart.server.authentication import Authenticator, Identity
from mxart.server.challenges import BASIC, Challenges, Doors
from mxart.server.grants import Granted
from mxart.server.routes import ToIndex, ToRepository

_READS = ("GET", "HEAD")
_FIELD = "www-authenticate"


class Reception:
    """`audit` None: nothing is noted."""

    def __init__(
        self, authenticator: Authenticator, challenges: Challenges, doors: Doors, audit: Audit | None = None
    ) -> None:
        self.authenticator = authenticator
        self._challenges = challenges
        self._doors = doors
        self._audit = audit

    async def identify(self, request: Request, to: ToRepository | ToIndex | None, *, relays: bool) -> Identity:
        """Who asks; `relays`: an upstream may be shown credentials that are not ours.

        Raises WrongCredentials, TooManyRequests.
        """
        found = self.authenticator.known(request)
        if found is None:
            found = await self.authenticator.identify(request, to.by if isinstance(to, ToRepository) else "path")
        if not found.foreign or relays:
            return found
        if isinstance(to, ToIndex) or (to is not None and to.by != "path"):
            # Shown to whom we stand for: they are not looked at.
            return replace(found, caller=found.caller.unshown(), foreign=False)
        raise await self.authenticator.refuse(request)

    def knock(self, to: ToRepository, identity: Identity) -> bool:
        """At the door of `/v2/`: whether somebody who has logged in here goes through without a further question.

        Raises LoginWanted for nobody where somebody may want to log in.
        """
        if identity.ours:
            return bool(identity.caller.name)
        if not identity.foreign and self._doors.ask(to):
            raise LoginWanted("log in, or ask for a token as nobody", Denied("read", to.repository, ""))
        return False

    def told(
        self, problem: Problem, request: Request, to: ToRepository | None, form: str, who: Identity | None = None
    ) -> Problem:
        """A refusal as the client is to see it: with the challenge that it understands. `form` is the format's name."""
        if not isinstance(problem, Unauthorized):
            return problem
        if any(name == _FIELD for name, _ in problem.headers):
            is_user = who is not None and bool(who.caller.name)
            if to is None or not (is_user or (to.by != "ns" and self._doors.ask(to))):
                return problem
            message = (
                f"{problem.message}; its login is not taken here: pull by its own host name, or give the repository"
            )
            return Forbidden(f"{message} {to.repository} credentials", subject=problem.subject)
        value = self._challenges.oci(request, to, problem) if form == "oci" else BASIC
        problem.headers = (*problem.headers, (_FIELD, value))
        return problem

    # the audit log

    def denied(self, problem: Problem, request: Request, who: Identity | None) -> bool:
        """Note a request that was denied by us; whether it was that."""
        if isinstance(problem, LoginWanted | NotAllowed):
            denied = problem.denied
        elif isinstance(problem, WrongCredentials):
            denied = Denied("read", "", "", why=problem.message)
            self._write(request, who, denied, "denied", problem.status, name=problem.who)
            return True
        else:
            return False
        if denied.path or denied.rule or denied.why:  # a ping that is told to log in was denied nothing
            self._write(request, who, denied, "denied", problem.status)
        return True

    def wrote(
        self, request: Request, who: Identity | None, demands: Demands | None, repository: str, status: int
    ) -> None:
        """Note a request that writes, whatever came of it."""
        outcome = "done" if status < 400 else "failed"
        done = demands.noted if demands is not None else []
        first = done[0] if done else Denied("manage" if not repository else "publish", repository, "")
        self._write(request, who, first, outcome, status)

    def _write(
        self, request: Request, who: Identity | None, what: Denied, outcome: str, status: int, *, name: str = ""
    ) -> None:
        if self._audit is None:
            return
        why = f": {what.why}" if outcome == "denied" and what.why else ""
        about = f" ({request.trace.about})" if request.trace.about else ""
        self._audit.write(
            Entry(
                who=who.caller.name if who is not None else name,
                token=who.principal.token if who is not None else "",
                source=request.peer.address,
                action=what.action,
                repository=what.repository,
                path=what.path,
                outcome=outcome,
                status=status,
                rule=what.rule,
                detail=f"{request.method} {request.path}{about}{why}",
            )
        )


class Demands:
    """Grants that note what was demanded of them: for requests that write (access.base.Grants)."""

    def __init__(self, grants: Grants) -> None:
        self._grants = grants
        self.noted: list[Denied] = []

    def may(self, action: Action, repository: str, path: str) -> bool:
        return self._grants.may(action, repository, path)

    def demand(self, action: Action, repository: str, path: str) -> None:
        self._grants.demand(action, repository, path)
        rule = self._grants.decision(action, repository, path).rule if isinstance(self._grants, Granted) else ""
        self.noted.append(Denied(action, repository, path, rule))

    def sees(self, repository: str, path: str) -> bool:
        return self._grants.sees(repository, path)

    @property
    def delegated(self) -> bool:
        return self._grants.delegated


def writes(request: Request) -> bool:
    """Whether a request is for changing something."""
    return request.method not in _READS
