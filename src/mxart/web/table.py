"""The API's table, from the parts that its operations need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from msgspec import Struct

from mxart.access.audit import Audit
from mxart.access.control import Access
from mxart.access.management import Management
from mxart.config import Config
from mxart.repos.base import Repository
from mxart.store.contents import Contents
from mxart.web.api import Api
from mxart.web.audit import AuditOperations
from mxart.web.job_operations import JobOperations
from mxart.web.jobs import Jobs
from mxart.web.operations import Operation, Record
from mxart.web.own_accounts import OwnAccounts
from mxart.web.permissions import PermissionOperations
from mxart.web.replication import Copying, ReplicationOperations
from mxart.web.repositories import RepositoryOperations
from mxart.web.retention import RetentionOperations, Retire
from mxart.web.search import SearchOperations
from mxart.web.shelves import Shelves
from mxart.web.space import Collect, SpaceOperations
from mxart.web.users import UserOperations
from mxart.web.versions import VersionOperations


class Part(Protocol):
    """Some operations that belong together."""

    def operations(self) -> Iterator[Operation[Record, Record]]:
        """This part of the table."""
        ...


class Services(Struct, frozen=True):
    """What the operations work with."""

    config: Config
    contents: Contents
    repositories: Mapping[str, Repository]
    jobs: Jobs
    collect: Collect | None = None  # here and below: None where there is no such thing
    retire: Retire | None = None
    copying: Copying | None = None
    management: Management | None = None
    access: Access | None = None  # with the management
    audit: Audit | None = None


def make_api(services: Services) -> Api:
    """The API of one worker."""
    shelves = Shelves(services.config.repositories, services.contents)
    parts: list[Part] = [
        RepositoryOperations(shelves, services.config.access.url),
        VersionOperations(shelves, services.repositories),
        SearchOperations(shelves),
        JobOperations(services.jobs),
    ]
    if services.collect is not None:
        parts.append(SpaceOperations(shelves, services.jobs, services.collect))
    if services.retire is not None:
        parts.append(RetentionOperations(shelves, services.jobs, services.retire))
    if services.copying is not None:
        parts.append(ReplicationOperations(services.repositories, services.jobs, services.copying))
    if services.management is not None:
        parts += [UserOperations(services.management), OwnAccounts(services.management)]
        if services.access is not None:
            parts.append(PermissionOperations(services.access, services.management.directory))
    if services.audit is not None:
        parts.append(AuditOperations(services.audit))
    return Api(line for part in parts for line in part.operations())
