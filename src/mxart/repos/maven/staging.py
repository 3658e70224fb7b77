"""The end of a deploy that was held: its files become visible together. Pure."""

from __future__ import annotations

from collections.abc import Container

from msgspec.structs import replace

from mxart.errors import Conflict
from mxart.repos.maven.builds import OWN
from mxart.repos.maven.coordinates import FilePath, file_path
from mxart.repos.publishing import Spot
from mxart.store.base import FileRecord
from mxart.store.changes import NOTHING, Change, Note, View


def reveal(package: str, versions: Container[str], view: View, spot: Spot) -> Change:
    """What the caller's deploys hold of these versions. Raises Conflict, and holds it still, if a name is taken by now.

    Others of the same artifact, whose deploy goes on, are held further.
    """
    if not spot.held:
        return NOTHING
    gone: list[tuple[str, str]] = []
    shown: dict[str, list[tuple[FilePath, FileRecord]]] = {}
    for record in view.below(spot.held, package):
        path = file_path(record.path)
        if record.package != package or path.version not in versions:
            continue
        kept = view.file(spot.repository, path.path)
        if kept is not None and kept.digest != record.digest:
            message = (
                f"{path.name} was deployed to {spot.repository} meanwhile, with other content: nothing is published"
            )
            raise Conflict(message, subject="file", detail=f"here is {kept.digest}, this is {record.digest}")
        gone.append((spot.held, path.path))
        if kept is None:
            mine = replace(record, repository=spot.repository, created=spot.now)
            shown.setdefault(path.directory, []).append((path, mine))
    return Change(
        gone=tuple(gone),
        files=tuple(record for found in shown.values() for _, record in found),
        tags=tuple(tag for found in shown.values() if (tag := _tag(found, view)) is not None),
        notes=tuple(note for directory in shown for note in _own(directory, view, spot)),
    )


def _tag(found: list[tuple[FilePath, FileRecord]], view: View) -> tuple[str, FileRecord] | None:
    """The name of a version that some of its files come of."""
    poms = [item for item in found if item[0].extension == "pom" and not item[0].classifier]
    path, record = (poms or found)[-1]
    if not poms and view.tag(record.repository, path.package, path.version) is not None:
        return None
    return path.version, replace(record, path=path.directory)


def _own(directory: str, view: View, spot: Spot) -> list[Note]:
    """The server's own build that was held is the newest of the repository's now, if it is."""
    held, here = (view.notes(name, directory).get(OWN, "") for name in (spot.held, spot.repository))
    if not held:
        return []
    notes = [Note(spot.held, directory, OWN, "")]
    if int(held.rpartition("-")[2]) > int(here.rpartition("-")[2] or "0"):
        notes.append(Note(spot.repository, directory, OWN, held))
    return notes
