"""What ends connections that nothing else ends: the server drains, or a client has had no request for too long.

Most connections that a busy server has open are idle, and some live for one handshake only.  A task or a timer for each
would cost more than the request itself, so one task looks after all connections of a worker: it sleeps until the one
that has waited longest is due, and exists only while there are any.
"""

from __future__ import annotations

from typing import Protocol

import trio

_GRAIN = 0.5  # seconds by which a connection may be ended too late, so that many are looked at together


class Leaving(Protocol):
    """A connection that can be told to end."""

    def leave(self) -> None:
        """End: now if no request is under way, else after it. Called at most once; does not wait or raise."""
        ...


class Idling(Leaving, Protocol):
    """A connection that is to end, too, when it has been idle for long."""

    @property
    def due(self) -> float:
        """When that is, by `trio.current_time()`, if no request comes; later than now while one is under way."""
        ...


class Draining:
    """Whether the server wants its connections to end, and who is to be told. One for a worker."""

    def __init__(self) -> None:
        self._set = False
        self._told: set[Leaving] = set()
        self._idling: set[Idling] = set()
        self._looking = False

    def is_set(self) -> bool:
        """Whether connections are to end."""
        return self._set

    def set(self) -> None:
        """Tell everybody to end. Idempotent."""
        self._set = True
        told, self._told = self._told | self._idling, set()
        self._idling = set()
        for connection in told:
            connection.leave()

    def tell(self, connection: Leaving) -> None:
        """Let a connection know when the server drains, at once if it does so already. Until `forget`."""
        if self._set:
            connection.leave()
        else:
            self._told.add(connection)

    def look_after(self, connection: Idling) -> None:
        """As `tell`, and let it know when it has been idle for too long."""
        if self._set:
            connection.leave()
            return
        self._idling.add(connection)
        if not self._looking:
            self._looking = True
            trio.lowlevel.spawn_system_task(self._look)

    def forget(self, connection: Leaving) -> None:
        """It has ended, or been told. Idempotent."""
        self._told.discard(connection)
        self._idling.discard(connection)

    async def _look(self) -> None:
        try:
            while self._idling:
                now = trio.current_time()
                first = now + 3600.0
                for connection in tuple(self._idling):
                    due = connection.due
                    if due <= now:
                        self._idling.discard(connection)
                        connection.leave()
                    elif due < first:
                        first = due
                await trio.sleep_until(max(first, now + _GRAIN))
        finally:
            self._looking = False
