"""A format for tests of kinds: everything that is computed from what there is, in the fewest words.

tools/saw/1.0/saw.bin         a file of a version, an artifact; `saw.txt` is a document
tools/saw/versions            the index: a version a line, the newest last
tools/saw/newest.bin          the file of the newest version
tools/saw/….sha1              the checksum of any of these
tools/saw/                    a directory
everything                    an index that only makes sense if every repository has one
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from mxart.body import Body
from mxart.digest import Digest
from mxart.errors import BadRequest, MethodNotAllowed, Problem, UpstreamFailed
from mxart.message import Headers, Response
from mxart.repos.operations import (
    Alias,
    AnyRead,
    Artifact,
    Checksum,
    Directory,
    Document,
    Entry,
    Facts,
    File,
    Index,
    Operation,
)
from mxart.repos.publishing import Cancel, Delete, Gone
from mxart.store.base import Unjudged
from mxart.store.changes import View
from mxart.upstream.base import Ask

EVERYTHING = "everything"
_TEXT = (("content-type", "text/plain"),)


def sums(data: bytes) -> str:
    """The checksum of a file: its sha1 and no other."""
    return "sha1:" + hashlib.sha1(data, usedforsecurity=False).hexdigest()


class Boxes:
    """`Format` with the roles that have to do with what there is; stateless."""

    name = "boxes"
    lasting_tags = True
    paging = None
    choosing = None
    referring = None
    pushing = None
    assembling = None
    releasing = None

    def parse(self, method: str, path: str, query: str, headers: Headers, root: str = "") -> Operation:
        if method not in ("GET", "HEAD"):
            raise MethodNotAllowed("boxes are read only")
        return self._read(path.removeprefix("/"), method == "HEAD")

    def _read(self, path: str, head: bool) -> Operation:
        folder, _, name = path.rpartition("/")
        if not name:
            return Directory(folder, folder, "directory", head=head)
        base, _, algorithm = path.rpartition(".")
        if algorithm in ("sha1", "md5", "sha256"):
            of = self._read(base, head=False)
            if isinstance(of, Document | Artifact | Index | Alias):
                return Checksum(path, "checksum", of, algorithm, head=head)
        if name in ("versions", EVERYTHING):
            return Index(folder, path, "index", head=head)
        if name == "newest.bin":
            return Alias(folder, path, "file", Index(folder, f"{folder}/versions", "index"), head=head)
        package = folder.rpartition("/")[0]
        if not package:
            raise BadRequest(f"{path} is no path of a box")
        if name.endswith(".txt"):
            return Document(package, path, "file", mutable=False, head=head, small=True)
        return Artifact(package, path, "file", head=head)

    def path_of(self, package: str, reference: str) -> str:
        return f"/{package}/{reference}/"

    def adopt(self, operation: AnyRead) -> AnyRead:
        return operation

    def ask(self, operation: File, method: str) -> Ask:
        return Ask(method, operation.path)

    def ask_login(self) -> Ask:
        return Ask("GET", "")

    def facts(self, operation: File, headers: Headers) -> Facts:
        if (headers.get("content-type") or "").startswith("text/html"):
            raise UpstreamFailed("upstream sent a page")
        size = headers.get("content-length")
        modified = headers.get("last-modified") or ""
        return Facts(None, int(size) if size else None, "application/octet-stream", last_modified=modified)

    def check(self, document: Document, headers: Headers, data: bytes) -> Facts:
        facts = self.facts(document, headers)
        if not data.strip() or data.startswith(b"<"):
            raise UpstreamFailed("upstream sent no list")
        modified = facts.last_modified
        return Facts(Digest.of(data), len(data), facts.media_type, last_modified=modified, checksum=sums(data))

    def pinned(self, document: Document, digest: Digest) -> Document | None:
        return None

    def together(self, operation: File) -> tuple[str, ...]:
        return ()

    def fields(
        self, operation: File, digest: Digest | None, media_type: str, checksum: str
    ) -> tuple[tuple[str, str], ...]:
        known = (("x-checksum-sha1", checksum.removeprefix("sha1:")),) if checksum else ()
        return (("content-type", media_type), *known)

    def gone(self, operation: Delete | Cancel, outcome: Gone) -> Response:
        return Response(204)

    def word(self, problem: Problem) -> Response:
        fields = (*_TEXT, *problem.headers)
        return Response(problem.status, Headers(fields), Body((f"{problem.message}\n".encode(),)))

    # roles

    gathering = None

    @property
    def judging(self) -> Boxes:
        return self

    @property
    def indexing(self) -> Boxes:
        return self

    @property
    def aliasing(self) -> Boxes:
        return self

    @property
    def summing(self) -> Boxes:
        return self

    @property
    def browsing(self) -> Boxes:
        return self

    def judge(self, artifact: Artifact, unjudged: Unjudged) -> str:
        data = unjudged.file.read()
        if data.startswith(b"bad"):
            raise UpstreamFailed("upstream sent a bad file")
        return sums(data)

    def compose(self, index: Index, view: View, repository: str) -> tuple[bytes, float] | None:
        tags = view.tags(repository, index.package)
        if index.path == EVERYTHING:
            names = [child.name for child in view.children(repository, "")]
            return ("".join(f"{name}\n" for name in names).encode(), 0.0) if names else None
        if not tags:
            return None
        return "".join(f"{tag.name}\n" for tag in tags).encode(), max(tag.created for tag in tags)

    def document(self, index: Index) -> Document:
        return Document(index.package, index.path, index.subject, mutable=True, small=True)

    def merge(self, index: Index, answers: Sequence[bytes | None]) -> bytes | None:
        if index.path == EVERYTHING and None in answers:
            return None
        return b"".join(sorted({line for data in answers if data is not None for line in data.splitlines(True)}))

    def index_fields(self, index: Index, data: bytes) -> tuple[tuple[str, str], ...]:
        return (*_TEXT, ("x-checksum-sha1", sums(data).removeprefix("sha1:")))

    def resolve(self, alias: Alias, data: bytes) -> File | None:
        newest = data.decode().splitlines()[-1]
        if newest == "none":
            return None
        path = f"{alias.package}/{newest}/{alias.package.rpartition('/')[2]}.bin"
        return Artifact(alias.package, path, alias.subject, head=alias.head)

    def known(self, algorithm: str, digest: Digest, checksum: str) -> str:
        if algorithm == digest.algorithm:
            return digest.hex
        return checksum.removeprefix("sha1:") if algorithm == "sha1" else ""

    def render_directory(self, directory: Directory, entries: Sequence[Entry], target: str) -> tuple[Headers, bytes]:
        names = [entry.name + ("/" if entry.size is None else "") for entry in entries]
        return Headers(_TEXT), "".join(f"{name}\n" for name in names).encode()
