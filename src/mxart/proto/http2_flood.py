"""What a peer may cost a connection: allowances that refill with time and with useful work. Pure.

Every attack on HTTP/2's bookkeeping has one shape: frames that are cheap to send and dear to
handle, and that never get anything done.  Each kind has an allowance of its own; a frame spends
one, time gives some back, and so does work that was brought to an end.  Whoever runs out is told
ENHANCE_YOUR_CALM (RFC 9113 section 10.5) and cut off.

  CANCELLED   a client resets streams before they are answered: rapid reset (CVE-2023-44487)
  PROVOKED    a client makes *us* reset streams, by errors that count for a stream only (CVE-2025-8671)
  PING, SETTINGS   each wants an acknowledgement
  EMPTY       DATA, HEADERS and CONTINUATION frames that carry nothing and end nothing
  WINDOW      WINDOW_UPDATE; bodies that are being sent give back, as every frame of theirs may be credited twice
  IDLE        PRIORITY, unknown types, frames for streams that are closed: nothing comes of them
"""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct


class Cost(IntEnum):
    """Kinds of frames that only cost."""

    CANCELLED = 0
    PROVOKED = 1
    PING = 2
    SETTINGS = 3
    EMPTY = 4
    WINDOW = 5
    IDLE = 6


class Allowance(Struct, frozen=True):
    """`burst` at once, and `per_second` in the long run."""

    burst: float
    per_second: float


# A client that gives up may reset all its streams (128) at once and, after a network change, do it again.
ALLOWANCES: dict[Cost, Allowance] = {
    Cost.CANCELLED: Allowance(300, 20),
    Cost.PROVOKED: Allowance(200, 10),
    Cost.PING: Allowance(300, 20),
    Cost.SETTINGS: Allowance(50, 5),
    Cost.EMPTY: Allowance(100, 10),
    Cost.WINDOW: Allowance(4000, 200),
    Cost.IDLE: Allowance(2000, 100),
}

_BURSTS = tuple(ALLOWANCES[cost].burst for cost in Cost)


class FloodMeter:
    """The allowances of one connection. Times are seconds of any one clock."""

    __slots__ = ("_left", "_seen")

    def __init__(self, now: float) -> None:
        self._left = [ALLOWANCES[cost].burst for cost in Cost]
        self._seen = [now] * len(Cost)

    def spend(self, cost: Cost, now: float) -> bool:
        """Take one. False when nothing was left: cut the connection."""
        left = self._left[cost]
        if left < 1:
            allowance = ALLOWANCES[cost]
            left = min(allowance.burst, left + (now - self._seen[cost]) * allowance.per_second)
            self._seen[cost] = now
            if left < 1:
                self._left[cost] = left
                return False
        self._left[cost] = left - 1
        return True

    def answered(self) -> None:
        """A response went out whole: it pays for one cancelled stream."""
        self._earn(Cost.CANCELLED, 1)

    def sent(self, count: int) -> None:
        """Bytes of a body went out: large frames may be credited, to stream and connection, and measured.

        By bytes, not by frames: a credit of one byte is answered by a frame of one byte, and must not
        pay for the next credit.
        """
        self._earn(Cost.WINDOW, count / 4096)
        self._earn(Cost.PING, count / 16384)

    def _earn(self, cost: Cost, amount: float) -> None:
        left = self._left[cost]
        if left < _BURSTS[cost]:  # a client that behaves has all of it
            self._left[cost] = min(left + amount, _BURSTS[cost])
