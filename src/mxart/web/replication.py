"""Copies of images to other registries, as jobs: from a repository here to a registry that the configuration allows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from mxart.access.base import Action
from mxart.access.control import Access, principal_of
from mxart.access.directory import Directory
from mxart.config import Replicate
from mxart.errors import BadRequest, Forbidden, NotFound
from mxart.replicate.engine import Outcome
from mxart.replicate.reference import Place, parse_image
from mxart.replicate.run import Choice, allowed_target, from_repository, wishes_of
from mxart.repos.base import Repository
from mxart.repos.callers import Caller
from mxart.upstream.dial import Dialer
from mxart.upstream.tokens import Credentials
from mxart.web.job_operations import JobShown
from mxart.web.job_operations import shown as shown_job
from mxart.web.jobs import Jobs, Result, Tell
from mxart.web.operations import Asked, Needs, Operation, Record, operation
from mxart.web.shelves import PackageName, RepositoryName

Text = Annotated[str, Meta(max_length=1024)]


class OfPackage(Record, frozen=True, kw_only=True):
    """A package of a repository."""

    repository: RepositoryName
    package: PackageName


class ReplicationWish(Record, frozen=True, kw_only=True):
    """What to copy where. `reference` is a tag or a digest; empty: latest.

    `target` is [http://]host[:port]/name[:tag], of a registry that the configuration lists under [replicate] targets.
    The secrets are for the target, and kept in memory only, while the job runs: one that was interrupted is asked for
    again, and goes on where it stopped.
    """

    target: Annotated[str, Meta(min_length=1, max_length=1024, examples=["https://registry.example/team/app:1.0"])]
    reference: Text = ""
    tags: Annotated[tuple[Text, ...], Meta(max_length=100, description="Further tags at the target.")] = ()
    all_tags: Annotated[bool, Meta(description="Every tag, each under its own name.")] = False
    platform: Annotated[str, Meta(max_length=64, description="Of an index only this one: linux/arm64.")] = ""
    referrers: Annotated[bool, Meta(description="Take signatures, SBOMs and the like along.")] = True
    at_once: Annotated[int, Meta(ge=1, le=16, description="Transfers at one time.")] = 4
    username: Text = ""
    password: Annotated[str, Meta(max_length=16384)] = ""
    token: Annotated[str, Meta(max_length=16384, description="A bearer token, instead of user and password.")] = ""


class Copying(Struct, frozen=True):
    """What copies need: how to dial, where is kept what was begun, which registries are allowed, and to whom."""

    dialer: Dialer
    state: Path
    allowed: Replicate
    access: Access
    directory: Directory


class StillAllowed:
    """What a caller was granted when he asked, as long as he is a user who may do it, and the token that he showed is
    good (access.base.Grants).

    For work that goes on when his request is over.
    """

    def __init__(
        self, caller: Caller, access: Access, directory: Directory, clock: Callable[[], float] = time.time
    ) -> None:
        self._grants = caller.grants
        self._name = caller.name
        self._token = caller.token
        self._clock = clock
        self._access = access
        self._directory = directory

    def may(self, action: Action, repository: str, path: str) -> bool:
        principal = principal_of(self._directory, self._name, self._token, self._clock())
        if isinstance(principal, str) or not self._grants.may(action, repository, path):
            return False
        return self._access.decide(principal, action, repository, path).allowed

    def demand(self, action: Action, repository: str, path: str) -> None:
        self._grants.demand(action, repository, path)
        if not self.may(action, repository, path):
            what = f"{action} {path}" if path else action
            raise Forbidden(f"{self._name or 'nobody'} may not {what} in repository {repository} any more")

    def sees(self, repository: str, path: str) -> bool:
        return self._grants.sees(repository, path) and self.may("read", repository, path)

    @property
    def delegated(self) -> bool:
        return self._grants.delegated


class ReplicationOperations:
    """Replications."""

    def __init__(self, repositories: Mapping[str, Repository], jobs: Jobs, copying: Copying) -> None:
        self._repositories = repositories
        self._jobs = jobs
        self._copying = copying

    def operations(self) -> Iterator[Operation[Record, Record]]:
        """This part of the table."""
        yield operation(
            "startReplication",
            "POST",
            "/repositories/{repository}/packages/{package}/replications",
            "Copy an image, with its referrers, to another registry.",
            Needs("manage", repository="repository", package="package"),
            self._start,
            tag="replication",
            status=202,
        )

    async def _start(self, asked: Asked[OfPackage, ReplicationWish]) -> JobShown:
        where, body = asked.where, asked.body
        repository = self._repositories.get(where.repository)
        if repository is None:
            raise NotFound(f"there is no repository {where.repository}", subject="repository")
        if bool(body.username) != bool(body.password):
            raise BadRequest("username and password go together", subject="password" if body.username else "username")
        if body.token and body.username:
            raise BadRequest("give a token, or a username and a password, not both", subject="token")
        mark = "" if not body.reference else ("@" if ":" in body.reference else ":")
        image = f"{where.package}{mark}{body.reference}"
        choice = Choice(body.tags, body.all_tags, body.platform, body.referrers, body.at_once)
        # What is wrong with the wish is told at once, and not by a job that fails.
        there = allowed_target(body.target, self._copying.allowed)
        wishes_of(Place("", *parse_image(image)), there, choice)
        credentials = Credentials(body.username, body.password, body.token)
        still = StillAllowed(asked.caller, self._copying.access, self._copying.directory)
        caller = replace(asked.caller, grants=still)
        work = partial(self._work, repository, caller, image, body.target, choice, credentials)
        subject = f"{where.repository}: {image} to {there}"
        asked.request.trace.about = f"to {there}"
        return shown_job(
            await self._jobs.start(
                "replication", subject, asked.caller.name, work, token=asked.caller.token, alone=True
            )
        )

    async def _work(
        self,
        repository: Repository,
        caller: Caller,
        image: str,
        target: str,
        choice: Choice,
        credentials: Credentials,
        tell: Tell,
    ) -> Result:
        copying = self._copying
        outcome = await from_repository(
            repository,
            caller,
            image,
            target,
            copying.dialer,
            copying.state,
            copying.allowed,
            choice=choice,
            credentials=credentials,
            progress=tell,
        )
        return _told(outcome)


def _told(outcome: Outcome) -> Result:
    return {
        "manifests": outcome.manifests,
        "blobs": outcome.blobs,
        "there_already": outcome.manifests_there + outcome.blobs_there,
        "mounted": outcome.mounted,
        "bytes": outcome.bytes_sent,
        "bytes_resumed": outcome.bytes_resumed,
        "tags": " ".join(outcome.tags),
        "digests": " ".join(dict.fromkeys(outcome.digests.values())),
        "notes": "\n".join(outcome.notes),
    }
