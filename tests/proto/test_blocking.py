from __future__ import annotations

import pytest
import trio
import trio.lowlevel

from mxart.proto.blocking import noticing


class Noticed:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


async def test_what_never_waits_is_not_noticed() -> None:
    async def work() -> str:
        return "done"

    noticed = Noticed()
    assert await noticing(work(), noticed) == "done"
    assert noticed.times == 0


async def test_what_waits_is_noticed_once_before_it_does() -> None:
    noticed = Noticed()

    async def work() -> str:
        assert noticed.times == 0
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            assert noticed.times == 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.checkpoint)
        with trio.move_on_after(0) as scope:
            await trio.sleep_forever()
        assert scope.cancelled_caught
        return "done"

    assert await noticing(work(), noticed) == "done"
    assert noticed.times == 1


@pytest.mark.parametrize("waits", [False, True])
async def test_errors_come_through(waits: bool) -> None:
    async def work() -> None:
        if waits:
            await trio.lowlevel.checkpoint()
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        await noticing(work(), Noticed())


async def test_cancellation_comes_through_and_can_be_answered() -> None:
    steps: list[str] = []

    async def work() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            steps.append("cancelled")
            raise
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            steps.append("cleaned up")

    with trio.CancelScope() as scope:
        await noticing(work(), scope.cancel)
    assert scope.cancelled_caught
    assert steps == ["cancelled", "cleaned up"]


async def test_a_failing_notice_ends_the_work() -> None:
    steps: list[str] = []

    async def work() -> None:
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            await trio.lowlevel.checkpoint()
        finally:
            steps.append("ended")

    def fail() -> None:
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        await noticing(work(), fail)
    assert steps == ["ended"]
