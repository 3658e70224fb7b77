"""Long work goes on without its asker, is seen by every worker, ends when it is told to, and is never lost silently."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from mxart.errors import Conflict, NotFound, Problem, TooManyRequests
from mxart.store.paths import JobPaths
from mxart.web.jobs import KEEP_SECONDS, MAX_KEPT, MAX_RUNNING, Job, Jobs, Tell


@asynccontextmanager
async def working(data: Path, clock: Callable[[], float] = lambda: 1_800_000_000.0) -> AsyncIterator[Jobs]:
    """A worker's jobs; at the end those that run are interrupted."""
    jobs = Jobs(JobPaths(data), clock)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(jobs.run)
            yield jobs
            await jobs.stop()


async def ends(jobs: Jobs, job: Job) -> Job:
    """How it ended, once it has."""
    while (found := await jobs.find(job.id)).state == "running":
        await trio.lowlevel.checkpoint()
    return found


async def forever(tell: Tell) -> dict[str, int | str]:
    tell(3, 10, "the third")
    await trio.sleep_forever()
    raise AssertionError


async def test_work_is_done_and_what_came_of_it_is_told_by_every_worker(tmp_path: Path) -> None:
    go = trio.Event()

    async def work(tell: Tell) -> dict[str, int | str]:
        tell(1, None, "first")
        await go.wait()
        tell(2, 2, "all")
        return {"freed": 5, "of": "hub"}

    async with working(tmp_path) as one, working(tmp_path) as other:
        job = await one.start("gc", "default", "adam", work)
        assert (job.state, job.kind, job.subject, job.owner) == ("running", "gc", "default", "adam")
        assert (await other.find(job.id)).state == "running"
        go.set()
        ended = await ends(other, job)
        assert await other.every() == [ended]
    assert (ended.state, ended.done, ended.total, ended.at) == ("done", 2, 2, "all")
    assert ended.result == {"freed": 5, "of": "hub"}
    assert ended.finished == 1_800_000_000.0
    assert os.listdir(JobPaths(tmp_path).root) == [f"{job.id}.json"]
    assert JobPaths(tmp_path).state(job.id).stat().st_mode & 0o777 == 0o600


async def test_how_far_it_is_can_be_seen_while_it_runs(tmp_path: Path) -> None:
    async with working(tmp_path) as one, working(tmp_path) as other:
        job = await one.start("gc", "default", "adam", forever)
        while (seen := await other.find(job.id)).done != 3:
            await trio.lowlevel.checkpoint()
        assert (seen.total, seen.at, seen.state) == (10, "the third", "running")


async def test_any_worker_can_ask_for_its_end(tmp_path: Path) -> None:
    async with working(tmp_path) as one, working(tmp_path) as other:
        job = await one.start("gc", "default", "adam", forever)
        await other.cancel(job.id)
        ended = await ends(other, job)
        assert (ended.state, ended.done, ended.error) == ("cancelled", 3, "")
        assert await other.cancel(job.id) == ended, "what has ended stays as it is"
        again = await one.start("gc", "default", "adam", forever)
        assert (await one.find(again.id)).state == "running"
    assert not list(JobPaths(tmp_path).root.glob("*.cancel"))


@pytest.mark.parametrize(
    ("error", "told"), [(Problem("there is no room"), "there is no room"), (ZeroDivisionError("secret"), "internal")]
)
async def test_a_failure_is_told_and_a_fault_of_ours_only_in_the_log(
    error: Exception, told: str, tmp_path: Path
) -> None:
    async def work(tell: Tell) -> dict[str, int | str]:
        raise error

    async with working(tmp_path) as jobs:
        ended = await ends(jobs, await jobs.start("gc", "default", "adam", work))
    assert ended.state == "failed"
    assert told in ended.error
    assert "secret" not in ended.error


async def test_a_worker_that_stops_interrupts_its_jobs_and_takes_no_more(tmp_path: Path) -> None:
    async with working(tmp_path) as one:
        job = await one.start("gc", "default", "adam", forever)
        await one.stop()
        ended = await one.find(job.id)
        with pytest.raises(Problem, match="stopping"):
            await one.start("gc", "default", "adam", forever)
    assert (ended.state, ended.error) == ("interrupted", "the server was stopped")
    assert not list(JobPaths(tmp_path).root.glob("*.alive"))


KILLED = """
import sys, trio
from pathlib import Path
from mxart.store.paths import JobPaths
from mxart.web.jobs import Jobs

async def work(tell):
    tell(7, 9, "half-way")
    await trio.sleep_forever()

async def main():
    jobs = Jobs(JobPaths(Path(sys.argv[1])))
    async with trio.open_nursery() as nursery:
        await nursery.start(jobs.run)
        job = await jobs.start("gc", "default", "adam", work, alone=True)
        while (await jobs.find(job.id)).done != 7:
            await trio.sleep(0.01)
        print(job.id, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def worker_with_a_job(data: Path) -> subprocess.Popen[str]:
    """Another process, which says its job's id."""
    return subprocess.Popen([sys.executable, "-c", KILLED, str(data)], stdout=subprocess.PIPE, text=True)


async def test_a_worker_killed_while_a_job_runs_leaves_it_interrupted_and_its_place_free(tmp_path: Path) -> None:
    with worker_with_a_job(tmp_path) as process:
        assert process.stdout is not None
        job = process.stdout.readline().strip()
        async with working(tmp_path) as jobs:
            assert (await jobs.find(job)).state == "running"
            with pytest.raises(Conflict, match=job):
                await jobs.start("gc", "default", "eve", forever, alone=True)
            process.send_signal(signal.SIGKILL)
            process.wait()
            seen = await jobs.find(job)
            assert (seen.state, seen.done, seen.error) == ("interrupted", 7, "its process ended")
            again = await jobs.start("gc", "default", "eve", forever, alone=True)
            assert {found.id for found in await jobs.every()} == {job, again.id}
            assert JobPaths(tmp_path).state(job).read_bytes().count(b'"interrupted"') == 1
            assert not JobPaths(tmp_path).alive(job).exists()


async def test_so_many_run_at_once_and_no_more_whichever_worker_is_asked(tmp_path: Path) -> None:
    async with working(tmp_path) as one, working(tmp_path) as other:
        started: list[Job] = []
        refused = 0

        async def begin(jobs: Jobs, number: int) -> None:
            nonlocal refused
            try:
                started.append(await jobs.start("gc", f"store{number}", "adam", forever))
            except TooManyRequests:
                refused += 1

        async with trio.open_nursery() as nursery:
            for number in range(2 * MAX_RUNNING):
                nursery.start_soon(begin, (one, other)[number % 2], number)
        assert (len(started), refused) == (MAX_RUNNING, MAX_RUNNING)
        await one.cancel(started[0].id)
        await ends(other, started[0])
        await other.start("gc", "more", "adam", forever)


async def test_what_ended_long_ago_is_forgotten(tmp_path: Path) -> None:
    now = [1_800_000_000.0]

    async def work(tell: Tell) -> dict[str, int | str]:
        return {}

    async with working(tmp_path, lambda: now[0]) as jobs:
        old = await ends(jobs, await jobs.start("gc", "a", "adam", work))
        now[0] += KEEP_SECONDS - 1
        young = await ends(jobs, await jobs.start("gc", "b", "adam", work))
        assert [job.id for job in await jobs.every()] == [young.id, old.id]
        now[0] += 2
        await ends(jobs, await jobs.start("gc", "c", "adam", work))
        with pytest.raises(NotFound):
            await jobs.find(old.id)
        kept = await jobs.find(young.id)
        text = JobPaths(tmp_path).state(young.id).read_bytes()
        for number in range(MAX_KEPT + 5):
            more = JobPaths(tmp_path).state(f"20270101-{number:06}-00000000")
            more.write_bytes(text.replace(young.id.encode(), more.stem.encode()))
        await ends(jobs, await jobs.start("gc", "d", "adam", work))
        assert len(await jobs.every()) == MAX_KEPT + 1
    assert kept == young


async def test_rubbish_among_the_files_of_jobs_is_no_job_and_leftovers_go(tmp_path: Path) -> None:
    async with working(tmp_path) as jobs:
        job = await jobs.start("gc", "default", "adam", forever)
        root = JobPaths(tmp_path).root
        (root / "20270101-000000-00000000.json").write_bytes(b"{")
        (root / "20270101-000000-11111111.alive").touch()
        (root / "20270101-000000-11111111.cancel").touch()
        (root / ".x.json.0").touch()
        os.utime(root / ".x.json.0", (1, 1))
        other = await jobs.start("gc", "other", "adam", forever)
        assert {found.id for found in await jobs.every()} == {job.id, other.id}
        assert not list(root.glob("*11111111*"))
        assert not (root / ".x.json.0").exists()
        with pytest.raises(NotFound):
            await jobs.find("20270101-000000-00000000")


@pytest.mark.parametrize("step", range(1, 12))
async def test_a_stop_at_any_moment_leaves_no_job_running(step: int, tmp_path: Path) -> None:
    async def ask(jobs: Jobs, ask_for: Callable[..., Awaitable[Job]]) -> None:
        try:
            await ask_for("gc", "default", "adam", forever)
        except Problem as problem:
            assert "stopping" in problem.message  # noqa: PT017  both ends are right

    async with working(tmp_path) as jobs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, jobs, jobs.start)
            for _ in range(step):
                await trio.lowlevel.checkpoint()
            await jobs.stop()
        assert all(job.state == "interrupted" for job in await jobs.every())
    assert not list(JobPaths(tmp_path).root.glob("*.alive"))
