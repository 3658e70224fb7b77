"""Taking part in a download that another process writes.

One task for each such file looks every `POLL` seconds at three things, microseconds each: the size of
the partial file (the watermark), its notes (head, verdict), and whether the writer's lock is free.

A free lock means that the writer is done, or dead, or gave up::

    verdict in the notes, or the file is a blob by now    finished
    the file still has its name                           take over: this process is the writer from here on
    the file has lost its name, nobody has read yet       start again with whatever has the name now
    ... and somebody has                                  the writer's disk was full: take over without a disk
                                                          (or upstream's file is another one: that is found out)

The last one also holds while the lock is taken: the writer goes on for its own readers from memory,
which this process cannot see, so it continues by itself after the bytes that are on disk.
"""

from __future__ import annotations

import logging
import os

import trio

from mxart.digest import Digest
from mxart.errors import UpstreamFailed
from mxart.message import Headers
from mxart.store.download import Download
from mxart.store.locks import elect, same_file, try_lock, unlock
from mxart.store.notes import Notes
from mxart.store.paths import StorePaths

log = logging.getLogger(__name__)

POLL = 0.005


async def follow(download: Download, paths: StorePaths) -> bool | None:
    """Feed the readers of this process from a file that another one writes.

    Returns None when it has ended here: finished, broken, or nobody reads it.  Returns True when
    this process holds the lock and has to go on writing, False when it has to go on without a disk.
    Raises OSError when another file had to be opened and could not be.
    """
    file = download.file
    while file.readers:
        fd = file.disk
        assert fd is not None
        free = try_lock(fd)
        named = os.fstat(fd)  # before the notes: what they say then is at least as new
        notes = download.notes
        notes.read()
        if notes.verified:
            named = os.fstat(fd)  # once more: all of it was there before this was said, but maybe not before our look
        if notes.headers is not None and not download.begun:
            download.begin(notes.total, notes.headers)
        file.advance(named.st_size)
        blob = download.promise.settled() if free and not notes.verified else None
        if notes.verified or (blob is not None and same_file(fd, paths.blob(blob))):
            _done(download, free, fd, notes.digest or blob)
            return None
        if notes.broken is not None:
            download.fail(UpstreamFailed(notes.broken, subject=download.promise.subject))
            _done(download, free, fd, None)
            return None
        if named.st_nlink == 0 or (free and not same_file(fd, download.promise.path)):
            if download.told:
                log.warning("%s: its writer cannot store it; going on without a disk", download.label)
                _let_go(free, fd)
                return False
            if _start_again(download):
                return True
            continue
        if free:
            log.info("%s: taking over at %d bytes from a process that is gone", download.label, file.written)
            return True
        await trio.sleep(POLL)
    return None


def _done(download: Download, free: bool, fd: int, digest: Digest | None) -> None:
    if download.problem is None:
        download.begin(download.file.total, download.notes.headers or Headers())
        download.finish(digest)
    _let_go(free, fd)
    download.notes.close()


def _let_go(free: bool, fd: int) -> None:
    if free:
        unlock(fd)


def _start_again(download: Download) -> bool:
    """Nobody has read yet: take whatever has the name now, and return whether this process writes it."""
    fd, won = elect(download.promise.path)
    download.start_again(fd, Notes(download.promise.notes, os.fstat(fd).st_ino))
    return won
