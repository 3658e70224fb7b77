"""Files looked for: by what they are, their SHA-256 or SHA-1, or by Maven's coordinates.

What is searched is what is kept here; nothing is asked of an upstream.  Only what the caller may read is shown, and
of a group only what it would serve: where a package is published, a proxy's files of that name are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

from msgspec import Meta

from mxart.digest import Digest
from mxart.errors import BadRequest, NotFound
from mxart.repos.callers import Caller
from mxart.repos.maven import checksums
from mxart.repos.maven.coordinates import FilePath, read
from mxart.store.base import FileRecord
from mxart.store.finding import Sought
from mxart.web.operations import ANYBODY, Asked, Limit, Nothing, Operation, Record, operation, when
from mxart.web.shelves import Shelves

_STEP = 500
_NAME = r"^[^/\s\x00-\x1f\x7f]{0,255}\Z"


class FilesWanted(Record, frozen=True, kw_only=True):
    """What is looked for: by a checksum, or by a group or an artifact; all the rest narrows it down."""

    sha256: Annotated[str, Meta(pattern=r"^([0-9a-fA-F]{64})?\Z", description="In hexadecimal: any format's.")] = ""
    sha1: Annotated[str, Meta(pattern=r"^([0-9a-fA-F]{40})?\Z", description="In hexadecimal: Maven's.")] = ""
    group: Annotated[
        str, Meta(pattern=_NAME, description="A group of Maven's: com.example; com.example.* with those below.")
    ] = ""
    artifact: Annotated[str, Meta(pattern=_NAME, description="An artifact of Maven's: app.")] = ""
    version: Annotated[str, Meta(pattern=_NAME, description="A version: 1.0, 1.1-SNAPSHOT.")] = ""
    classifier: Annotated[str, Meta(pattern=_NAME, description="A classifier: sources; a dash: without one.")] = ""
    extension: Annotated[str, Meta(pattern=_NAME, description="An extension: jar, pom, jar.asc.")] = ""
    repository: Annotated[
        str,
        Meta(pattern=r"^([a-z0-9][a-z0-9._-]{0,63})?\Z", description="In this repository only, which may be a group."),
    ] = ""
    limit: Limit = 100
    after: Annotated[str, Meta(max_length=4096, description="Entries after this one: `next` of the page before.")] = ""


class FoundFile(Record, frozen=True, kw_only=True):
    """A file. Its coordinates are empty where it is not Maven's, and so are checksums that nobody knows.

    `created`: when these bytes were first seen under this name.
    """

    repository: str
    format: str
    package: str
    path: str
    size: int
    sha256: str
    sha1: str
    md5: str
    created: datetime
    group: str
    artifact: str
    version: str
    classifier: str
    extension: str


class FoundFiles(Record, frozen=True, kw_only=True):
    """A page of files, by repository and path."""

    items: list[FoundFile]
    next: str = ""


class SearchOperations:
    """The search."""

    def __init__(self, shelves: Shelves) -> None:
        self._shelves = shelves

    def operations(self) -> Iterator[Operation[Record, Record]]:
        """This part of the table."""
        yield operation(
            "search",
            "GET",
            "/search",
            "The files of a checksum, or of Maven's coordinates.",
            ANYBODY,
            self._search,
            tag="packages",
        )

    async def _search(self, asked: Asked[FilesWanted, Nothing]) -> FoundFiles:
        where = asked.where
        sought = _sought(where)
        start, _, path = where.after.partition(":")
        items: list[FoundFile] = []
        for name in self._searched(where.repository):
            after = path if name == start else ""
            while name >= start:
                records = await self._shelves.contents.find(name, sought, after, _STEP)
                for record in records:
                    shown = self._shown(record, where)
                    if shown is None or not self._sees(asked.caller, where.repository, record):
                        continue
                    if len(items) == where.limit:
                        return FoundFiles(items=items, next=f"{items[-1].repository}:{items[-1].path}")
                    items.append(shown)
                if len(records) < _STEP:
                    break
                after = records[-1].path
        return FoundFiles(items=items)

    def _searched(self, repository: str) -> list[str]:
        if repository:
            return sorted(self._shelves.keepers(repository))
        return sorted(name for name, settings in self._shelves.settings.items() if settings.kind != "group")

    def _sees(self, caller: Caller, asked: str, record: FileRecord) -> bool:
        """A name within a group is judged by the group's rules and by the member's."""
        if asked in ("", record.repository):
            return caller.grants.sees(record.repository, record.package)
        if not caller.grants.sees(asked, record.package):
            return False
        try:
            return record.repository in self._shelves.holders(asked, record.package, caller)
        except NotFound:
            return False

    def _shown(self, record: FileRecord, where: FilesWanted) -> FoundFile | None:
        """None where its coordinates are not those that are wanted."""
        form: str = self._shelves.settings[record.repository].format
        place = read(record.path) if form == "maven" else None
        file = place if isinstance(place, FilePath) else None
        if not _fits(where, file):
            return None
        sums = checksums.recall(record.checksum, record.digest.hex)
        return FoundFile(
            repository=record.repository,
            format=form,
            package=record.package,
            path=record.path,
            size=record.size,
            sha256=record.digest.hex if record.digest.algorithm == "sha256" else "",
            sha1=sums.sha1 if sums is not None else "",
            md5=sums.md5 if sums is not None else "",
            created=when(record.created),
            group=file.group if file else "",
            artifact=file.artifact if file else "",
            version=file.version if file else "",
            classifier=file.classifier if file else "",
            extension=file.extension if file else "",
        )


def _fits(where: FilesWanted, file: FilePath | None) -> bool:
    """Whether a file has the coordinates that are wanted; None: it has none."""
    if file is None:
        return not (where.group or where.artifact or where.version or where.classifier or where.extension)
    group, deep = where.group.removesuffix(".*"), where.group.endswith(".*")
    if group and file.group != group and not (deep and file.group.startswith(f"{group}.")):
        return False
    if where.classifier and file.classifier != ("" if where.classifier == "-" else where.classifier):
        return False
    return (
        where.artifact in ("", file.artifact)
        and where.version in ("", file.version, file.value)
        and where.extension in ("", file.extension)
    )


def _sought(where: FilesWanted) -> Sought:
    """Raises BadRequest where nothing is said that an index leads by."""
    if where.sha256:
        return Sought(digest=Digest("sha256", where.sha256.lower()))
    if where.sha1:
        return Sought(sha1=where.sha1.lower())
    if not where.group and not where.artifact:
        raise BadRequest("say what to look for: sha256, sha1, group or artifact", subject="group")
    group = where.group.removesuffix(".*")
    folder = f"{group.replace('.', '/')}/" if group else ""
    return Sought(folder=folder, deep=not group or group != where.group, leaf=where.artifact)
