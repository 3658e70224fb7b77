"""A proxy that shows upstream its callers' own credentials where ours do not suffice.

Theory of operation
-------------------
The ordinary way comes first: our own credentials, and the shelf that everybody shares.  When upstream denies us, the
caller is told to log in, by upstream's own challenge, so that his client does what it would do at upstream.  A caller
who shows credentials of the kind that upstream asks for is let in by upstream's verdict on him and the package, and
served from a second shelf.  That one has another name in the catalog, so nothing that came by a caller's credentials
is ever seen on the ordinary way or in its lists; and a verdict is good for one credential and one package, so nobody
is served by another's.  Bytes lie in the store by digest, shared; each shelf has its own names for them, and a name is
only made after upstream has confirmed it (see streams).

What was kept of a package before upstream denied it is in doubt (see denials): it is asked for first.

Nothing waits for an upstream that is gone but what needs its word: with a verdict that still holds, the second shelf
serves stale copies as the ordinary one does; without, the trouble is told.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import trio
from msgspec.structs import replace

from mxart.errors import Forbidden, NotFound, Problem, Unauthorized, UpstreamDenied
from mxart.message import Trace
from mxart.repos.callers import Caller
from mxart.repos.denials import Denials
from mxart.repos.desk import Desk
from mxart.repos.flights import Flights, free_turn
from mxart.repos.operations import Artifact, Blob, Document, File, Found, Listed, Listing, Referred, Referrers
from mxart.repos.remote import Remote, flight_of
from mxart.repos.roles import having
from mxart.repos.verdicts import Verdicts
from mxart.upstream.base import Ask
from mxart.upstream.challenge import parse_challenges, render

_Kept = TypeVar("_Kept", bound=Document | Blob | Artifact | Listing | Referrers)
_T = TypeVar("_T")
_Way = Callable[[_Kept, Trace], Awaitable[_T]]
_LOOK_AGAIN = 10.0  # seconds
_ERRORS = ("error", "error_description", "error_uri")  # RFC 6750 section 3: about the credentials that were shown


class Relay:
    """The two shelves of one proxy, and who is led to which."""

    def __init__(self, ordinary: Desk, private: Desk) -> None:
        self._ordinary = ordinary
        self._private = private
        self._denials = Denials(ordinary.remote)
        self._verdicts = Verdicts(private.remote)
        self._door = _Door(ordinary.remote, self._verdicts)
        remote = ordinary.remote
        self._confirmations: Flights[None] = Flights(remote.nursery, remote.turn)

    def wary(self, operation: File) -> bool:
        """Whether upstream denied us this lately, or what is kept of its package is in doubt."""
        return self._denials.held(operation.path) is not None or self._denials.doubted(operation.package)

    async def file(self, operation: File, trace: Trace, caller: Caller) -> Found:
        """See Repository.file."""
        return await self._find(operation, trace, caller, self._ordinary.file, self._private.file)

    async def listing(self, operation: Listing, trace: Trace, caller: Caller) -> Listed:
        """See Repository.listing."""
        if operation.of == "packages":
            return await self._ordinary.listing(operation, trace)
        return await self._find(operation, trace, caller, self._ordinary.listing, self._private.listing)

    async def referrers(self, operation: Referrers, trace: Trace, caller: Caller) -> Referred:
        """See Repository.referrers.

        Whether one may see the package is asked about the manifest that is referred to.  Where upstream has none,
        something may refer to it all the same: then the answer is upstream's own to whoever asks, each time.
        """
        ordinary, private = self._ordinary, self._private
        return await self._find(
            operation,
            trace,
            caller,
            ordinary.referrers,
            private.referrers,
            absent=(ordinary.referrers_now, private.referrers_now),
        )

    async def admit(self, caller: Caller, trace: Trace) -> None:
        """See Repository.admit."""
        await self._door.admit(caller, trace)

    async def _find(
        self,
        operation: _Kept,
        trace: Trace,
        caller: Caller,
        ordinary: _Way[_Kept, _T],
        private: _Way[_Kept, _T],
        absent: tuple[_Way[_Kept, _T], _Way[_Kept, _T]] | None = None,
    ) -> _T:
        """`absent`: the two ways where upstream has not what shows whether one may see the package."""
        credential = caller.authorization
        if not credential or not self._verdicts.granted(credential, operation.package):
            denied = self._denials.held(operation.path)
            if denied is None:
                try:
                    if self._denials.doubted(operation.package):
                        try:
                            await self._confirm(operation, trace)
                        except NotFound:
                            if absent is None:
                                raise
                            return await absent[0](operation, trace)
                    return await ordinary(operation, trace)
                except UpstreamDenied as problem:
                    denied = problem
                    await self._denials.note(operation, problem)
            if not answers(caller, denied.challenge):
                trace.outcome = "denied"
                trace.decided("%s: upstream denies us, and the caller shows nothing for it", operation.path)
                raise _login(denied)
        trace.decided("%s: upstream is asked as the caller", operation.path)
        return await self._as_caller(operation, credential, trace, private, absent[1] if absent is not None else None)

    async def _as_caller(
        self,
        operation: _Kept,
        credential: str,
        trace: Trace,
        private: _Way[_Kept, _T],
        absent: _Way[_Kept, _T] | None,
    ) -> _T:
        package = operation.package
        shown = replace(operation, credential=credential)
        for last in (False, True):
            try:
                try:
                    await self._verdicts.demand(credential, package, _question(self._private.remote, operation), trace)
                except NotFound:
                    if absent is None:
                        raise
                    found = await absent(shown, trace)
                else:
                    found = await private(shown, trace)
            except UpstreamDenied as problem:
                # It may be another caller's token that died, under work that both wait for: once more, with this one.
                if last or not self._verdicts.granted(credential, package):
                    trace.outcome = "denied"
                    raise _refused(problem) from None
                self._verdicts.drop(credential, package)
            else:
                trace.outcome = "relayed"
                return found
        raise AssertionError("the second attempt returns or raises")

    async def _confirm(self, operation: Document | Blob | Artifact | Listing | Referrers, trace: Trace) -> None:
        """One question as ourselves: does upstream grant us this package again?"""
        remote = self._ordinary.remote

        async def work() -> None:
            async with remote.open(_question(remote, operation), trace):
                pass
            await self._denials.dispel(operation.package)

        await self._confirmations.join(flight_of(operation.path, trace), work)


class _Door:
    """The ping: some clients only ever show credentials if they are asked for them there."""

    def __init__(self, remote: Remote, verdicts: Verdicts) -> None:
        self._remote = remote
        self._verdicts = verdicts
        self._challenge: tuple[str, ...] = ()
        self._since = 0.0
        self._holds = -1.0
        self._looking = False
        self._flights: Flights[tuple[str, ...]] = Flights(remote.nursery, free_turn)

    async def admit(self, caller: Caller, trace: Trace) -> None:
        if self._remote.rules.relay != "always" or self._remote.rules.offline:
            return
        challenge = await self._learnt(trace)
        if not challenge:
            return
        if not caller.authorization:
            trace.outcome = "denied"
            raise _unauthorized(f"{self._remote.upstream.name} asks for a login", challenge)
        if any(item.scheme == "bearer" for item in parse_challenges(challenge)):
            return  # what a token is good for is seen when something is asked for
        if not answers(caller, challenge):
            trace.outcome = "denied"
            raise _unauthorized(f"{self._remote.upstream.name} asks for a user's name and password", challenge)
        try:
            await self._verdicts.demand(caller.authorization, "", self._remote.format.ask_login(), trace)
        except UpstreamDenied as problem:
            trace.outcome = "denied"
            raise _unauthorized(problem.message, challenge) from None
        except Problem as problem:
            trace.decided("upstream cannot be asked about the caller: %s", problem.message)

    async def _learnt(self, trace: Trace) -> tuple[str, ...]:
        """How upstream asks for a login; () if it does not, or cannot be asked: what is kept is served all the same."""
        age = self._remote.clock() - self._since
        if 0 <= age < self._holds:
            if age > _LOOK_AGAIN:  # whether upstream is still there: nobody logs in at one that is gone
                self._look_again()
            return self._challenge
        with trio.move_on_after(self._remote.rules.patience):
            challenge, _ = await self._flights.join(flight_of("", trace), partial(self._ask, trace))
            return challenge
        return ()

    def _look_again(self) -> None:
        if not self._looking:  # one that is silent is not waited for by one task a ping
            self._looking = True
            self._remote.nursery.start_soon(self._look)

    async def _look(self) -> None:
        try:
            with contextlib.suppress(Problem):
                await self._flights.join("", partial(self._ask, Trace()))
        finally:
            self._looking = False

    async def _ask(self, trace: Trace) -> tuple[str, ...]:
        remote = self._remote
        challenge: tuple[str, ...] = ()
        holds = remote.rules.ttl
        try:
            async with remote.open(replace(remote.format.ask_login(), bare=True), trace):
                pass
        except UpstreamDenied as problem:
            challenge = problem.challenge
        except NotFound:
            pass
        except Problem as problem:
            trace.notes.append(f"no login asked for: {problem.message}")
            holds = remote.rules.hold
        self._challenge, self._since, self._holds = challenge, remote.clock(), holds
        return challenge


def answers(caller: Caller, challenge: tuple[str, ...]) -> bool:
    """Whether what a caller shows is of a kind that was asked for: a password is not for whoever wants a token."""
    return bool(caller.scheme) and any(item.scheme == caller.scheme for item in parse_challenges(challenge))


def _question(remote: Remote, operation: Document | Blob | Artifact | Listing | Referrers) -> Ask:
    """The smallest question that tells whether one may see this."""
    if isinstance(operation, Referrers):
        # Not for the list: where it is unknown to upstream, everybody is told so, whoever he is.
        return remote.ask(having(remote.format.referring).about(operation), "HEAD")
    if isinstance(operation, Listing):
        return remote.ask_page(operation, None)  # few registries know a HEAD for lists
    return remote.ask(operation, "HEAD")


def _login(denied: UpstreamDenied) -> Problem:
    """To a caller who showed nothing: log in. What upstream thought of our own credentials is not for him."""
    challenge = render(parse_challenges(denied.challenge), without=_ERRORS)
    return _unauthorized(denied.message, challenge)


def _refused(denied: UpstreamDenied) -> Problem:
    """To a caller whose credentials upstream refused: as upstream said it."""
    if denied.forbidden or not denied.challenge:
        return Forbidden(denied.message)
    return _unauthorized(denied.message, denied.challenge)


def _unauthorized(message: str, challenge: tuple[str, ...]) -> Problem:
    return Unauthorized(message, headers=tuple(("www-authenticate", value) for value in challenge))
