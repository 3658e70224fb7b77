"""The keys that sign tokens, as files: made at the first start, kept below the data directory, changed now and then.

    <directory>/          0700
      issuer              the name that stands in our tokens as `iss`; other than any other installation's
      <seconds>.pem 0600  a private key (P-256) by the Unix time that it was made at; the newest one signs

A key that has signed for long enough gets a successor when the server starts or reloads.  It goes on verifying until
every token that it signed has ended, and is removed then.  Workers get theirs by being forked.
"""

from __future__ import annotations

import re
import secrets
import time
from pathlib import Path
from typing import ClassVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from mxart.atomic import locked_directory, write_atomically
from mxart.discreet import Discreet
from mxart.errors import ConfigError

ROTATE_SECONDS = 90 * 86400.0
"""How long a key signs, at least: it is looked at when the server starts or reloads."""
KEEP_SECONDS = 86400.0
"""How long a key verifies after its successor was made; longer than any token lives."""

_NAME = re.compile(r"(\d{12})\.pem\Z")


class KeyFiles(Discreet, frozen=True):
    """What stands in the files: at least one key in PEM, the one that signs first."""

    hidden: ClassVar = frozenset({"keys"})

    issuer: str
    keys: tuple[bytes, ...]

    @classmethod
    def open(cls, directory: Path, *, now: float | None = None) -> KeyFiles:
        """The keys of a directory, made or changed now if it is time. Blocks on the disk and on others who do so.

        Raises ConfigError if what is there cannot be used.
        """
        now = time.time() if now is None else now
        try:
            with locked_directory(directory):
                issuer = _issuer(directory / "issuer")
                made = sorted(int(match[1]) for path in directory.iterdir() if (match := _NAME.match(path.name)))
                if not made or now - made[-1] >= ROTATE_SECONDS:
                    made.append(int(now))
                    write_atomically(_path(directory, made[-1]), new_key(), 0o600)
                for old, successor in zip(tuple(made), made[1:], strict=False):
                    if now - successor >= KEEP_SECONDS:
                        _path(directory, old).unlink()
                        made.remove(old)
                return cls(issuer, tuple(_read(_path(directory, when)) for when in reversed(made)))
        except OSError as error:
            raise ConfigError(f"the keys for tokens in {directory} cannot be opened: {error.strerror}") from error


def new_key() -> bytes:
    """A private key of the curve P-256, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _path(directory: Path, when: int) -> Path:
    return directory / f"{when:012d}.pem"


def _issuer(path: Path) -> str:
    try:
        found = path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        found = f"mxart-{secrets.token_hex(8)}"
        write_atomically(path, f"{found}\n".encode(), 0o600)
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", found):
        raise ConfigError(f"{path} does not hold a name: remove it to have another made; tokens that are out end then")
    return found


def _read(path: Path) -> bytes:
    data = path.read_bytes()
    try:
        key = load_pem_private_key(data, None)
        usable = isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        usable = False
    if not usable:
        raise ConfigError(f"{path} is not a P-256 private key in PEM: remove it to have another made")
    return data
