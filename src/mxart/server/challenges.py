"""How a client is told to log in, and which doors ask for it at once. Pure.

OCI clients are sent to a token endpoint (distribution, docs/content/spec/auth/token.md): ours, at `/-/token` of the
host that they use, or `/token` of a host of the token server.  Everybody else is asked for Basic.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote, unquote, urlsplit

from mxart.access.base import LoginWanted
from mxart.access.control import Access, publishable
from mxart.config import Config
from mxart.domains import registrable_domain
from mxart.errors import Unauthorized
from mxart.message import Request
from mxart.server.routes import ToRepository, host_of, query_value

TOKEN_PATH = "/-/token"  # noqa: S105  # a path
BASIC = 'Basic realm="mxart", charset="UTF-8"'

_AUTHORITY = re.compile(r"[A-Za-z0-9._-]+(?::\d{1,5})?\Z|\[[0-9A-Fa-f:.]+\](?::\d{1,5})?\Z")
_NAMED = re.compile(r"/v2/(.+)/(?:manifests|blobs|tags|referrers)(?:/|\Z)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,299}\Z")
_WORDS = {"publish": "pull,push", "overwrite": "pull,push", "delete": "delete", "manage": "*"}


class Challenges:
    """`url` is how clients reach us where it is not what they wrote ([access] url)."""

    def __init__(self, url: str = "", token_hosts: Iterable[str] = ()) -> None:
        self._url = url.rstrip("/")
        self._token_hosts = tuple(token_hosts)

    def oci(self, request: Request, to: ToRepository | None, refused: Unauthorized) -> str:
        """The value of WWW-Authenticate for a client of a registry."""
        authority = _authority(request)
        scheme = request.absolute or request.peer.scheme
        realm = f"{self._url or f'{scheme}://{authority}'}{TOKEN_PATH}"
        if not self._url and to is not None and to.by == "host":
            family = registrable_domain(host_of(request.authority))
            named = [host for host in self._token_hosts if registrable_domain(host) == family]
            realm = f"https://{named[0]}/token" if named else realm
        if to is not None and to.by == "ns" and (namespace := query_value(request.query, "ns")):
            realm += f"?ns={quote(namespace, safe='.:-')}"
        fields = [f'realm="{realm}"', f'service="{urlsplit(self._url).netloc if self._url else authority}"']
        if scope := _scope(request, refused):
            fields.append(f'scope="{scope}"')
        error = getattr(refused, "error", "")
        if error:
            fields.append(f'error="{error}"')
        return "Bearer " + ",".join(fields)


def _authority(request: Request) -> str:
    if _AUTHORITY.match(request.authority):
        return request.authority
    host = request.peer.local_address
    return f"{f'[{host}]' if ':' in host else host}:{request.peer.local_port}"


def _scope(request: Request, refused: Unauthorized) -> str:
    """What to ask a token for, so that the request may be made again with it."""
    path = unquote(request.path)
    if path == "/v2/_catalog":
        return "registry:catalog:*"
    match = _NAMED.match(path)
    if match is None or not _NAME.match(match[1]):
        return ""
    action = refused.denied.action if isinstance(refused, LoginWanted) else "read"
    words = _WORDS.get(action, "pull")
    if request.method not in ("GET", "HEAD") and words == "pull":
        words = "delete" if request.method == "DELETE" else "pull,push"
    scope = f"repository:{match[1]}:{words}"
    if isinstance(refused, LoginWanted) and refused.beside and match[1].endswith(refused.beside):
        # Both under the name that the client uses, with any prefix of the router's.
        other = match[1].removesuffix(refused.beside) + refused.denied.path
        return f"{scope} repository:{other}:{_WORDS.get(action, 'pull')}"
    return scope


class Doors:
    """Whether `GET /v2/` asks for a login: docker and podman only ever show one to a door that does."""

    def __init__(self, asking: Iterable[str], by_path: bool) -> None:
        """`asking` are the repositories behind which somebody may want to log in here."""
        self._asking = frozenset(asking)
        self.by_path = by_path

    @classmethod
    def of(cls, config: Config, access: Access, reach: Mapping[str, Sequence[str]]) -> Doors:
        """Those that take publications, and those that not everybody may read."""
        published = publishable(config)
        asking = {
            name
            for name in config.repositories
            if name in published or not all(map(access.rules.is_open, (name, *reach.get(name, ()))))
        }
        by_path = any(
            name in asking and repository.format == "oci" and repository.path
            for name, repository in config.repositories.items()
        )
        return cls(asking, by_path)

    def ask(self, to: ToRepository) -> bool:
        """Whether a ping that was routed so, without credentials, is told to log in."""
        return self.by_path if to.by == "path" else to.repository in self._asking
