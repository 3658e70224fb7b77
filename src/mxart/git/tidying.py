"""What is cleared away of copies, or with them: all of it can be fetched again. All of this blocks but `keep_tidy`."""

from __future__ import annotations

import logging
import os
import shutil
import time
from pathlib import Path

import trio

from mxart.store.locks import elect
from mxart.store.paths import GitPaths

_log = logging.getLogger("mxart.git")

UNUSED_SECONDS = 7 * 24 * 3600.0
SCRATCH_SECONDS = 24 * 3600.0  # far longer than anything is under way
TIDY_SECONDS = 3600.0
BUSY = "busy"
"""A file in a copy while something is fetched into it."""


def tidy(paths: GitPaths, now: float, unused_seconds: float = UNUSED_SECONDS) -> int:
    """Remove copies that were not used for so long; how many. Blocks; errors are logged. Any process, at any time."""
    removed = 0
    try:
        for entry in list(paths.temporary.iterdir()):
            if entry.lstat().st_mtime < now - SCRATCH_SECONDS:
                _remove(entry)
        names = {entry.name.partition(".")[0] for entry in paths.copies.iterdir()}
        for name in sorted(names):
            removed += _remove_copy(paths, name, now - unused_seconds)
    except OSError as error:
        _log.warning("%s: cannot be tidied: %s", paths.root, error)
    if removed:
        _log.info("%s: removed %d copies that nobody used", paths.root, removed)
    return removed


def _remove_copy(paths: GitPaths, name: str, oldest: float) -> bool:
    if _used(paths, name) >= oldest:
        return False
    lock, won = elect(paths.lock(name))
    try:
        if not won or _used(paths, name) >= oldest:
            return False
        # First out of sight, at once; then piece by piece.
        paths.references(name).unlink(missing_ok=True)
        if paths.copy(name).exists():
            scratch = paths.scratch()
            paths.copy(name).rename(scratch)
            _remove(scratch)
        os.unlink(paths.lock(name))  # the next one makes another: see store.locks
        return True
    finally:
        os.close(lock)


def _used(paths: GitPaths, name: str) -> float:
    """When it was last used: its references are touched then, and made with the first use."""
    for file in (paths.references(name), Path(paths.lock(name)), paths.copy(name)):
        try:
            return file.stat().st_mtime
        except FileNotFoundError:
            continue
    return 0.0


def clear(folder: Path) -> None:
    """Take away what a git that was killed has left in a copy: its locks, and packs that nobody will finish.

    For whoever has the copy's lock.
    """
    leftovers = [*folder.glob("*.lock"), *folder.glob("refs/**/*.lock"), *folder.glob("objects/**/tmp_*")]
    for path in leftovers:
        path.unlink(missing_ok=True)
    (folder / BUSY).unlink(missing_ok=True)
    _log.info("%s: cleared of %d files that a git has left", folder, len(leftovers))


def throw_away(folder: Path, scratch: Path) -> None:
    """Remove a copy that is damaged. For whoever has its lock; `scratch` is a new name."""
    try:
        folder.rename(scratch)
    except FileNotFoundError:
        return
    _remove(scratch)
    _log.warning("%s: could not be read, and was thrown away; it is fetched anew", folder)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


async def keep_tidy(paths: GitPaths) -> None:
    """Tidy now and once an hour. Runs until cancelled."""
    while True:
        await trio.to_thread.run_sync(tidy, paths, time.time())
        await trio.sleep(TIDY_SECONDS)
