"""What a configuration names and files hold: whom upstreams are believed by, and what they know us by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from mxart.config import Config
from mxart.config import Repository as Settings
from mxart.errors import ConfigError
from mxart.repos.go.sums import Database, Private
from mxart.repos.maven.closed import Closed, Groups
from mxart.secrets import secret
from mxart.upstream.tls import ClientTls
from mxart.upstream.tokens import Credentials

if TYPE_CHECKING:  # whoever has nothing in git need not wait for it at every start
    from mxart.build_vcs import VcsTrust


class Trust(Struct, frozen=True):
    """What is read from files at start: whom we believe, and what upstreams know us by. Both by repository."""

    tls: Mapping[str, ClientTls]
    credentials: Mapping[str, Credentials]
    sums: Mapping[str, tuple[Database | None, Private]]  # of Go proxies
    vcs: Mapping[str, VcsTrust]
    closed: Mapping[str, Closed]  # of Maven's
    modules: Mapping[str, Private]  # of Go's, local ones and proxies

    @classmethod
    def read(cls, config: Config, ours: bytes = b"") -> Trust:
        """Raises ConfigError naming the repository and the file. `ours` is the certificate of our own CA, as PEM."""
        tls: dict[str, ClientTls] = {}
        by_file: dict[str, ClientTls] = {}
        credentials: dict[str, Credentials] = {}
        sums: dict[str, tuple[Database | None, Private]] = {}
        vcs: dict[str, VcsTrust] = {}
        closed: dict[str, Closed] = {}
        modules: dict[str, Private] = {}
        for name, settings in config.repositories.items():
            if settings.kind == "vcs":
                from mxart.build_vcs import VcsTrust  # noqa: PLC0415  # few have one

                vcs[name] = VcsTrust.read(name, settings, ours)
            elif settings.format == "go":
                modules[name] = _modules(name, settings)
            if settings.kind != "proxy":
                continue
            try:
                if settings.ca_file not in by_file:
                    by_file[settings.ca_file] = ClientTls(settings.ca_file, ours)
            except ConfigError as error:
                raise ConfigError(f"repository.{name}.ca_file: {error}") from None
            if settings.format == "go":
                sums[name] = _sums(name, settings)
            if settings.format == "maven":
                closed[name] = _closed(name, settings)
            tls[name] = by_file[settings.ca_file]
            credentials[name] = Credentials(
                settings.username,
                settings.password or secret(settings.password_file, f"repository.{name}.password_file"),
                settings.token or secret(settings.token_file, f"repository.{name}.token_file"),
            )
        try:
            ClientTls(config.replicate.ca_file)  # that it can be read is known at start, not at the first copy
        except ConfigError as error:
            raise ConfigError(f"replicate.ca_file: {error}") from None
        return cls(tls, credentials, sums, vcs, closed, modules)


def _sums(name: str, settings: Settings) -> tuple[Database | None, Private]:
    try:
        database = Database.parse(settings.sumdb)
    except ValueError as error:
        raise ConfigError(f"repository.{name}.sumdb: {error}") from None
    try:
        return database, Private(settings.private)
    except ValueError as error:
        raise ConfigError(f"repository.{name}.private: {error}") from None


def _modules(name: str, settings: Settings) -> Private:
    try:
        return Private(settings.modules)
    except ValueError as error:
        raise ConfigError(f"repository.{name}.modules: {error}") from None


def _closed(name: str, settings: Settings) -> Closed:
    try:
        return Closed(Groups(settings.private), settings.policy)
    except ValueError as error:
        raise ConfigError(f"repository.{name}.private: {error}") from None
