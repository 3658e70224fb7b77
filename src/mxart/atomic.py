"""Small files that are there whole or not at all, and directories that one process at a time may change."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, data: bytes, mode: int) -> None:
    """All of the file or nothing of it, on disk when this returns. Never readable by more than `mode` says."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """What was made, renamed and removed in a directory is on disk when this returns."""
    with _opened(path) as descriptor:
        os.fsync(descriptor)


@contextmanager
def locked_directory(path: Path) -> Iterator[None]:
    """A directory for its owner only, made if need be; whoever else wants this waits. Raises OSError; blocks."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _opened(path) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield  # closing the descriptor lets go of the lock


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
