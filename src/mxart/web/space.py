"""How much is kept, and giving space back: usage beside quotas and caps, and the collection as a job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Annotated

from msgspec import Meta

from mxart.config import Repository as Settings
from mxart.config import parse_duration, parse_size
from mxart.errors import BadRequest
from mxart.store.space.task import Freed, Report, Tell
from mxart.web.job_operations import JobShown
from mxart.web.job_operations import shown as shown_job
from mxart.web.jobs import Jobs, Result
from mxart.web.operations import Asked, Needs, Nothing, Operation, Paged, Record, operation
from mxart.web.repositories import InRepository
from mxart.web.shelves import Shelves

Collect = Callable[[float | None, bool, Tell], Awaitable[Report]]
"""A round of giving space back: the grace in seconds (None: as configured), whether it is only said what would go, and
whom to tell. Raises Busy, Failed; cancelled, it ends soon."""

_MANAGE = Needs("manage")


class Usage(Record, frozen=True, kw_only=True):
    """What a repository holds: distinct files, however many names these have, and their bytes.

    `quota` is what a local one may hold, `max_bytes` what a proxy keeps to; null: any amount.  `kind` is empty for one
    that the configuration does not have any more.
    """

    repository: str
    kind: str
    files: int
    bytes: int
    quota: int | None
    max_bytes: int | None


class Usages(Record, frozen=True, kw_only=True):
    """A page of repositories' usage."""

    items: list[Usage]
    next: str = ""


class CollectWish(Record, frozen=True, kw_only=True):
    """How to collect. `grace`: what is younger is left alone, 30m, 24h, 7d; empty: as configured."""

    dry_run: Annotated[bool, Meta(description="Say what would go, and change nothing.")] = False
    grace: Annotated[str, Meta(max_length=32)] = ""


class SpaceOperations:
    """Usage and gc."""

    def __init__(self, shelves: Shelves, jobs: Jobs, collect: Collect) -> None:
        self._shelves = shelves
        self._jobs = jobs
        self._collect = collect

    def operations(self) -> Iterator[Operation[Record, Record]]:
        """This part of the table."""
        yield operation(
            "listUsage", "GET", "/usage", "How much each repository holds.", _MANAGE, self._usages, tag="space"
        )
        yield operation(
            "getUsage",
            "GET",
            "/repositories/{repository}/usage",
            "How much a repository holds.",
            Needs("manage", repository="repository"),
            self._usage,
            tag="space",
        )
        yield operation(
            "startCollection",
            "POST",
            "/gc",
            "Give space back: apply retention rules, shrink caches that are too large, remove what nothing needs.",
            _MANAGE,
            self._start,
            tag="space",
            status=202,
        )

    async def _usages(self, asked: Asked[Paged, Nothing]) -> Usages:
        where, settings = asked.where, self._shelves.settings
        held = self._shelves.contents.usage()
        names = {name for name, item in settings.items() if item.kind != "group"} | held.keys()
        left = sorted(name for name in names if name > where.after)
        items = [_usage(name, settings, held) for name in left[: where.limit]]
        return Usages(items=items, next=items[-1].repository if len(left) > len(items) else "")

    async def _usage(self, asked: Asked[InRepository, Nothing]) -> Usage:
        name = self._shelves.found(asked.where.repository).name
        return _usage(name, self._shelves.settings, self._shelves.contents.usage())

    async def _start(self, asked: Asked[Nothing, CollectWish]) -> JobShown:
        body = asked.body
        work = partial(self._work, _grace(body.grace), body.dry_run)
        subject = "dry run" if body.dry_run else "all stores"
        asked.request.trace.about = subject
        return shown_job(
            await self._jobs.start("gc", subject, asked.caller.name, work, token=asked.caller.token, alone=True)
        )

    async def _work(self, grace: float | None, dry_run: bool, tell: Tell) -> Result:
        return told(await self._collect(grace, dry_run, tell))


def _grace(text: str) -> float | None:
    try:
        return parse_duration(text) if text else None
    except ValueError as error:
        raise BadRequest(f"grace: {error}", subject="grace") from None


def told(report: Report) -> Result:
    """What came of it, as a job tells it; "own.bytes" is of a repository."""
    parts: dict[str, Freed] = {}
    for found in (report.names, report.evicted):
        for name, freed in found.items():
            mine = parts.setdefault(name, Freed())
            mine.files += freed.files
            mine.bytes += freed.bytes
    told: dict[str, int | str] = {"files": report.freed.files, "bytes": report.freed.bytes}
    for name, freed in sorted(parts.items()):
        told |= {f"{name}.files": freed.files, f"{name}.bytes": freed.bytes}
    for name, retired in report.retired.items():
        told |= {f"{name}.tags": retired.tags, f"{name}.manifests": retired.manifests}
        if retired.builds:
            told[f"{name}.builds"] = retired.builds
    return told


def _usage(name: str, settings: Mapping[str, Settings], held: Mapping[str, tuple[int, int]]) -> Usage:
    item = settings.get(name)
    files, size = held.get(name, (0, 0))
    return Usage(
        repository=name,
        kind=item.kind if item is not None else "",
        files=files,
        bytes=size,
        quota=parse_size(item.quota) if item is not None and item.quota is not None else None,
        max_bytes=parse_size(item.max_bytes) if item is not None and item.max_bytes is not None else None,
    )
