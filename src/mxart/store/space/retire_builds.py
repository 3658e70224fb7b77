"""Carrying out retention of builds: the files of a package from the catalog, and what the plan says goes.

What was read a moment ago only tells which versions have something that goes.  Of each of them all is read and planned
again in the transaction that drops it, so whatever came or went meanwhile has been seen.  What says of a version what
it is (its tag) stays right, and what was noted of a build goes with it.
"""

from __future__ import annotations

import sqlite3
from collections import Counter

from msgspec.structs import replace

from mxart.store.rows import RECORDS, as_record, put_tag
from mxart.store.space.builds import Build, File, plan_builds, read_builds
from mxart.store.space.ledger import Ledger
from mxart.store.space.retention import Going, Note
from mxart.store.space.task import Member, Pause, Retired

BATCH = 100  # files in one transaction
_Values = tuple[int | str, ...]

_FILES = """
    SELECT f.path, f.digest, f.size, f.created FROM files f
    WHERE f.package = ? AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.file = f.id)"""
_FILES_BELOW = f"{_FILES} AND f.path >= ? AND f.path < ?"
# A tag's own record is no name of its own: it goes, or moves to what stays.
_NAMES = """
    SELECT count(*) FROM files f JOIN packages p ON p.repository = f.repository
    WHERE p.id = ? AND f.digest = ? AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.file = f.id)"""
_DROP = "DELETE FROM files WHERE package = ? AND path = ?"
_DROP_NOTES = """
    DELETE FROM notes WHERE repository = (SELECT repository FROM packages WHERE id = ?) AND path = ? AND value = ?"""
_NOTE = """
    SELECT n.value FROM notes n JOIN packages p ON p.repository = n.repository
    WHERE p.id = ? AND n.path = ? AND n.key = ?"""
_TAG = """
    SELECT t.file, t.version, f.digest FROM tags t JOIN files f ON f.id = t.file WHERE t.package = ? AND t.name = ?"""
_DROP_LEFT = "DELETE FROM versions WHERE id = ? AND NOT EXISTS (SELECT 1 FROM tags WHERE version = versions.id)"
# What stands for a version, if its own file has gone: the newest that describes it, else the newest.
_FOREMOST = f"""
    {RECORDS} WHERE f.package = ? AND f.path >= ? AND f.path < ?
        AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.file = f.id)
    ORDER BY f.media_type = ? DESC, f.created DESC, f.path DESC LIMIT 1"""  # noqa: S608  # of our own words
_MEDIA_TYPE = "SELECT media_type FROM files WHERE id = ?"


def retire_builds(
    ledger: Ledger, member: Member, number: int, package: str, now: float, *, dry_run: bool, note: Note, pause: Pause
) -> Retired:
    """Let go what the rules let go of one package. Blocks. Raises OSError, sqlite3.Error."""
    retired = Retired()
    with ledger.reading() as db:
        going = _plan(db, member, number, package, (_FILES, (number,)), now)
    pause("read")
    if dry_run:
        released: Counter[str] = Counter()
        for build, why in going:
            _count(retired, package, build.going(why), _freed(ledger, number, build, released), note)
        return retired
    for version in dict.fromkeys(build.version for build, _ in going):
        more = True
        while more:
            with ledger.writing() as db:
                gone, more = _drop(db, member, number, package, version, now)
                ledger.forget_empty((number,))
            if gone:
                ledger.tell()
            for went, freed in gone:
                _count(retired, package, went, freed, note)
            pause("retired")
    return retired


def _plan(
    db: sqlite3.Connection, member: Member, number: int, package: str, which: tuple[str, _Values], now: float
) -> list[tuple[Build, str]]:
    builds = read_builds((File(*row) for row in db.execute(*which).fetchall()), member.builds)
    complete: dict[str, int] = {}
    for version in {build.version for build in builds} if member.complete else ():
        for (told,) in db.execute(_NOTE, (number, f"{package}/{version}", member.complete)).fetchall():
            complete[version] = int(told)
    return plan_builds(package, builds, member.retention, now, complete)


def _count(retired: Retired, package: str, going: Going, freed: int, note: Note) -> None:
    retired.builds += 1
    retired.bytes += freed
    note(package, going, freed)


def _freed(ledger: Ledger, number: int, build: Build, released: Counter[str]) -> int:
    """How many bytes come free with a build, after those that were released."""
    freed = 0
    for file in build.files:
        released[file.digest] += 1
        if ledger.rows(_NAMES, (number, file.digest))[0][0] <= released[file.digest]:
            freed += file.size
    return freed


def _drop(
    db: sqlite3.Connection, member: Member, number: int, package: str, version: str, now: float
) -> tuple[list[tuple[Going, int]], bool]:
    """Within a transaction: a batch of a version's builds, each with the bytes that come free; and whether more go."""
    folder = f"{package}/{version}"
    span = (number, f"{folder}/", f"{folder}0")  # "0" comes after "/"
    gone: list[tuple[Going, int]] = []
    dropped = 0
    going = _plan(db, member, number, package, (_FILES_BELOW, span), now)
    for build, why in going:
        if dropped and dropped + len(build.files) > BATCH:
            break
        freed = 0
        for file in build.files:
            db.execute(_DROP, (number, file.path))
            freed += 0 if db.execute(_NAMES, (number, file.digest)).fetchall()[0][0] else file.size
        db.execute(_DROP_NOTES, (number, folder, build.value))
        dropped += len(build.files)
        gone.append((build.going(why), freed))
    _mend_tag(db, number, version, folder)
    return gone, len(gone) < len(going)


def _mend_tag(db: sqlite3.Connection, number: int, version: str, folder: str) -> None:
    """A version that has lost its last file is none; one that has lost the file it was known by gets another."""
    span = (number, f"{folder}/", f"{folder}0")
    for own, known, digest in db.execute(_TAG, (number, version)).fetchall():
        left = {row[1] for row in db.execute(_FILES_BELOW, span).fetchall()}
        if digest in left:
            return
        if left:
            ((media_type,),) = db.execute(_MEDIA_TYPE, (own,)).fetchall()
            (row,) = db.execute(_FOREMOST, (*span, media_type)).fetchall()
            put_tag(db, version, replace(as_record(row), path=folder))
        else:
            db.execute("DELETE FROM files WHERE id = ?", (own,))
        db.execute(_DROP_LEFT, (known,))
