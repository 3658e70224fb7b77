"""What a request to a Maven repository wants, decided once, by its path. Pure."""

from __future__ import annotations

from functools import lru_cache

from mxart.message import Headers
from mxart.repos.maven import coordinates
from mxart.repos.maven.checks import is_small
from mxart.repos.maven.coordinates import (
    METADATA,
    ChecksumPath,
    DirectoryPath,
    FilePath,
    MetadataPath,
    Place,
    PrefixesPath,
    missing,
)
from mxart.repos.operations import Alias, Artifact, Checksum, Computed, Directory, Document, Index

# A server that packs what it sends cannot be asked to go on where it broke off, and its checksums are of other bytes.
PLAIN = Headers((("accept-encoding", "identity"),))
# Longer requests than ordinary ones are parsed each time: memory is not for strangers to fill.
_MAX_REMEMBERED = 512

Reading = Document | Artifact | Index | Directory | Computed


def asked(path: str, *, head: bool) -> Reading:
    """What GET or HEAD of the path of a URL, still escaped, is. Raises BadRequest, NotFound."""
    return _asked(path, head) if len(path) <= _MAX_REMEMBERED else reading(coordinates.parse(path), head=head)


def read(path: str) -> Place:
    """The same by a path without percent escapes, as it is called in the catalog."""
    return _read(path) if len(path) <= _MAX_REMEMBERED else coordinates.read(path)


# Builds ask for the same few names over and over.
@lru_cache(maxsize=8192)
def _asked(path: str, head: bool) -> Reading:
    return reading(coordinates.parse(path), head=head)


_read = lru_cache(maxsize=8192)(coordinates.read)


def reading(place: Place, *, head: bool) -> Reading:
    """What GET or HEAD of a place is. Raises NotFound."""
    match place:
        case FilePath() | MetadataPath() | PrefixesPath():
            return _content(place, head=head)
        case ChecksumPath(path=path, of=of, algorithm=algorithm):
            return Checksum(path, "checksum", _content(of, head=False), algorithm, head)
        case DirectoryPath(path=path, slash=slash):
            if not slash:
                raise missing(place)
            return Directory(path, path, "directory", head)


def _content(place: FilePath | MetadataPath | PrefixesPath, *, head: bool) -> Document | Artifact | Index | Alias:
    if not isinstance(place, FilePath):
        return Index(place.package, place.path, "metadata", head)
    if place.is_alias:
        path = f"{place.directory}/{METADATA}"
        return Alias(place.package, place.path, "file", Index(place.package, path, "metadata"), head)
    return file(place, head=head)


def file(place: FilePath, *, head: bool) -> Document | Artifact:
    """A file that never changes."""
    if is_small(place.extension):
        return Document(place.package, place.path, "file", mutable=False, head=head, small=True)
    return Artifact(place.package, place.path, "file", head=head)
