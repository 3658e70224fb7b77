"""The API's table, from the parts that its operations need."""

from __future__ import annotations

from dataclasses import dataclass

from mxart.access.management import Management
from mxart.config import Config
from mxart.store.contents import Contents
from mxart.web.api import Api
from mxart.web.job_operations import JobOperations
from mxart.web.jobs import Jobs
from mxart.web.own_accounts import OwnAccounts
from mxart.web.repositories import Shelves
from mxart.web.users import UserOperations


@dataclass(frozen=True, slots=True)
class Services:
    """What the operations work with."""

    config: Config
    contents: Contents
    jobs: Jobs
    management: Management | None = None  # None: there are no users


def make_api(services: Services) -> Api:
    """The API of one worker."""
    shelves = Shelves(services.config.repositories, services.contents)
    jobs = JobOperations(services.jobs)
    operations = [*shelves.operations(), *jobs.operations()]
    if services.management is not None:
        operations += UserOperations(services.management).operations()
        operations += OwnAccounts(services.management).operations()
    return Api(operations)
