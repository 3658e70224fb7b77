"""A name is one task's at a time, over all processes, and a dead process holds nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import trio

from kit.descriptors import open_files
from mxart.store.turns import FileTurns


async def test_a_name_is_held_by_one_task_at_a_time(tmp_path: Path) -> None:
    turns = FileTurns(tmp_path / "turns")
    inside = most = done = 0

    async def work() -> None:
        nonlocal inside, most, done
        async with turns.take("a"):
            inside += 1
            most = max(most, inside)
            await trio.lowlevel.checkpoint()
            inside -= 1
            done += 1

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(work)
    assert (most, done) == (1, 5)


async def test_other_names_do_not_wait(tmp_path: Path) -> None:
    turns = FileTurns(tmp_path / "turns")
    async with turns.take("a"), turns.take("b"):
        pass


HOLDER = """
import sys, trio
from pathlib import Path
from mxart.store.turns import FileTurns

async def hold():
    async with FileTurns(Path(sys.argv[1])).take("a"):
        print("held", flush=True)
        await trio.sleep_forever()

trio.run(hold)
"""


async def test_another_process_waits_and_gets_it_when_the_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "turns"
    holder = await trio.lowlevel.open_process([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert (await holder.stdout.receive_some()).startswith(b"held")
        with trio.move_on_after(0.05) as waited:
            async with FileTurns(path).take("a"):
                raise AssertionError("held by two processes")
        assert waited.cancelled_caught
    finally:
        holder.kill()
        await holder.wait()
        if holder.stdout is not None:
            await holder.stdout.aclose()
    async with FileTurns(path).take("a"):
        pass


async def test_leaving_while_waiting_holds_nothing(tmp_path: Path) -> None:
    turns = FileTurns(tmp_path / "turns")
    before = open_files()
    async with turns.take("a"):
        with trio.move_on_after(0.02) as gone:
            async with turns.take("a"):
                raise AssertionError("held twice")
        assert gone.cancelled_caught
    async with turns.take("a"):
        pass
    assert open_files() == before
