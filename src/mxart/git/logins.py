"""What git servers know us by, and whom we believe, by host: as the settings that git and ssh take. Pure.

A secret gets into the environment of one process of git's, as a setting that holds for one origin only (git-config(1),
"GIT_CONFIG_COUNT", "http.<url>.*"): never into an argument, which everybody on the machine can read, nor into a file.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import ClassVar

from mxart.discreet import Discreet
from mxart.git import netrc
from mxart.git.url import GitUrl

# Servers ask for a user beside a token, and none looks at it: but GitLab, where it tells one sort of tokens.
TOKEN_USER = "oauth2"  # noqa: S105  # a user's name


class Login(Discreet, frozen=True):
    """For the hosts of some patterns: "git.example.com", "*.example.com" for all below it, "*" for every host.

    `token` goes as a password; `key_file` and `known_hosts_file` are for ssh.  `insecure`: http is taken, too, and
    believed.
    """

    hidden: ClassVar = frozenset({"password", "token", "netrc"})

    hosts: tuple[str, ...]
    username: str = ""
    password: str = ""
    token: str = ""
    netrc: tuple[netrc.Entry, ...] = ()
    key_file: str = ""
    known_hosts_file: str = ""
    ca_file: str = ""
    insecure: bool = False

    def basic(self, host: str, authority: str) -> tuple[str, str] | None:
        """The user and the password that are shown to a host, None for none."""
        if self.token:
            return TOKEN_USER, self.token
        if self.username or self.password:
            return self.username, self.password
        entry = netrc.find(self.netrc, host, authority)
        return (entry.login, entry.password) if entry is not None else None

    def weight(self, host: str) -> int:
        """How well a pattern fits a host; 0 where none does. The host itself before all that are below a domain."""
        return max((_weight(pattern, host) for pattern in self.hosts), default=0)


NOBODY = Login(("*",))


def _weight(pattern: str, host: str) -> int:
    if pattern == host:
        return 1000
    if pattern == "*":
        return 1
    return len(pattern) if pattern.startswith("*.") and host.endswith(pattern[1:]) else 0


class Logins:
    """All of one repository."""

    def __init__(self, logins: Sequence[Login] = ()) -> None:
        self._logins = tuple(logins)

    def of(self, host: str) -> Login:
        """The one whose pattern says most about a host; the first one of those alike."""
        best = max(self._logins, key=lambda login: login.weight(host), default=NOBODY)
        return best if best.weight(host) else NOBODY

    def all(self) -> tuple[Login, ...]:
        """In the order of the configuration."""
        return self._logins


def settings(url: GitUrl, login: Login, addresses: Sequence[str] = (), proxy: str = "") -> list[tuple[str, str]]:
    """What git is told for a repository over http or https: keys and values of its configuration.

    `addresses` are those of its host, where that is not left to others; `proxy` is the one on the way, as a URL.
    """
    origin = f"{url.origin}/"
    found = [
        # What a redirect leads to is another place, and gets nothing of ours.
        ("http.followRedirects", "false"),
        ("http.sslVerify", "true"),
        ("http.lowSpeedLimit", "1"),
        ("http.lowSpeedTime", "60"),
        ("http.proxy", proxy),
    ]
    if login.ca_file:
        found.append(("http.sslCAInfo", login.ca_file))
    if addresses and not proxy:
        found.append(("http.curloptResolve", f"{url.host}:{url.port}:{','.join(map(_bracketed, addresses))}"))
    if (basic := login.basic(url.host, url.authority)) is not None and (url.scheme == "https" or login.insecure):
        secret = b64encode(f"{basic[0]}:{basic[1]}".encode()).decode()
        found.append((f"http.{origin}.extraHeader", f"Authorization: Basic {secret}"))
    return found


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def ssh_config(login: Login, connect_seconds: float) -> str:
    """A file for ssh(1), ssh_config(5): the key and the hosts that the configuration names, and nothing of anybody's.

    It asks nobody anything, and believes no host that is not in `known_hosts_file`.
    """
    lines = [
        "BatchMode yes",
        "StrictHostKeyChecking yes",
        "UpdateHostKeys no",
        "GlobalKnownHostsFile /dev/null",
        f"UserKnownHostsFile {_quoted(login.known_hosts_file or '/dev/null')}",
        "IdentitiesOnly yes",
        "IdentityAgent none",
        f"IdentityFile {_quoted(login.key_file or '/dev/null')}",
        "PreferredAuthentications publickey",
        "ForwardAgent no",
        "ForwardX11 no",
        "ClearAllForwardings yes",
        "PermitLocalCommand no",
        "ControlMaster no",
        "ControlPath none",
        f"ConnectTimeout {max(1, round(connect_seconds))}",
        "ServerAliveInterval 10",
        "ServerAliveCountMax 3",
        "LogLevel ERROR",
    ]
    return "".join(f"{line}\n" for line in lines)


def _quoted(path: str) -> str:
    return f'"{path}"'


def host_options(url: GitUrl, addresses: Sequence[str]) -> list[str]:
    """Arguments for ssh: which address to dial for the host, whose key is still that of its name."""
    if not addresses:
        return []
    alias = url.host if url.port == 22 else f"[{url.host}]:{url.port}"  # as known_hosts writes it
    return ["-o", f"HostName={addresses[0]}", "-o", f"HostKeyAlias={alias}"]
