"""URLs of git repositories, over https and ssh, as values. Pure.

Nothing else gets into an argument of git's, so nothing can be taken for an option or lead to a helper program
(gitremote-helpers(7), `ext::`).  No secret stands in one: whoever writes a password into a URL is refused.
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct

from mxart.domains import is_ip

Scheme = Literal["https", "http", "ssh"]

_PORTS: dict[Scheme, int] = {"https": 443, "http": 80, "ssh": 22}
_SCHEMES: dict[str, Scheme] = {"https": "https", "http": "http", "ssh": "ssh", "git+ssh": "ssh", "ssh+git": "ssh"}
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?\Z")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\Z")
_PATH = re.compile(r"/[A-Za-z0-9._~/%+@,=:-]*\Z")


class GitUrl(Struct, frozen=True):
    """Where a repository is. `path` is escaped and begins with a slash; `host` is in lower case."""

    scheme: Scheme
    host: str
    port: int
    path: str
    user: str = ""  # of ssh: whom the server knows us as

    @classmethod
    def parse(cls, text: str) -> GitUrl:
        """Raises ValueError with what would be right."""
        wanted = "https://host/path or ssh://git@host/path"
        try:
            parts = urlsplit(text)
            port = parts.port
            host = (parts.hostname or "").lower()
        except ValueError as error:
            raise ValueError(f"{text[:120]!r} is no URL of a git repository: {error}; write {wanted}") from None
        scheme = _SCHEMES.get(parts.scheme.lower())
        shown = f"{parts.scheme}://{host}{parts.path}"[:120]
        if scheme is None:
            raise ValueError(f"{text[:120]!r} is no URL of a git repository that is used here: write {wanted}")
        if parts.password is not None or (parts.username and scheme != "ssh"):
            raise ValueError(f"{shown!r}: users and passwords of https go into a login, not into a URL")
        if not _HOST.match(host) and not is_ip(host):
            raise ValueError(f"{shown!r}: {host!r} is no host name")
        if parts.username and not _USER.match(parts.username):
            raise ValueError(f"{shown!r}: {parts.username[:40]!r} is no user of ssh's")
        if not _PATH.match(parts.path) or parts.query or parts.fragment or parts.path.strip("/") == "":
            raise ValueError(f"{shown!r} names no path of a repository: write {wanted}")
        if any(part in (".", "..") for part in parts.path.split("/")):
            raise ValueError(f"{shown!r}: a path of a repository has no . and .. in it")
        return cls(scheme, host, _PORTS[scheme] if port is None else port, parts.path, parts.username or "")

    @property
    def authority(self) -> str:
        """Host and port; the port only where it is not the scheme's."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port, as in https://host:port."""
        return f"{self.scheme}://{self.authority}"

    def __str__(self) -> str:
        """What git is given."""
        user = f"{self.user}@" if self.user else ""
        return f"{self.scheme}://{user}{self.authority}{self.path}"
