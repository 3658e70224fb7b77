"""Signed notes: a text and who signed it (golang.org/x/mod/sumdb/note), as checksum databases sign their trees.

A note is UTF-8 text that ends in a newline, an empty line, and signature lines: an em dash, the signer's name, and the
base64 of four bytes of the key's hash and the signature.  Keys are Ed25519 and travel as text, `NAME+HASH+KEY`, the
private one as `PRIVATE+KEY+NAME+HASH+KEY`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import ClassVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

from mxart.discreet import Discreet

_ED25519 = b"\x01"
_PRIVATE = "PRIVATE+KEY+"
_MAX_NOTE = 1_000_000
_MAX_SIGNATURES = 100
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f]")
_DASH = "— "


class BadNote(ValueError):
    """This is no note, or not one that the key has signed; the text says which."""


class VerifierKey(Struct, frozen=True):
    """A public key and the name of whose it is, such as "sum.golang.org"."""

    name: str
    hash: bytes  # 4 bytes: tells the keys of one name apart, proves nothing
    public: bytes  # 32 bytes

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """From `NAME+HASH+KEY`. Raises ValueError that says what would be right."""
        name, hash_, key = _fields(text, "a verifier key is NAME+HASH+KEY, as its checksum database publishes it")
        if hash_ != _key_hash(name, key):
            raise ValueError(f"the hash in the verifier key of {name} does not fit its key: it was copied wrong")
        return cls(name, hash_, key[1:])

    def __str__(self) -> str:
        return f"{self.name}+{self.hash.hex()}+{_base64(_ED25519 + self.public)}"

    def verified(self, data: bytes) -> str:
        """The text of a note that this key has signed. Raises BadNote.

        Signatures by others are passed over: a note may have several, and their keys are not known here.
        """
        text, signatures = _split(data)
        for line in signatures:
            name, signature = _signature(line)
            if name == self.name and signature[:4] == self.hash:
                try:
                    Ed25519PublicKey.from_public_bytes(self.public).verify(signature[4:], text.encode())
                except InvalidSignature:
                    raise BadNote(f"the signature by {self.name} is not of this text") from None
                return text
        raise BadNote(f"it is not signed by the key {self.name}+{self.hash.hex()}")


class SignerKey(Discreet, frozen=True):
    """A private key, for signing notes of our own."""

    hidden: ClassVar = frozenset({"_private"})

    name: str
    _private: bytes

    @classmethod
    def generate(cls, name: str) -> SignerKey:
        """A new key. Raises ValueError for a name that no key may have."""
        if not _is_name(name):
            raise ValueError(f"{name!r} cannot be the name of a key: no spaces and no +")
        return cls(name, Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> SignerKey:
        """From `PRIVATE+KEY+NAME+HASH+KEY`. Raises ValueError, without a word of the key."""
        what = "a signer key is PRIVATE+KEY+NAME+HASH+KEY"
        if not text.startswith(_PRIVATE):
            raise ValueError(what)
        name, hash_, key = _fields(text.removeprefix(_PRIVATE), what)
        signer = cls(name, key[1:])
        if hash_ != signer.verifier.hash:
            raise ValueError(f"the hash in the signer key of {name} does not fit its key: it was copied wrong")
        return signer

    @property
    def secret(self) -> str:
        """The key as text, to be kept where nobody else reads it."""
        return f"{_PRIVATE}{self.name}+{self.verifier.hash.hex()}+{_base64(_ED25519 + self._private)}"

    @property
    def verifier(self) -> VerifierKey:
        """The key that others verify with."""
        public = Ed25519PrivateKey.from_private_bytes(self._private).public_key().public_bytes_raw()
        return VerifierKey(self.name, _key_hash(self.name, _ED25519 + public), public)

    def sign(self, text: str) -> bytes:
        """A note of this text, which ends in a newline. Raises ValueError."""
        if not text.endswith("\n") or _CONTROL.search(text):
            raise ValueError("the text of a note ends in a newline and has no other control characters")
        signature = Ed25519PrivateKey.from_private_bytes(self._private).sign(text.encode())
        return f"{text}\n{_DASH}{self.name} {_base64(self.verifier.hash + signature)}\n".encode()


def _split(data: bytes) -> tuple[str, list[str]]:
    """The text, and the lines of signatures after its last empty line."""
    if len(data) > _MAX_NOTE:
        raise BadNote(f"it is longer than a signed note may be: {len(data)} bytes")
    try:
        whole = data.decode()
    except UnicodeDecodeError:
        raise BadNote("it is no signed note: not UTF-8 text") from None
    text, empty, signatures = whole.rpartition("\n\n")
    if not empty or not signatures.endswith("\n") or _CONTROL.search(whole):
        raise BadNote("it is no signed note: there is no text with signatures after an empty line")
    lines = signatures[:-1].split("\n")
    if len(lines) > _MAX_SIGNATURES:
        raise BadNote(f"it has {len(lines)} signatures; nobody needs more than {_MAX_SIGNATURES}")
    return text + "\n", lines


def _signature(line: str) -> tuple[str, bytes]:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    signature = _bytes(encoded)
    if not line.startswith(_DASH) or not _is_name(name) or signature is None or len(signature) < 5:
        raise BadNote("it is no signed note: a line after the empty one is no signature")
    return name, signature


def _fields(text: str, what: str) -> tuple[str, bytes, bytes]:
    """Name, hash, and key with the byte that tells its algorithm."""
    name, _, rest = text.partition("+")
    hash_, _, encoded = rest.partition("+")
    key = _bytes(encoded)
    if not _is_name(name) or not re.fullmatch("[0-9a-fA-F]{8}", hash_) or not key:
        raise ValueError(what)
    if key[:1] != _ED25519 or len(key) != 33:
        raise ValueError(f"the key of {name} is not an Ed25519 key; no others are known")
    return name, bytes.fromhex(hash_), key


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(char.isspace() for char in name)


def _key_hash(name: str, key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + key).digest()[:4]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(encoded: str) -> bytes | None:
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
