"""What a file must be, by its extension: the checks that a page, an empty file or half of one does not pass. Pure.

A mirror in trouble answers 200 with a login page, with nothing, or with the begin of a file; builds fail of such a jar
days later, and elsewhere.  What is wrong raises BadFile with a text as in "it is ...".
"""

from __future__ import annotations

import json
import re
from typing import BinaryIO

from mxart.repos.maven.coordinates import FilePath
from mxart.repos.maven.markup import BadMarkup, read
from mxart.repos.maven.versions import build_of

MAX_SMALL = 10 << 20
"""Bytes of a POM, signature, or module: those are served from memory, and looked at whole."""
_SMALL = re.compile(r"(?:pom|module|xml)\Z|(?:.*\.)?(?:asc|sigstore|sigstore\.json|minisig)\Z", re.DOTALL)
_JSON = re.compile(r"module\Z|(?:.*\.)?sigstore(?:\.json)?\Z", re.DOTALL)
_ZIPS = frozenset(("jar", "war", "ear", "aar", "zip", "sar", "nar", "kar", "nbm", "hpi", "jpi", "klib"))
_MAGIC = {
    "gz": b"\x1f\x8b",
    "tgz": b"\x1f\x8b",
    "bz2": b"BZh",
    "tbz2": b"BZh",
    "xz": b"\xfd7zXZ\x00",
    "txz": b"\xfd7zXZ\x00",
    "zst": b"\x28\xb5\x2f\xfd",
    "7z": b"7z\xbc\xaf\x27\x1c",
}
_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)?<(?:!doctype\s+html|html|head|body)[\s>]", re.IGNORECASE | re.DOTALL
)
_HEAD = 1024
# A zip ends with this record, and a comment of at most 64 KiB (APPNOTE 4.3.16).
_ZIP_END, _ZIP_END_SIZE, _ZIP_COMMENT = b"PK\x05\x06", 22, 65535
_POM_DEPTH = 256
_GAV = ("groupId", "artifactId", "version")
_POM = frozenset((*((name,) for name in _GAV), *(("parent", name) for name in _GAV)))
_ARMOUR = b"-----BEGIN PGP "


class BadFile(ValueError):
    """It is not what its name says; the text says why."""


def is_small(extension: str) -> bool:
    """Whether a file of this kind is read whole (check_small) rather than judged on disk (check_large)."""
    return _SMALL.match(extension) is not None


def check_small(place: FilePath, data: bytes) -> None:
    """Judge a POM, signature or the like. Raises BadFile."""
    if not data.strip():
        raise BadFile("it is empty")
    if len(data) > MAX_SMALL:
        raise BadFile(f"it is larger than {MAX_SMALL} bytes")
    _refuse_page(data)
    extension = place.extension
    if extension == "pom":
        read_pom(data)
    elif _JSON.match(extension):
        try:
            known = isinstance(json.loads(data), dict)
        except (ValueError, RecursionError):
            known = False
        if not known:
            raise BadFile("it is no JSON object")
    elif extension == "asc" or extension.endswith(".asc"):
        if not data.lstrip().startswith(_ARMOUR):
            raise BadFile(f"it does not begin with {_ARMOUR.decode()!r}, as an armoured signature does")
    elif extension == "xml" and not data.lstrip(b"\xef\xbb\xbf\xfe\xff \t\r\n\0").startswith(b"<"):
        raise BadFile("it is no XML")


def check_published(place: FilePath, file: BinaryIO, size: int) -> None:
    """Judge what a client publishes: a POM that says of itself what its path says. Raises BadFile, OSError.

    All else is the publisher's own word: he sends its checksums along.  It reads the file, so it is called in a thread.
    """
    if place.extension != "pom" or place.classifier:
        return
    if size > MAX_SMALL:
        raise BadFile(f"it is larger than {MAX_SMALL} bytes")
    file.seek(0)
    check_pom(place, file.read(size))


def check_large(place: FilePath, file: BinaryIO, size: int) -> None:
    """Judge a file by its begin and its end. Raises BadFile, OSError.

    It reads the file, so it is called in a thread.
    """
    extension = place.extension.rpartition(".")[2]
    file.seek(0)
    head = file.read(min(_HEAD, size))
    if extension in _ZIPS:
        if not size:
            raise BadFile("it is empty")
        # A jar may begin with the script that starts it.
        if not head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"#!")):
            _refuse_page(head)
            raise BadFile(f"it is no .{extension}: those are zip archives")
        length = min(size, _ZIP_END_SIZE + _ZIP_COMMENT)
        file.seek(size - length)
        if _ZIP_END not in file.read(length):
            raise BadFile("it is a part of a zip archive: its end is missing")
        return
    magic = _MAGIC.get(extension, b"")
    if not head.startswith(magic):
        _refuse_page(head)
        raise BadFile(f"it is no .{extension}: those begin with other bytes" if size else "it is empty")
    if extension not in ("html", "htm", "xhtml"):
        _refuse_page(head)


def _refuse_page(head: bytes) -> None:
    if _PAGE.match(head[:_HEAD]):
        raise BadFile("it is a web page")


def read_pom(data: bytes) -> tuple[str, str, str]:
    """Group, artifact and version of a POM, its parent's where it does not say; "" where that does not either.

    Old ones are read with entities that nobody declares.  Raises BadFile.
    """
    try:
        root, found = read(data, _POM, depth=_POM_DEPTH, lenient=True)
    except BadMarkup as error:
        if "its encoding" in str(error):
            return "", "", ""  # there are some in encodings of East Asia, which Maven reads
        raise BadFile(str(error)) from None
    if root != "project":
        raise BadFile(f"it is no POM: its root element is {root[:80]!r}, not 'project'")
    said: dict[tuple[str, ...], str] = {}
    for path, text in found:
        said.setdefault(path, text)
    return tuple(said.get((name,)) or said.get(("parent", name), "") for name in _GAV)  # type: ignore[return-value]


def check_pom(place: FilePath, data: bytes) -> None:
    """Judge the POM that a client publishes: what it says of itself is what its path says. Raises BadFile."""
    group, artifact, version = read_pom(data)
    base = build_of(place.value)
    versions = (place.version, place.value, base[0] if base else place.value)
    for name, said, right in (
        ("group", group, (place.group,)),
        ("artifact", artifact, (place.artifact,)),
        ("version", version, versions),
    ):
        if not said or "${" in said or said in right:
            continue  # a property's value is not told here
        if name == "artifact" and place.artifact.startswith(f"{said}_"):
            continue  # plugins of sbt
        raise BadFile(f"it is the POM of {name} {said[:120]!a}, and its path is that of {right[0]}")
