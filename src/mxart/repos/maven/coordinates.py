"""Paths of a repository with Maven's layout, read once (maven.apache.org/repository/layout.html). Pure.

    com/example/app/1.0/app-1.0-sources.jar                       a file of a release, its classifier is `sources`
    com/example/app/1.1-SNAPSHOT/app-1.1-20240102.030405-6.jar    a build of a snapshot
    com/example/app/1.1-SNAPSHOT/app-1.1-SNAPSHOT.jar             whatever build is the newest
    com/example/app/1.1-SNAPSHOT/maven-metadata.xml               the builds of a snapshot
    com/example/app/maven-metadata.xml                            an artifact's versions, or a group's plugins, or both
    com/example/app/1.0/app-1.0.jar.asc                           a signature, a file like others
    com/example/app/1.0/app-1.0.jar.asc.sha1                      a checksum of anything
    .meta/prefixes.txt                                            what begins there is here
    com/example/                                                  a directory

Paths have no slash at their begin and no percent escapes.  What is wrong raises a Problem that says what would be
right.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal
from urllib.parse import quote, unquote_to_bytes

from msgspec import Struct

from mxart.errors import BadRequest, NotFound
from mxart.repos.maven.versions import SNAPSHOT, build_of, is_base_snapshot

Algorithm = Literal["md5", "sha1", "sha256", "sha512"]

METADATA = "maven-metadata.xml"
PREFIXES = ".meta/prefixes.txt"
ALGORITHMS: tuple[Algorithm, ...] = ("md5", "sha1", "sha256", "sha512")
_SUFFIXES = tuple(f".{algorithm}" for algorithm in ALGORITHMS)
SIGNATURES = (".asc", ".sigstore.json", ".sigstore", ".minisig")
MAX_PATH = 2048
MAX_SEGMENT = 255  # bytes: what a file system takes, so that a repository can be copied to one
# Beside letters and digits. Maven forbids \/:"<>|?*[](){}, in versions; a percent sign would be an escape to somebody.
_SIGNS = frozenset("._-+~!$&'=@#^ ")
_PLAIN = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*\Z")  # nearly all of them
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# Where a time belongs servers that build what they are asked for have a commit (jitpack.io).
_BUILD = r"(?:[0-9]{8}\.[0-9]{6}|g?[0-9a-f]{7,40})-[1-9][0-9]{0,8}"
_SAFE = "/+~!$&'=@"  # what needs no escape in a path (RFC 3986 section 3.3)


class FilePath(Struct, frozen=True):
    """A file of a version.

    `version` is the version's own, that of its directory; `value` is how the file has it: with a snapshot's time and
    build number.  `classifier` "": it has none; `extension` has no dot at its begin.
    """

    path: str
    group: str
    artifact: str
    version: str
    value: str
    classifier: str
    extension: str

    @property
    def package(self) -> str:
        """The directory of the artifact, which permissions are about."""
        return self.path.rsplit("/", 2)[0]

    @property
    def directory(self) -> str:
        """The directory of the version."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.path.rpartition("/")[2]

    @property
    def is_alias(self) -> bool:
        """Whether this is whatever build of a snapshot is the newest."""
        return self.value == self.version and self.is_snapshot

    @property
    def is_snapshot(self) -> bool:
        """Whether its version is one that moves."""
        return is_base_snapshot(self.version)

    @property
    def build(self) -> tuple[str, int] | None:
        """Time and number of a snapshot's build; None for all else."""
        found = build_of(self.value) if self.value != self.version else None
        return (found[1], found[2]) if found is not None else None

    @property
    def of(self) -> str:
        """The path of the file that this one signs; "" if it is no signature."""
        for suffix in SIGNATURES:
            if self.path.endswith(suffix):
                return self.path.removesuffix(suffix)
        return ""

    def as_version(self, value: str) -> FilePath:
        """The same file of another build."""
        rest = f"-{self.classifier}.{self.extension}" if self.classifier else f".{self.extension}"
        path = f"{self.path.removesuffix(rest).removesuffix(self.value)}{value}{rest}"
        return FilePath(path, self.group, self.artifact, self.version, value, self.classifier, self.extension)

    def __str__(self) -> str:
        """As people write it: group:artifact:version."""
        return f"{self.group}:{self.artifact}:{self.value}"


class MetadataPath(Struct, frozen=True):
    """A list: the builds of `version`, where that is told; else an artifact's versions, or a group's plugins.

    The path does not tell which of the two: com/example/app may be both, an artifact and a group.
    """

    path: str
    version: str

    @property
    def package(self) -> str:
        """The directory of the artifact or group."""
        return self.path.rsplit("/", 2 if self.version else 1)[0]

    @property
    def directory(self) -> str:
        return self.path.rpartition("/")[0]

    def __str__(self) -> str:
        group, _, artifact = self.package.rpartition("/")
        name = f"{group.replace('/', '.')}:{artifact}" if group else artifact
        return f"the {METADATA} of {name}{':' if self.version else ''}{self.version}"


class PrefixesPath(Struct, frozen=True):
    """The list of what paths here begin with."""

    path: str = PREFIXES
    package: str = ""

    def __str__(self) -> str:
        return PREFIXES


class ChecksumPath(Struct, frozen=True):
    """The checksum of a file or list, as hexadecimal text."""

    path: str
    of: FilePath | MetadataPath | PrefixesPath
    algorithm: Algorithm

    @property
    def package(self) -> str:
        return self.of.package

    def __str__(self) -> str:
        return f"the {self.algorithm} of {self.of}"


class DirectoryPath(Struct, frozen=True):
    """A directory; "" is the root.

    `slash`: its name ended with one, as relative links in its listing need it.
    """

    path: str
    slash: bool = True

    @property
    def package(self) -> str:
        return self.path

    def __str__(self) -> str:
        return f"the directory {shown(self.path or '/')}"


Place = FilePath | MetadataPath | PrefixesPath | ChecksumPath | DirectoryPath


def parse(escaped: str) -> Place:
    """What the path of a URL, below the repository's own and still escaped, names. Raises BadRequest."""
    if len(escaped) > MAX_PATH:
        raise BadRequest(f"the path is longer than {MAX_PATH} characters", subject="path")
    return read(_unescaped(escaped.removeprefix("/")))


def read(path: str) -> Place:
    """The same by a path without escapes, as it is called in the catalog. Raises BadRequest."""
    base, dot, algorithm = path.rpartition(".")
    if dot and algorithm in ALGORITHMS:
        of = None if base.endswith(_SUFFIXES) or base.endswith("/") else _named(base)
        if isinstance(of, FilePath | MetadataPath | PrefixesPath):
            return ChecksumPath(path, of, algorithm)
        _check_all(path)
        return DirectoryPath(path, slash=False)
    return _named(path)


def file_path(path: str) -> FilePath:
    """The file that a path names. Raises BadRequest if it names something else."""
    place = read(path)
    if not isinstance(place, FilePath):
        raise BadRequest(f"{shown(path)} is no path of a file: those are called {LAYOUT}", subject="path")
    return place


LAYOUT = "<group>/<artifact>/<version>/<artifact>-<version>[-<classifier>].<extension>"


def _named(path: str) -> FilePath | MetadataPath | PrefixesPath | DirectoryPath:
    if path == PREFIXES:
        return PrefixesPath()
    if not path:
        return DirectoryPath("")
    whole = path.removesuffix("/")
    segments = _check_all(path)
    if whole != path:
        return DirectoryPath(whole)
    if segments[-1] == METADATA:
        version = segments[-2] if len(segments) > 3 and is_base_snapshot(segments[-2]) else ""
        return MetadataPath(path, version) if len(segments) > 1 else DirectoryPath(path, slash=False)
    found = _file(path, segments) if len(segments) > 3 else None
    return found or DirectoryPath(path, slash=False)


def _file(path: str, segments: list[str]) -> FilePath | None:
    """The file of a version that this is, if its name begins as such a name does."""
    *group, artifact, version, name = segments
    # Plugins of sbt have `plugin_2.12_1.0` as a directory, and `plugin` in the names of files.
    stem = artifact
    while not name.startswith(f"{stem}-"):
        stem, cut, _ = stem.rpartition("_")
        if not cut or not stem:
            return None
    rest = name[len(stem) + 1 :]
    value = version
    if is_base_snapshot(version) and not _begins(rest, version):
        # `1.0-20240102.030405-6` stands for the SNAPSHOT of `1.0-SNAPSHOT`.
        match = re.match(f"{re.escape(version.removesuffix(SNAPSHOT))}{_BUILD}", rest)
        if match is None:
            return None
        value = match[0]
    if not _begins(rest, value):
        return None
    rest = rest[len(value) :]
    if rest[0] == ".":
        classifier, extension = "", rest[1:]
    else:
        classifier, extension = _split(rest[1:])
    if not extension or (rest[0] == "-" and not classifier):
        return None
    return FilePath(path, ".".join(group), artifact, version, value, classifier, extension)


def _begins(rest: str, value: str) -> bool:
    return rest.startswith((f"{value}.", f"{value}-"))


def _split(rest: str) -> tuple[str, str]:
    """Classifier and extension: `sources`, `jar.asc`; `linux-1.2`, `tar.gz`."""
    signed = next((suffix for suffix in SIGNATURES if rest.endswith(suffix)), "")
    base = rest.removesuffix(signed)
    classifier, _, extension = base.rpartition(".")
    if classifier.endswith(".tar"):
        classifier, extension = classifier.removesuffix(".tar"), f"tar.{extension}"
    return classifier, f"{extension}{signed}"


def _check_all(path: str) -> list[str]:
    """The segments of a path. Raises BadRequest if no directory or file can be called so."""
    segments = path.removesuffix("/").split("/")
    for segment in segments:
        if _PLAIN.match(segment) is None or len(segment) > MAX_SEGMENT:
            why = _fault(segment)
            if why:
                raise BadRequest(f"{shown(path)} is no path of a Maven repository: {why}", subject="path")
    return segments


def _fault(segment: str) -> str:
    if not segment:
        return "there are two slashes in a row, or one at the begin"
    if segment.startswith("."):
        return f"nothing here is called {shown(segment)}"
    if len(segment.encode("utf-8", "surrogatepass")) > MAX_SEGMENT:
        return f"{shown(segment)} has more than {MAX_SEGMENT} bytes"
    if not all(_fits(sign) for sign in segment):
        signs = "".join(sorted(_SIGNS - {" "}))
        return f"{shown(segment)} has other characters than letters, digits, spaces and {signs}"
    if segment != segment.strip():
        return f"{shown(segment)} has a space at an end"
    if not unicodedata.is_normalized("NFC", segment):
        return f"{shown(segment)} is not in Unicode's composed form, NFC"
    return ""


def _fits(sign: str) -> bool:
    if sign.isascii():
        return sign.isalnum() or sign in _SIGNS
    return unicodedata.category(sign)[0] in "LMN"


def _unescaped(path: str) -> str:
    if "%" not in path:
        if not path.isascii():
            raise BadRequest(f"{shown(path)} has characters that a URL has only as percent escapes", subject="path")
        return path
    if _BAD_ESCAPE.search(path):
        raise BadRequest(f"{shown(path)} has a percent sign without two hexadecimal digits behind", subject="path")
    if "%2f" in path.lower():
        raise BadRequest(f"{shown(path)} has a slash as an escape: no name has one", subject="path")
    try:
        return unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest(f"the escapes of {shown(path)} are not UTF-8", subject="path") from None


def escape(path: str) -> str:
    """A path as a URL has it."""
    return quote(path, safe=_SAFE)


def missing(place: DirectoryPath) -> NotFound:
    """What to say of a path that names neither a file nor, without a slash at its end, a directory."""
    message = f"{shown(place.path)} is no file's path: those are called {LAYOUT}"
    return NotFound(f"{message}, and directories end with a slash", subject="path")


def shown(text: str) -> str:
    """Text of a stranger's, fit for a message."""
    return ascii(text if len(text) <= 120 else text[:117] + "...")
