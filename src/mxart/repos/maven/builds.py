"""Builds of snapshots, and which of them are the server's own. Pure.

Clients name builds themselves, by time and number: `1.0-20240102.030405-6`.  The highest number that any had is noted,
so that none is given away a second time, whatever is deleted.

Who deploys `app-1.0-SNAPSHOT.jar` under just that name leaves it to the server, which makes a build of its own.  The
files of a deploy come one by one and nothing holds them together, so each joins the newest build of the server's, if
that has no such file yet, and else begins the next one.
"""

from __future__ import annotations

import time

from mxart.errors import Conflict
from mxart.repos.maven.coordinates import FilePath, read
from mxart.repos.maven.versions import SNAPSHOT, TOLD
from mxart.repos.publishing import Spot
from mxart.store.base import FileRecord
from mxart.store.changes import Note, View

HIGHEST = "build"
"""The key of a note on a snapshot version's directory: the highest build number that there ever was."""
OWN = "own build"
"""The key of another one: the newest build that the server made, `20240102.030405-6`."""
MAX_BUILD = 999_999_999


def highest(view: View, repository: str, directory: str) -> int:
    """The highest build number that a version ever had; 0: none."""
    return int(view.notes(repository, directory).get(HIGHEST, "0"))


def told(view: View, repository: str, directory: str) -> int:
    """The highest number of a build that is complete; 0: no client has ever sent a list, so nobody can tell."""
    return int(view.notes(repository, directory).get(TOLD, "0"))


def noted(path: FilePath, view: View, repository: str) -> tuple[Note, ...]:
    """What has to be noted of a file's build number."""
    build = path.build
    if build is None or build[1] <= highest(view, repository, path.directory):
        return ()
    return (Note(repository, path.directory, HIGHEST, str(build[1])),)


def named(path: FilePath, digest: str, view: View, spot: Spot) -> tuple[FilePath, tuple[Note, ...]]:
    """The build's name that a file gets which came without one, and what has to be noted of it.

    It may be that of the same file.  Raises Conflict where there are no numbers left.
    """
    number = highest(view, spot.repository, path.directory)
    at = spot.held or spot.repository
    own = view.notes(at, path.directory).get(OWN, "")
    if own and (spot.held or _number(own) == number) and _exists(view, spot, path, own):
        mine = path.as_version(_value(path, own))
        kept = find(view, spot, mine.path)
        if kept is None or str(kept.digest) == digest:
            return mine, ()
    if number >= MAX_BUILD:
        raise Conflict(f"{path} has had build number {number}, the last one: begin a new version", subject="file")
    own = f"{time.strftime('%Y%m%d.%H%M%S', time.gmtime(spot.now))}-{number + 1}"
    given = (Note(spot.repository, path.directory, key, str(number + 1)) for key in (HIGHEST, TOLD))
    notes = (*given, Note(at, path.directory, OWN, own))
    return path.as_version(_value(path, own)), notes


def of_alias(path: FilePath, view: View, spot: Spot) -> list[FileRecord]:
    """The files of all builds that a name without a build might mean, those that the caller's deploy holds too."""
    found: list[FileRecord] = []
    for repository in _names(spot):
        for record in view.below(repository, path.directory):
            other = read(record.path)
            if isinstance(other, FilePath) and (other.classifier, other.extension) == (path.classifier, path.extension):
                found.append(record)
    return found


def find(view: View, spot: Spot, path: str) -> FileRecord | None:
    """A file that is published, or that the caller's deploy holds."""
    return view.file(spot.repository, path) or (view.file(spot.held, path) if spot.held else None)


def _exists(view: View, spot: Spot, path: FilePath, own: str) -> bool:
    """Whether a build has any file still: one that has lost some must not get others under their names."""
    value = _value(path, own)
    records = [record for name in _names(spot) for record in view.below(name, path.directory)]
    return any(isinstance(other := read(record.path), FilePath) and other.value == value for record in records)


def _names(spot: Spot) -> tuple[str, ...]:
    return (spot.held, spot.repository) if spot.held else (spot.repository,)


def forgotten(paths: list[FilePath], view: View, repository: str) -> tuple[Note, ...]:
    """What is noted no more where these files go: nothing joins a build of the server's that was deleted from."""
    values: dict[str, set[str]] = {}
    for path in paths:
        values.setdefault(path.directory, set()).add(path.value)
    notes = []
    for directory, gone in values.items():
        own = view.notes(repository, directory).get(OWN, "")
        if own and any(value == own or value.endswith(f"-{own}") for value in gone):
            notes.append(Note(repository, directory, OWN, ""))
    return tuple(notes)


def _value(path: FilePath, own: str) -> str:
    """A build as the names of files have it: what is before SNAPSHOT, and time and number."""
    return path.version.removesuffix(SNAPSHOT) + own


def _number(own: str) -> int:
    return int(own.rpartition("-")[2])
