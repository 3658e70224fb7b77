"""The audit log: one JSON line for every write and every request that was denied, and for changes to who may what.

    <data>/audit/           0700
      audit.jsonl           what users did, and what they were denied
      strangers.jsonl       what was denied to somebody without a login: nobody can push out the other one
      ....1 ...             older ones of both (module line_file)

A line never holds a secret: neither credentials nor queries nor bodies.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from heapq import merge
from itertools import islice
from pathlib import Path

import msgspec

from mxart.access.credentials import without_secrets
from mxart.access.line_file import LineFile
from mxart.errors import ConfigError

log = logging.getLogger(__name__)

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
        """`max_bytes` of each file. Raises ConfigError."""
        self._directory = directory
        self._clock = clock
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._users = LineFile(directory / "audit.jsonl", max_bytes)
            self._strangers = LineFile(directory / "strangers.jsonl", max_bytes)
        except OSError as error:
            raise ConfigError(f"{directory}: the audit log cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Let go of the files."""
        self._users.close()
        self._strangers.close()

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
        file = self._strangers if not entry.who and entry.outcome == "denied" else self._users
        try:
            if not file.append(msgspec.json.encode(entry) + b"\n"):
                log.error("%s: the disk is full: a line of the audit log is cut short", file.path)
        except OSError as error:
            log.error("%s: the audit log cannot be written: %s", file.path, error.strerror)  # noqa: TRY400  # its text says it all

    def tail(self, limit: int = 100, wanted: Callable[[Entry], bool] = lambda _: True) -> list[Entry]:
        """The newest entries that are wanted, the newest first. Reads backwards, as far as it must. Blocks."""
        return list(islice((entry for entry in self.backwards() if wanted(entry)), limit))

    def backwards(self, until: str = "") -> Iterator[Entry]:
        """All entries, the newest first; none that is newer than `until`, a time as they have it. Blocks."""
        both = (_read(file.backwards(), until) for file in (self._users, self._strangers))
        yield from merge(*both, key=lambda entry: entry.time, reverse=True)


def _read(lines: Iterator[bytes], until: str) -> Iterator[Entry]:
    for line in lines:
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
