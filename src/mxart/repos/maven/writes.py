"""Deploying: what a client may want to write, and what a file, a checksum, a list or a deletion comes to. Pure.

A deploy is a row of PUT requests: the files of a version, checksums of each, then lists (maven-metadata.xml) that the
client has read, has added itself to, and sends back.  Two clients that do so at once overwrite each other's list; so
here lists are only listened to (module submissions).  What they say of versions and builds the files say better.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Literal

from msgspec.structs import replace

from mxart.body import Body
from mxart.errors import BadRequest, Conflict, MethodNotAllowed, NotFound, UnsupportedMediaType
from mxart.message import Headers, Response
from mxart.repos.maven import checksums, media
from mxart.repos.maven.builds import find, named, noted, of_alias
from mxart.repos.maven.checks import MAX_SMALL, BadFile, check_published, is_small
from mxart.repos.maven.coordinates import (
    ALGORITHMS,
    LAYOUT,
    ChecksumPath,
    DirectoryPath,
    FilePath,
    MetadataPath,
    Place,
    PrefixesPath,
    file_path,
    shown,
)
from mxart.repos.maven.removals import remove
from mxart.repos.maven.requests import read
from mxart.repos.maven.submissions import MAX_METADATA, hear_metadata
from mxart.repos.publishing import (
    Heard,
    Hearing,
    Judgement,
    Release,
    Released,
    Remark,
    Removal,
    Spot,
    Write,
)
from mxart.store.base import FileRecord, Unjudged
from mxart.store.changes import NOTHING, Change, View

Policy = Literal["releases", "snapshots", "mixed"]
_Sums = tuple[tuple[str, str], ...]

MAX_FILE = 1 << 40
"""Bytes of a file: the limits of bodies, quotas and disks say something first."""
_ALLOW = "GET, HEAD, PUT, POST, DELETE"


def parse(method: str, place: Place, headers: Headers) -> Write:
    """What a client wants to be done. Raises MethodNotAllowed, BadRequest, UnsupportedMediaType."""
    if method == "DELETE":
        return _deletion(place)
    if method not in ("PUT", "POST"):
        raise MethodNotAllowed(f"nothing is done here by {method[:20]}", subject="route", headers=(("allow", _ALLOW),))
    _refuse_parts(headers)
    match place:
        case FilePath():
            if place.is_snapshot and not place.is_alias and place.build is None:
                right = f"{place.version.removesuffix('SNAPSHOT')}20240102.030405-6"
                message = f"{shown(place.value)} is no build of {place.version}: those are called as {right}"
                raise BadRequest(message, subject="version")
            most = MAX_SMALL if is_small(place.extension) else MAX_FILE
            return Release(place.package, place.path, "file", most, place.version, _sums(headers))
        case ChecksumPath():
            package = place.package if isinstance(place.of, FilePath) else ""
            return Remark(package, place.path, "checksum", checksums.MAX_TEXT)
        case MetadataPath():
            # One of an artifact or a group: only what it says tells which.
            return Remark(place.package if place.version else "", place.path, "metadata", MAX_METADATA)
        case PrefixesPath():
            raise _computed(place)
        case DirectoryPath():
            message = f"{shown(place.path or '/')} is no path of a file: those are called {LAYOUT}"
            raise BadRequest(message, subject="path")


def _deletion(place: Place) -> Removal:
    if isinstance(place, ChecksumPath | MetadataPath | PrefixesPath) or not place.path:
        raise _computed(place)
    return Removal(place.path, "file", place.package if isinstance(place, FilePath) else "")


def _computed(place: Place) -> MethodNotAllowed:
    message = f"{place} follows from what is here: it is only read"
    return MethodNotAllowed(message, subject="route", headers=(("allow", "GET, HEAD"),))


def _refuse_parts(headers: Headers) -> None:
    """Raise for a body that is not the file itself."""
    if "content-range" in headers:  # RFC 9110 section 14.5
        raise BadRequest("a file is sent as a whole, not by Content-Range", subject="size")
    coding = (headers.get("content-encoding") or "identity").strip().lower()
    if coding != "identity":
        raise UnsupportedMediaType(f"a file is sent as it is, not as {shown(coding)}", subject="size")


def _sums(headers: Headers) -> _Sums:
    """What X-Checksum fields say of the file. Raises BadRequest."""
    found = []
    for algorithm in ALGORITHMS:
        text = (headers.get(f"x-checksum-{algorithm}") or "").strip().lower()
        if text and not checksums.is_hex(text, algorithm):
            raise BadRequest(f"X-Checksum-{algorithm.title()} is {shown(text)}, which is none", subject="checksum")
        if text:
            found.append((algorithm, text))
    return tuple(found)


class Releases:
    """See roles.Releasing."""

    def release(self, operation: Release, unjudged: Unjudged, now: float) -> Judgement:
        """A POM has to be that of its path; any other file is taken for what its name says."""
        path = file_path(operation.path)
        try:
            check_published(path, unjudged.file, unjudged.size)
        except BadFile as error:
            raise BadRequest(f"{path.name} is refused: {error}", subject="file") from None
        kept = checksums.of_file(unjudged.file, unjudged.size)
        sums = checksums.recall(kept, unjudged.digest.hex)
        assert sums is not None, "they are all there"
        for algorithm in ALGORITHMS:
            for name, text in operation.sums:
                if name == algorithm and text != sums.get(algorithm):
                    message = f"{path.name} has the {algorithm} {sums.get(algorithm)}, not {text} as its header says"
                    raise Conflict(message, subject="checksum")
        tag = (path.version, path.directory)
        return Judgement(path.package, path.path, kept, media.of(path), tag, ())

    def released(self, operation: Release, outcome: Released) -> Response:
        """What became of it."""
        fields = []
        if outcome.path not in ("", operation.path):  # RFC 9110 section 15.3.2
            fields.append(("location", outcome.path.rpartition("/")[2]))
        if outcome.digest is not None:
            fields.append(("etag", f'"{outcome.digest}"'))
            if (sums := checksums.recall(outcome.checksum, outcome.digest.hex)) is not None:
                fields += checksums.fields(sums)
        return _text(201 if outcome.new else 200, "published" if outcome.new else "here already, the same", fields)


class Deploys:
    """See roles.Assembling. `elsewhere` are other repositories, which take what `policy` has this one refuse."""

    def __init__(self, policy: Policy = "mixed", elsewhere: tuple[str, ...] = ()) -> None:
        self._policy = policy
        self._elsewhere = elsewhere

    def admit(self, operation: Release | Remark, view: View, spot: Spot) -> None:
        """By its version; and by its checksum, if that is told."""
        place = read(operation.path)
        self._demand_policy(place, spot)
        if isinstance(operation, Release) and isinstance(place, FilePath) and not place.is_alias:
            kept = view.file(spot.repository, place.path)
            if kept is not None and not _are(operation.sums, kept):
                raise _taken(place, spot, f"its {operation.sums[0][0]} here is another")

    def _demand_policy(self, place: Place, spot: Spot) -> None:
        if self._fits(place):
            return
        takes, this = ("snapshots", "release") if self._policy == "snapshots" else ("releases", "snapshot")
        where = f": deploy it to {' or '.join(self._elsewhere)}" if self._elsewhere else ""
        version = _version(place)
        raise Conflict(f"{spot.repository} takes {takes} only, and {version} is a {this}{where}", subject="version")

    def _fits(self, place: Place) -> bool:
        """Whether the policy allows what has this version; what has none is allowed."""
        version = _version(place)
        if self._policy == "mixed" or not version:
            return True
        return version.endswith("SNAPSHOT") == (self._policy == "snapshots")

    def place(self, operation: Release, record: FileRecord, view: View, spot: Spot) -> Change:
        """A release and a build never change. A snapshot's file without a build gets one."""
        path = file_path(record.path)
        notes = noted(path, view, spot.repository)
        if path.is_alias:
            path, notes = named(path, str(record.digest), view, spot)
            record = replace(record, path=path.path)
        kept = view.file(spot.repository, path.path)
        if kept is not None:
            if kept.digest == record.digest:
                return NOTHING
            raise _taken(path, spot, f"here is {kept.digest}, this is {record.digest}")
        if spot.held:
            held = view.file(spot.held, path.path)
            if held is not None and held.digest == record.digest:
                return NOTHING
            return Change(files=(replace(record, repository=spot.held),), notes=notes)
        return Change(files=(record,), tags=tags_of(path, record, view), notes=notes)

    def hear(self, operation: Remark, data: bytes) -> Hearing:
        """A checksum, or a list."""
        place = read(operation.path)
        if isinstance(place, ChecksumPath):
            return _hear_checksum(place, data)
        assert isinstance(place, MetadataPath), "`parse` makes no other remarks"
        return hear_metadata(place, data)

    def heard(self, operation: Remark, outcome: Heard) -> Response:
        """What became of it."""
        return _text(201, "noted" if outcome.new else "right", [])

    def remove(self, operation: Removal, view: View, spot: Spot) -> tuple[str, Change]:
        """See module removals."""
        return remove(operation, view, spot)

    def removed(self, operation: Removal) -> Response:
        """Without a body."""
        return Response(204, Headers((("cache-control", "no-store"),)))

    def suits(self, operation: Write, view: View, spot: Spot) -> bool:
        """A repository whose policy takes it; where a deletion finds something; where a deploy waits for its end."""
        match operation:
            case Release(path=path):
                return self._fits(read(path))
            case Remark(path=path):
                place = read(path)
                if isinstance(place, MetadataPath) and not place.version and spot.held:
                    return bool(view.below(spot.held, place.directory))
                return self._fits(place)
            case Removal(path=path):
                return view.file(spot.repository, path) is not None or bool(view.below(spot.repository, path))
            case _:
                return True


def tags_of(path: FilePath, record: FileRecord, view: View) -> tuple[tuple[str, FileRecord], ...]:
    """A version has the name of its first file, and then of its POM."""
    is_pom = path.extension == "pom" and not path.classifier
    if is_pom or view.tag(record.repository, path.package, path.version) is None:
        return ((path.version, replace(record, path=path.directory)),)
    return ()


def _version(place: Place) -> str:
    match place:
        case FilePath() | MetadataPath():
            return place.version
        case ChecksumPath():
            return _version(place.of)
        case _:
            return ""


def _are(sums: _Sums, record: FileRecord) -> bool:
    """Whether a file may have these checksums, for all that is known of it."""
    known = checksums.recall(record.checksum, record.digest.hex)
    if known is None:
        return True
    return all(text == known.get(algorithm) for algorithm in ALGORITHMS for name, text in sums if name == algorithm)


def _taken(path: FilePath, spot: Spot, detail: str) -> Conflict:
    what = "build" if path.is_snapshot else "version"
    message = f"{path.name} is in {spot.repository} already, with other content, and never changes: deploy a new {what}"
    return Conflict(message, subject="file", detail=detail)


def _hear_checksum(place: ChecksumPath, data: bytes) -> Hearing:
    """Compare a checksum with the file that is here; of a list, which is computed, it can only be a checksum."""
    said = checksums.read(data, place.algorithm)
    if not said:
        length = checksums.LENGTHS[place.algorithm]
        raise BadRequest(
            f"a {place.algorithm} is {length} hexadecimal digits; here is none, or several", subject="checksum"
        )
    of = place.of

    def decide(view: View, spot: Spot, allowed: Container[str]) -> Change:
        if isinstance(of, FilePath):
            _compare(place, of, said, view, spot)
        return NOTHING

    return Hearing((), decide)


def _compare(place: ChecksumPath, of: FilePath, said: str, view: View, spot: Spot) -> None:
    if of.is_alias:
        records = of_alias(of, view, spot)
    else:
        record = find(view, spot, of.path)
        records = [record] if record is not None else []
    if not records:
        message = f"{spot.repository} has no {of.name} whose checksum this could be: deploy the file first"
        raise NotFound(message, subject="checksum")
    if not any(_are(((place.algorithm, said),), record) for record in records):
        message = f"{of.name} has another {place.algorithm} here than {said}: delete it here, and deploy it again"
        raise Conflict(message, subject="checksum")


def _text(status: int, text: str, fields: list[tuple[str, str]]) -> Response:
    head = (("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store"), *fields)
    return Response(status, Headers(head), Body((f"{text}\n".encode(),)))
