"""Passwords that are guessed: each wrong one makes the next attempts wait, for a user and for an address.

Counted are wrong passwords only, over all workers (in a table of `rates`), in three ways:

- of one address for one user: a few at once, then one in ten seconds; the answer says when (429, Retry-After);
- of one address for any users: some dozens, then one in two seconds, likewise;
- for one user from anywhere: nobody is refused for that, or strangers could lock the right one out; but every attempt
  from where this user has not logged in of late waits before it is looked at.

Who has logged in is remembered by `authentication` and asks nothing here, so guesses of others do not slow him down.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mxart.errors import TooManyRequests
from mxart.server.rates import Rate, RateTable, client_of

_SECOND = 1_000_000_000
_PAIR = Rate(10 * _SECOND, 8)
_ADDRESS = Rate(2 * _SECOND, 40)
_USER = Rate(5 * _SECOND, 40)
# A login counts as of late for so long: the "rate" of a bucket that one login empties for a week.
_LOGIN = Rate(7 * 86400 * _SECOND, 1)
DELAY = 2.0
"""Seconds that an attempt waits when somebody guesses at its user from many addresses."""


class Guesses:
    """Make the table before fork(2)."""

    def __init__(self, table: RateTable, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """`clock` gives nanoseconds, the same in all processes, and never goes back."""
        self._table = table
        self._clock = clock

    def delay(self, user: str, address: str) -> float:
        """Seconds that an attempt is to wait before it is looked at. Raises TooManyRequests."""
        client, now = client_of(address), self._clock()
        wait = max(
            self._table.wait(_pair(user, client), _PAIR, now), self._table.wait(f"address {client}", _ADDRESS, now)
        )
        if wait:
            seconds = wait / _SECOND
            raise TooManyRequests(
                f"too many wrong passwords from {address}: try again in {seconds:.0f} seconds", retry_after=seconds
            )
        is_known = self._table.wait(_login(user, client), _LOGIN, now) > 0
        return DELAY if not is_known and self._table.wait(f"user {user}", _USER, now) else 0.0

    def wrong(self, user: str, address: str) -> None:
        """A password was wrong."""
        client, now = client_of(address), self._clock()
        self._table.take(_pair(user, client), _PAIR, now)
        self._table.take(f"address {client}", _ADDRESS, now)
        self._table.take(f"user {user}", _USER, now)

    def right(self, user: str, address: str) -> None:
        """A password was right."""
        self._table.take(_login(user, client_of(address)), _LOGIN, self._clock())


def _pair(user: str, client: str) -> str:
    return f"pair {client} {user}"


def _login(user: str, client: str) -> str:
    return f"login {client} {user}"
