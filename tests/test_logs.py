"""Log lines: JSON for machines, nothing lost, nothing that a stranger can use against a terminal."""

from __future__ import annotations

import json
import logging
import os
import pty
import select
from collections.abc import Iterator

import pytest

from mxart.logs import LineSink, configure


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger("mxart")
    before = (root.handlers[:], root.level, root.propagate)
    yield
    root.handlers[:], root.level, root.propagate = before


def test_an_exchange_is_one_json_object_with_its_fields(restored: None) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as lines, os.fdopen(writing, "w"):
        sink, events = configure("info", writing)
        events("GET /v2/", {"status": 200})
        sink.flush()
        line = json.loads(lines.readline())
    assert line["message"] == "GET /v2/"
    assert line["status"] == 200
    assert line["level"] == "info"


def test_a_warning_is_written_at_once_with_what_came_before(restored: None) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as lines, os.fdopen(writing, "w"):
        sink, _ = configure("info", writing)
        sink.gather()
        logging.getLogger("mxart").info("first")
        logging.getLogger("mxart").warning("second")
        assert [json.loads(lines.readline())["message"] for _ in range(2)] == ["first", "second"]


def test_on_a_terminal_lines_are_text_without_a_strangers_control_characters(restored: None) -> None:
    ours, theirs = pty.openpty()
    try:
        sink, events = configure("info", theirs)
        events("GET /\x07\x1b]0;owned\x07", {"agent": "a\x1b[2Jb", "why": ""})
        sink.flush()
        text = os.read(ours, 4096).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "GET /" in text
    assert "\x07" not in text
    assert "\x1b]0" not in text
    assert "\x1b[2J" not in text
    assert "why=" not in text


def test_a_log_that_nobody_reads_breaks_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    sink = LineSink(writing)
    sink.write(b"x" * 100_000)
    sink.write(b"y", at_once=True)
    os.close(writing)


def test_lines_of_several_workers_never_mix_in_a_pipe() -> None:
    """A pipe takes PIPE_BUF bytes as one piece: no write that could be split holds more than one line (pipe(7))."""
    reading, writing = os.pipe()
    sink = LineSink(writing)
    sink.gather()
    lines = [b"%d " % number + b"x" * (37 * number % 900) + b"\n" for number in range(100)]
    for line in lines:
        sink.write(line)
        held = os.read(reading, 1 << 20) if readable(reading) else b""
        assert len(held) <= select.PIPE_BUF
        assert held.endswith(b"\n") or not held
    os.close(reading)
    os.close(writing)


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def test_half_a_character_costs_no_line(restored: None) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as lines, os.fdopen(writing, "w"):
        _, events = configure("info", writing)
        events("GET /", {"status": 200, "path": "\udcff"})
        logging.getLogger("mxart").info("cannot read %s", "\udcff")
        line, other = json.loads(lines.readline()), json.loads(lines.readline())
    assert (line["status"], line["path"]) == (200, "\\udcff")
    assert other["message"] == "cannot read \\udcff"
