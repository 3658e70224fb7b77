"""What upstream lets its own users see: asked as each of them, and remembered for a short while.

A verdict belongs to a credential and a package.  The credential itself is not remembered, only a hash of it under a
key that this process made up.
"""

from __future__ import annotations

import copy
import hashlib
import secrets
from collections import OrderedDict

from mxart.errors import UpstreamDenied
from mxart.message import Trace
from mxart.repos.flights import Flights, free_turn
from mxart.repos.remote import Remote, flight_of
from mxart.upstream.base import Ask

GRANTED = 60.0  # seconds
REFUSED = 5.0
_MAX_VERDICTS = 10_000


class Verdicts:
    """Of one upstream, on its users. For this worker."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._key = secrets.token_bytes(32)
        # When it was said, and how it was refused.
        self._known: OrderedDict[tuple[str, str], tuple[float, UpstreamDenied | None]] = OrderedDict()
        # No turn among workers: each has verdicts of its own.
        self._flights: Flights[None] = Flights(remote.nursery, free_turn)

    def granted(self, credential: str, package: str) -> bool:
        """Whether upstream has let this user see the package a moment ago."""
        entry = self._lately(credential, package)
        return entry is not None and entry[1] is None

    async def demand(self, credential: str, package: str, ask: Ask, trace: Trace) -> None:
        """Return if this user may see the package; `ask` is what to ask upstream where that is not known.

        Raises UpstreamDenied, NotFound, and the Problem that stood in the way of asking.
        """
        entry = self._lately(credential, package)
        if entry is not None:
            if entry[1] is not None:
                raise copy.copy(entry[1])
            return
        user = self._hash(credential)

        async def work() -> None:
            try:
                async with self._remote.open(self._remote.shown(ask, credential), trace):
                    pass
            except UpstreamDenied as problem:
                self._remember(user, package, problem)
                raise
            self._remember(user, package, None)

        await self._flights.join(flight_of(f"{user}\0{ask.path}", trace), work)

    def drop(self, credential: str, package: str) -> None:
        """A verdict turned out to hold no longer."""
        self._known.pop((self._hash(credential), package), None)

    def _lately(self, credential: str, package: str) -> tuple[float, UpstreamDenied | None] | None:
        key = (self._hash(credential), package)
        entry = self._known.get(key)
        if entry is None:
            return None
        since, refusal = entry
        # A clock that was set back must not make a verdict hold for years.
        if not 0 <= self._remote.clock() - since < (GRANTED if refusal is None else REFUSED):
            del self._known[key]
            return None
        return entry

    def _remember(self, user: str, package: str, refusal: UpstreamDenied | None) -> None:
        self._known.pop((user, package), None)
        # A copy has no traceback, whose frames would hold the credential as long as the verdict is kept.
        self._known[user, package] = (self._remote.clock(), copy.copy(refusal))
        if len(self._known) > _MAX_VERDICTS:
            self._known.popitem(last=False)

    def _hash(self, credential: str) -> str:
        return hashlib.blake2b(credential.encode("utf-8", "surrogateescape"), key=self._key, digest_size=16).hexdigest()
