"""Giving space back, as the configuration has it: the task for it, and the worker that sees to the schedule."""

from __future__ import annotations

from mxart.config import Config, parse_size
from mxart.store.paths import DataPaths, stores
from mxart.store.space.task import Member, Task

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
                max_bytes=None if item.max_bytes is None else parse_size(item.max_bytes),
            )
            for name, item in config.repositories.items()
            if item.kind != "group"
        ),
        grace=config.gc.grace_seconds if grace is None else grace,
        dry_run=dry_run,
    )
