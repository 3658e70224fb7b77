"""Replications as callers want them: by URL, for the command; from a repository of this server, for the API."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from mxart.config import Replicate
from mxart.errors import BadRequest, Forbidden, MxartError, Problem, UpstreamFailed
from mxart.replicate.engine import Outcome, Replication, Wish
from mxart.replicate.memo import Memo
from mxart.replicate.openers import Opener, RepositoryOpener, UpstreamOpener
from mxart.replicate.progress import Progress, silent
from mxart.replicate.reference import Place, parse_image, parse_place
from mxart.replicate.source import Source
from mxart.replicate.target import Target
from mxart.replicate.uploading import USUAL_CHUNK, Manner
from mxart.repos.base import Repository
from mxart.repos.callers import Caller
from mxart.repos.oci.names import check_name, is_tag, shown
from mxart.upstream.dial import Dialer
from mxart.upstream.remote import Remote
from mxart.upstream.timing import Patience, Timeouts
from mxart.upstream.tls import ClientTls
from mxart.upstream.tokens import ANONYMOUS, Credentials

_READING = Timeouts()
# The answer to the last request of an upload may have to wait until the target has hashed all of it once more.
_WRITING = Timeouts(first_byte=600.0, idle=60.0)
_PATIENCE = Patience(rounds=5, first_pause=0.5, longest_pause=60.0, total=180.0)


class Access(Struct, frozen=True):
    """How a registry is reached: what it knows us by, and whom we believe (PEM; "": the system's certificates)."""

    credentials: Credentials = ANONYMOUS
    ca_file: str = ""


class Choice(Struct, frozen=True):
    """What of an image, and how. `tags` are further names at the target; `chunk` is in bytes, 0 for the usual.

    `mount_from` are repositories of the target's registry that may have the blobs already.
    """

    tags: tuple[str, ...] = ()
    all_tags: bool = False
    platform: str = ""
    referrers: bool = True
    at_once: int = 4
    chunk: int = 0
    mount_from: tuple[str, ...] = ()


async def from_registry(
    source: str,
    target: str,
    dialer: Dialer,
    state: Path | None,
    *,
    choice: Choice = Choice(),  # noqa: B008  # a frozen value
    source_access: Access = Access(),  # noqa: B008  # as above
    target_access: Access = Access(),  # noqa: B008  # as above
    progress: Progress = silent,
) -> Outcome:
    """Copy `[http://]registry/name[:tag][@digest]` to `[http://]registry/name[:tag]`.

    Without a tag, "latest" is meant, at the target the same as at the source.  `state` is the folder for what has to
    outlive this process.  Raises BadRequest for what the caller has written wrong; ConfigError for a CA file that
    cannot be read; MxartError for all that goes wrong on the way.
    """
    here, there = parse_place(source), parse_place(target)
    reading = _remote(here, dialer, source_access, _READING, choice.at_once)
    try:
        opened = Source(UpstreamOpener(reading), here.name, f"{here.registry}/{here.name}")
        if here.registry == there.registry:
            choice = replace(choice, mount_from=(here.name, *choice.mount_from))
        return await _run(opened, here, there, dialer, state, choice, target_access, progress)
    finally:
        await reading.aclose()


async def from_repository(
    repository: Repository,
    caller: Caller,
    image: str,
    target: str,
    dialer: Dialer,
    state: Path,
    allowed: Replicate,
    *,
    choice: Choice = Choice(),  # noqa: B008  # a frozen value
    credentials: Credentials = ANONYMOUS,
    progress: Progress = silent,
) -> Outcome:
    """Copy `name[:tag][@digest]` of a repository of ours to a registry that the configuration allows.

    The caller has to `manage` the package, and reads what he may read.  Raises BadRequest, Unauthorized, Forbidden at
    once, before anything is dialled; then other Problems.
    """
    name, tag, digest = parse_image(image)
    caller.grants.demand("manage", repository.name, name)
    there = allowed_target(target, allowed)
    here = Place("", name, tag, digest)
    opener: Opener = RepositoryOpener(repository, caller)
    opened = Source(opener, name, f"{repository.name}/{name}")
    access = Access(credentials, allowed.ca_file)
    try:
        return await _run(opened, here, there, dialer, state, choice, access, progress)
    except Problem:
        raise
    except MxartError as error:
        raise UpstreamFailed(str(error)) from None


def allowed_target(target: str, allowed: Replicate) -> Place:
    """Where a target is, if its registry is in the list. Raises BadRequest, Forbidden."""
    there = parse_place(target)
    known = [str(parse_place(f"{url.rstrip('/')}/x").registry) for url in allowed.targets]
    if there.registry not in known:
        raise Forbidden(
            f"{there.registry} is not among the registries that this server copies to; "
            f'the configuration names them: [replicate] targets = ["{there.registry}"]'
        )
    return there


def wishes_of(here: Place, there: Place, choice: Choice) -> list[Wish]:
    """The images of one run, but for `all_tags`. Raises BadRequest for what does not go together."""
    if there.digest is not None:
        raise BadRequest("a target has a tag or none: what digest it gets is the source's affair", subject="reference")
    for tag in choice.tags:
        if not is_tag(tag):
            raise BadRequest(f"{shown(tag)} is not a tag", subject="reference")
    if choice.all_tags:
        if here.reference or there.tag or choice.tags:
            raise BadRequest("all tags are copied under their own names: name no tag", subject="reference")
        return []
    reference = here.reference or "latest"
    own = there.tag or (here.tag or ("latest" if here.digest is None else ""))
    return [Wish(reference, tuple(dict.fromkeys((*((own,) if own else ()), *choice.tags))))]


async def _run(
    source: Source,
    here: Place,
    there: Place,
    dialer: Dialer,
    state: Path | None,
    choice: Choice,
    access: Access,
    progress: Progress,
) -> Outcome:
    wishes: Sequence[Wish] = wishes_of(here, there, choice)
    mount_from = tuple(dict.fromkeys(check_name(name) for name in choice.mount_from if name != there.name))
    manner = Manner(chunk=choice.chunk or USUAL_CHUNK, mount_from=mount_from)
    writing = _remote(there, dialer, access, _WRITING, choice.at_once)
    try:
        replication = Replication(
            source,
            Target(writing, there.name),
            Memo(state),
            manner=manner,
            platform=choice.platform,
            referrers=choice.referrers,
            at_once=choice.at_once,
            progress=progress,
        )
        return await replication.run(wishes or await replication.every_tag())
    finally:
        await writing.aclose()


def _remote(place: Place, dialer: Dialer, access: Access, timeouts: Timeouts, at_once: int) -> Remote:
    return Remote(
        place.registry,
        [place.registry],
        dialer,
        tls=ClientTls(access.ca_file),
        credentials=access.credentials,
        timeouts=timeouts,
        patience=_PATIENCE,
        concurrency=at_once,
    )
