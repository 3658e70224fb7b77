"""Jobs, as the API shows them: to whom they belong, and to those who manage everything."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from mxart.repos.callers import Caller
from mxart.web.jobs import Job, Jobs
from mxart.web.operations import Asked, Needs, Nothing, Operation, Paged, Record, operation, when

JobId = Annotated[str, Meta(pattern=r"^[0-9]{8}-[0-9]{6}-[0-9a-f]{8}\Z", description="A job's id.")]


class OneJob(Record, frozen=True, kw_only=True):
    """A job."""

    job: JobId


class JobsWanted(Paged, frozen=True, kw_only=True):
    """Which jobs. An empty one is no filter."""

    kind: Annotated[str, Meta(max_length=32, description="gc, retention, replication.")] = ""
    state: Literal["", "running", "done", "failed", "cancelled", "interrupted"] = ""


class JobShown(Record, frozen=True, kw_only=True):
    """Long work that was asked for. `total` null: nobody can tell yet; `at` is what it is doing now.

    interrupted: the server was stopped, or its process died; what was done is done, ask for it again.
    """

    id: str
    kind: str
    subject: str
    owner: str
    state: Literal["running", "done", "failed", "cancelled", "interrupted"]
    done: int
    total: int | None
    at: str
    created: datetime
    finished: datetime | None
    result: dict[str, int | str]
    error: str


class JobsShown(Record, frozen=True, kw_only=True):
    """A page of jobs, the newest first."""

    items: list[JobShown]
    next: str = ""


def shown(job: Job) -> JobShown:
    """A job as its asker is told."""
    return JobShown(
        id=job.id,
        kind=job.kind,
        subject=job.subject,
        owner=job.owner,
        state=job.state,
        done=job.done,
        total=job.total,
        at=job.at,
        created=when(job.created),
        finished=when(job.finished) if job.finished else None,
        result=job.result,
        error=job.error,
    )


_LOGIN = Needs(login=True)


class JobOperations:
    """This part of the table."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def operations(self) -> Iterator[Operation[Record, Record]]:
        """This part of the table."""
        yield operation(
            "listJobs",
            "GET",
            "/jobs",
            "Your jobs; everybody's for those who manage everything.",
            _LOGIN,
            self._list,
            tag="jobs",
        )
        yield operation("getJob", "GET", "/jobs/{job}", "A job, and how far it is.", _LOGIN, self._get, tag="jobs")
        yield operation(
            "cancelJob",
            "DELETE",
            "/jobs/{job}",
            "Ask for a job's end, which comes soon; what is done stays done.",
            _LOGIN,
            self._cancel,
            tag="jobs",
            status=202,
        )

    async def _list(self, asked: Asked[JobsWanted, Nothing]) -> JobsShown:
        where = asked.where
        jobs = [job for job in await self._jobs.every() if not where.after or job.id < where.after]
        seen = [
            job
            for job in jobs
            if where.kind in ("", job.kind) and where.state in ("", job.state) and _sees(asked.caller, job)
        ]
        items = [shown(job) for job in seen[: where.limit]]
        return JobsShown(items=items, next=items[-1].id if len(seen) > len(items) else "")

    async def _get(self, asked: Asked[OneJob, Nothing]) -> JobShown:
        return shown(await self._found(asked))

    async def _cancel(self, asked: Asked[OneJob, Nothing]) -> JobShown:
        job, caller = await self._found(asked), asked.caller
        # A token may end what was begun with it; what its user began otherwise is more than it is good for.
        if caller.grants.delegated and not (caller.token and caller.token == job.token):
            caller.grants.demand("manage", "*", "")
        return shown(await self._jobs.cancel(asked.where.job))

    async def _found(self, asked: Asked[OneJob, Nothing]) -> Job:
        """Raises NotFound, Forbidden."""
        job = await self._jobs.find(asked.where.job)
        if not _sees(asked.caller, job):
            asked.caller.grants.demand("manage", "*", "")
        return job


def _sees(caller: Caller, job: Job) -> bool:
    return job.owner == caller.name or caller.grants.may("manage", "*", "")
