"""Repositories, and what is kept in them: packages, tags.

What is told is what is kept here: nothing is asked of an upstream.  A group shows what its members keep.  Everywhere
only what the caller may read is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated

from msgspec import Meta

from mxart.access.base import ACTIONS
from mxart.config import Repository as Settings
from mxart.errors import NotFound
from mxart.message import Request
from mxart.repos.base import Caller
from mxart.store.contents import Contents, KeptTag
from mxart.web.operations import ANYBODY, Asked, Needs, Nothing, Operation, Paged, Record, operation, when

RepositoryName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z", description="A repository's name.")]
PackageName = Annotated[str, Meta(min_length=1, max_length=255, description="A package: library/alpine.")]
TagName = Annotated[str, Meta(min_length=1, max_length=128, description="A tag: 3.20.")]

_STEP = 1000


class InRepository(Record, frozen=True, kw_only=True):
    """A repository."""

    repository: RepositoryName


class PackagesWanted(Paged, frozen=True, kw_only=True):
    """The packages of a repository."""

    repository: RepositoryName


class TagsWanted(Paged, frozen=True, kw_only=True):
    """The tags of a package."""

    repository: RepositoryName
    package: PackageName


class OneTag(Record, frozen=True, kw_only=True):
    """A tag of a package."""

    repository: RepositoryName
    package: PackageName
    tag: TagName


class Repository(Record, frozen=True, kw_only=True):
    """A repository. `actions`: what the caller may do with it as a whole, `manage` among them."""

    name: str
    format: str
    kind: str
    urls: list[str]
    hosts: list[str]
    path: str
    store: str
    members: list[str]
    upstreams: Annotated[list[str], Meta(description="Shown to those who manage it.")]
    actions: list[str]


class Repositories(Record, frozen=True, kw_only=True):
    """A page of repositories."""

    items: list[Repository]
    next: str = ""


class Package(Record, frozen=True, kw_only=True):
    """A package; `repository` is the one that keeps it, a member where a group was asked."""

    name: str
    repository: str


class Packages(Record, frozen=True, kw_only=True):
    """A page of packages."""

    items: list[Package]
    next: str = ""


class Tag(Record, frozen=True, kw_only=True):
    """A tag, and what it points at.

    `size` is of the document itself, in bytes.  `created`: when these bytes were first seen under this name.  `used`:
    when the tag was last asked for, to some seconds; null where it never was.
    """

    name: str
    digest: str
    media_type: str
    size: int
    created: datetime
    used: datetime | None
    repository: str


class Tags(Record, frozen=True, kw_only=True):
    """A page of tags."""

    items: list[Tag]
    next: str = ""


_READ = Needs("read", repository="repository", package="package")


class Shelves:
    """What is kept, as the API shows it. `settings`: the configuration's repositories by name."""

    def __init__(self, settings: Mapping[str, Settings], contents: Contents) -> None:
        self._settings = settings
        self._contents = contents

    def operations(self) -> Iterator[Operation[Record, Record]]:
        """This part of the table."""
        yield operation(
            "listRepositories", "GET", "/repositories", "The repositories.", ANYBODY, self._list, tag="repositories"
        )
        yield operation(
            "getRepository",
            "GET",
            "/repositories/{repository}",
            "A repository.",
            Needs("read", repository="repository"),
            self._get,
            tag="repositories",
        )
        yield operation(
            "listPackages",
            "GET",
            "/repositories/{repository}/packages",
            "The packages that a repository keeps.",
            ANYBODY,
            self._packages,
            tag="repositories",
        )
        yield operation(
            "listTags",
            "GET",
            "/repositories/{repository}/packages/{package}/tags",
            "The tags of a package.",
            _READ,
            self._tags,
            tag="repositories",
        )
        yield operation(
            "getTag",
            "GET",
            "/repositories/{repository}/packages/{package}/tags/{tag}",
            "A tag.",
            _READ,
            self._tag,
            tag="repositories",
        )

    async def _list(self, asked: Asked[Paged, Nothing]) -> Repositories:
        names = [name for name in sorted(self._settings) if name > asked.where.after]
        seen = [name for name in names if asked.caller.grants.sees(name, "")]
        shown = seen[: asked.where.limit]
        items = [self._shown(self._settings[name], asked.caller, asked.request) for name in shown]
        return Repositories(items=items, next=shown[-1] if len(seen) > len(shown) else "")

    async def _get(self, asked: Asked[InRepository, Nothing]) -> Repository:
        return self._shown(self._found(asked.where.repository), asked.caller, asked.request)

    async def _packages(self, asked: Asked[PackagesWanted, Nothing]) -> Packages:
        where, caller = asked.where, asked.caller
        kept: dict[str, str] = {}
        for member in self._keepers(where.repository, caller):
            for name in self._seen(member, where, caller):
                kept.setdefault(name, member)
        if not kept:  # who may see nothing is told why
            caller.grants.demand("read", where.repository, "")
        names = sorted(kept)[: where.limit]
        items = [Package(name=name, repository=kept[name]) for name in names]
        return Packages(items=items, next=names[-1] if len(kept) > len(names) else "")

    def _seen(self, member: str, where: PackagesWanted, caller: Caller) -> Iterator[str]:
        """Names of one repository that the caller may see: one more than the page holds, where there are so many."""
        grants, after, left = caller.grants, where.after, where.limit + 1
        while True:
            names = self._contents.packages(member, after, _STEP)
            for name in names:
                # A name within a group is judged by the group's rules and by the member's.
                if grants.sees(where.repository, name) and grants.sees(member, name):
                    yield name
                    left -= 1
                    if not left:
                        return
            if len(names) < _STEP:
                return
            after = names[-1]

    async def _tags(self, asked: Asked[TagsWanted, Nothing]) -> Tags:
        where = asked.where
        found: dict[str, Tag] = {}
        for member in self._holders(where.repository, where.package, asked.caller):
            for kept in self._contents.tags(member, where.package, where.after, where.limit + 1):
                found.setdefault(kept.name, _shown_tag(kept, member))
        names = sorted(found)[: where.limit]
        return Tags(items=[found[name] for name in names], next=names[-1] if len(found) > len(names) else "")

    async def _tag(self, asked: Asked[OneTag, Nothing]) -> Tag:
        where = asked.where
        for member in self._holders(where.repository, where.package, asked.caller):
            kept = self._contents.tag(member, where.package, where.tag)
            if kept is not None:
                return _shown_tag(kept, member)
        raise NotFound(f"{where.package} has no tag {where.tag!r} in {where.repository}", subject="tag")

    def _found(self, name: str) -> Settings:
        settings = self._settings.get(name)
        if settings is None:
            raise NotFound(f"there is no repository {name}", subject="repository")
        return settings

    def _keepers(self, name: str, caller: Caller) -> list[str]:
        """The repositories that keep what this one shows, in the order in which they are asked; each once."""
        settings = self._found(name)
        if settings.kind != "group":
            return [name]
        kept = (keeper for member in settings.members for keeper in self._keepers(member, caller))
        return [*dict.fromkeys(kept)]

    def _holders(self, repository: str, package: str, caller: Caller) -> list[str]:
        """Those of them that have a package which the caller may read there: where it is published, only those.

        Raises NotFound.
        """
        contents = self._contents
        held = [name for name in self._keepers(repository, caller) if contents.has_package(name, package)]
        owned = [name for name in held if self._settings[name].kind == "local"]
        readable = [name for name in owned or held if caller.grants.may("read", name, package)]
        if not readable:
            raise NotFound(f"{repository} keeps nothing of {package!r}", subject="package")
        return readable

    def _shown(self, settings: Settings, caller: Caller, request: Request) -> Repository:
        grants = caller.grants
        grants.demand("read", settings.name, "")
        here = f"{request.peer.scheme}://{request.authority}"
        return Repository(
            name=settings.name,
            format=settings.format,
            kind=settings.kind,
            urls=[
                *([f"{here}{settings.path}"] if settings.path else []),
                *(f"{request.peer.scheme}://{host}/" for host in settings.hosts),
            ],
            hosts=list(settings.hosts),
            path=settings.path,
            store=settings.store,
            members=[member for member in settings.members if grants.sees(member, "")],
            upstreams=list(settings.upstreams) if grants.may("manage", settings.name, "") else [],
            actions=[action for action in ACTIONS if grants.may(action, settings.name, "")],
        )


def _shown_tag(kept: KeptTag, repository: str) -> Tag:
    return Tag(
        name=kept.name,
        digest=str(kept.digest),
        media_type=kept.media_type,
        size=kept.size,
        created=when(kept.created),
        used=when(kept.used) if kept.used is not None else None,
        repository=repository,
    )
