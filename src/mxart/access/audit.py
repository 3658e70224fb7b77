"""The audit log: one JSON line for every write and every request that was denied, and for changes to who may what.

    <data>/audit/           0700
      audit.jsonl           appended to by all workers, a line with one write(2), so that lines never mix
      audit.jsonl.1 ...     older ones, the higher the older; `KEPT` of them

A line never holds a secret: neither credentials nor queries nor bodies.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import msgspec

from mxart.access.credentials import without_secrets
from mxart.atomic import locked_directory
from mxart.errors import ConfigError

log = logging.getLogger(__name__)

KEPT = 9
FILE = "audit.jsonl"
_BLOCK = 65536
_MAX_TEXT = 1024
_TIME = b'{"time":"'  # what every line begins with


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One line. `who` "" is nobody in particular; `outcome`: "done", "denied", "failed"; `rule` is what decided."""

    time: str = ""
    who: str = ""
    token: str = ""  # its number
    source: str = ""  # the address that the request came from
    action: str = ""
    repository: str = ""
    path: str = ""
    outcome: str = ""
    status: int = 0
    rule: str = ""
    detail: str = ""


class Audit:
    """Writes and reads the log. Lines are in the system's hands when `write` returns: some tens of microseconds."""

    def __init__(self, directory: Path, max_bytes: int = 64 << 20, clock: Callable[[], float] = time.time) -> None:
        """Raises ConfigError."""
        self._directory = directory
        self._path = directory / FILE
        self._max = max_bytes
        self._clock = clock
        self._fd = -1
        self._inode = -1
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise ConfigError(f"{self._path}: the audit log cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def write(self, entry: Entry) -> None:
        """Append a line. A log that cannot be written is told of in the other log, and stops nobody."""
        now = self._clock()
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03d}Z"
        entry = msgspec.structs.replace(
            entry,
            time=stamp,
            path=_fit(entry.path),
            detail=_fit(entry.detail),
            who=_fit(entry.who),
            repository=_fit(entry.repository),
        )
        line = msgspec.json.encode(entry) + b"\n"
        try:
            self._follow()
            if os.write(self._fd, line) != len(line):
                log.error("%s: the disk is full: a line of the audit log is cut short", self._path)
        except OSError as error:
            log.error("%s: the audit log cannot be written: %s", self._path, error.strerror)  # noqa: TRY400  # its text says it all

    def _open(self) -> None:
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.close()
        self._fd = fd
        self._inode = os.fstat(fd).st_ino

    def _follow(self) -> None:
        """Begin another file when this one is long; go to the new one when another process has begun it."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return self._open()
        if found.st_ino != self._inode:
            self._open()
        if found.st_size >= self._max:
            with locked_directory(self._directory):
                self._open()
                if os.fstat(self._fd).st_size >= self._max:  # another process may have been faster
                    for number in range(KEPT - 1, 0, -1):
                        older = self._older(number)
                        if older.exists():
                            older.rename(self._older(number + 1))
                    self._path.rename(self._older(1))
                    self._open()
        return None

    def _older(self, number: int) -> Path:
        return self._directory / f"{FILE}.{number}"

    def tail(self, limit: int = 100, wanted: Callable[[Entry], bool] = lambda _: True) -> list[Entry]:
        """The newest entries that are wanted, the newest first. Reads backwards, as far as it must. Blocks."""
        return list(islice((entry for entry in self.backwards() if wanted(entry)), limit))

    def backwards(self, until: str = "") -> Iterator[Entry]:
        """All entries, the newest first; none that is newer than `until`, a time as they have it. Blocks."""
        for path in (self._path, *(self._older(number) for number in range(1, KEPT + 1))):
            for line in _backwards(path):
                # Looked at as bytes: what is passed over may be hundreds of megabytes.
                if until and line.startswith(_TIME) and line[len(_TIME) : len(_TIME) + len(until)] > until.encode():
                    continue
                try:
                    yield msgspec.json.decode(line, type=Entry)
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    continue  # cut short by a full disk


def _fit(text: str) -> str:
    """A stranger's text: not endless, nothing that JSON cannot hold, and no token that was put where a name belongs."""
    return without_secrets(text[:_MAX_TEXT]).encode("utf-8", "backslashreplace").decode()


def _backwards(path: Path) -> Iterator[bytes]:
    """The lines of a file, the last one first."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        at = file.seek(0, os.SEEK_END)
        rest = b""
        while at > 0:
            step = min(_BLOCK, at)
            at -= step
            file.seek(at)
            first, *lines = (file.read(step) + rest).split(b"\n")
            yield from (line for line in reversed(lines) if line)
            rest = first
        if rest:
            yield rest
