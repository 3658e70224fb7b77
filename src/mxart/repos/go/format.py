"""The format `go`: modules by the GOPROXY protocol.

Paths within a repository are the protocol's own, with upper-case letters as `!a` and without percent escapes:
`github.com/!burnt!sushi/toml/@v/v1.2.3.zip`.  A package is a module's path as people write it.
"""

from __future__ import annotations

from urllib.parse import quote

from mxart.digest import Digest
from mxart.errors import Problem
from mxart.message import Headers, Response
from mxart.repos.foreign import refuse_foreign
from mxart.repos.go import discovery, documents, gathering, listings, writes, zips
from mxart.repos.go.errors import TEXT, word
from mxart.repos.go.paths import escape
from mxart.repos.go.requests import PLAIN, SAFE, Wanted, is_cached_only, parse, read
from mxart.repos.go.sums import Asked, SumsDocument
from mxart.repos.go.zips import mod_hash
from mxart.repos.operations import (
    AnyRead,
    Artifact,
    Document,
    Facts,
    File,
    Listing,
    Operation,
    Static,
)
from mxart.repos.publishing import Cancel, Delete, Gone
from mxart.upstream.base import Ask

_JSON = "application/json"
_TYPES = {"info": _JSON, "latest": _JSON, "mod": TEXT, "zip": "application/zip", "list": TEXT}


class Go:
    """See repos.base.Format."""

    name = "go"
    lasting_tags = True
    paging = listings.Versions()
    judging = zips.Judge()
    gathering = gathering.Gathering()
    choosing = listings.Latest()
    indexing = None
    aliasing = None
    summing = None
    browsing = None
    referring = None
    pushing = None
    releasing = writes.Releases()
    assembling = None

    # requests

    def parse(self, method: str, path: str, query: str, headers: Headers, root: str = "") -> Operation:
        """No query means anything but `go-get=1`, on a host of the repository's own."""
        if query and method in ("GET", "HEAD") and (found := discovery.answer(query, root)) is not None:
            return Static(found)
        if method not in ("GET", "HEAD"):
            return writes.parse(method, path)
        return _operation(parse(path), head=method == "HEAD", kept=is_cached_only(path, headers))

    def path_of(self, package: str, reference: str) -> str:
        return f"/{quote(escape(package))}/@v/{quote(escape(reference))}.zip"

    def adopt(self, operation: AnyRead) -> AnyRead:
        return operation

    # upstream

    def ask(self, operation: File, method: str) -> Ask:
        return Ask(method, quote(operation.path, safe=SAFE), PLAIN)

    def ask_login(self) -> Ask:
        """Servers of modules that have users ask for them everywhere."""
        return Ask("GET", "", PLAIN)

    def facts(self, operation: File, headers: Headers) -> Facts:
        refuse_foreign(headers, operation.subject)
        length = headers.get("content-length")
        return Facts(
            digest=None,
            size=int(length) if length is not None and length.isdigit() and len(length) < 19 else None,
            media_type=_TYPES[read(operation.path).kind],
            etag=headers.get("etag") or "",
            last_modified=headers.get("last-modified") or "",
        )

    def check(self, document: Document, headers: Headers, data: bytes) -> Facts:
        facts = self.facts(document, headers)
        wanted = read(document.path)
        documents.check(wanted, data)
        return Facts(
            digest=Digest.of(data),
            size=len(data),
            media_type=facts.media_type,
            etag=facts.etag,
            last_modified=facts.last_modified,
            checksum=mod_hash(data) if wanted.kind == "mod" else "",
        )

    def pinned(self, document: Document, digest: Digest) -> Document | None:
        return None

    def together(self, operation: File) -> tuple[str, ...]:
        if isinstance(operation, Document) and operation.mutable:
            return ()
        base = operation.path.rpartition(".")[0]
        return tuple(f"{base}.{kind}" for kind in ("info", "mod", "zip"))

    # answers

    def fields(
        self, operation: File, digest: Digest | None, media_type: str, checksum: str
    ) -> tuple[tuple[str, str], ...]:
        return (
            ("content-type", media_type),
            # A stranger's bytes: no browser may guess that it is a page.
            ("x-content-type-options", "nosniff"),
        )

    def gone(self, operation: Delete | Cancel, outcome: Gone) -> Response:
        return writes.deleted(outcome)

    def word(self, problem: Problem) -> Response:
        return word(problem)


def _operation(wanted: Wanted | Asked, *, head: bool, kept: bool) -> Operation:
    if isinstance(wanted, Asked):
        lasting = wanted.is_lasting
        return SumsDocument(
            wanted.package, wanted.path, "sumdb", mutable=not lasting, head=head, kept=kept, asked=wanted
        )
    module, path = wanted.module, wanted.path
    match wanted.kind:
        case "list":
            return Listing(module, path, "list", "tags", kept=kept)
        case "zip":
            return Artifact(module, path, "zip", head=head, kept=kept)
        case "latest":
            return Document(module, path, "latest", mutable=True, head=head, kept=kept, small=True, chosen=True)
        case "info" | "mod":
            lasting = wanted.is_lasting
            return Document(module, path, wanted.kind, mutable=not lasting, head=head, kept=kept, small=True)
