"""The audit log: whole lines from all workers, other files in time, and read from its end."""

from __future__ import annotations

import json
import multiprocessing
import stat
from pathlib import Path

import pytest

from mxart.access.audit import Audit, Entry
from mxart.access.line_file import KEPT
from mxart.errors import ConfigError


def test_a_line_says_who_did_what_where_and_when(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit", clock=lambda: 1_800_000_000.5)
    audit.write(Entry(who="ann", source="192.0.2.1", action="publish", repository="oci", path="a", outcome="done"))
    (line,) = (tmp_path / "audit" / "audit.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "time": "2027-01-15T08:00:00.500Z",
        "who": "ann",
        "source": "192.0.2.1",
        "action": "publish",
        "repository": "oci",
        "path": "a",
        "outcome": "done",
    }
    assert stat.S_IMODE((tmp_path / "audit").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "audit" / "audit.jsonl").stat().st_mode) == 0o600


def test_a_strangers_text_is_neither_endless_nor_more_than_a_line(tmp_path: Path) -> None:
    audit = Audit(tmp_path)
    audit.write(Entry(who="\ud800\n" * 9, path="x\n" * 5000, detail="\x1b[31m"))
    assert len((tmp_path / "audit.jsonl").read_bytes().splitlines()) == 1
    (entry,) = audit.tail()
    assert len(entry.path) == 1024
    assert entry.who.startswith("\\ud800\n")


def test_the_tail_is_the_newest_first_over_all_files(tmp_path: Path) -> None:
    audit = Audit(tmp_path, max_bytes=2000)
    for number in range(400):
        audit.write(Entry(who="ann" if number % 2 else "bob", path=f"p{number}", outcome="done"))
    files = sorted(path.name for path in tmp_path.glob("audit.*"))
    assert files == sorted(["audit.jsonl", *(f"audit.jsonl.{number}" for number in range(1, KEPT + 1))])
    assert all(path.stat().st_size < 2200 for path in tmp_path.iterdir())
    assert [entry.path for entry in audit.tail(60)] == [f"p{number}" for number in range(399, 339, -1)]
    assert [entry.path for entry in audit.tail(2, lambda entry: entry.who == "bob")] == ["p398", "p396"]


def test_a_line_that_was_cut_short_hides_no_other(tmp_path: Path) -> None:
    audit = Audit(tmp_path)
    audit.write(Entry(path="before"))
    with (tmp_path / "audit.jsonl").open("a") as file:
        file.write('{"path": "cu\n')
    audit.write(Entry(path="after"))
    assert [entry.path for entry in audit.tail()] == ["after", "before"]


def _many(folder: Path, name: str) -> None:
    audit = Audit(folder, max_bytes=20_000)
    for number in range(300):
        audit.write(Entry(who=name, path=f"{number}"))


def test_several_processes_lose_no_line_when_another_file_begins(tmp_path: Path) -> None:
    processes = [
        multiprocessing.get_context("fork").Process(target=_many, args=(tmp_path, f"w{number}")) for number in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    lines = Audit(tmp_path).tail(10_000)
    assert len(lines) == 900
    for number in range(3):
        assert [entry.path for entry in lines if entry.who == f"w{number}"] == [str(at) for at in range(299, -1, -1)]


def test_a_log_that_is_taken_away_begins_anew(tmp_path: Path) -> None:
    audit = Audit(tmp_path)
    audit.write(Entry(path="gone"))
    (tmp_path / "audit.jsonl").unlink()
    audit.write(Entry(path="new"))
    assert [entry.path for entry in audit.tail()] == ["new"]


def test_a_log_that_cannot_be_written_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    audit = Audit(tmp_path)
    audit.close()
    audit.write(Entry(path="lost"))
    assert "cannot be written" in caplog.text
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        Audit(tmp_path / "file")


def test_a_flood_of_strangers_pushes_out_nothing_that_users_did(tmp_path: Path) -> None:
    now = [1_800_000_000.0]
    audit = Audit(tmp_path, max_bytes=2000, clock=lambda: now[0])
    audit.write(Entry(who="ann", action="publish", path="app", outcome="done"))
    audit.write(Entry(who="ann", action="delete", path="app", outcome="denied"))
    for number in range(2000):
        now[0] += 1.0
        audit.write(Entry(action="publish", path=f"p{number}", outcome="denied"))
    now[0] += 1.0
    audit.write(Entry(who="bob", path="last", outcome="done"))
    entries = audit.tail(10_000)
    assert [entry.path for entry in entries[:3]] == ["last", "p1999", "p1998"]
    assert [entry.outcome for entry in entries if entry.who == "ann"] == ["denied", "done"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2 * (KEPT + 1) * 2200
