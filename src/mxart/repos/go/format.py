"""The format `go`: modules by the GOPROXY protocol.

Paths within a repository are the protocol's own, with upper-case letters as `!a` and without percent escapes:
`github.com/!burnt!sushi/toml/@v/v1.2.3.zip`.  A package is a module's path as people write it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar
from urllib.parse import quote

from mxart.digest import Digest
from mxart.errors import Problem, UpstreamFailed
from mxart.message import Headers, Response
from mxart.repos.go import discovery, documents, writes
from mxart.repos.go.errors import TEXT, word
from mxart.repos.go.paths import escape
from mxart.repos.go.requests import Wanted, is_cached_only, parse, read
from mxart.repos.go.sums import Asked, SumsDocument
from mxart.repos.go.versions import latest
from mxart.repos.go.zips import BadModule, check_zip, mod_hash
from mxart.repos.operations import (
    Artifact,
    Blob,
    Document,
    Facts,
    File,
    Listed,
    Listing,
    Operation,
    Page,
    Referred,
    Referrers,
    Static,
)
from mxart.repos.publishing import Inspection, Judgement, Outcome, Publish, Release, Uploading, Write
from mxart.store.base import Unjudged
from mxart.upstream.base import Ask

_Kept = TypeVar("_Kept", bound=Document | Blob | Artifact | Listing | Referrers)

_JSON = "application/json"
_TYPES = {"info": _JSON, "latest": _JSON, "mod": TEXT, "zip": "application/zip", "list": TEXT}
# What cmd/go leaves as it is in a path; the `!` goes as `%21`, as from there.
_SAFE = "/$&+=:@"
_PLAIN = Headers((("accept-encoding", "identity"),))
# Longer requests than ordinary ones are parsed each time: memory is not for strangers to fill.
_MAX_REMEMBERED = 512


class Go:
    """See repos.base.Format."""

    name = "go"
    lasting_tags = True
    referring = None

    # requests

    def parse(self, method: str, path: str, query: str, headers: Headers, root: str = "") -> Operation:
        """No query means anything but `go-get=1`, on a host of the repository's own."""
        if query and method in ("GET", "HEAD") and (found := discovery.answer(query, root)) is not None:
            return Static(found)
        if method not in ("GET", "HEAD"):
            return writes.parse(method, path)
        wanted = _remembered(path) if len(path) <= _MAX_REMEMBERED else parse(path)
        return _operation(wanted, head=method == "HEAD", kept=is_cached_only(path, headers))

    def path_of(self, package: str, reference: str) -> str:
        return f"/{quote(escape(package))}/@v/{quote(escape(reference))}.zip"

    def adopt(self, operation: _Kept) -> _Kept:
        return operation

    # upstream

    def ask(self, operation: File, method: str) -> Ask:
        return Ask(method, quote(operation.path, safe=_SAFE), _PLAIN)

    def ask_login(self) -> Ask:
        """Servers of modules that have users ask for them everywhere."""
        return Ask("GET", "", _PLAIN)

    def facts(self, operation: File, headers: Headers) -> Facts:
        documents.refuse_foreign(headers, operation.subject)
        length = headers.get("content-length")
        return Facts(
            digest=None,
            size=int(length) if length is not None and length.isdigit() and len(length) < 19 else None,
            media_type=_TYPES[_wanted(operation.path).kind],
            etag=headers.get("etag") or "",
            last_modified=headers.get("last-modified") or "",
        )

    def check(self, document: Document, headers: Headers, data: bytes) -> Facts:
        facts = self.facts(document, headers)
        wanted = _wanted(document.path)
        documents.check(wanted, data)
        return Facts(
            digest=Digest.of(data),
            size=len(data),
            media_type=facts.media_type,
            etag=facts.etag,
            last_modified=facts.last_modified,
            checksum=mod_hash(data) if wanted.kind == "mod" else "",
        )

    def judge(self, artifact: Artifact, unjudged: Unjudged) -> str:
        wanted = _wanted(artifact.path)
        try:
            return check_zip(unjudged.file, unjudged.size, wanted.module, wanted.version)
        except BadModule as error:
            message = f"upstream's zip of {wanted.module}@{wanted.version} is refused: {error}"
            raise UpstreamFailed(message, subject="zip") from None

    def pinned(self, document: Document, digest: Digest) -> Document | None:
        return None

    def together(self, operation: File) -> tuple[str, ...]:
        if isinstance(operation, Document) and operation.mutable:
            return ()
        base = operation.path.rpartition(".")[0]
        return tuple(f"{base}.{kind}" for kind in ("info", "mod", "zip"))

    def choose(self, document: Document, answers: Sequence[bytes]) -> int:
        found = [documents.version(data) for data in answers]
        return found.index(latest(found))

    def ask_page(self, listing: Listing, following: str | None) -> Ask:
        return Ask("GET", quote(listing.path, safe=_SAFE), _PLAIN)

    def page(self, listing: Listing, headers: Headers, data: bytes) -> Page:
        documents.refuse_foreign(headers, listing.subject)
        return Page(documents.versions(data, listing.subject), None)

    # answers

    def fields(self, operation: File, digest: Digest | None, media_type: str) -> tuple[tuple[str, str], ...]:
        return (
            ("content-type", media_type),
            # A stranger's bytes: no browser may guess that it is a page.
            ("x-content-type-options", "nosniff"),
        )

    def render(self, listing: Listing, listed: Listed, target: str) -> tuple[Headers, bytes]:
        text = "".join(f"{version}\n" for version in writes.listed(listed.names))
        return Headers((("content-type", TEXT),)), text.encode()

    def render_referrers(self, operation: Referrers, referred: Referred, target: str) -> tuple[Headers, bytes]:
        raise NotImplementedError("`parse` makes no Referrers")

    def fallback(self, document: Document) -> Referrers | None:
        return None

    def guide(self, document: Document, versions: Sequence[str]) -> Document | None:
        version = writes.guide(versions)
        return _of_version(document.package, version, "mod") if version else None

    def best(self, document: Document, versions: Sequence[str], guide: bytes) -> Document:
        return _of_version(document.package, writes.best(versions, guide), "info")

    # writes

    def release(self, operation: Release, unjudged: Unjudged, now: float) -> Judgement:
        return writes.release(operation, unjudged, now)

    def accept(self, operation: Publish, data: bytes) -> tuple[str, Facts]:
        raise NotImplementedError("`parse` makes no Publish")

    def inspect(self, package: str, facts: Facts, data: bytes) -> Inspection:
        return Inspection()

    def outcome(self, operation: Write, outcome: Outcome, target: str) -> Response:
        return writes.outcome(outcome)

    def resume(self, at: Uploading, target: str) -> tuple[tuple[str, str], ...]:
        return ()

    def word(self, problem: Problem) -> Response:
        return word(problem)


def _of_version(module: str, version: str, kind: str) -> Document:
    path = f"{escape(module)}/@v/{escape(version)}.{kind}"
    return Document(module, path, kind, mutable=False, small=True)


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


# Builds ask for the same few names over and over.
_remembered = lru_cache(maxsize=4096)(parse)
_read = lru_cache(maxsize=4096)(read)


def _wanted(path: str) -> Wanted:
    return _read(path) if len(path) <= _MAX_REMEMBERED else read(path)
