"""Deleting a file, a version or an artifact, and what goes with it. Pure.

A file goes with its signatures, the last file of a version with the version, and an artifact with what its group's list
of plugins said of it.  The lists follow by themselves: they are computed.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from mxart.errors import Conflict, MethodNotAllowed, NotFound
from mxart.repos.maven.builds import forgotten
from mxart.repos.maven.coordinates import SIGNATURES, DirectoryPath, FilePath, read, shown
from mxart.repos.maven.plugins import PLUGIN
from mxart.repos.publishing import Removal, Spot
from mxart.store.base import FileRecord
from mxart.store.changes import Change, Note, View


def remove(operation: Removal, view: View, spot: Spot) -> tuple[str, Change]:
    """See roles.Assembling."""
    place = read(operation.path)
    if isinstance(place, FilePath):
        going = _file(place, view, spot)
        names = {record.path for record in going}
        beside = view.below(spot.repository, place.directory)
        left = [record for record in beside if record.package == place.package and record.path not in names]
        return place.package, _change(going, left, view, spot)
    if not isinstance(place, DirectoryPath):
        raise MethodNotAllowed(
            f"{place} is computed: it goes with what it is about", subject="route", headers=(("allow", "GET, HEAD"),)
        )
    path = place.path
    package = path.rpartition("/")[0]
    below = view.below(spot.repository, path)
    artifact = [record for record in below if record.package == path]
    version = [record for record in below if record.package == package]
    if artifact and version:
        message = f"{shown(path)} is a version and an artifact as well: delete what is in one of them by itself"
        raise Conflict(message, subject="file")
    if artifact:
        return path, _change(artifact, (), view, spot)
    if version:
        return package, _change(version, (), view, spot)
    if below:
        groups = f"{shown(path)} is a group of {len({record.package for record in below})} artifacts"
        raise MethodNotAllowed(f"{groups}: delete each of them", subject="route", headers=(("allow", "GET, HEAD"),))
    raise NotFound(f"{spot.repository} has no {shown(path)}", subject="file")


def _file(place: FilePath, view: View, spot: Spot) -> list[FileRecord]:
    if place.is_alias:
        message = f"{place.name} stands for the newest build: delete that under its own name, or {place.directory}/"
        raise NotFound(message, subject="file")
    names = (place.path, *(f"{place.path}{suffix}" for suffix in SIGNATURES))
    records = [record for name in names if (record := view.file(spot.repository, name)) is not None]
    if not records or records[0].path != place.path:
        raise NotFound(f"{spot.repository} has no {place.path}", subject="file")
    return records


def _change(records: Sequence[FileRecord], left: Sequence[FileRecord], view: View, spot: Spot) -> Change:
    """These go, all of one package, and the names of versions that lose their last file.

    `left` is what stays of their versions.
    """
    here, package = spot.repository, records[0].package
    paths = [path for record in records if isinstance(path := read(record.path), FilePath)]
    gone = {record.path for record in records}
    tags: list[tuple[str, FileRecord]] = []
    notes = list(forgotten(paths, view, here))
    versions = set()
    for directory in dict.fromkeys(path.directory for path in paths):
        version = directory.rpartition("/")[2]
        tag = view.tag(here, package, version)
        if not left:
            gone.add(directory)
            versions.add(version)
        elif tag is None or tag.digest not in {record.digest for record in left}:
            tags.append((version, replace(_foremost(left), path=directory)))
    if versions and versions.issuperset(tag.name for tag in view.tags(here, package)):
        group, _, artifact = package.rpartition("/")
        if f"{PLUGIN}{artifact}" in view.notes(here, group):
            notes.append(Note(here, group, f"{PLUGIN}{artifact}", ""))
    return Change(gone=tuple((here, path) for path in sorted(gone)), tags=tuple(tags), notes=tuple(notes))


def _foremost(records: Sequence[FileRecord]) -> FileRecord:
    """The file that stands for a version: its POM, if it has one."""
    return next((record for record in records if record.path.endswith(".pom")), records[0])
