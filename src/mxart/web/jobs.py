"""Long work that was asked for: it goes on when its asker leaves, and every worker can tell how far it is.

A job runs in the worker that took the request.  Its state is a file that is replaced as it goes on; beside it lies a
file that the running process holds locked (flock), so that one whose process died is known by a lock that nobody holds:
it was interrupted.  Whoever wants a job to end makes a third file, which the running worker looks for.

    running ──▶ done | failed | cancelled | interrupted        (by the end of its process; whoever sees that says so)
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
import trio

from mxart.atomic import locked_directory, write_atomically
from mxart.errors import Conflict, MxartError, NotFound, TooManyRequests, UpstreamUnavailable
from mxart.store.paths import JobPaths, make_private

log = logging.getLogger(__name__)

MAX_RUNNING = 4
MAX_KEPT = 200
KEEP_SECONDS = 30 * 24 * 3600.0
_LOOK_SECONDS = 0.5  # between two looks at a wish to end it, and two writes of how far it is
_RETRY_SECONDS = 30.0
_ASIDE_SECONDS = 60.0

Tell = Callable[[int, int | None, str], None]
"""How far it is: done, of how many if that is known, and at what. Cheap; from any thread."""
Result = Mapping[str, int | str]
Work = Callable[[Tell], Awaitable[Result]]
"""Does it, and says what came of it. Raises MxartError. Cancelled: what is done is done, the rest is not begun."""
State = Literal["running", "done", "failed", "cancelled", "interrupted"]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a job. Times are seconds since the epoch; `finished` is 0 while it runs."""

    id: str
    kind: str
    subject: str  # what it is about, in the words of its kind
    owner: str
    created: float
    token: str = ""  # the number of the owner's token that it was asked for with
    state: State = "running"
    done: int = 0
    total: int | None = None
    at: str = ""
    finished: float = 0.0
    result: dict[str, int | str] = {}
    error: str = ""


class Jobs:
    """The jobs of all workers, and those that run in this one."""

    def __init__(self, paths: JobPaths, clock: Callable[[], float] = time.time) -> None:
        self._paths = paths
        self._clock = clock
        self._nursery: trio.Nursery | None = None
        self._starting = trio.Lock()
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Where jobs run, until `stop`. Cancelled: those that run are interrupted."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    task_status.started()
                    try:
                        await trio.sleep_forever()
                    finally:
                        self._nursery = None
                        with trio.CancelScope(shield=True):  # milliseconds: one that is begun now finds its nursery
                            async with self._starting:
                                pass
        finally:
            self._ended.set()

    async def stop(self) -> None:
        """Interrupt what runs here, and take no more; returns when nothing runs."""
        self._scope.cancel()
        await self._ended.wait()

    async def start(
        self, kind: str, subject: str, owner: str, work: Work, *, token: str = "", alone: bool = False
    ) -> Job:
        """Begin some work, known to everybody when this returns.

        `alone`: not while another of its kind and subject runs; raises Conflict.  Raises TooManyRequests where too many
        run.  Cancelled: it has begun, or has not.
        """
        async with self._starting:
            nursery = self._nursery
            if nursery is None:
                raise UpstreamUnavailable("this worker is stopping; ask again", retry_after=1.0)
            with trio.CancelScope(shield=True):  # milliseconds; a lock that is held must find its job
                job, lock = await trio.to_thread.run_sync(
                    partial(self._begin, kind, subject, owner, token, alone=alone)
                )
            nursery.start_soon(self._live, job, lock, work)
        return job

    async def find(self, job: str) -> Job:
        """Raises NotFound."""
        found = await trio.to_thread.run_sync(self._look, job)
        if found is None:
            raise NotFound(f"there is no job {job}; those that ended long ago are forgotten", subject="job")
        return found

    async def every(self) -> list[Job]:
        """All that are remembered, the newest first."""
        return await trio.to_thread.run_sync(self._every)

    async def cancel(self, job: str) -> Job:
        """Ask for its end, which comes soon. One that has ended stays as it is. Raises NotFound."""
        found = await self.find(job)
        if found.state == "running":
            self._paths.cancel(job).touch(mode=0o600)
        return found

    # In threads

    def _begin(self, kind: str, subject: str, owner: str, token: str, *, alone: bool) -> tuple[Job, int]:
        make_private(self._paths.root)
        with locked_directory(self._paths.root):
            running = [job for job in self._tidy() if job.state == "running"]
            for job in running if alone else ():
                if (job.kind, job.subject) == (kind, subject):
                    raise Conflict(f"job {job.id} does this already, since {_shown(job.created)}")
            if len(running) >= MAX_RUNNING:
                raise TooManyRequests(
                    f"{len(running)} jobs run, which is as many as may: cancel one, or wait for its end",
                    retry_after=_RETRY_SECONDS,
                )
            now = self._clock()
            stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%d-%H%M%S")
            name = f"{stamp}-{secrets.token_hex(4)}"
            job = Job(id=name, kind=kind, subject=subject, owner=owner, token=token, created=now)
            lock = os.open(self._paths.alive(job.id), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._write(job)
            except BaseException:
                os.close(lock)
                self._paths.alive(job.id).unlink(missing_ok=True)
                raise
        return job, lock

    def _tidy(self) -> list[Job]:
        """What is left once too old ones are forgotten; those that were interrupted are written down as such.

        With the lock on the directory: nobody begins one meanwhile.
        """
        kept: list[Job] = []
        for number, job in enumerate(self._every(settle=True)):
            if job.state != "running" and (number >= MAX_KEPT or job.finished < self._clock() - KEEP_SECONDS):
                self._paths.state(job.id).unlink(missing_ok=True)
            else:
                kept.append(job)
        running = {job.id for job in kept if job.state == "running"}
        for entry in os.scandir(self._paths.root):
            sign = not entry.name.endswith(JobPaths.STATE) and not entry.name.startswith(".")
            with suppress(FileNotFoundError):  # another worker's write, done by now
                # One that is under way is never this old.
                aside = entry.name.startswith(".") and entry.stat().st_mtime < time.time() - _ASIDE_SECONDS
                if aside or (sign and entry.name.partition(".")[0] not in running):
                    os.unlink(entry.path)
        return kept

    def _every(self, *, settle: bool = False) -> list[Job]:
        try:
            names = sorted((entry.name for entry in os.scandir(self._paths.root)), reverse=True)
        except FileNotFoundError:
            return []
        ids = [name.removesuffix(JobPaths.STATE) for name in names if name.endswith(JobPaths.STATE)]
        found = (self._look(job, settle=settle) for job in ids if not job.startswith("."))
        return [job for job in found if job is not None]

    def _look(self, job: str, *, settle: bool = False) -> Job | None:
        found = self._read(job)
        if found is None or found.state != "running" or _is_locked(self._paths.alive(job)):
            return found
        found = self._read(job)  # it may have ended between the two looks
        if found is None or found.state != "running":
            return found
        found = msgspec.structs.replace(found, state="interrupted", error="its process ended", finished=self._clock())
        if settle:
            self._write(found)
            self._forget_signs(job)
        return found

    def _read(self, job: str) -> Job | None:
        try:
            return msgspec.json.decode(self._paths.state(job).read_bytes(), type=Job)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("job %s cannot be read: %s", job, error)
            return None

    def _write(self, job: Job) -> None:
        write_atomically(self._paths.state(job.id), msgspec.json.encode(job), 0o600)

    def _forget_signs(self, job: str) -> None:
        self._paths.alive(job).unlink(missing_ok=True)
        self._paths.cancel(job).unlink(missing_ok=True)

    # The life of one

    async def _live(self, job: Job, lock: int, work: Work) -> None:
        run = _Run(job)
        log.info("job %s: %s %s for %s begins", job.id, job.kind, job.subject, job.owner or "the server")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, run, nursery.cancel_scope)
                try:
                    run.ends("done", result=await work(run.tell))
                except MxartError as error:
                    run.ends("failed", str(error))
                except Exception:
                    log.exception("job %s failed", job.id)
                    run.ends("failed", "internal error; the server's log tells more")
                nursery.cancel_scope.cancel()
        finally:
            ended = run.ended(self._clock())
            log.info("job %s: %s %s", job.id, ended.state, ended.error)
            with _logging_trouble(job.id):
                self._write(ended)
                self._forget_signs(job.id)
            os.close(lock)

    async def _watch(self, run: _Run, scope: trio.CancelScope) -> None:
        """Write down how far it is, and see whether it is wanted no more."""
        written = run.job
        while True:
            await trio.sleep(_LOOK_SECONDS)
            if self._paths.cancel(run.job.id).exists():
                run.ends("cancelled")
                scope.cancel()
                return
            if (now := run.now()) != written:
                with _logging_trouble(run.job.id):
                    await trio.to_thread.run_sync(self._write, now)
                written = now


class _Run:
    """How far a job of this process is, and how it ends: by being interrupted, unless it is told."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._far: tuple[int, int | None, str] = (0, None, "")
        self._end: tuple[State, str, Result] = ("interrupted", "the server was stopped", {})

    def tell(self, done: int, total: int | None, at: str) -> None:
        self._far = done, total, at

    def now(self) -> Job:
        done, total, at = self._far
        return msgspec.structs.replace(self.job, done=done, total=total, at=at)

    def ends(self, state: State, error: str = "", result: Result | None = None) -> None:
        self._end = state, error, result or {}

    def ended(self, now: float) -> Job:
        state, error, result = self._end
        return msgspec.structs.replace(self.now(), state=state, error=error, result=dict(result), finished=now)


@contextmanager
def _logging_trouble(job: str) -> Iterator[None]:
    """How far it is cannot be written on a full disk; the work itself goes on."""
    try:
        yield
    except OSError as error:
        log.warning("job %s: its state cannot be written: %s", job, error)


def _is_locked(path: Path) -> bool:
    """Whether another open file holds the lock."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)


def _shown(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
