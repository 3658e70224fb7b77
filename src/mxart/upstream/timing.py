"""How long to wait, for what, and how to wait again: values and pure functions. Seconds everywhere."""

from __future__ import annotations

import random
from email.utils import parsedate_to_datetime

from msgspec import Struct

_FAR = 1_000_000_000  # more seconds than this is a point in time that somebody sent as a number
_LONGEST = 3600.0


class Timeouts(Struct, frozen=True):
    """Every phase has one, none is a total: a slow download that moves goes on for days."""

    connect: float = 10.0  # one address: TCP, the proxies in between, TLS
    first_byte: float = 25.0  # from the request to the head of its answer; containerd gives up after 30
    idle: float = 30.0  # between two pieces of a body
    queue: float = 120.0  # waiting for a free place among the upstream's transfers


class Patience(Struct, frozen=True):
    """How often and how long a question is asked again before its asker is told."""

    rounds: int = 3  # times that the mirrors are gone through
    first_pause: float = 0.25  # doubles each round
    longest_pause: float = 5.0  # a Retry-After up to this is waited for, a longer one is passed on
    total: float = 20.0  # after so long a question is not asked again


USUAL_TIMEOUTS = Timeouts()
USUAL_PATIENCE = Patience()


def pause(patience: Patience, attempt: int, rng: random.Random) -> float:
    """How long to wait after failed attempt number `attempt` (from 0): doubling, half of it by chance.

    The chance spreads out the clients that one failure has brought into step.
    """
    length = min(patience.first_pause * 2.0 ** min(attempt, 30), patience.longest_pause)
    return length * (0.5 + rng.random() / 2)


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Seconds from `now` (of time.time) that a Retry-After asks for, in either form (RFC 9110 section 10.2.3).

    None for a missing or unreadable one.  At least 0, at most an hour: whoever says more is asked again after that.
    A number that can only be a date (some servers send the second when their window ends) is taken for one.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        seconds = float(text)
        if seconds > _FAR:
            seconds -= now
    else:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), _LONGEST)
