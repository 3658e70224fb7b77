"""Retention rules of a local repository: what they would let go, and why; and letting it go, as a job.

Both are done in a thread that rests more than it works, and that ends soon when nobody waits any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Literal

import trio
from msgspec import Meta

from mxart.errors import Conflict
from mxart.store.space.retention import Going, Note
from mxart.store.space.round import Breaths
from mxart.store.space.task import Pause, Retired, Tell, ignore_progress
from mxart.web.job_operations import JobShown
from mxart.web.job_operations import shown as shown_job
from mxart.web.jobs import Jobs, Result
from mxart.web.operations import MAX_PAGE, Asked, Needs, Nothing, Operation, Record, operation
from mxart.web.repositories import InRepository
from mxart.web.shelves import RepositoryName, Shelves

Retire = Callable[[str, bool, Note | None, Tell, Pause], Retired]
"""Let go, or only say, what the rules of a repository let go; whom to tell of each, and of how far it is. Blocks.
Raises MxartError."""

_MANAGE = Needs("manage", repository="repository")


class PreviewWanted(Record, frozen=True, kw_only=True):
    """A repository, and how many lines of what would go."""

    repository: RepositoryName
    limit: Annotated[int, Meta(ge=0, le=10 * MAX_PAGE, description="How many lines at most.")] = MAX_PAGE


class GoingShown(Record, frozen=True, kw_only=True):
    """A tag, a manifest or a build that would go. `bytes` come free with it and those of its package that follow."""

    package: str
    what: Literal["tag", "manifest", "build"]
    name: str
    digest: str
    why: str
    bytes: int


class Preview(Record, frozen=True, kw_only=True):
    """What would go. The numbers are of everything, `items` the first lines."""

    tags: int
    manifests: int
    builds: int
    bytes: int
    items: list[GoingShown]


class RunWish(Record, frozen=True, kw_only=True):
    """Nothing to say yet: the rules are the configuration's."""


class RetentionOperations:
    """Preview and run."""

    def __init__(self, shelves: Shelves, jobs: Jobs, retire: Retire) -> None:
        self._shelves = shelves
        self._jobs = jobs
        self._retire = retire

    def operations(self) -> Iterator[Operation[Record, Record]]:
        """This part of the table."""
        path = "/repositories/{repository}/retention"
        yield operation(
            "previewRetention",
            "GET",
            path,
            "What the retention rules would let go, and why.",
            _MANAGE,
            self._preview,
            tag="space",
        )
        yield operation(
            "runRetention",
            "POST",
            path,
            "Let go what the retention rules say; the bytes come free with the next collections.",
            _MANAGE,
            self._run,
            tag="space",
            status=202,
        )

    async def _preview(self, asked: Asked[PreviewWanted, Nothing]) -> Preview:
        where = asked.where
        self._demand_rules(where.repository)
        items: list[GoingShown] = []

        def note(package: str, going: Going, freed: int) -> None:
            if len(items) < where.limit:
                items.append(_shown(package, going, freed))

        retired = await self._apart(where.repository, True, note, ignore_progress)
        return Preview(
            tags=retired.tags, manifests=retired.manifests, builds=retired.builds, bytes=retired.bytes, items=items
        )

    async def _run(self, asked: Asked[InRepository, RunWish]) -> JobShown:
        name = asked.where.repository
        self._demand_rules(name)
        work = partial(self._work, name)
        return shown_job(
            await self._jobs.start("retention", name, asked.caller.name, work, token=asked.caller.token, alone=True)
        )

    async def _work(self, name: str, tell: Tell) -> Result:
        retired = await self._apart(name, False, None, tell)
        return {
            "tags": retired.tags,
            "manifests": retired.manifests,
            "builds": retired.builds,
            "bytes": retired.bytes,
            "changed_meanwhile": retired.changed,
        }

    async def _apart(self, name: str, dry_run: bool, note: Note | None, tell: Tell) -> Retired:
        breaths = Breaths()

        def pause(stage: str) -> None:
            trio.from_thread.check_cancelled()
            breaths(stage)

        return await trio.to_thread.run_sync(self._retire, name, dry_run, note, tell, pause)

    def _demand_rules(self, name: str) -> None:
        """Raises NotFound, Conflict."""
        if not self._shelves.found(name).retention:
            raise Conflict(f"{name} has no retention rules: add retention = [{{ keep = 10 }}] to a local repository")


def _shown(package: str, going: Going, freed: int) -> GoingShown:
    return GoingShown(
        package=package, what=going.what, name=going.name, digest=going.digest, why=going.why, bytes=freed
    )
