"""Lists of what there is, in the words of the house: composed of a catalog, an upstream's, united. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mxart.digest import Digest
from mxart.errors import BadRequest
from mxart.repos.maven import checksums, media, metadata, plugins, prefixes
from mxart.repos.maven.builds import highest, told
from mxart.repos.maven.checksums import fields
from mxart.repos.maven.coordinates import SIGNATURES, FilePath, MetadataPath
from mxart.repos.maven.markup import BadMarkup
from mxart.repos.maven.metadata import Metadata, Plugin
from mxart.repos.maven.requests import file, read
from mxart.repos.operations import Alias, Document, File, Index
from mxart.store.changes import View


class Indexes:
    """See roles.Indexing: maven-metadata.xml of three levels, and prefixes.txt."""

    def compose(self, index: Index, view: View, repository: str) -> tuple[bytes, float] | None:
        place = read(index.path)
        if not isinstance(place, MetadataPath):
            data = prefixes.compose(_groups(view, repository))
            return (data, 0.0) if data is not None else None
        made = _builds(place, view, repository) if place.version else _versions(place, view, repository)
        return (metadata.render(made[0]), made[1]) if made is not None else None

    def document(self, index: Index) -> Document:
        return Document(index.package, index.path, index.subject, mutable=True, head=index.head, small=True)

    def merge(self, index: Index, answers: Sequence[bytes | None]) -> bytes | None:
        if isinstance(read(index.path), MetadataPath):
            return metadata.merge([answer for answer in answers if answer is not None])
        return prefixes.unite(answers)

    def index_fields(self, index: Index, data: bytes) -> tuple[tuple[str, str], ...]:
        media_type = media.XML if isinstance(read(index.path), MetadataPath) else media.TEXT
        return (("content-type", media_type), *guarded(media_type), *fields(checksums.of(data)))


class Aliases:
    """See roles.Aliasing: `app-1.0-SNAPSHOT.jar` is the file of the newest build."""

    def resolve(self, alias: Alias, data: bytes) -> File | None:
        place = read(alias.path)
        if not isinstance(place, FilePath):
            return None
        try:
            value = _find(metadata.parse(data), place)
        except BadMarkup:
            return None
        if value in ("", place.version):
            return None
        # It is an upstream's word: it is taken only for a build of this very version.
        made = place.as_version(value)
        try:
            found = read(made.path)
        except BadRequest:
            return None
        return file(made, head=alias.head) if found == made else None


class Sums:
    """See roles.Summing."""

    def known(self, algorithm: str, digest: Digest, checksum: str) -> str:
        sums = checksums.recall(checksum, digest.hex) if digest.algorithm == "sha256" else None
        if algorithm == digest.algorithm:
            return digest.hex
        match algorithm:
            case "md5" | "sha1" | "sha512":
                return sums.get(algorithm) if sums is not None else ""
            case _:
                return ""


def guarded(media_type: str) -> tuple[tuple[str, str], ...]:
    """A stranger's bytes: no browser may guess that it is a page, nor run what is in one."""
    fields = (("x-content-type-options", "nosniff"),)
    return (*fields, ("content-security-policy", "sandbox")) if media_type == media.XML else fields


def _find(found: Metadata, place: FilePath) -> str:
    """The value of the newest such file. Not every list names signatures: they are beside what they sign."""
    value = found.find(place.classifier, place.extension, place.version)
    signed = next(
        (place.extension.removesuffix(suffix) for suffix in SIGNATURES if place.extension.endswith(suffix)), ""
    )
    return value or (found.find(place.classifier, signed, place.version) if signed else "")


def _builds(place: MetadataPath, view: View, repository: str) -> tuple[Metadata, float] | None:
    """Of builds that are complete: what a deploy has not finished, or never will, is in nobody's build."""
    complete = told(view, repository, place.directory)
    files: list[FilePath] = []
    modified = 0.0
    for record in view.below(repository, place.directory):
        found = read(record.path)
        if isinstance(found, FilePath) and (not complete or (found.build is not None and found.build[1] <= complete)):
            files.append(found)
            modified = max(modified, record.created)
    made = metadata.compose_builds(place, files)
    if made is not None:
        return made, modified
    # A client counts on from the number that it reads here.
    number = highest(view, repository, place.directory)
    group, _, artifact = place.package.rpartition("/")
    names = Metadata(group.replace("/", "."), artifact, place.version, number=number)
    return (names, 0.0) if number else None


def _versions(place: MetadataPath, view: View, repository: str) -> tuple[Metadata, float] | None:
    package = place.package
    times = {tag.name: tag.created for tag in view.tags(repository, package)}
    listed: list[Plugin] = []
    for key, note in view.notes(repository, package).items():
        artifact = key.removeprefix(plugins.PLUGIN)
        if artifact != key and view.has_package(repository, f"{package}/{artifact}"):
            prefix, name = plugins.told(note)
            listed.append(Plugin(prefix, artifact, name))
    made = metadata.compose_versions(place, times, listed)
    return (made, max(times.values(), default=0.0)) if made is not None else None


def _groups(view: View, repository: str) -> Iterator[str]:
    """The directories of groups, two names deep: `com/example`, or `junit` where that is a group by itself."""
    for first in view.children(repository, ""):
        for second in view.children(repository, first.name):
            path = f"{first.name}/{second.name}"
            yield first.name if second.package == path else path
