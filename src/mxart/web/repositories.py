"""Repositories, and the packages in them.

What is told is what is kept here: nothing is asked of an upstream.  A group shows what its members keep.  Everywhere
only what the caller may read is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from mxart.access.base import ACTIONS
from mxart.config import Repository as Settings
from mxart.message import Request
from mxart.repos.callers import Caller
from mxart.repos.seen import judged
from mxart.web.operations import ANYBODY, Asked, Nothing, Operation, Paged, Record, operation
from mxart.web.shelves import RepositoryName, Shelves

_STEP = 1000


class InRepository(Record, frozen=True, kw_only=True):
    """A repository."""

    repository: RepositoryName


class PackagesWanted(Paged, frozen=True, kw_only=True):
    """The packages of a repository."""

    repository: RepositoryName


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


class RepositoryOperations:
    """Repositories and the names of packages."""

    def __init__(self, shelves: Shelves, url: str = "") -> None:
        """`url` is how clients reach us where it is not what they write (`[access] url`)."""
        self._shelves = shelves
        self._url = url

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
            ANYBODY,
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

    async def _list(self, asked: Asked[Paged, Nothing]) -> Repositories:
        names = [name for name in sorted(self._shelves.settings) if name > asked.where.after]
        seen = [name for name in names if await self._is_visible(name, asked.caller)]
        shown = seen[: asked.where.limit]
        items = [await self._shown(self._shelves.settings[name], asked.caller, asked.request) for name in shown]
        return Repositories(items=items, next=shown[-1] if len(seen) > len(shown) else "")

    async def _get(self, asked: Asked[InRepository, Nothing]) -> Repository:
        settings = self._shelves.found(asked.where.repository)
        if not await self._is_visible(settings.name, asked.caller):
            asked.caller.grants.demand("read", settings.name, "")
        return await self._shown(settings, asked.caller, asked.request)

    async def _is_visible(self, name: str, caller: Caller) -> bool:
        """Whether he may read it, or something in it: of its first packages, which is as far as anybody waits."""
        if caller.grants.sees(name, ""):
            return True
        wanted = PackagesWanted(repository=name, limit=1)
        for keeper in self._shelves.keepers(name):
            if await self._seen(keeper, wanted, caller, most=_STEP):
                return True
        return False

    async def _packages(self, asked: Asked[PackagesWanted, Nothing]) -> Packages:
        where, caller = asked.where, asked.caller
        kept: dict[str, str] = {}
        for member in self._shelves.keepers(where.repository):
            for name in await self._seen(member, where, caller):
                kept.setdefault(name, member)
        if not kept:  # who may see nothing is told why
            caller.grants.demand("read", where.repository, "")
        names = sorted(kept)[: where.limit]
        items = [Package(name=name, repository=kept[name]) for name in names]
        return Packages(items=items, next=names[-1] if len(kept) > len(names) else "")

    async def _seen(self, member: str, where: PackagesWanted, caller: Caller, *, most: int | None = None) -> list[str]:
        """Names of one repository that the caller may see: one more than the page holds, where there are so many.

        `most`: how many are looked at, None for all.
        """
        grants, after, wanted = caller.grants, where.after, where.limit + 1
        seen: list[str] = []

        def sees(name: str) -> bool:
            # A name within a group is judged by the group's rules and by the member's.
            return grants.sees(where.repository, name) and grants.sees(member, name)

        while True:
            names = self._shelves.contents.packages(member, after, most or _STEP)
            seen += await judged(names, sees, wanted - len(seen))
            if len(seen) == wanted or len(names) < _STEP or most is not None:
                return seen
            after = names[-1]

    async def _shown(self, settings: Settings, caller: Caller, request: Request) -> Repository:
        grants = caller.grants
        here = self._url or f"{request.peer.scheme}://{request.authority}"
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
            members=[member for member in settings.members if await self._is_visible(member, caller)],
            upstreams=list(settings.upstreams) if grants.may("manage", settings.name, "") else [],
            actions=[action for action in ACTIONS if grants.may(action, settings.name, "")],
        )
