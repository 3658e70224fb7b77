"""What is left behind by processes that died, and what is only noted in memory.

A file whose lock is held belongs to somebody alive and is never touched.  Everything else below
`tmp/` is rubbish.  A partial file is kept to be resumed, unless it is empty, too old, or has become
a blob by another way.  An upload, or a file of a deploy that is held until its end, is kept for a day.  All of this
may run at any time, in several workers at once.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable

import trio

from mxart.errors import Problem
from mxart.store.catalog import SqliteCatalog
from mxart.store.files import remove
from mxart.store.locks import elect, same_file, try_lock
from mxart.store.paths import SPARE, STATE, StorePaths

log = logging.getLogger(__name__)

FLUSH_SECONDS = 30.0
CLEAN_SECONDS = 3600.0
PARTIAL_SECONDS = 7 * 24 * 3600.0
UPLOAD_SECONDS = 24 * 3600.0
_SETTLE_SECONDS = 60.0  # a temporary file this young may not have been locked yet


def clean(
    paths: StorePaths,
    now: float,
    partial_seconds: float = PARTIAL_SECONDS,
    upload_seconds: float = UPLOAD_SECONDS,
) -> int:
    """Remove what nobody will use any more; returns how many files that were. Blocks; errors are logged."""
    removed = 0
    try:
        removed += sum(_clean_unlocked(entry.path, now - _SETTLE_SECONDS) for entry in os.scandir(paths.temporary))
        removed += sum(_clean_partial(paths, entry.name, now - partial_seconds) for entry in os.scandir(paths.partials))
        removed += sum(_clean_upload(paths, entry.name, now - upload_seconds) for entry in os.scandir(paths.uploads))
    except OSError as error:
        log.warning("%s: cannot be cleaned: %s", paths.root, error)
    if removed:
        log.info("%s: removed %d leftovers", paths.root, removed)
    return removed


def _clean_unlocked(path: str, oldest: float) -> bool:
    """Remove a file that nobody has locked, and that was not written to since `oldest`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # a blob that a sweeper left in tmp/ cannot be written
    except FileNotFoundError:
        return False
    try:
        if os.fstat(fd).st_mtime > oldest or not try_lock(fd) or not same_file(fd, path):
            return False
        remove(path)
        return True
    finally:
        os.close(fd)


def _clean_partial(paths: StorePaths, name: str, oldest: float) -> bool:
    found = paths.partial_of(name)
    if found is None:
        log.warning("%s/%s: not a file of this program; left alone", paths.partials, name)
        return False
    path, digest = found
    if not os.path.exists(paths.partials / name):
        return False  # went with its partner
    # Notes without a partial file: taking part in the election is the safe way to be alone with them.
    fd, won = elect(path)
    try:
        if not won:
            return False
        state = os.fstat(fd)
        stored = digest is not None and os.path.exists(paths.blob(digest))
        if state.st_size and state.st_mtime >= oldest and not stored:
            return False
        remove(paths.notes_of(path))
        remove(path)
        return True
    finally:
        os.close(fd)


def _clean_upload(paths: StorePaths, file: str, oldest: float) -> bool:
    """Remove an upload that made no progress since `oldest`; bytes without a state are of one that is over."""
    if file.endswith(SPARE) and paths.is_upload(file.removesuffix(SPARE)):
        return _clean_unlocked(f"{paths.uploads}/{file}", oldest)
    name = file.removesuffix(STATE)
    if not paths.is_upload(name):
        log.warning("%s/%s: not a file of this program; left alone", paths.uploads, file)
        return False
    path, state = paths.upload(name), paths.upload_state(name)
    if _touched(path) >= oldest or _touched(state) >= oldest:
        return False
    try:
        fd = os.open(state, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        if not os.path.exists(path):
            return False  # went with its partner
        remove(path)
        return True
    try:
        if not try_lock(fd) or not same_file(fd, state) or _touched(path) >= oldest or _touched(state) >= oldest:
            return False
        remove(path)
        remove(state)
        return True
    finally:
        os.close(fd)


def _touched(path: str) -> float:
    """When it was last written to; long ago where there is none."""
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0


async def keep_house(catalog: SqliteCatalog, stores: Iterable[StorePaths]) -> None:
    """Write uses and hear of changes every `FLUSH_SECONDS`, clean once now and once an hour. Runs until cancelled.

    Cancellation waits for what it is doing; the catalog's last uses are written by its `aclose`.
    """
    stores = list(stores)
    next_clean = 0.0
    while True:
        now = time.time()
        if now >= next_clean:
            next_clean = now + CLEAN_SECONDS
            for paths in stores:
                await trio.to_thread.run_sync(clean, paths, now)
            try:
                await catalog.forget_held(now - UPLOAD_SECONDS)
            except Problem as problem:
                log.warning("deploys that were begun and never ended are kept: %s", problem.message)
        await trio.sleep(FLUSH_SECONDS)
        try:
            await catalog.flush(time.time())
            catalog.overhear()
        except Problem as problem:
            log.warning("last uses are not written: %s", problem.message)
