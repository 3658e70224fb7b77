"""A circuit breaker: after several failures in a row an upstream is left alone for a while. Pure, no clock.

    CLOSED --5th failure--> OPEN --time--> PROBING --success--> CLOSED
                             ^                |
                             +----failure-----+     (and twice as long)

While PROBING one request is out to find out; the others are refused as if OPEN.  Only failures that
speak of the upstream's health count: transport failures and 5xx.  A 404 or 401 is a success.
"""

from __future__ import annotations

from enum import Enum, auto

FAILURES = 5
FIRST_REST = 5.0  # seconds
LONGEST_REST = 60.0


class State(Enum):
    """Where a breaker is."""

    CLOSED = auto()
    OPEN = auto()
    PROBING = auto()


class Event(Enum):
    """What it is told."""

    ADMITTED = auto()  # a request goes out
    ANSWERED = auto()  # the head of an answer came: it is alive, but the body may still break
    SUCCEEDED = auto()
    FAILED = auto()
    ABANDONED = auto()  # cancelled before it could tell


class _Do(Enum):
    """What happens on the way."""

    NOTHING = auto()
    COUNT = auto()  # one more failure; the last one opens
    FORGET = auto()  # failures and the length of the rest begin anew
    REST = auto()  # rest, longer than last time
    AGAIN = auto()  # let the next request probe at once


_TABLE: dict[tuple[State, Event], tuple[State, _Do]] = {
    (State.CLOSED, Event.ADMITTED): (State.CLOSED, _Do.NOTHING),
    (State.CLOSED, Event.ANSWERED): (State.CLOSED, _Do.NOTHING),
    (State.CLOSED, Event.SUCCEEDED): (State.CLOSED, _Do.FORGET),
    (State.CLOSED, Event.FAILED): (State.CLOSED, _Do.COUNT),
    (State.CLOSED, Event.ABANDONED): (State.CLOSED, _Do.NOTHING),
    (State.OPEN, Event.ADMITTED): (State.PROBING, _Do.NOTHING),
    # Requests that were under way when it opened come home late: good news counts, bad news is known.
    (State.OPEN, Event.ANSWERED): (State.CLOSED, _Do.FORGET),
    (State.OPEN, Event.SUCCEEDED): (State.CLOSED, _Do.FORGET),
    (State.OPEN, Event.FAILED): (State.OPEN, _Do.NOTHING),
    (State.OPEN, Event.ABANDONED): (State.OPEN, _Do.NOTHING),
    # Another request that was under way may come home while the probe is out: PROBING takes all events.
    (State.PROBING, Event.ADMITTED): (State.PROBING, _Do.NOTHING),
    (State.PROBING, Event.ANSWERED): (State.CLOSED, _Do.FORGET),
    (State.PROBING, Event.SUCCEEDED): (State.CLOSED, _Do.FORGET),
    (State.PROBING, Event.FAILED): (State.OPEN, _Do.REST),
    (State.PROBING, Event.ABANDONED): (State.OPEN, _Do.AGAIN),
}


class Breaker:
    """One upstream server's. `now` is seconds of any steady clock, the same for all calls."""

    __slots__ = ("_failures", "_rest", "_until", "state")

    def __init__(self) -> None:
        self.state = State.CLOSED
        self._failures = 0
        self._rest = FIRST_REST
        self._until = 0.0

    def wait(self, now: float) -> float | None:
        """None if a request may go out now; else the seconds after which to come again. Changes nothing."""
        if self.state is State.CLOSED:
            return None
        if self.state is State.OPEN and now >= self._until:
            return None
        return max(self._until - now, 1.0)

    def note(self, event: Event, now: float) -> None:
        """Tell what happened.

        ADMITTED only after `wait` said None; then ANSWERED if it came to that; then one of the others, once.
        """
        self.state, action = _TABLE[self.state, event]
        if action is _Do.COUNT:
            self._failures += 1
            if self._failures >= FAILURES:
                self.state, self._until = State.OPEN, now + self._rest
        elif action is _Do.FORGET:
            self._failures, self._rest = 0, FIRST_REST
        elif action is _Do.REST:
            self._rest = min(self._rest * 2, LONGEST_REST)
            self._until = now + self._rest
        elif action is _Do.AGAIN:
            self._until = now
