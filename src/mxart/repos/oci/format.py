"""The format `oci`: the registry API of distribution-spec 1.1 and Docker's Registry HTTP API V2.

Paths within a repository are the API's own without `/v2/`: `library/alpine/manifests/3.20`,
`library/alpine/blobs/sha256:...`, `library/alpine/tags/list`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote

from msgspec.structs import replace

from mxart.body import Body
from mxart.digest import Digest
from mxart.errors import BadRequest, NotFound, Problem, UpstreamFailed
from mxart.message import Headers, Response
from mxart.repos.oci import listings, media, referrers, writes
from mxart.repos.oci.errors import VERSION, word
from mxart.repos.oci.names import check_digest, check_name, is_docker_hub, is_tag, scope, shown, unescape
from mxart.repos.operations import (
    AnyRead,
    Artifact,
    Blob,
    Document,
    Facts,
    File,
    Listing,
    Operation,
    Static,
)
from mxart.repos.publishing import Cancel, Delete, Gone
from mxart.upstream.base import Ask

_READS = ("GET", "HEAD")
# The last marker splits: a name may itself hold a component "manifests".
_FILE = re.compile(r"(.*)/(manifests|blobs|referrers)/([^/]*)\Z", re.DOTALL)
# A longest path that can mean something: name, marker, sha512 digest; some escapes.
_MAX_PATH = 2048
# Longer requests than ordinary ones are parsed each time: memory is not for strangers to fill.
_MAX_REMEMBERED = 512
_CATALOG_PAGE = 1000

_PING = Response(
    200, Headers((("content-type", "application/json"), ("cache-control", "no-cache"), VERSION)), Body((b"{}",))
)
_JSON = "application/json"


class Oci:
    """See repos.base.Format. `upstreams` are the mirrors' URLs; they decide whether `alpine` is `library/alpine`."""

    name = "oci"
    lasting_tags = False
    paging = listings.Names()
    gathering = None
    judging = None  # every name of a large file tells its digest
    choosing = None
    indexing = None
    aliasing = None
    summing = None
    browsing = None
    referring = referrers.Pointers()
    pushing = writes.Pushes()
    releasing = None
    assembling = None

    def __init__(self, upstreams: Iterable[str] = ()) -> None:
        self._library = is_docker_hub(upstreams)

    # requests

    def parse(self, method: str, path: str, query: str, headers: Headers, root: str = "") -> Operation:
        """`path` begins with `/v2/`; the query parameter `ns` is the router's and ignored here."""
        if len(path) > _MAX_PATH:
            raise BadRequest("the path is longer than any name can be", subject="name")
        if method not in _READS:
            return writes.parse(method, _below(path), query, headers)
        if len(path) + len(query) > _MAX_REMEMBERED:
            return _parse(method, path, query)
        return _remembered(method, path, query)

    def path_of(self, package: str, reference: str) -> str:
        return f"/v2/{quote(package)}/manifests/{quote(reference)}"

    def adopt(self, operation: AnyRead) -> AnyRead:
        package = operation.package
        if not self._library or "/" in package or not package:
            return operation
        return replace(operation, package=f"library/{package}", path=f"library/{operation.path}")

    # upstream

    def ask(self, operation: File, method: str) -> Ask:
        fields = [("accept-encoding", "identity")]
        if isinstance(operation, Document):
            fields.append(("accept", media.ACCEPT))
        return Ask(method, f"v2/{operation.path}", Headers(fields), scope(operation.package))

    def ask_login(self) -> Ask:
        """The ping (Docker Registry HTTP API V2, "API Version Check")."""
        return Ask("GET", "v2/", Headers((("accept-encoding", "identity"),)))

    def facts(self, operation: File, headers: Headers) -> Facts:
        content_type = headers.get("content-type")
        declared = _declared_digest(headers)
        if isinstance(operation, Blob):
            if declared is None:
                media.refuse_page(content_type)
            media_type = media.BLOB
        else:
            media.refuse_page(content_type)
            media_type = media.essence(content_type)
        wanted = operation.digest if not isinstance(operation, Artifact) else None
        if wanted is not None and declared is not None and declared.algorithm == wanted.algorithm:
            _same(declared, wanted, operation.subject)
        length = headers.get("content-length")
        return Facts(
            digest=declared or wanted,
            size=int(length) if length is not None and length.isdigit() and len(length) < 19 else None,
            media_type=media_type,
            etag=headers.get("etag") or "",
            last_modified=headers.get("last-modified") or "",
        )

    def check(self, document: Document, headers: Headers, data: bytes) -> Facts:
        media_type = media.manifest_type(headers.get("content-type"), data)
        # A tag's bytes are named by the digest that upstream names them by, if we can compute that.
        claimed = document.digest or (None if media.is_legacy(media_type) else _declared_digest(headers))
        digest = Digest.of(data, claimed.algorithm if claimed is not None else "sha256")
        if claimed is not None:
            _same(digest, claimed, document.subject)
        return Facts(
            digest=digest,
            size=len(data),
            media_type=media_type,
            etag=headers.get("etag") or "",
            last_modified=headers.get("last-modified") or "",
        )

    def pinned(self, document: Document, digest: Digest) -> Document | None:
        return _manifest(document.package, digest)

    def together(self, operation: File) -> tuple[str, ...]:
        return ()  # what a manifest needs is named by digest

    # answers

    def fields(
        self, operation: File, digest: Digest | None, media_type: str, checksum: str
    ) -> tuple[tuple[str, str], ...]:
        return (
            ("content-type", media_type or media.BLOB),
            ("docker-content-digest", str(digest)),
            VERSION,
            # A blob is a stranger's bytes: no browser may guess that it is a page.
            ("x-content-type-options", "nosniff"),
        )

    def gone(self, operation: Delete | Cancel, outcome: Gone) -> Response:
        return writes.gone(operation, outcome)

    def word(self, problem: Problem) -> Response:
        return word(problem)


def _below(path: str) -> str:
    """The path below `/v2/`, without escapes."""
    if not path.startswith("/v2/") and path != "/v2":
        raise NotFound("the registry API is below /v2/", subject="route")
    return unescape(path[4:])


def _parse(method: str, path: str, query: str) -> Operation:
    below = _below(path)
    if not below:
        return Static(_PING)
    if writes.is_upload(below):
        return writes.parse(method, below, query, Headers())
    if below == "_catalog":
        after, limit = listings.read(query)
        limit = _CATALOG_PAGE if limit is None else min(limit, _CATALOG_PAGE)
        return Listing("", "_catalog", "list", "packages", after, limit)
    if below.endswith("/tags/list"):
        name = check_name(below.removesuffix("/tags/list"))
        after, limit = listings.read(query)
        return Listing(name, f"{name}/tags/list", "name", "tags", after, limit)
    match = _FILE.match(below)
    if match is None:
        raise NotFound(f"the registry API has no {shown(path)} for reading", subject="route")
    if match[2] == "referrers":
        return referrers.parse(match[1], match[3], query, *listings.read(query))
    name = check_name(match[1])
    if match[2] == "blobs":
        digest = check_digest(match[3])
        return Blob(name, f"{name}/blobs/{digest}", "blob", digest, head=method == "HEAD")
    reference = match[3]
    if ":" in reference:
        return replace(_manifest(name, check_digest(reference)), head=method == "HEAD")
    if not is_tag(reference):
        raise BadRequest(f"{shown(reference)} is neither a tag nor a digest", subject="reference")
    head = method == "HEAD"
    return Document(name, f"{name}/manifests/{reference}", "manifest", mutable=True, tag=reference, head=head)


# Builds ask for the same few names over and over.
_remembered = lru_cache(maxsize=2048)(_parse)


def _manifest(name: str, digest: Digest) -> Document:
    return Document(name, f"{name}/manifests/{digest}", "manifest", mutable=False, digest=digest)


def _declared_digest(headers: Headers) -> Digest | None:
    """Docker-Content-Digest, where it is one that we can compute."""
    text = headers.get("docker-content-digest")
    if text is None:
        return None
    try:
        return Digest.parse(text)
    except ValueError:
        return None


def _same(digest: Digest, wanted: Digest, subject: str) -> None:
    if digest != wanted:
        raise UpstreamFailed(f"upstream sent {digest} for {wanted}", subject=subject)
