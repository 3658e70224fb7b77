"""The file beside an upload: whose it is, and the hash of what has come.

::

    0     <checksum> <what it is, as JSON>\\n    written once, before anybody knows the upload
    4096  <checksum> <checkpoint, as JSON>\\n    written over and over, in place

Nothing in it is believed without its checksum.  A file whose first part is broken is no upload.  A checkpoint that
is broken, speaks of more bytes than there are, or comes from another library is no checkpoint, and the bytes are
read again.  So it is, too, if the machine has been started since: after a power failure a file may have
its size and not its bytes, and a hash of bytes that are not there must not speak for the file.
"""

from __future__ import annotations

import errno
import hashlib
import os
from functools import cache
from pathlib import Path

import msgspec

from mxart.errors import BadRequest
from mxart.store.hash_state import LIBRARY, ResumableHash, resume

_SLOT = 4096  # where the checkpoint begins; a page, so that one write(2) is there whole or not at all
_CHECKSUM = 16  # bytes
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Identity(msgspec.Struct, frozen=True):
    """What never changes of an upload."""

    repository: str
    package: str
    owner: str
    algorithm: str
    created: float


class _Checkpoint(msgspec.Struct, frozen=True):
    offset: int  # the hash is of so many bytes
    hash: bytes
    library: str
    boot: str


_identities = msgspec.json.Decoder(Identity)
_checkpoints = msgspec.json.Decoder(_Checkpoint)


def write_identity(fd: int, name: str, identity: Identity) -> None:
    """Into a new file. Raises OSError, and BadRequest where names are absurdly long."""
    line = _sealed(name, msgspec.json.encode(identity))
    if len(line) > _SLOT:
        raise BadRequest("The names of the repository, the package and the user are too long together")
    # The room of the checkpoint is taken now: on a full disk it can be written over all the same.
    _write(fd, line.ljust(_SLOT + 1024, b"\0"), 0)


def read_identity(fd: int, name: str) -> Identity | None:
    """None if it is not whole. Raises OSError."""
    data = _opened(name, os.pread(fd, _SLOT, 0))
    try:
        return None if data is None else _identities.decode(data)
    except msgspec.DecodeError:
        return None


def write_checkpoint(fd: int, name: str, offset: int, hashed: ResumableHash) -> None:
    """Tell how far the hash is; does nothing where it cannot be told. Raises OSError."""
    state = hashed.state()
    if state is not None:
        _write(fd, _sealed(name, msgspec.json.encode(_Checkpoint(offset, state, LIBRARY, _boot()))), _SLOT)


def forget_checkpoint(fd: int) -> None:
    """From now on there is none. Raises OSError."""
    _write(fd, bytes(_CHECKSUM), _SLOT)


def read_checkpoint(fd: int, name: str, algorithm: str, size: int) -> tuple[int, ResumableHash] | None:
    """How many of the `size` bytes are hashed, and the hash; None if all are to be read again. Raises OSError."""
    data = _opened(name, os.pread(fd, _SLOT, _SLOT))
    try:
        found = None if data is None else _checkpoints.decode(data)
    except msgspec.DecodeError:
        found = None
    if found is None or found.offset > size or found.library != LIBRARY or not found.boot or found.boot != _boot():
        return None
    hashed = resume(algorithm, found.hash)
    return None if hashed is None else (found.offset, hashed)


def _sealed(name: str, data: bytes) -> bytes:
    return _checksum(name, data) + b" " + data + b"\n"


def _opened(name: str, raw: bytes) -> bytes | None:
    line, end, _ = raw.partition(b"\n")
    checksum, _, data = line.partition(b" ")
    return data if end and checksum == _checksum(name, data) else None


def _checksum(name: str, data: bytes) -> bytes:
    """Of the name of the upload, too: what was copied to another one is not its own."""
    return hashlib.blake2b(name.encode() + b" " + data, digest_size=_CHECKSUM).hexdigest().encode()


def _write(fd: int, data: bytes, offset: int) -> None:
    if os.pwrite(fd, data, offset) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # what a second write(2) would say


@cache
def _boot() -> str:
    """Names the time since the machine was started; "" where that is not told."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
