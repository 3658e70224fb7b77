"""A round in a process of its own, and who does it when."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from msgspec import structs

from kit.space import DAY, OLD, Warehouse
from mxart.store.space.leader import begin_schedule, finished, is_due, last_finished, leading
from mxart.store.space.process import run_round
from mxart.store.space.round import Busy, Failed
from mxart.store.space.task import Freed, Member


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Warehouse]:
    house = Warehouse(tmp_path / "data")
    await house.push_image("1")
    await house.push_blob(b"unlinked")
    yield house
    house.close()


async def test_it_is_done_and_told_step_by_step(house: Warehouse) -> None:
    steps: list[tuple[int, int | None, str]] = []
    report = await run_round(house.task(), lambda *step: steps.append(step))
    assert report.freed == Freed(1, 8)
    assert {what for _, _, what in steps} == {"looking for what nothing refers to", "removing files"}
    assert all(total is not None and 0 <= done <= total for done, total, _ in steps)
    assert last_finished(house.task().lock) is not None
    house.check()


async def test_only_one_at_a_time(house: Warehouse) -> None:
    task = house.task()
    with leading(task.lock) as alone:
        assert alone
        with pytest.raises(Busy):
            await run_round(task)
        # A cache that grows does not wait for the end of a collection.
        await house.push_image("2", repository="cache")
        capped = tuple(structs.replace(item, max_bytes=0) if item.name == "cache" else item for item in task.members)
        report = await run_round(structs.replace(task, members=capped, only_evict=True))
        assert report.evicted["cache"].files == 3
    with leading(f"{task.lock}-evict"), pytest.raises(Busy):
        await run_round(structs.replace(task, only_evict=True))


async def test_a_round_of_a_schedule_that_another_worker_has_just_done_is_not_done_again(house: Warehouse) -> None:
    """It was due when this worker looked, and the other one came to its end in that moment."""
    task = house.task()
    scheduled = structs.replace(task, every=3600.0)
    begin_schedule(task.lock)
    finished(task.lock, OLD)
    await run_round(scheduled)
    with pytest.raises(Busy):
        await run_round(scheduled)
    await run_round(task)


async def test_what_goes_wrong_is_told(house: Warehouse, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Failed, match="nowhere"):
        await run_round(structs.replace(house.task(), generation=str(house.paths.data / "nowhere" / "g")))
    unknown = Member("other", "no such store", max_bytes=0)
    await house.push_image("1", repository="other")
    with pytest.raises(Failed, match="before it was done"):
        await run_round(structs.replace(house.task(), members=(unknown,)))
    assert "KeyError: 'no such store'" in caplog.text


async def test_what_it_has_to_say_is_in_the_log_of_who_started_it(
    house: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    with sqlite3.connect(house.paths.catalog) as db:
        db.execute("UPDATE usage SET bytes = bytes + 1")
    db.close()
    await run_round(house.task())
    assert "counted wrongly" in caplog.text


async def test_cancelled_it_ends_with_its_process(house: Warehouse) -> None:
    for number in range(60):
        await house.put(f"nameless {number}".encode())
    with trio.fail_after(20), trio.CancelScope() as scope:
        await run_round(house.task(), lambda *_: scope.cancel())
    assert scope.cancelled_caught
    with leading(house.task().lock) as alone:
        assert alone, "its process has ended, and holds nothing"
    house.check()


def test_a_schedule_is_due_when_its_time_has_passed_since_the_last_end(tmp_path: Path) -> None:
    lock = str(tmp_path / "gc")
    assert last_finished(lock) is None
    assert not is_due(None, OLD, DAY)
    begin_schedule(lock)
    finished(lock, OLD)
    begin_schedule(lock)
    assert last_finished(lock) == OLD
    assert not is_due(OLD, OLD + DAY - 1, DAY)
    assert is_due(OLD, OLD + DAY, DAY)
    assert not is_due(OLD, OLD + 100 * DAY, 0), "never by itself"
    assert is_due(OLD, OLD - DAY, DAY), "the clock was set back"
    assert not is_due(OLD, OLD - 1, DAY), "a little"


async def test_who_leads_lets_go_at_its_end(tmp_path: Path) -> None:
    with leading(str(tmp_path / "gc")) as first, leading(str(tmp_path / "gc")) as second:
        assert (first, second) == (True, False)
    with leading(str(tmp_path / "gc")) as again:
        assert again
