"""Single-flight: done once, for everybody, whoever leaves."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import trio
import trio.testing

from kit.repos import FreeTurns
from mxart.errors import Problem, UpstreamUnavailable
from mxart.repos.flights import Flights


async def test_work_under_way_is_shared_and_finished_work_is_not(nursery: trio.Nursery) -> None:
    flights: Flights[int] = Flights(nursery, FreeTurns().take)
    runs = 0

    async def work() -> int:
        nonlocal runs
        runs += 1
        await trio.lowlevel.checkpoint()
        return runs

    results: list[tuple[int, bool]] = []

    async def caller() -> None:
        results.append(await flights.join("key", work))

    async with trio.open_nursery() as callers:
        for _ in range(3):
            callers.start_soon(caller)
    assert sorted(results) == [(1, False), (1, False), (1, True)]
    assert await flights.join("key", work) == (2, True)


async def test_a_fault_is_logged_and_told_as_500_and_the_server_lives(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    flights: Flights[int] = Flights(nursery, FreeTurns().take)

    async def work() -> int:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR), pytest.raises(Problem) as caught:
        await flights.join("key", work)
    assert caught.value.status == 500
    assert "ZeroDivisionError" in caplog.text


async def test_callers_are_released_when_the_server_stops() -> None:
    caught: list[Problem] = []

    async def caller(flights: Flights[None]) -> None:
        try:
            await flights.join("key", trio.sleep_forever)
        except UpstreamUnavailable as problem:
            caught.append(problem)

    async with trio.open_nursery() as callers, trio.open_nursery() as server:
        callers.start_soon(caller, Flights(server, FreeTurns().take))
        await trio.testing.wait_all_tasks_blocked()
        server.cancel_scope.cancel()
    assert [problem.status for problem in caught] == [503]


async def test_an_outcome_that_is_told_early_is_had_by_all_while_the_work_goes_on(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    flights: Flights[int] = Flights(nursery, FreeTurns().take)
    more = trio.Event()
    landed: list[int] = []

    async def work(tell: Callable[[int], None]) -> int:
        tell(1)
        await more.wait()
        raise UpstreamUnavailable("in the end")

    async def wait() -> None:
        await flights.landed("key")
        landed.append(1)

    assert await flights.join_early("key", work) == (1, True)
    assert await flights.join_early("key", work) == (1, False)
    async with trio.open_nursery() as waiting:
        waiting.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert not landed
        more.set()
    await flights.landed("key")
    assert "what was answered already is not kept: in the end" in caplog.text
