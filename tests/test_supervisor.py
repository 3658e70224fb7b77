"""Workers that die, reloads that fail or come in a crowd, signals at the worst moment."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kit import supervised
from kit.servers import Service, wait_until


class Parent:
    """The supervisor under test, and what its workers wrote."""

    def __init__(self, folder: Path, wanted: str) -> None:
        self._folder = folder
        self.want(wanted)
        self.service = Service("supervisor", [sys.executable, supervised.__file__, folder], folder)

    def want(self, wanted: str) -> None:
        fresh = self._folder / "wanted.new"
        fresh.write_text(wanted)
        fresh.rename(self._folder / "wanted")  # it may be read at any time

    def reload(self, wanted: str) -> None:
        self.want(wanted)
        self.signal(signal.SIGHUP)

    def signal(self, number: signal.Signals) -> None:
        self.service.process.send_signal(number)

    def lives(self, what: str, name: str = "") -> list[list[str]]:
        """Lines of workers: what happened, pid, the name of the port, the port."""
        file = self._folder / "lives"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        return [line for line in lines if line[0] == what and line[2] == (name or line[2])]

    def wait_for(self, what: str, name: str, count: int) -> list[list[str]]:
        return wait_until(
            lambda: found if len(found := self.lives(what, name)) >= count else None, f"{count} {what} of {name}"
        )

    def wait_for_log(self, part: str, count: int = 1) -> None:
        wait_until(lambda: self.service.err.read_text().count(part) >= count, part)

    @property
    def children(self) -> list[int]:
        text = Path(f"/proc/{self.service.pid}/task/{self.service.pid}/children").read_text()
        return [int(pid) for pid in text.split()]


@contextmanager
def parent(folder: Path, wanted: str) -> Iterator[Parent]:
    running = Parent(folder, wanted)
    try:
        running.service.wait_for_line("^ready ")
        yield running
        assert running.service.stop() == 0, running.service.output()
        assert "Traceback" not in running.service.err.read_text()
    finally:
        running.service.kill()


def refuses(port: str) -> bool:
    try:
        socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_port_that_a_reload_takes_away_refuses_at_once_and_one_that_stays_never_does(tmp_path: Path) -> None:
    with parent(tmp_path, "2 good a") as it:
        port = it.wait_for("ready", "a", 2)[0][3]
        assert not refuses(port)
        it.reload("2 good b")
        it.wait_for("ends", "a", 2)
        wait_until(lambda: refuses(port), "refused: no new worker holds the old port")
        kept = it.wait_for("ready", "b", 2)[0][3]
        it.reload("1 good b")
        it.wait_for("ends", "b", 2)
        assert it.wait_for("ready", "b", 3)[2][3] == kept
        assert not refuses(kept)


def test_the_number_of_workers_follows_a_reload(tmp_path: Path) -> None:
    with parent(tmp_path, "1 good a") as it:
        it.reload("3 good a")
        it.wait_for("ends", "a", 1)
        wait_until(lambda: len(it.children) == 3, "three workers")
        it.reload("1 good a")
        wait_until(lambda: len(it.children) == 1, "one worker")


def test_of_many_reloads_the_last_word_counts(tmp_path: Path) -> None:
    with parent(tmp_path, "1 good a") as it:
        for name in "bcdefgh":
            it.reload(f"1 good {name}")
        it.wait_for("ready", "h", 1)
        wait_until(lambda: it.children == [int(it.lives("ready", "h")[-1][1])], "the others ended")


def test_a_reload_whose_worker_dies_leaves_the_old_one_serving_and_the_next_one_works(tmp_path: Path) -> None:
    with parent(tmp_path, "2 good a") as it:
        it.wait_for("ready", "a", 2)
        it.reload("2 dies b")
        it.wait_for_log("the new configuration is not used")
        wait_until(lambda: len(it.children) == 2, "only the old ones")
        assert it.lives("ends", "a") == []
        assert refuses(it.lives("begins", "b")[0][3])
        it.reload("2 good c")
        it.wait_for("ready", "c", 2)
        it.wait_for("ends", "a", 2)


def test_a_configuration_that_is_refused_leaves_the_old_one_serving(tmp_path: Path) -> None:
    with parent(tmp_path, "1 good a") as it:
        it.wait_for("ready", "a", 1)
        it.reload("1 wrong b")
        it.wait_for_log("the old one stays: it is wrong")
        assert it.lives("ends") == []


def test_even_a_fault_of_ours_during_a_reload_stops_nobody(tmp_path: Path) -> None:
    running = Parent(tmp_path, "1 good a")
    try:
        running.service.wait_for_line("^ready ")
        running.reload("1 breaks b")
        running.wait_for_log("ZeroDivisionError")
        assert running.lives("ends") == []
        assert running.service.stop() == 0
    finally:
        running.service.kill()


def test_a_worker_that_dies_after_a_reload_is_replaced_even_while_the_old_ones_drain(tmp_path: Path) -> None:
    with parent(tmp_path, "1 good a") as it:
        it.reload("1 good b")
        (first,) = it.wait_for("ready", "b", 1)
        it.wait_for("ends", "a", 1)
        os.kill(int(first[1]), signal.SIGKILL)
        it.wait_for("ready", "b", 2)


def test_replacements_that_die_at_once_are_no_failed_reload_once_it_was_used(tmp_path: Path) -> None:
    """While the old generation still drains, the new one is all there is."""
    with parent(tmp_path, "1 clings a") as it:
        it.reload("2 good b")
        first = it.wait_for("ready", "b", 2)[0]
        it.wait_for_log("in use")
        (tmp_path / "ill").touch()
        os.kill(int(first[1]), signal.SIGKILL)
        it.wait_for("begins", "b", 4)
        (tmp_path / "ill").unlink()
        it.wait_for("ready", "b", 3)
        assert it.lives("ends") == []
        (tmp_path / "free").touch()
        it.wait_for("ends", "a", 1)
        wait_until(lambda: len(it.children) == 2, "both new ones")


def test_workers_that_crash_again_and_again_are_replaced_ever_more_slowly_and_a_reload_helps(tmp_path: Path) -> None:
    with parent(tmp_path, "1 crashes a") as it:
        it.wait_for("begins", "a", 4)
        it.reload("1 good b")
        it.wait_for("ready", "b", 1)
        wait_until(lambda: len(it.children) == 1, "only the good one")


def test_a_worker_that_cannot_start_ends_the_program(tmp_path: Path) -> None:
    service = Parent(tmp_path, "2 dies a").service
    try:
        assert service.process.wait(20) == 1
        assert "this worker cannot" in service.err.read_text()
    finally:
        service.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_ends_it_in_order(tmp_path: Path, number: signal.Signals) -> None:
    running = Parent(tmp_path, "8 good a")
    try:
        running.wait_for("begins", "a", 1)
        running.signal(number)
        assert running.service.process.wait(20) == 0, running.service.output()
        assert "second time" not in running.service.err.read_text()
    finally:
        running.service.kill()


def test_a_signal_to_the_whole_group_is_one_stop(tmp_path: Path) -> None:
    running = Parent(tmp_path, "4 good a")
    try:
        running.service.wait_for_line("^ready ")
        os.killpg(running.service.pid, signal.SIGTERM)
        assert running.service.process.wait(20) == 0, running.service.output()
    finally:
        running.service.kill()
