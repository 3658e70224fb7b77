"""Passwords that are shown: verified in threads, remembered, and guessed at slowly.

A verification takes memory and tens of milliseconds, so there are few at a time.  Its outcome is remembered by a keyed
hash of user and password, and holds while what is kept of the password stays the same: whoever is right is looked up
in microseconds even after other users have changed, and the same wrong password again is one guess, not many.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from hashlib import blake2b

import trio

from mxart.access.base import WrongCredentials
from mxart.access.credentials import verify_password
from mxart.access.directory import Directory
from mxart.access.people import User
from mxart.errors import TooManyRequests
from mxart.server.guesses import Guesses

_AT_ONCE = 2  # in this worker
_WAITING = 64
_REMEMBERED = 4096
_WRONG_SECONDS = 30.0
_WRONG = (
    "wrong user name or password; what everybody may read needs neither: log out (docker logout), or leave both away"
)


class Passwords:
    """Of one worker."""

    def __init__(self, directory: Directory, guesses: Guesses, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._guesses = guesses
        self._clock = clock
        self._threads = trio.CapacityLimiter(_AT_ONCE)
        self._key = secrets.token_bytes(32)
        # Both by a hash of what was shown; the kept form that it was right or wrong for, and when it was wrong.
        self._right: dict[bytes, str] = {}
        self._wrong: dict[bytes, tuple[str, float]] = {}

    async def verify(self, user: str, password: str, address: str) -> User:
        """The user whose password it is. Raises WrongCredentials, TooManyRequests.

        It takes as long for somebody who is not there.
        """
        kept = self._directory.password(user)
        shown = self._hash(user, password)
        if not kept or self._right.get(shown) != kept:
            await self._look(shown, kept, user, password, address)
        found = self._directory.user(user)
        if found is None:
            raise WrongCredentials(_WRONG, who=user)
        if found.disabled:
            raise WrongCredentials(f"the user {user} is disabled", who=user)
        return found

    async def slowly(self, user: str, address: str) -> None:
        """Wait where somebody guesses. Raises TooManyRequests."""
        delay = self._guesses.delay(user, address)
        if delay:
            await trio.sleep(delay)

    def guessed(self, user: str, address: str) -> None:
        """Something was shown that is not right."""
        self._guesses.wrong(user, address)

    async def _look(self, shown: bytes, kept: str, user: str, password: str, address: str) -> None:
        """Raises WrongCredentials, TooManyRequests."""
        self._refuse_known(shown, kept, user)
        await self.slowly(user, address)
        if self._threads.statistics().tasks_waiting >= _WAITING:
            raise TooManyRequests("too many logins at once: try again", retry_after=1.0)
        async with self._threads:
            if kept and self._right.get(shown) == kept:
                return  # somebody else has waited for the same
            self._refuse_known(shown, kept, user)
            self._guesses.delay(user, address)  # those that came together wait for their turns here, and are counted
            good = await trio.to_thread.run_sync(verify_password, kept, password)
        for known in (self._right, self._wrong):
            if len(known) >= _REMEMBERED:
                known.clear()
        if good:
            self._right[shown] = kept
            self._guesses.right(user, address)
            return
        self._guesses.wrong(user, address)
        self._wrong[shown] = (kept, self._clock())
        raise WrongCredentials(_WRONG, who=user)

    def _refuse_known(self, shown: bytes, kept: str, user: str) -> None:
        wrong = self._wrong.get(shown)
        if wrong is not None and wrong[0] == kept and 0 <= self._clock() - wrong[1] < _WRONG_SECONDS:
            raise WrongCredentials(_WRONG, who=user)

    def _hash(self, user: str, password: str) -> bytes:
        text = f"{len(user)} {user} {password}".encode("utf-8", "surrogatepass")
        return blake2b(text, key=self._key, digest_size=16).digest()
