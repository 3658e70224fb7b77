"""One task tells all connections of a worker that they have been idle for too long, or that the server drains."""

from __future__ import annotations

import math

import trio
import trio.testing

from mxart.proto.draining import Draining


class _Connection:
    """One that is idle from when it is made, for `seconds` at most; `busy` while a request is under way."""

    def __init__(self, seconds: float, *, busy: bool = False) -> None:
        self.seconds = seconds
        self.busy = busy
        self.since = trio.current_time()
        self.left = 0
        self.left_at = math.nan

    @property
    def due(self) -> float:
        return (trio.current_time() if self.busy else self.since) + self.seconds

    def leave(self) -> None:
        self.left += 1
        self.left_at = trio.current_time()


async def test_each_connection_ends_once_soon_after_its_time(autojump_clock: trio.testing.MockClock) -> None:
    draining = Draining()
    first, second = _Connection(10), _Connection(75)
    draining.look_after(first)
    draining.look_after(second)
    await trio.sleep(40)
    late = _Connection(75)
    draining.look_after(late)
    await trio.sleep(200)
    assert [c.left for c in (first, second, late)] == [1, 1, 1]
    assert 10 <= first.left_at - first.since <= 11
    assert 75 <= second.left_at - second.since <= 76
    assert 75 <= late.left_at - late.since <= 76


async def test_a_busy_connection_is_left_alone_until_it_has_been_idle(autojump_clock: trio.testing.MockClock) -> None:
    draining = Draining()
    connection = _Connection(10, busy=True)
    draining.look_after(connection)
    await trio.sleep(100)
    assert not connection.left
    connection.busy, connection.since = False, trio.current_time()
    await trio.sleep(8)
    assert not connection.left
    await trio.sleep(14)
    assert connection.left == 1


async def test_draining_tells_everybody_once_and_whoever_comes_later() -> None:
    draining = Draining()
    idle, told, gone, late = (_Connection(10) for _ in range(4))
    draining.look_after(idle)
    draining.tell(told)
    draining.look_after(gone)
    draining.forget(gone)
    assert not draining.is_set()
    draining.set()
    draining.set()
    draining.look_after(late)
    assert draining.is_set()
    assert [c.left for c in (idle, told, gone, late)] == [1, 1, 0, 1]


async def test_nothing_stays_behind_when_the_last_connection_has_ended(autojump_clock: trio.testing.MockClock) -> None:
    """The task ends with the connections, and comes back with the next one."""
    draining = Draining()
    for _ in range(2):
        before = trio.lowlevel.current_statistics().tasks_living
        connection = _Connection(10)
        draining.look_after(connection)
        draining.forget(connection)
        await trio.sleep(20)
        assert trio.lowlevel.current_statistics().tasks_living == before
