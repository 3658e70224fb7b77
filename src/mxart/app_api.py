"""The API of a worker, made when somebody asks for it first: what it stands on takes a while to import."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from mxart.app_access import Rights
from mxart.app_space import retire_one, space_task
from mxart.build import Parts
from mxart.config import Config
from mxart.store.paths import DataPaths
from mxart.store.space.process import run_round
from mxart.store.space.task import Report, Tell
from mxart.web.jobs import Jobs

if TYPE_CHECKING:
    from mxart.web.api import Api


class ApiOnDemand:
    """Called, it is there. Cancelled: it is made by the next call."""

    def __init__(self, config: Config, parts: Parts, jobs: Jobs, rights: Rights) -> None:
        self._config = config
        self._parts = parts
        self._jobs = jobs
        self._rights = rights
        self._turn = trio.Lock()
        self._api: Api | None = None

    async def __call__(self) -> Api:
        """The API."""
        if self._api is None:
            async with self._turn:
                if self._api is None:
                    self._api = await trio.to_thread.run_sync(self._make)
        return self._api

    def _make(self) -> Api:
        """In a thread, where importing keeps no request waiting for long."""
        from mxart.web.replication import Copying  # noqa: PLC0415  # see above
        from mxart.web.table import Services, make_api  # noqa: PLC0415  # not before it is asked

        config, parts, rights = self._config, self._parts, self._rights
        access, directory = rights.reception.authenticator.access, rights.management.directory
        return make_api(
            Services(
                config,
                parts.contents,
                parts.repositories,
                self._jobs,
                collect=self._collect,
                retire=partial(retire_one, config),
                copying=Copying(parts.dialer, DataPaths(config.data).replications, config.replicate, access, directory),
                management=rights.management,
                access=access,
                audit=rights.audit,
            )
        )

    async def _collect(self, grace: float | None, dry_run: bool, tell: Tell) -> Report:
        return await run_round(space_task(self._config, grace=grace, dry_run=dry_run), tell)
