"""The parent process: starts workers, replaces those that die, drains, reloads.

Theory of operation.  The supervisor reads the configuration, binds the sockets and makes what all
workers share, and then only ever forks and waits: it never runs trio and has no threads, so that a
fork is safe at any time.  A worker inherits the sockets; all workers accept on the same ones, so a
connection that waits in the backlog of a worker that dies is lost to nobody.

A reload is a new *generation* of workers: the new configuration is read and prepared, its workers are
started, and only when all of them are ready is the old generation told to drain.  Whatever fails on
the way leaves the old one serving.  What is asked for meanwhile is done afterwards, once.

Signals are blocked around a fork: until it has handlers of its own a child would answer them with ours, and
write them into the pipe that wakes us.

Each worker holds the reading end of a pipe whose writing end only the supervisor has: when the
supervisor is gone, however it went, its workers notice and drain.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct, field

from mxart.errors import ConfigError

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_GARBAGE = 20_000  # objects made before the collector looks: little here goes in circles, and a request makes thousands
_GRACE = 10.0  # seconds beyond the workers' own deadline before they are killed
_SETTLED = 5.0  # a worker that lived as long is replaced at once
_OVERLAP = 4  # generations there may be at a time, all but one of them draining
_RETRY = 1.0  # seconds until another try where the system could not fork


class Prepared(Protocol):
    """A configuration made ready: sockets bound, shared memory mapped, directories there."""

    @property
    def workers(self) -> int: ...
    @property
    def drain_seconds(self) -> float: ...
    @property
    def urls(self) -> list[str]: ...

    def serve(self, index: int, life: int, ready: Callable[[], None]) -> None:
        """Be worker number `index` until SIGTERM or until `life` reads its end. Calls `ready` once it accepts."""
        ...

    def release(self, staying: list[Prepared]) -> None:
        """Close what none of those that go on serving shares."""
        ...


class _Generation(Struct):
    prepared: Prepared
    workers: dict[int, _Worker] = field(default_factory=dict)  # by pid
    draining_since: float | None = None
    proven: bool = False  # all its workers were ready once: from then on those that die are replaced

    @property
    def is_ready(self) -> bool:
        return len(self.workers) == self.prepared.workers and all(w.ready for w in self.workers.values())


class _Worker(Struct):
    index: int
    pid: int
    pipe: int  # reads one byte when it is ready
    started: float
    ready: bool = False


class Supervisor:
    """`prepare(previous)` reads the configuration and makes it ready; it raises ConfigError."""

    def __init__(self, prepare: Callable[[Prepared | None], Prepared], announce: Callable[[Prepared], None]) -> None:
        self._prepare = prepare
        self._announce = announce
        self._generations: list[_Generation] = []
        self._announced = False
        self._stopping = False
        self._reload_wanted = False
        self._failures = 0
        self._restarts: list[tuple[float, _Generation, int]] = []
        self._status = 0

    def run(self) -> int:
        """Serve until told to stop; the exit status. Raises ConfigError if it cannot start."""
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._life_r, self._life_w = os.pipe2(os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._wake_r, select.POLLIN)
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)
        try:
            self._begin(self._prepare(None))
            while self._generations:
                self._round()
        finally:
            self._kill_all()
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            for fd in (self._wake_r, self._wake_w, self._life_r, self._life_w):
                os.close(fd)
        return self._status

    def _round(self) -> None:
        self._poll.poll(self._patience())
        with contextlib.suppress(BlockingIOError):
            for number in os.read(self._wake_r, 512):
                self._on_signal(number)
        for generation in self._generations:
            for worker in generation.workers.values():
                self._look_at(worker)
        self._reap()
        self._restart_due()
        self._settle()
        if self._reload_wanted and not self._stopping:
            self._maybe_reload()

    def _patience(self) -> float | None:
        """Milliseconds until something has to be done without being asked."""
        now = time.monotonic()
        due = [when for when, _, _ in self._restarts]
        due += [
            g.draining_since + g.prepared.drain_seconds + _GRACE
            for g in self._generations
            if g.draining_since is not None
        ]
        return max(0.0, (min(due) - now) * 1000 + 1) if due else None

    def _on_signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            if self._stopping:
                log.warning("told to stop a second time: ending at once")
                self._status = 1
                self._kill_all()
                self._generations.clear()
                return
            log.info("stopping: connections have %.0f seconds to finish", self._generations[-1].prepared.drain_seconds)
            self._stopping = True
            self._restarts.clear()
            for generation in self._generations:
                self._drain(generation)
        elif number == signal.SIGHUP and not self._stopping:
            if self._reload_wanted or not self._generations[-1].proven:
                log.info("a reload is under way; another one follows it")
            self._reload_wanted = True

    def _maybe_reload(self) -> None:
        """Reload unless another reload is under way, or too many generations drain: then later."""
        serving = [generation for generation in self._generations if generation.draining_since is None]
        if len(serving) != 1 or not serving[0].proven or len(self._generations) >= _OVERLAP:
            return
        self._reload_wanted = False
        try:
            prepared = self._prepare(serving[0].prepared)
        except ConfigError as error:
            log.error("the new configuration is not used, the old one stays: %s", error)  # noqa: TRY400  # its text says it all
            return
        except Exception:
            log.exception("the new configuration is not used, the old one stays")
            return
        log.info("reloading the configuration")
        try:
            self._begin(prepared)
        except OSError as error:
            log.error("the new configuration is not used, the old one stays: cannot start a worker: %s", error)  # noqa: TRY400  # as above
            self._drain(self._generations[-1])

    def _begin(self, prepared: Prepared) -> None:
        generation = _Generation(prepared)
        self._generations.append(generation)
        # What is there now lives as long as its workers: the collector need not look at it in each of them.
        gc.freeze()
        gc.set_threshold(_GARBAGE)
        gc.enable()
        for index in range(prepared.workers):
            self._fork(generation, index)

    def _fork(self, generation: _Generation, index: int) -> None:
        """Raises OSError when the system has no room for another process."""
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
        except OSError:
            os.close(reading)
            os.close(writing)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            raise
        if pid == 0:
            status = 1
            try:
                os.close(reading)
                self._become_worker(generation)
                generation.prepared.serve(
                    index, self._life_r, lambda: os.close(writing) if os.write(writing, b"R") else None
                )
                status = 0
            except ConfigError as error:
                log.error("%s", error)  # noqa: TRY400  # the user's mistake, told in one line
            except BaseException:
                log.exception("worker %d failed", index)
            finally:
                os._exit(status)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        os.close(writing)
        self._poll.register(reading, select.POLLIN)
        generation.workers[pid] = _Worker(index, pid, reading, time.monotonic())

    def _become_worker(self, own: _Generation) -> None:
        """Leave behind what is the supervisor's, and the ports of other configurations: here nobody accepts on them."""
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches us all; the supervisor passes it on
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        os.close(self._life_w)
        os.close(self._wake_r)
        os.close(self._wake_w)
        for generation in self._generations:
            if generation is not own:
                generation.prepared.release([own.prepared])
            for worker in generation.workers.values():
                if worker.pipe >= 0:
                    os.close(worker.pipe)

    def _look_at(self, worker: _Worker) -> None:
        if worker.pipe < 0:
            return
        try:
            said = os.read(worker.pipe, 1)
        except BlockingIOError:
            return
        worker.ready = said == b"R"
        self._poll.unregister(worker.pipe)
        os.close(worker.pipe)
        worker.pipe = -1

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for generation in self._generations:
                worker = generation.workers.pop(pid, None)
                if worker is not None:
                    self._look_at(worker)
                    self._on_exit(generation, worker, os.waitstatus_to_exitcode(status))

    def _on_exit(self, generation: _Generation, worker: _Worker, code: int) -> None:
        if generation.draining_since is not None:
            return
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        if not generation.proven and not worker.ready and self._announced:
            log.error(
                "the new configuration is not used: its worker %d ended %s before it was ready", worker.index, how
            )
            self._drain(generation)
            return
        if not generation.proven and not worker.ready:
            self._status = 1
            for other in self._generations:
                self._drain(other)
            return
        alive = time.monotonic() - worker.started
        self._failures = 0 if alive > _SETTLED else self._failures + 1
        delay = 0.0 if not self._failures else min(10.0, 0.1 * 2**self._failures)
        log.error("worker %d (pid %d) ended %s; starting another", worker.index, worker.pid, how)
        self._restarts.append((time.monotonic() + delay, generation, worker.index))

    def _restart_due(self) -> None:
        now = time.monotonic()
        due = [item for item in self._restarts if item[0] <= now]
        self._restarts = [item for item in self._restarts if item[0] > now]
        for _, generation, index in due:
            if generation in self._generations and generation.draining_since is None:
                try:
                    self._fork(generation, index)
                except OSError as error:
                    log.error("cannot start a worker: %s", error)  # noqa: TRY400  # its text says it all
                    self._restarts.append((now + _RETRY, generation, index))

    def _settle(self) -> None:
        """Retire old generations once the newest is ready, announce the first, forget those that ended."""
        newest = self._generations[-1] if self._generations else None
        if newest is not None and newest.is_ready and newest.draining_since is None:
            newest.proven = True
            for older in self._generations[:-1]:
                if older.draining_since is None:
                    log.info("the new configuration is in use")
                    self._drain(older)
            if not self._announced:
                self._announced = True
                self._announce(newest.prepared)
        now = time.monotonic()
        for generation in list(self._generations):
            since = generation.draining_since
            if since is None:
                continue
            if now > since + generation.prepared.drain_seconds + _GRACE:
                self._signal(generation, signal.SIGKILL)
            if not generation.workers:
                self._generations.remove(generation)

    def _drain(self, generation: _Generation) -> None:
        if generation.draining_since is None:
            generation.draining_since = time.monotonic()
            # At once, or a port that is no longer configured would take connections that nobody accepts.
            generation.prepared.release([g.prepared for g in self._generations if g.draining_since is None])
            self._signal(generation, signal.SIGTERM)

    def _kill_all(self) -> None:
        for generation in self._generations:
            self._signal(generation, signal.SIGKILL)
            for pid in generation.workers:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
            generation.workers.clear()

    @staticmethod
    def _signal(generation: _Generation, number: int) -> None:
        for pid in generation.workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
