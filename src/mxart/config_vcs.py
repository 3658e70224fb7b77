"""Git servers in the configuration: `[[repository.NAME.login]]`, and what a `kind = "vcs"` has to say. Values."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePath

import msgspec

_PATTERN = re.compile(r"(\*|(\*\.)?[a-z0-9]([a-z0-9._-]*[a-z0-9])?|[0-9a-f:]*:[0-9a-f:.]*)\Z")
_FILES = ("password_file", "token_file", "netrc_file", "ssh_key_file", "known_hosts_file", "ca_file")


class GitLogin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What some git servers know us by, and whom we believe there.

    `hosts` are names, "*.example.com" for all below one, "*" for all.  `token` goes as a password; `netrc_file` has a
    login for each of many hosts.  `ssh_key_file` is a private key without a passphrase, `known_hosts_file` the keys of
    the hosts.  `ca_file` replaces the system's certificates.  `insecure`: http is taken as well.
    """

    hosts: str | tuple[str, ...] = "*"
    username: str = ""
    password: str = ""
    password_file: str = ""
    token: str = ""
    token_file: str = ""
    netrc_file: str = ""
    ssh_key_file: str = ""
    known_hosts_file: str = ""
    ca_file: str = ""
    insecure: bool = False

    @property
    def patterns(self) -> tuple[str, ...]:
        """`hosts` as a list."""
        return (self.hosts,) if isinstance(self.hosts, str) else self.hosts


def check_vcs(
    place: str, modules: Collection[str], urls: Mapping[str, str], logins: Collection[GitLogin]
) -> Iterator[tuple[str, str]]:
    """Every fault of a repository of this kind: the key, and what is wrong with it and what would be right."""
    if not modules:
        yield (
            f"{place}.modules",
            'which modules are read from git? modules = ["git.example.com"], as in GOPRIVATE',
        )
    for root, url in urls.items():
        if not re.match(r"(https?|ssh|git\+ssh)://", url):
            yield (
                f"{place}.urls.{root}",
                f"{url.partition('@')[2] or url!r}: write https://host/path or ssh://git@host/path",
            )
    for index, login in enumerate(logins):
        yield from _login(f"{place}.login[{index}]", login)


def _login(place: str, login: GitLogin) -> Iterator[tuple[str, str]]:
    for pattern in login.patterns:
        if not _PATTERN.match(pattern):
            yield f"{place}.hosts", f'{pattern!r} is no host name in lower case, nor "*.example.com", nor "*"'
    for key in ("password", "token"):
        if getattr(login, key) and getattr(login, f"{key}_file"):
            yield f"{place}.{key}_file", f"give {key} or {key}_file, not both"
    has_password = bool(login.password or login.password_file)
    has_token = bool(login.token or login.token_file)
    if bool(login.username) != has_password:
        missing = "password_file" if login.username else "username"
        yield f"{place}.{missing}", "username and password go together; a token goes without a user"
    if [has_password, has_token, bool(login.netrc_file)].count(True) > 1:
        yield f"{place}.token", "give one of a username with a password, a token, a netrc_file"
    if login.ssh_key_file and not login.known_hosts_file:
        yield (
            f"{place}.known_hosts_file",
            "over ssh the host is known by its key, or it could be anybody: ssh-keyscan HOST > FILE, and compare it",
        )
    for key in _FILES:
        file = getattr(login, key)
        if file and not PurePath(file).is_absolute():
            yield f"{place}.{key}", f"{file!r}: write the whole path"
        if re.search(r"[\"\x00-\x1f\x7f%]", file) and key in ("ssh_key_file", "known_hosts_file"):
            yield f"{place}.{key}", f"{file!r}: ssh takes no file whose name has such signs"
