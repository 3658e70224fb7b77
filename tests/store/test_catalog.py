"""The names of everything survive, agree between workers, and a foreign catalog is refused."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from mxart.digest import Digest
from mxart.errors import ConfigError, Problem, UpstreamUnavailable
from mxart.store import schema
from mxart.store.base import FileRecord, VersionRecord
from mxart.store.catalog import SqliteCatalog
from mxart.store.generation import Generation

ONE, TWO = Digest.of(b"1"), Digest.of(b"2")


def record(path: str, digest: Digest = ONE, **changes: float | str) -> FileRecord:
    values: dict[str, float | str] = {"repository": "hub", "package": "library/alpine", "created": 1.0}
    values.update(changes)
    return FileRecord(path=path, digest=digest, size=5, media_type="a/b", **values)  # type: ignore[arg-type]  # by name


async def test_a_file_record_comes_back_as_it_was_put_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "c"
    first = record("x", etag='"e"', last_modified="Mon", origin="https://up", validated=9.5, checksum="sha1:x")
    catalog = SqliteCatalog(path)
    await catalog.put_file(first)
    await catalog.put_file(record("y", TWO))
    await catalog.put_file(record("y", ONE, etag="new"))
    # Not closed: the process is killed here.
    again = SqliteCatalog(path)
    assert again.file("hub", "x") == first
    assert again.file("hub", "y") == record("y", ONE, etag="new")
    assert again.file("hub", "z") is None
    assert again.file("other", "x") is None
    await again.aclose(0.0)
    await catalog.aclose(0.0)


async def test_tags_come_in_order_page_by_page_and_move(tmp_path: Path) -> None:
    catalog = SqliteCatalog(tmp_path / "c")
    for tag in ("latest", "3.20", "Beta", "3.9"):
        await catalog.put_tag("hub", "library/alpine", tag, record(f"tag/{tag}"))
    await catalog.put_tag("hub", "library/alpine", "latest", record("tag/latest", TWO, created=2.0))
    names = [found.name for found in catalog.tags("hub", "library/alpine", "", 100)]
    assert names == ["3.20", "3.9", "Beta", "latest"]
    assert [found.name for found in catalog.tags("hub", "library/alpine", "3.20", 2)] == ["3.9", "Beta"]
    assert catalog.tags("hub", "library/alpine", "Beta", 9) == [VersionRecord("latest", TWO, 2.0)]
    assert catalog.tags("hub", "library/other", "", 9) == []
    assert catalog.file("hub", "tag/latest") == record("tag/latest", TWO, created=2.0)
    with pytest.raises(ValueError, match="another package"):
        await catalog.put_tag("hub", "else", "t", record("tag/t"))
    await catalog.aclose(0.0)


async def test_a_forgotten_file_takes_its_tag_and_an_empty_package_along(tmp_path: Path) -> None:
    catalog = SqliteCatalog(tmp_path / "c")
    await catalog.put_tag("hub", "library/alpine", "latest", record("t"))
    await catalog.put_file(record("f"))
    assert catalog.has_package("hub", "library/alpine")
    await catalog.forget_file("hub", "t")
    assert catalog.tags("hub", "library/alpine", "", 9) == []
    assert catalog.packages("hub", "", 9) == ["library/alpine"]
    await catalog.forget_file("hub", "f")
    await catalog.forget_file("hub", "f")
    assert not catalog.has_package("hub", "library/alpine")
    assert catalog.packages("hub", "", 9) == []
    await catalog.aclose(0.0)


async def test_packages_come_in_order_page_by_page(tmp_path: Path) -> None:
    catalog = SqliteCatalog(tmp_path / "c")
    for name in ("b", "a", "c"):
        await catalog.put_file(record(f"{name}/f", package=name))
    await catalog.put_file(record("z", repository="other", package="z"))
    assert catalog.packages("hub", "", 9) == ["a", "b", "c"]
    assert catalog.packages("hub", "a", 1) == ["b"]
    await catalog.aclose(0.0)


async def test_a_missing_file_is_missing_until_its_time_or_until_it_is_put(tmp_path: Path) -> None:
    catalog = SqliteCatalog(tmp_path / "c")
    await catalog.put_missing("hub", "x", 100.0)
    assert catalog.missing("hub", "x", 99.0)
    assert not catalog.missing("hub", "x", 100.0)
    assert not catalog.missing("hub", "y", 99.0)
    await catalog.put_file(record("x"))
    assert not catalog.missing("hub", "x", 99.0)
    await catalog.put_missing("hub", "y", 100.0)
    await catalog.flush(150.0)
    assert not catalog.missing("hub", "y", 99.0)
    await catalog.aclose(0.0)


async def test_last_use_is_written_in_batches_and_at_the_end(tmp_path: Path) -> None:
    catalog = SqliteCatalog(tmp_path / "c")
    await catalog.put_file(record("x"))
    assert catalog.last_use("hub", "x") is None
    catalog.used("hub", "x", 5.0)
    catalog.used("hub", "gone", 5.0)
    assert catalog.last_use("hub", "x") == 5.0
    await catalog.flush(0.0)
    catalog.used("hub", "x", 7.0)
    await catalog.aclose(0.0)
    again = SqliteCatalog(tmp_path / "c")
    assert again.last_use("hub", "x") == 7.0
    await again.aclose(0.0)


@pytest.mark.parametrize("shared", [True, False])
async def test_the_generation_changes_with_every_write_of_any_worker(tmp_path: Path, shared: bool) -> None:
    generation = Generation(2) if shared else None
    one = SqliteCatalog(tmp_path / "c", generation and generation.slot(0))
    two = SqliteCatalog(tmp_path / "c", generation and generation.slot(1))
    for writer, reader in ((one, two), (two, one), (one, one)):
        before = reader.generation()
        assert reader.generation() == before
        await writer.put_file(record("x", TWO if reader.file("hub", "x") == record("x") else ONE))
        assert reader.generation() != before
    await one.aclose(0.0)
    await two.aclose(0.0)


async def test_what_a_process_changed_that_was_killed_before_it_said_so_is_overheard(tmp_path: Path) -> None:
    generation = Generation(2)
    catalog = SqliteCatalog(tmp_path / "c", generation.slot(0))
    await catalog.put_file(record("x"))
    catalog.overhear()
    before = catalog.generation()
    catalog.overhear()
    assert catalog.generation() == before, "nothing has changed"
    silent = SqliteCatalog(tmp_path / "c")  # it says nothing
    await silent.forget_file("hub", "x")
    assert catalog.generation() == before
    catalog.overhear()
    assert catalog.generation() != before
    await silent.aclose(0.0)
    await catalog.aclose(0.0)


async def test_a_cancelled_write_happened_or_did_not(tmp_path: Path) -> None:
    catalog = SqliteCatalog(tmp_path / "c")
    for delay in (0.0, 0.0001, 0.0003, 0.001):
        with trio.move_on_after(delay):
            await catalog.put_tag("hub", "library/alpine", f"t{delay}", record(f"t{delay}"))
        tagged = [tag.name for tag in catalog.tags("hub", "library/alpine", "", 99)]
        assert (catalog.file("hub", f"t{delay}") is not None) == (f"t{delay}" in tagged)
    await catalog.put_file(record("still works"))
    await catalog.aclose(0.0)


async def test_many_writers_of_two_workers_wait_for_each_other(tmp_path: Path) -> None:
    one, two = SqliteCatalog(tmp_path / "c"), SqliteCatalog(tmp_path / "c")
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(one.put_file, record(f"one{number}"))
            nursery.start_soon(two.put_file, record(f"two{number}"))
    assert all(one.file("hub", f"two{n}") and two.file("hub", f"one{n}") for n in range(50))
    await one.aclose(0.0)
    await two.aclose(0.0)


async def test_a_write_that_fails_among_others_fails_alone(tmp_path: Path) -> None:
    catalog = SqliteCatalog(tmp_path / "c")
    failed: list[str] = []

    async def put(path: str, size: int) -> None:
        try:
            await catalog.put_file(FileRecord("hub", "p", path, ONE, size, "t"))
        except Problem:
            failed.append(path)

    with sqlite3.connect(tmp_path / "c") as db:
        db.execute("CREATE TRIGGER t BEFORE INSERT ON files WHEN new.size < 0 BEGIN SELECT RAISE(ABORT, 'no'); END")
    db.close()
    async with trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(put, str(number), -1 if number % 10 == 5 else 1)
    assert sorted(failed) == ["15", "25", "5"]
    assert all((catalog.file("hub", str(n)) is None) == (str(n) in failed) for n in range(30))
    catalog.close()


async def test_a_write_that_fails_by_a_fault_of_the_program_takes_no_other_with_it(tmp_path: Path) -> None:
    """What shared its transaction was once told that it is written, and was not."""
    catalog = SqliteCatalog(tmp_path / "c")
    told: list[str] = []
    wrong: list[str] = []

    async def put(path: str, size: int) -> None:
        try:
            await catalog.put_file(FileRecord("hub", "p", path, ONE, size, "t"))
            told.append(path)
        except OverflowError:
            wrong.append(path)

    async with trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(put, str(number), 1 << 64 if number % 10 == 5 else 1)
    assert sorted(wrong) == ["15", "25", "5"]
    assert len(told) == 27
    assert all(catalog.file("hub", path) is not None for path in told)
    catalog.close()


async def test_a_catalog_that_others_write_to_for_long_is_busy_and_not_broken(tmp_path: Path) -> None:
    catalog = SqliteCatalog(tmp_path / "c", busy_seconds=0.05)
    with sqlite3.connect(tmp_path / "c", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UpstreamUnavailable):
            await catalog.put_file(record("a"))
    other.close()
    await catalog.put_file(record("a"))
    catalog.close()


@pytest.mark.parametrize("content", [b"this is no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_corrupt_catalog_is_refused_with_its_name_and_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "catalog.sqlite"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"catalog\.sqlite.*backup"):
        SqliteCatalog(path)
    assert path.read_bytes() == content


def test_a_newer_catalog_and_another_programs_database_are_refused(tmp_path: Path) -> None:
    for name, pragma, words in (("a", "user_version = 99", "another program"), ("b", "application_id = 7", "another")):
        with sqlite3.connect(tmp_path / name) as db:
            db.execute(f"PRAGMA {pragma}")
        db.close()
        with pytest.raises(ConfigError, match=words):
            SqliteCatalog(tmp_path / name)
    SqliteCatalog(tmp_path / "c").close()
    with sqlite3.connect(tmp_path / "c") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ConfigError, match="newer program"):
        SqliteCatalog(tmp_path / "c")


async def test_a_catalog_that_breaks_while_running_is_a_problem_and_not_an_absence(tmp_path: Path) -> None:
    catalog = SqliteCatalog(tmp_path / "c")
    other = sqlite3.connect(tmp_path / "c")
    other.execute("DROP TABLE tags")
    other.execute("DROP TABLE uses")
    other.execute("DROP TABLE files")
    other.close()
    with pytest.raises(Problem):
        catalog.file("hub", "x")
    with pytest.raises(Problem):
        await catalog.put_file(record("x"))
    await catalog.aclose(time.time())


_KILLED = """
import os, signal, sys, trio
from pathlib import Path
from mxart.digest import Digest
from mxart.store import schema
from mxart.store.base import FileRecord
from mxart.store.catalog import SqliteCatalog

async def main():
    catalog = SqliteCatalog(Path(sys.argv[1]))
    for number in range(1000):
        await catalog.put_tag("hub", "p", str(number), FileRecord("hub", "p", str(number), Digest.of(b"1"), 1, "t"))
        os.write(1, f"{number}\\n".encode())

trio.run(main)
"""


async def test_what_was_acknowledged_before_a_kill_is_there_and_nothing_is_half(tmp_path: Path) -> None:
    path = tmp_path / "c"
    process = await trio.lowlevel.open_process([sys.executable, "-c", _KILLED, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = b""
    async with process.stdout:
        while said.count(b"\n") < 5:
            said += await process.stdout.receive_some()
        process.kill()
        while more := await process.stdout.receive_some():
            said += more
    await process.wait()
    acknowledged = said.decode().split()
    catalog = SqliteCatalog(path)
    tags = [tag.name for tag in catalog.tags("hub", "p", "", 2000)]
    assert set(acknowledged) <= set(tags)
    assert len(tags) <= len(acknowledged) + 1
    assert all(catalog.file("hub", tag) is not None for tag in tags)
    catalog.close()


async def test_what_a_published_module_was_known_by_stood_in_the_place_of_an_upstreams_tag(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    connection = schema.connect(path)
    for script in schema.SCHEMA.migrations[:4]:
        connection.executescript(script)
    connection.executescript(
        f"""
        PRAGMA application_id = {schema.SCHEMA.application_id};
        PRAGMA user_version = 4;
        INSERT INTO repositories VALUES (1, 'go-local');
        INSERT INTO packages VALUES (1, 1, 'example.com/m');
        INSERT INTO files VALUES (1, 1, 1, 'a.zip', '{ONE}', 1, 't', 'h1:abc=', '', '', 1.0, 0.0);
        INSERT INTO files VALUES (2, 1, 1, 'b.zip', '{ONE}', 1, 't', 'h1:abc=', '', 'https://up', 1.0, 0.0);
        INSERT INTO files VALUES (3, 1, 1, 'c.zip', '{ONE}', 1, 't', '"e"', '', '', 1.0, 0.0);
        """
    )
    connection.close()
    catalog = SqliteCatalog(path)
    found = [catalog.file("go-local", f"{name}.zip") for name in "abc"]
    assert [(item.etag, item.checksum) for item in found if item] == [("", "h1:abc="), ("h1:abc=", ""), ('"e"', "")]
    await catalog.aclose(0.0)
