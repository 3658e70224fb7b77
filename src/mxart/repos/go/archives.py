"""Zip archives, read strictly (PKWARE APPNOTE 6.3): what two readers might take for different things is refused. Pure.

The standard library's reader cuts a file at the length that the directory tells, decodes names by a flag that Go
ignores, and reads a directory of any size into memory.  Here names are the bytes that are there, read as UTF-8 as Go
does; a file has exactly the length and the checksum that the directory says; and the archive is the whole file:
directory, end record, and nothing behind.  It is read in pieces, never whole.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from msgspec import Struct

MAX_ENTRIES = 100_000
_MAX_DIRECTORY = 64 << 20
_PIECE = 256 << 10

_END = struct.Struct("<4sHHHHIIH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_ENTRY = struct.Struct("<4sBBHHHHHIIIHHHHHII")
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_STORED, _DEFLATED = 0, 8
_UNIX = (3, 19)  # "version made by": whose file attributes these are; 19 is Darwin
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF


class BadArchive(ValueError):
    """It is no zip archive, or one that is not read here; the text says why."""


class Entry(Struct, frozen=True):
    """A file or folder (its name ends with a slash) of an archive, as its directory tells."""

    name: str
    size: int
    compressed: int
    deflated: bool
    crc: int
    mode: int  # of Unix, 0 where it is not told
    offset: int

    @property
    def is_regular(self) -> bool:
        """Whether this is neither a symbolic link nor any other thing than a file or a folder."""
        return stat.S_IFMT(self.mode) in (0, stat.S_IFREG, stat.S_IFDIR)


def entries(file: BinaryIO, size: int) -> list[Entry]:
    """What the archive in a file of so many bytes holds, in the directory's order. Raises BadArchive, OSError."""
    count, length, start = _end(file, size)
    if count > MAX_ENTRIES:
        raise BadArchive(f"it holds {count} files; at most {MAX_ENTRIES} are taken")
    if length > _MAX_DIRECTORY:
        raise BadArchive(f"its directory has {length} bytes; at most {_MAX_DIRECTORY} are read")
    directory = _read(file, start, length)
    found: list[Entry] = []
    at = 0
    for _ in range(count):
        entry, at = _entry(directory, at)
        found.append(entry)
    if at != length:
        raise BadArchive("its directory holds more than it says")
    # Files that lie over each other would have the same bytes unpacked again and again, for hours.
    if sum(entry.compressed for entry in found) > start:
        raise BadArchive("its files overlap")
    return found


def _end(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """How many entries there are, and length and start of the directory."""
    tail_length = min(size, _END.size + _FULL16)
    tail = _read(file, size - tail_length, tail_length)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise BadArchive("it is not a zip archive, or only a part of one")
    _, disk, first_disk, here, count, length, start, comment = _END.unpack_from(tail, at)
    if at + _END.size + comment != len(tail):
        raise BadArchive("something follows the end of the archive")
    end = size - tail_length + at
    if _FULL16 in (count, here) or _FULL32 in (length, start):
        here, count, length, start, end = _end64(file, end)
    elif disk or first_disk:
        raise BadArchive("it is a part of an archive of several files")
    if here != count:
        raise BadArchive("it is a part of an archive of several files")
    if start + length != end:
        raise BadArchive("its directory does not lie where it says")
    return count, length, start


def _end64(file: BinaryIO, end: int) -> tuple[int, int, int, int, int]:
    if end < _END64_LOCATOR.size + _END64.size:
        raise BadArchive("its end record is broken")
    signature, _, at, disks = _END64_LOCATOR.unpack(_read(file, end - _END64_LOCATOR.size, _END64_LOCATOR.size))
    if signature != b"PK\x06\x07" or disks != 1 or at + _END64.size > end - _END64_LOCATOR.size:
        raise BadArchive("its end record is broken")
    signature, length, _, _, disk, first_disk, here, count, directory, start = _END64.unpack(
        _read(file, at, _END64.size)
    )
    if signature != b"PK\x06\x06" or disk or first_disk or at + 12 + length != end - _END64_LOCATOR.size:
        raise BadArchive("its end record is broken")
    return here, count, directory, start, at


def _entry(directory: bytes, at: int) -> tuple[Entry, int]:
    if len(directory) - at < _ENTRY.size:
        raise BadArchive("its directory ends early")
    head = _ENTRY.unpack_from(directory, at)
    signature, _, maker, _, flags, method, _, _, crc, compressed, size, name_length, extra_length, comment = head[:14]
    disk, _, attributes, offset = head[14:]
    if signature != b"PK\x01\x02":
        raise BadArchive("its directory is broken")
    begin = at + _ENTRY.size
    following = begin + name_length + extra_length + comment
    if following > len(directory):
        raise BadArchive("its directory ends early")
    raw = directory[begin : begin + name_length]
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BadArchive(f"the name {raw[:80]!r} is not UTF-8") from None
    if flags & _ENCRYPTED:
        raise BadArchive(f"{name[:80]!r} is encrypted")
    if method not in (_STORED, _DEFLATED):
        raise BadArchive(f"{name[:80]!r} is compressed by method {method}; known are 0 (not at all) and 8 (deflate)")
    if _FULL32 in (compressed, size, offset) or disk:
        # Only what is larger than any module may be needs those.
        raise BadArchive(f"{name[:80]!r} has 4 GiB or more, or lies in another file")
    mode = attributes >> 16 if maker in _UNIX else 0
    return Entry(name, size, compressed, method == _DEFLATED, crc, mode, offset), following


def pieces(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    """The content of a file of the archive, as it is unpacked; never more of it than the directory says.

    Raises BadArchive, perhaps after the last piece, and OSError.
    """
    head = _LOCAL.unpack(_read(file, entry.offset, _LOCAL.size))
    if head[0] != b"PK\x03\x04":
        raise BadArchive(f"{entry.name[:80]!r} is not where the directory says")
    if _read(file, entry.offset + _LOCAL.size, head[9]) != entry.name.encode():
        raise BadArchive(f"{entry.name[:80]!r} has another name than the directory says")
    if (head[3] == _DEFLATED) != entry.deflated:
        raise BadArchive(f"{entry.name[:80]!r} is compressed otherwise than the directory says")
    begin = entry.offset + _LOCAL.size + head[9] + head[10]
    size = crc = 0
    for piece in _inflated(file, entry, begin) if entry.deflated else _raw(file, entry, begin):
        size += len(piece)
        if size > entry.size:
            raise BadArchive(f"{entry.name[:80]!r} is larger than the {entry.size} bytes that the directory says")
        crc = zlib.crc32(piece, crc)
        yield piece
    if size != entry.size:
        raise BadArchive(f"{entry.name[:80]!r} has {size} bytes, not the {entry.size} that the directory says")
    if crc != entry.crc:
        raise BadArchive(f"{entry.name[:80]!r} is damaged: its checksum is wrong")


def _raw(file: BinaryIO, entry: Entry, begin: int) -> Iterator[bytes]:
    left = entry.compressed
    while left:
        piece = _read(file, begin + entry.compressed - left, min(left, _PIECE))
        left -= len(piece)
        yield piece


def _inflated(file: BinaryIO, entry: Entry, begin: int) -> Iterator[bytes]:
    unpack = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for packed in _raw(file, entry, begin):
            rest = packed
            while rest and not unpack.eof:
                piece = unpack.decompress(rest, _PIECE)
                rest = unpack.unconsumed_tail
                if piece:
                    yield piece
            if unpack.eof:
                return
        while not unpack.eof:
            piece = unpack.decompress(b"", _PIECE)
            if not piece:
                break
            yield piece
    except zlib.error:
        raise BadArchive(f"{entry.name[:80]!r} cannot be unpacked: it is damaged") from None
    if not unpack.eof:
        raise BadArchive(f"{entry.name[:80]!r} ends early")


def _read(file: BinaryIO, offset: int, length: int) -> bytes:
    if offset < 0:
        raise BadArchive("it points to before its begin")
    file.seek(offset)
    data = file.read(length)
    if len(data) != length:
        raise BadArchive("it ends early")
    return data
