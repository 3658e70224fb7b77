"""Builds repositories of the kind `vcs`: what they know is read at start, their parts are put together in a worker."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import trio

from mxart.config import Config
from mxart.config import Repository as Settings
from mxart.config_vcs import GitLogin
from mxart.discreet import Discreet
from mxart.errors import ConfigError
from mxart.git import netrc
from mxart.git.clones import Clones
from mxart.git.depot import Depot
from mxart.git.logins import Login, Logins
from mxart.git.process import Git
from mxart.git.url import GitUrl
from mxart.git.ways import Ways
from mxart.repos.go.hosts import Urls
from mxart.repos.go.sums import Private
from mxart.repos.remote import Rules
from mxart.repos.stock import Stock
from mxart.repos.vcs.hosts import Hosts
from mxart.repos.vcs.kind import Vcs
from mxart.repos.vcs.roots import Roots
from mxart.repos.vcs.upstream import GitModules
from mxart.secrets import secret
from mxart.store.paths import GitPaths
from mxart.upstream.dial import Dialer
from mxart.upstream.remote import Remote
from mxart.upstream.tls import ClientTls
from mxart.upstream.tokens import ANONYMOUS, Credentials

# GIT_CONFIG_COUNT came with 2.31, http.curloptResolve with 2.37.
_OLDEST = (2, 37)
_RECENT = 10.0  # seconds that branches and tags are known for at most before a proxy's ttl, which is on top of it


class VcsTrust(Discreet, frozen=True):
    """What one repository reads from files: whom it believes, and what servers know us by. `tls` by CA file."""

    hidden: ClassVar = frozenset({"logins", "tls"})

    modules: Private
    urls: Urls
    logins: Logins
    tls: Mapping[str, ClientTls]

    @classmethod
    def read(cls, name: str, settings: Settings, ours: bytes = b"") -> VcsTrust:
        """Raises ConfigError naming the repository and the key; also if there is no git that can be used."""
        place = f"repository.{name}"
        _check_git(place)
        try:
            modules = Private(settings.modules)
        except ValueError as error:
            raise ConfigError(f"{place}.modules: {error}") from None
        for root, url in settings.urls.items():
            try:
                GitUrl.parse(url.replace("*", "x"))
                Urls({root: url})
            except ValueError as error:
                raise ConfigError(f"{place}.urls.{root}: {error}") from None
        logins = [_login(f"{place}.login[{index}]", item) for index, item in enumerate(settings.login)]
        if any(login.key_file for login in logins) and shutil.which("ssh") is None:
            raise ConfigError(f"{place}.login: ssh is not installed, and a login needs it: install openssh-client")
        tls: dict[str, ClientTls] = {}
        for file in dict.fromkeys(["", *(login.ca_file for login in logins)]):
            try:
                tls[file] = ClientTls(file, ours)
            except ConfigError as error:
                raise ConfigError(f"{place}.login: {error}") from None
        return cls(modules, Urls(settings.urls), Logins(logins), tls)


def _check_git(place: str) -> None:
    try:  # found by PATH, as git.process finds it
        told = subprocess.run(["git", "--version"], capture_output=True, check=True, text=True).stdout  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        raise ConfigError(f'{place}.kind: "vcs" needs git, which is not installed, or not on PATH') from None
    match = re.search(r"(\d+)\.(\d+)", told)
    if match is None or (int(match[1]), int(match[2])) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise ConfigError(f'{place}.kind: "vcs" needs git {oldest} or newer; here is {told.strip()[:80]}')


def _login(place: str, item: GitLogin) -> Login:
    entries: tuple[netrc.Entry, ...] = ()
    if item.netrc_file:
        try:
            entries = netrc.read(secret(item.netrc_file, f"{place}.netrc_file"))
        except ValueError as error:
            raise ConfigError(f"{place}.netrc_file: {item.netrc_file}: {error}") from None
    for key in ("ssh_key_file", "known_hosts_file"):
        _check_readable(f"{place}.{key}", getattr(item, key), private=key == "ssh_key_file")
    return Login(
        item.patterns,
        item.username,
        item.password or secret(item.password_file, f"{place}.password_file"),
        item.token or secret(item.token_file, f"{place}.token_file"),
        entries,
        item.ssh_key_file,
        item.known_hosts_file,
        item.ca_file,
        item.insecure,
    )


def _check_readable(place: str, file: str, *, private: bool) -> None:
    if not file:
        return
    if not os.access(file, os.R_OK) or not Path(file).is_file():
        raise ConfigError(f"{place}: {file} is no file that this user can read")
    if private and stat.S_IMODE(Path(file).stat().st_mode) & 0o077:
        raise ConfigError(f"{place}: {file} can be read by others, and ssh takes no such key: chmod 600 {file}")


def make_vcs(
    config: Config,
    settings: Settings,
    trust: VcsTrust,
    stock: Stock,
    dialer: Dialer,
    nursery: trio.Nursery,
    make: Callable[[str, ClientTls, Credentials], Remote],
) -> tuple[Vcs, Hosts]:
    """One repository, and the hosts that it asks for pages; `make` makes the upstream of one, which they close."""

    def host(url: str) -> Remote:
        parts = urlsplit(url)
        assert parts.hostname is not None, "a URL of ours"
        login = trust.logins.of(parts.hostname)
        basic = login.basic(parts.hostname, parts.netloc)
        return make(url, trust.tls[login.ca_file], Credentials(*basic) if basic is not None else ANONYMOUS)

    name, upstreams = settings.name, config.upstreams
    paths = GitPaths(config.data)
    paths.create()
    recent = min(settings.ttl, _RECENT)
    hosts = Hosts(host)
    git = Git(
        paths.home,
        silence=upstreams.first_byte_seconds + upstreams.idle_seconds,
        at_once=settings.concurrency,
    )
    depot = Depot(name, git, paths, trust.logins, Ways(dialer, settings.proxy), upstreams.connect_seconds)

    async def kept(path: str) -> bytes | None:
        record = stock.catalog.file(name, path)
        return None if record is None else await stock.blobs.read(record.digest, 1 << 20)

    modules = GitModules(name, Roots(trust.urls, trust.logins, hosts, recent), Clones(depot), paths, kept, recent)
    rules = Rules(ttl=settings.ttl, negative_ttl=settings.negative_ttl, offline=settings.offline)
    return Vcs(name, modules, trust.modules, stock, nursery=nursery, rules=rules), hosts
