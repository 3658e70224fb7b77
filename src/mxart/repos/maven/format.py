"""The format `maven`: artifacts in Maven's layout, for Maven, Gradle, sbt, Coursier and whoever else reads that.

Paths within a repository are the layout's own, without percent escapes: `com/example/app/1.0/app-1.0.jar`.  A package
is the directory of an artifact, `com/example/app`; a version is that of its directory, `1.0` or `1.1-SNAPSHOT`.
"""

from __future__ import annotations

from mxart.digest import Digest
from mxart.errors import Problem, UpstreamFailed
from mxart.message import Headers, Response
from mxart.repos.foreign import refuse_foreign
from mxart.repos.maven import checks, checksums, coordinates, listing, media, metadata, prefixes, writes
from mxart.repos.maven.checks import BadFile
from mxart.repos.maven.coordinates import FilePath, MetadataPath, escape
from mxart.repos.maven.errors import word
from mxart.repos.maven.indexes import Aliases, Indexes, Sums, guarded
from mxart.repos.maven.markup import BadMarkup
from mxart.repos.maven.prefixes import BadPrefixes
from mxart.repos.maven.requests import PLAIN, asked, read
from mxart.repos.maven.writes import Policy
from mxart.repos.operations import AnyRead, Artifact, Document, Facts, File, Operation
from mxart.repos.publishing import Cancel, Delete, Gone
from mxart.store.base import Unjudged
from mxart.upstream.base import Ask


class Judge:
    """See roles.Judging."""

    def judge(self, artifact: Artifact, unjudged: Unjudged) -> str:
        try:
            checks.check_large(_file(artifact.path), unjudged.file, unjudged.size)
        except BadFile as error:
            raise _refused(artifact.path, str(error)) from None
        return checksums.of_file(unjudged.file, unjudged.size)


class Maven:
    """See repos.base.Format. A local repository takes what its `policy` says, and names those that take the rest."""

    name = "maven"
    lasting_tags = True
    paging = None
    gathering = None
    judging = Judge()
    choosing = None
    indexing = Indexes()
    aliasing = Aliases()
    summing = Sums()
    browsing = listing.Pages()
    referring = None
    pushing = None
    releasing = writes.Releases()

    def __init__(self, policy: Policy = "mixed", elsewhere: tuple[str, ...] = ()) -> None:
        self.assembling = writes.Deploys(policy, elsewhere)

    # requests

    def parse(self, method: str, path: str, query: str, headers: Headers, root: str = "") -> Operation:
        if method not in ("GET", "HEAD"):
            return writes.parse(method, coordinates.parse(path), headers)
        return asked(path, head=method == "HEAD")

    def path_of(self, package: str, reference: str) -> str:
        return f"/{escape(package)}/{escape(reference)}/"

    def adopt(self, operation: AnyRead) -> AnyRead:
        return operation

    # upstream

    def ask(self, operation: File, method: str) -> Ask:
        return Ask(method, escape(operation.path), PLAIN)

    def ask_login(self) -> Ask:
        """Repositories that have users ask for them everywhere."""
        return Ask("GET", "", PLAIN)

    def facts(self, operation: File, headers: Headers) -> Facts:
        refuse_foreign(headers, operation.subject)
        length = headers.get("content-length")
        return Facts(
            digest=None,
            size=int(length) if length is not None and length.isdigit() and len(length) < 19 else None,
            media_type=_media_type(operation.path),
            etag=headers.get("etag") or "",
            last_modified=headers.get("last-modified") or "",
        )

    def check(self, document: Document, headers: Headers, data: bytes) -> Facts:
        facts = self.facts(document, headers)
        place = read(document.path)
        try:
            if isinstance(place, FilePath):
                checks.check_small(place, data)
            elif isinstance(place, MetadataPath):
                metadata.parse(data)
            else:
                prefixes.parse(data)
        except (BadFile, BadMarkup, BadPrefixes) as error:
            raise _refused(document.path, str(error)) from None
        return Facts(
            digest=Digest.of(data),
            size=len(data),
            media_type=facts.media_type,
            etag=facts.etag,
            last_modified=facts.last_modified,
            checksum=checksums.kept(checksums.of(data)),
        )

    def pinned(self, document: Document, digest: Digest) -> Document | None:
        return None

    def together(self, operation: File) -> tuple[str, ...]:
        """By the POM, the jar and Gradle's module: nearly every version has one of them, and they are fetched first."""
        place = read(operation.path)
        if not isinstance(place, FilePath):
            return ()
        rest = f"-{place.classifier}.{place.extension}" if place.classifier else f".{place.extension}"
        base = operation.path.removesuffix(rest)
        return tuple(dict.fromkeys((f"{base}.pom", f"{base}.module", f"{base}.jar", operation.path)))

    # answers

    def fields(
        self, operation: File, digest: Digest | None, media_type: str, checksum: str
    ) -> tuple[tuple[str, str], ...]:
        fields = (("content-type", media_type), *guarded(media_type))
        sums = checksums.recall(checksum, digest.hex) if digest is not None and digest.algorithm == "sha256" else None
        return (*fields, *checksums.fields(sums)) if sums is not None else fields

    def gone(self, operation: Delete | Cancel, outcome: Gone) -> Response:
        return Response(204, Headers((("cache-control", "no-store"),)))

    def word(self, problem: Problem) -> Response:
        return word(problem)


def _file(path: str) -> FilePath:
    place = read(path)
    assert isinstance(place, FilePath), "`reading` makes these of nothing else"
    return place


def _media_type(path: str) -> str:
    place = read(path)
    if isinstance(place, FilePath):
        return media.of(place)
    return media.XML if isinstance(place, MetadataPath) else media.TEXT


def _refused(path: str, why: str) -> UpstreamFailed:
    return UpstreamFailed(f"upstream's {path.rpartition('/')[2]} is refused: {why}", subject="file", detail=path)
