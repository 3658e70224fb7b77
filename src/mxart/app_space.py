"""Giving space back, as the configuration has it: the task for it, and the worker that sees to the schedule."""

from __future__ import annotations

import logging
import sqlite3
import time
from random import uniform

import trio
from msgspec import structs

from mxart.config import Config, parse_size
from mxart.errors import MxartError
from mxart.repos.maven.versions import BUILDS, TOLD
from mxart.store.catalog import SqliteCatalog
from mxart.store.paths import DataPaths, stores
from mxart.store.quotas import Quotas
from mxart.store.space.evict import is_over
from mxart.store.space.leader import begin_schedule, is_due, last_finished
from mxart.store.space.process import run_round
from mxart.store.space.retention import Note
from mxart.store.space.retire import retire
from mxart.store.space.round import Busy, Failed, opened
from mxart.store.space.task import Member, Pause, Retired, Task, Tell

log = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0
_RETRY_SECONDS = 60.0  # after a failure

_PARTS = {"oci": "blobs"}
"""By format: where files lie that exist only for those which link them (Member.part)."""


def space_task(config: Config, *, grace: float | None = None, dry_run: bool = False) -> Task:
    """What a round has to do. `grace` in seconds, None: the configuration's."""
    paths = DataPaths(config.data)
    return Task(
        catalog=str(paths.catalog),
        generation=str(paths.generation),
        lock=str(paths.gc),
        stores={name: str(place.root) for name, place in stores(config).items()},
        members=tuple(
            Member(
                name=name,
                store=item.store,
                part=_PARTS.get(item.format, "") if item.kind == "local" else "",
                builds=BUILDS if item.format == "maven" and item.kind == "local" else "",
                complete=TOLD if item.format == "maven" and item.kind == "local" else "",
                max_bytes=None if item.max_bytes is None else parse_size(item.max_bytes),
                retention=item.retention,
            )
            for name, item in config.repositories.items()
            if item.kind != "group"
        ),
        grace=config.gc.grace_seconds if grace is None else grace,
        dry_run=dry_run,
    )


def quotas_of(config: Config) -> Quotas:
    """How much each local repository may hold."""
    return Quotas(
        {name: parse_size(item.quota) for name, item in config.repositories.items() if item.quota is not None}
    )


def retire_one(config: Config, name: str, dry_run: bool, note: Note | None, tell: Tell, pause: Pause) -> Retired:
    """Let go, or only say, what the rules of one repository let go. Blocks. Raises Failed, ConfigError."""
    task = space_task(config)
    member = next(member for member in task.members if member.name == name)
    try:
        with opened(task) as ledger:
            return retire(ledger, member, time.time(), dry_run=dry_run, note=note, tell=tell, pause=pause)
    except (sqlite3.Error, OSError) as error:
        raise Failed(f"the catalog cannot be used: {error}") from error


async def keep_space(config: Config, catalog: SqliteCatalog) -> None:
    """Evict where a cache has become too large, and do a whole round when it is due. Runs until cancelled.

    Every worker does this; who is first does it for all.
    """
    task = space_task(config)
    capped = [member for member in task.members if member.max_bytes is not None]
    every = config.gc.every_seconds
    if every and last_finished(task.lock) is None:
        begin_schedule(task.lock)
    look_at = 0.0

    def over(member: Member) -> bool:
        return is_over(catalog.held(member.name)[1], member)

    while True:
        # Workers that were started at the same moment do not look at the same moment.
        await trio.sleep(_LOOK_SECONDS * uniform(0.75, 1.25))  # noqa: S311  # nobody's secret
        now = time.time()
        if now < look_at <= now + _RETRY_SECONDS:
            continue
        try:
            if is_due(last_finished(task.lock), now, every) and await _round(structs.replace(task, every=every)):
                continue
            if any(over(member) for member in capped):
                await _round(structs.replace(task, only_evict=True))
                if any(over(member) for member in capped):  # what is left is needed, or another process is at it
                    look_at = time.time() + 5 * _LOOK_SECONDS
        except (MxartError, OSError) as error:
            log.warning("space is not given back: %s", error)
            look_at = time.time() + _RETRY_SECONDS


async def _round(task: Task) -> bool:
    """Whether it was done here."""
    try:
        report = await run_round(task)
    except Busy:
        await trio.sleep(_LOOK_SECONDS)
        return False
    freed = report.freed
    log.info("gave back %d bytes in %d files, in %.1f s", freed.bytes, freed.files, report.seconds)
    return True
