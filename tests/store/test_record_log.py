"""The log of checksums grows and does nothing else, whoever appends and whenever somebody is killed."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
import trio

from kit.sumdb import Log
from mxart.errors import ConfigError, StorageFull, UpstreamUnavailable
from mxart.repos.go.trees import peaks, root
from mxart.repos.own_keys import open_log, tree_of
from mxart.store.record_log import Entry, LogBroken, Recorded, RecordLog

# Appends NAME-0, NAME-1, ... until it is told or killed, and says each number once it is on disk.
_WORKER = """
import sys
from pathlib import Path
import trio
from mxart.repos.own_keys import open_log
from mxart.store.record_log import Entry

async def main(path, name, count, together):
    records = open_log(Path(path))
    async def one(n):
        text = f"{name}-{n}\\n".encode()
        print(name, n, (await records.append(Entry(f"{name}-{n}", text, name, 1.0))).number, flush=True)
    for begin in range(0, int(count), int(together)):
        async with trio.open_nursery() as nursery:
            for n in range(begin, begin + int(together)):
                nursery.start_soon(one, n)

trio.run(main, *sys.argv[1:])
"""


LOCAL = frozenset(("local",))


def entry(name: str, text: bytes = b"") -> Entry:
    return Entry(name, text or f"{name}\n".encode(), "local", 1.0)


def worker(path: Path, name: str, count: int, together: int = 5) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _WORKER, str(path), name, str(count), str(together)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def texts(path: Path) -> list[bytes]:
    with closing(sqlite3.connect(path)) as db:
        return [text for (text,) in db.execute("SELECT text FROM records ORDER BY number")]


def agrees(records: RecordLog, path: Path) -> int:
    """See that every tree that ever was is the one by RFC 6962's own words; the number of records."""
    log = Log(texts(path))
    size = records.audit()
    assert size == records.size() == len(log.records)
    for old in {0, 1, 2, 3, size // 2, size - 1, size}:
        if 0 <= old <= size:
            assert tree_of(records, old) == log.tree(old)
    return size


async def test_a_record_gets_the_next_number_and_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "sumdb" / "log"
    with closing(open_log(path)) as records:
        assert (records.size(), records.find("a")) == (0, None)
        assert await records.append(entry("a")) == Recorded(0, b"a\n", LOCAL)
        assert await records.append(entry("b")) == Recorded(1, b"b\n", LOCAL)
        assert await records.append(Entry("a", b"other\n", "elsewhere", 2.0)) == Recorded(0, b"a\n", LOCAL)
        assert records.find("a") == Recorded(0, b"a\n", LOCAL)
        both = Recorded(1, b"b\n", LOCAL | {"elsewhere"})
        assert await records.append(Entry("b", b"b\n", "elsewhere", 2.0)) == both  # the very same
        assert agrees(records, path) == 2
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    with closing(open_log(path)) as again:
        assert again.find("b") == both


async def test_any_size_is_hashed_as_rfc_6962_says(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with closing(open_log(path)) as records:
        log = Log()
        for n in range(70):
            await records.append(entry(f"m{n}"))
            log.add(f"m{n}\n".encode())
            assert tree_of(records, n + 1) == log.tree()
        for old in range(71):
            assert tree_of(records, old).hash == log.tree(old).hash == root(records.nodes(peaks(old)))
        assert b"".join(records.row(0, 0, 256)) == log.tile(0, 0, 70)
        assert records.row(0, 64, 4) == records.row(0, 0, 256)[64:68]
        assert records.row(9, 0, 1) == []
        with pytest.raises(LogBroken, match="no node 70 at level 0"):
            records.nodes([(0, 70)])


async def test_several_processes_make_one_tree_and_agree_on_names(tmp_path: Path) -> None:
    path = tmp_path / "log"
    names = ["one", "two", "one", "three"]  # two of them append the very same
    running = [worker(path, name, 60) for name in names]
    told = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0] * 4
    numbers = [{line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in text.splitlines()} for text in told]
    assert numbers[0] == numbers[2]
    assert sorted({**numbers[0], **numbers[1], **numbers[3]}.values()) == list(range(180))
    with closing(open_log(path)) as records:
        assert agrees(records, path) == 180


@pytest.mark.parametrize("after", [1, 7, 40])
async def test_what_was_told_is_there_after_a_kill_and_the_tree_is_whole(tmp_path: Path, after: int) -> None:
    path = tmp_path / "log"
    told: dict[bytes, int] = {}
    for name in ("first", "second"):
        process = worker(path, name, 5000)
        assert process.stdout is not None
        before = len(told)
        for line in process.stdout:
            if not line.endswith("\n"):
                break  # it was killed while it spoke
            said, n, number = line.split()
            told[f"{said}-{n}\n".encode()] = int(number)
            if len(told) == before + after:
                process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        assert len(told) >= before + after
        with closing(open_log(path)) as records:
            agrees(records, path)
            kept = texts(path)
            assert all(kept[number] == text for text, number in told.items())


async def test_a_log_is_not_changed_by_any_statement(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with closing(open_log(path)) as records:
        await records.append(entry("a"))
    with closing(sqlite3.connect(path)) as db:
        for statement in (
            "DELETE FROM records",
            "UPDATE records SET text = x'00'",
            "DELETE FROM nodes",
            "UPDATE nodes SET hash = x'00'",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="only grows"):
                db.execute(statement)
        with pytest.raises(sqlite3.IntegrityError, match="the next number"):
            db.execute("INSERT INTO records VALUES (7, 'x', x'00', '', 0.0)")


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE records SET text = x'00' WHERE number = 3",
        "UPDATE nodes SET hash = x'00' WHERE level = 1 AND n = 1",
        "DELETE FROM nodes WHERE level = 2 AND n = 0",
        "DELETE FROM records WHERE number = 6",
    ],
)
async def test_damage_is_found(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "log"
    with closing(open_log(path)) as records:
        for n in range(7):
            await records.append(entry(f"m{n}"))
        with closing(sqlite3.connect(path)) as db, db:
            for trigger in ("records_stay", "records_last", "nodes_stay", "nodes_last"):
                db.execute(f"DROP TRIGGER {trigger}")
            db.execute(damage)
        with pytest.raises(LogBroken):
            records.audit()


async def test_who_is_cancelled_before_his_turn_records_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with closing(open_log(path)) as records:
        with trio.CancelScope() as scope:
            scope.cancel()
            await records.append(entry("a"))
        assert records.size() == 0
        async with trio.open_nursery() as nursery:
            for n in range(30):
                nursery.start_soon(records.append, entry(f"m{n}"))
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        agrees(records, path)


async def test_a_writer_that_holds_on_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with closing(open_log(path)) as first:
        await first.append(entry("a"))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            second = RecordLog(path, lambda text: text, lambda left, right: left + right, busy_seconds=0.05)
            with closing(second), pytest.raises(UpstreamUnavailable, match="busy"):
                await second.append(entry("b"))
            assert first.find("a") is not None
        assert first.size() == 1


async def test_a_full_disk_is_told_of_and_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with closing(open_log(path)) as records:
        await records.append(entry("a"))
        records._writer.execute("PRAGMA max_page_count = 10")  # as a disk that ends
        with pytest.raises(StorageFull):
            await records.append(entry("large", b"x" * 100_000))
        records._writer.execute("PRAGMA max_page_count = 100000")
        await records.append(entry("b"))
        agrees(records, path)


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"something else entirely, and long enough to be one\n" * 50)
    with pytest.raises(ConfigError, match="choose another name for it"):
        open_log(path)
    with suppress(FileNotFoundError):
        path.unlink()
