"""Users, tokens and permissions of the server: what one process makes ready, and what each worker has of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from mxart.access import schema
from mxart.access.audit import Audit
from mxart.access.control import Access, rules_of
from mxart.access.directory import Directory
from mxart.access.key_files import KeyFiles
from mxart.access.management import Management
from mxart.config import Config, parse_size
from mxart.server.authentication import Authenticator, Signer
from mxart.server.challenges import Challenges, Doors
from mxart.server.guesses import Guesses
from mxart.server.names import Names, reach_of
from mxart.server.rates import RateTable
from mxart.server.reception import Reception
from mxart.server.token_pages import TokenPages
from mxart.store.generation import Generation
from mxart.store.paths import DataPaths

if TYPE_CHECKING:
    from mxart.build import Parts  # the whole server, which commands about users need not wait for

log = logging.getLogger(__name__)


def prepare_access(config: Config) -> KeyFiles:
    """The file of users, with its first administrator, and the keys that tokens are signed with. Raises ConfigError."""
    paths = DataPaths(config.data)
    open_users(config.data).directory.close()
    if paths.admin_password.exists():
        log.info("log in as admin; the password is in %s, until it is changed", paths.admin_password)
    return KeyFiles.open(paths.tokens)


def open_users(data: Path, generation: Generation | None = None) -> Management:
    """The users of a data directory, made if need be; `generation` tells everybody of changes. Raises ConfigError."""
    paths = DataPaths(data)
    paths.create()
    schema.prepare(paths.access)
    directory = _directory(paths, generation)
    management = Management(directory, paths.admin_password)
    management.make_administrator()
    return management


def _directory(paths: DataPaths, generation: Generation | None) -> Directory:
    if generation is None:
        return Directory(paths.access)
    return Directory(paths.access, generation.value, generation.bump)


class Rights(Struct, frozen=True):
    """A worker's part in who may what."""

    reception: Reception
    token_pages: TokenPages
    management: Management
    audit: Audit

    @classmethod
    def of(cls, config: Config, parts: Parts, keys: KeyFiles, generation: Generation, guesses: RateTable) -> Rights:
        """Made in the worker. Raises ConfigError."""
        paths = DataPaths(config.data)
        directory = _directory(paths, generation)
        access = Access(rules_of(config))
        reach = reach_of(config)
        hosts = config.token_server.hosts
        names = Names(parts.routes, lambda name: parts.repositories[name].format, reach, hosts, config.access.url)
        authenticator = Authenticator(access, directory, Signer(keys), Guesses(guesses), names)
        audit = Audit(paths.audit, parse_size(config.access.audit_bytes))
        management = Management(directory, paths.admin_password)
        return cls(
            Reception(authenticator, Challenges(config.access.url, hosts), Doors.of(config, access, reach), audit),
            TokenPages(authenticator, management),
            management,
            audit,
        )
