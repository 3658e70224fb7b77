"""URLs of other servers as values: parsing, redirects, and which of them belong together. Pure.

Only `http` and `https`.  `str()` of a `Url` never shows a query or a user's name, so that it may be
logged: blob redirects carry signatures in their query.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urljoin, urlsplit

from msgspec import Struct

from mxart.domains import is_ip, registrable_domain

__all__ = ["Origin", "Url", "is_ip", "keeps_credentials", "registrable_domain", "same_site"]

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?\.?\Z")


class Origin(Struct, frozen=True):
    """Scheme, host and port: what a connection is made to (RFC 6454 section 4)."""

    scheme: str
    host: str  # lower case; an IPv6 address without brackets
    port: int

    @property
    def authority(self) -> str:
        """The Host field's value (RFC 9110 section 7.2): the port only where it is not the scheme's."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


class Url(Struct, frozen=True):
    """An absolute URL without user information and fragment."""

    origin: Origin
    target: str  # path and query, escaped, begins with "/"

    @classmethod
    def parse(cls, text: str) -> Url:
        """Raises ValueError with what is wrong; the text of the error shows no query."""
        if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
            # What a Location should not hold but does: escape it as browsers do, backslashes stay wrong.
            text = quote(text, safe="%/:=&?~#+!$,;'@()*[]")
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"not a URL: {error}") from None
        if parts.scheme not in _PORTS:
            raise ValueError(f"the scheme {parts.scheme!r} is neither http nor https")
        if parts.username is not None or parts.password is not None:
            raise ValueError("a URL must not carry a user's name or password")
        host = (parts.hostname or "").lower()
        if not is_ip(host) and not _HOST.match(host):
            raise ValueError(f"{host!r} is not a host name")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(Origin(parts.scheme, host, _PORTS[parts.scheme] if port is None else port), target)

    def child(self, path: str) -> Url:
        """This URL as a directory, with `path` (escaped, its query with it, no leading slash) below it."""
        return Url(self.origin, f"{self.target.partition('?')[0].rstrip('/')}/{path}")

    def join(self, reference: str) -> Url:
        """Where a Location sent by this URL leads (RFC 9110 section 10.2.2). Raises ValueError."""
        return Url.parse(urljoin(f"{self.origin}{self.target}", reference.strip()))

    def with_query(self, query: str) -> Url:
        """With more of a query behind the one that is there."""
        if not query:
            return self
        return Url(self.origin, f"{self.target}{'&' if '?' in self.target else '?'}{query}")

    def __str__(self) -> str:
        path, mark, _ = self.target.partition("?")
        return f"{self.origin}{path}{'?…' if mark else ''}"

    __repr__ = __str__


def same_site(one: Origin, other: Origin) -> bool:
    """Whether credentials meant for `one` may be shown to `other`: same registrable domain, and not less safe."""
    if one.scheme == "https" and other.scheme != "https":
        return False
    return registrable_domain(one.host) == registrable_domain(other.host)


def keeps_credentials(one: Origin, other: Origin) -> bool:
    """Whether a redirect from `one` to `other` stays at home: the same origin, or its upgrade to https."""
    if one == other:
        return True
    return one.host == other.host and (one.scheme, one.port, other.scheme, other.port) == ("http", 80, "https", 443)
