"""The number by which every process knows that another one has changed something."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from mxart.errors import ConfigError
from mxart.store.generation import OUTSIDE, Generation

_OUTSIDE = "import sys; from pathlib import Path; from mxart.store.generation import Generation\n"


def in_children(*works: Callable[[], None]) -> None:
    children = []
    for work in works:
        child = os.fork()
        if child == 0:
            work()
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0


def count(generation: Generation, times: int) -> None:
    for _ in range(times):
        generation.bump()


@pytest.mark.parametrize("in_file", [True, False])
def test_no_count_of_any_worker_is_lost(tmp_path: Path, in_file: bool) -> None:
    generation = Generation.open(tmp_path / "g", 4) if in_file else Generation(4)
    in_children(*(partial(count, generation.slot(index + 1), 20_000) for index in range(3)))
    assert generation.value() == 60_000


def test_what_processes_outside_the_server_change_is_seen_and_none_of_it_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "g"
    server = Generation.open(path, 65)
    mine = server.slot(1)
    in_children(
        *(lambda: count(Generation.outside(path), 5000) for _ in range(3)),
        lambda: count(mine, 5000),
    )
    assert server.value() == mine.value() == 20_000
    before = server.value()
    subprocess.run([sys.executable, "-c", _OUTSIDE + "Generation.outside(Path(sys.argv[1])).bump()", path], check=True)
    assert server.value() == before + 1


def test_a_process_outside_sees_what_workers_change(tmp_path: Path) -> None:
    server = Generation.open(tmp_path / "g", 65)
    outside = Generation.outside(tmp_path / "g")
    before = outside.value()
    server.slot(64).bump()
    assert outside.value() == before + 1
    outside.close()


def test_threads_of_one_process_share_a_slot(tmp_path: Path) -> None:
    mine = Generation.open(tmp_path / "g", 2).slot(1)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=count, args=(mine, 5000)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert mine.value() == 20_000


@pytest.mark.parametrize(
    "found", [b"", b"\xff", b"\xff" * 8 * 65, b"#!/bin/sh\necho what\n" * 99, os.urandom(1000)], ids=len
)
def test_whatever_the_file_holds_at_the_start_is_a_number_to_count_from(tmp_path: Path, found: bytes) -> None:
    path = tmp_path / "g"
    path.write_bytes(found)
    server = Generation.open(path, 65)
    seen = {server.value()}
    for index in (OUTSIDE, 1, 64):
        server.slot(index).bump()
        seen.add(server.value())
    assert len(seen) == 4


def test_a_start_with_other_numbers_of_workers_never_makes_the_file_shorter_than_somebody_has_it_mapped(
    tmp_path: Path,
) -> None:
    path = tmp_path / "g"
    many = Generation.open(path, 1000)
    few = Generation.open(path, 5)
    before = many.value()
    few.slot(4).bump()
    many.slot(999).bump()
    assert many.value() == before + 2
    assert Generation.outside(path).value() == many.value()


def test_a_file_that_was_cut_while_workers_run_is_whole_for_the_next_worker(tmp_path: Path) -> None:
    path = tmp_path / "g"
    server = Generation.open(path, 65)
    os.truncate(path, 0)
    successor = server.slot(2)
    before = successor.value()
    successor.bump()
    assert successor.value() == before + 1
    assert Generation.outside(path).value() == before + 1


def test_a_file_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        Generation.open(tmp_path / "nowhere" / "g", 1)
    with pytest.raises(ConfigError, match="directory"):
        Generation.outside(tmp_path)
