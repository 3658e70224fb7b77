"""Tags and versions of a package, as the API shows them and deletes them: the way the package's own protocol does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated

from msgspec import Meta, structs

from mxart.digest import Digest
from mxart.errors import BadRequest, NotFound
from mxart.message import Headers, Request
from mxart.repos.answers import answer
from mxart.repos.base import Repository
from mxart.repos.callers import Caller
from mxart.store.contents import KeptTag, KeptVersion
from mxart.web.operations import Asked, Needs, Nothing, Operation, Paged, Record, operation, when
from mxart.web.shelves import PackageName, RepositoryName, Shelves

TagName = Annotated[str, Meta(pattern=r"^[^/:\s]{1,128}\Z", description="A tag: 3.20.")]
DigestText = Annotated[str, Meta(max_length=140, description="A digest: sha256:9f86d0...")]

_READ = Needs("read", repository="repository", package="package")
_DELETE = Needs("delete", repository="repository", package="package", by_work=True)


class OfPackage(Paged, frozen=True, kw_only=True):
    """What a package has."""

    repository: RepositoryName
    package: PackageName


class OneTag(Record, frozen=True, kw_only=True):
    """A tag of a package."""

    repository: RepositoryName
    package: PackageName
    tag: TagName


class OneVersion(Record, frozen=True, kw_only=True):
    """A version of a package."""

    repository: RepositoryName
    package: PackageName
    digest: DigestText


class Tag(Record, frozen=True, kw_only=True):
    """A tag, and what it points at.

    `size` is of the document itself, in bytes, `total` of all that it needs, as far as it is here, each part once.
    `created`: when these bytes were first seen under this name.  `used`: when the tag was last asked for, to some
    seconds; null where it never was.
    """

    name: str
    digest: str
    media_type: str
    size: int
    total: int
    created: datetime
    used: datetime | None
    repository: str


class Tags(Record, frozen=True, kw_only=True):
    """A page of tags."""

    items: list[Tag]
    next: str = ""


class Version(Record, frozen=True, kw_only=True):
    """A version, tagged or not; sizes and times as of a tag.

    A referrer (a signature, an SBOM) has a `subject`, the digest of what it is about.
    """

    digest: str
    media_type: str
    size: int
    total: int
    created: datetime
    used: datetime | None
    tags: list[str]
    subject: str
    artifact_type: str
    repository: str


class Versions(Record, frozen=True, kw_only=True):
    """A page of versions, by digest."""

    items: list[Version]
    next: str = ""


class VersionOperations:
    """Tags and versions. `repositories` take the deletes."""

    def __init__(self, shelves: Shelves, repositories: Mapping[str, Repository]) -> None:
        self._shelves = shelves
        self._repositories = repositories

    def operations(self) -> Iterator[Operation[Record, Record]]:
        """This part of the table."""
        package = "/repositories/{repository}/packages/{package}"
        yield operation(
            "listTags", "GET", f"{package}/tags", "The tags of a package.", _READ, self._tags, tag="packages"
        )
        yield operation("getTag", "GET", f"{package}/tags/{{tag}}", "A tag.", _READ, self._tag, tag="packages")
        yield operation(
            "deleteTag",
            "DELETE",
            f"{package}/tags/{{tag}}",
            "Delete a tag; the version that it points at stays. One of Go or Maven goes with it: that is its name.",
            _DELETE,
            self._delete_tag,
            tag="packages",
        )
        yield operation(
            "listVersions",
            "GET",
            f"{package}/versions",
            "The versions of a package, those without a tag too.",
            _READ,
            self._versions,
            tag="packages",
        )
        yield operation(
            "getVersion", "GET", f"{package}/versions/{{digest}}", "A version.", _READ, self._version, tag="packages"
        )
        yield operation(
            "deleteVersion",
            "DELETE",
            f"{package}/versions/{{digest}}",
            "Delete a version, with all tags that point at it.",
            _DELETE,
            self._delete_version,
            tag="packages",
        )

    async def _tags(self, asked: Asked[OfPackage, Nothing]) -> Tags:
        where = asked.where
        found: dict[str, Tag] = {}
        for member in self._shelves.holders(where.repository, where.package, asked.caller):
            for kept in await self._shelves.contents.tags(member, where.package, where.after, where.limit + 1):
                found.setdefault(kept.name, _shown_tag(kept, member))
        names = sorted(found)[: where.limit]
        return Tags(items=[found[name] for name in names], next=names[-1] if len(found) > len(names) else "")

    async def _tag(self, asked: Asked[OneTag, Nothing]) -> Tag:
        where = asked.where
        for member in self._shelves.holders(where.repository, where.package, asked.caller):
            kept = await self._shelves.contents.tag(member, where.package, where.tag)
            if kept is not None:
                return _shown_tag(kept, member)
        raise NotFound(f"{where.package} has no tag {where.tag!r} in {where.repository}", subject="tag")

    async def _versions(self, asked: Asked[OfPackage, Nothing]) -> Versions:
        where = asked.where
        found: dict[str, Version] = {}
        for member in self._shelves.holders(where.repository, where.package, asked.caller):
            for kept in await self._shelves.contents.versions(member, where.package, where.after, where.limit + 1):
                found.setdefault(str(kept.digest), _shown_version(kept, member))
        names = sorted(found)[: where.limit]
        return Versions(items=[found[name] for name in names], next=names[-1] if len(found) > len(names) else "")

    async def _version(self, asked: Asked[OneVersion, Nothing]) -> Version:
        where = asked.where
        digest = _digest(where.digest)
        for member in self._shelves.holders(where.repository, where.package, asked.caller):
            kept = await self._shelves.contents.version(member, where.package, digest)
            if kept is not None:
                return _shown_version(kept, member)
        raise NotFound(f"{where.package} has no version {digest} in {where.repository}", subject="digest")

    async def _delete_tag(self, asked: Asked[OneTag, Nothing]) -> Nothing:
        where = asked.where
        await self._delete(where.repository, where.package, where.tag, asked.request, asked.caller)
        return Nothing()

    async def _delete_version(self, asked: Asked[OneVersion, Nothing]) -> Nothing:
        where = asked.where
        name = str(_digest(where.digest))
        if self._repositories[self._shelves.found(where.repository).name].format.lasting_tags:
            name = (await self._version(asked)).tags[0]
        await self._delete(where.repository, where.package, name, asked.request, asked.caller)
        return Nothing()

    async def _delete(self, name: str, package: str, reference: str, request: Request, caller: Caller) -> None:
        """As the format's own clients delete: parsed by the format, done by the kind."""
        repository = self._repositories[self._shelves.found(name).name]
        path = repository.format.path_of(package, reference)
        operation = repository.format.parse("DELETE", path, "", Headers())
        request.trace.repository = name
        # Its answer is worded for the path that the format's own clients would have asked.
        response = await answer(repository, operation, structs.replace(request, target=path), caller)
        response.body.close()


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except ValueError as error:
        raise BadRequest(str(error), subject="digest") from None


def _shown_tag(kept: KeptTag, repository: str) -> Tag:
    return Tag(
        name=kept.name,
        digest=str(kept.digest),
        media_type=kept.media_type,
        size=kept.size,
        total=kept.total,
        created=when(kept.created),
        used=when(kept.used) if kept.used is not None else None,
        repository=repository,
    )


def _shown_version(kept: KeptVersion, repository: str) -> Version:
    return Version(
        digest=str(kept.digest),
        media_type=kept.media_type,
        size=kept.size,
        total=kept.total,
        created=when(kept.created),
        used=when(kept.used) if kept.used is not None else None,
        tags=list(kept.tags),
        subject=kept.subject,
        artifact_type=kept.artifact_type,
        repository=repository,
    )
