"""The keys that sign tokens, ready to sign and to verify. The library for it takes a while to import."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from joserfc.jwk import ECKey

from mxart.access.key_files import KeyFiles, new_key


class Keys:
    """At least one key, the one that signs first. Immutable."""

    def __init__(self, issuer: str, keys: Sequence[ECKey]) -> None:
        self.issuer = issuer
        self.signing = keys[0]
        self._by_id = {key.thumbprint(): key for key in keys}

    @classmethod
    def load(cls, files: KeyFiles) -> Keys:
        """Those of files that were read."""
        return cls(files.issuer, [ECKey.import_key(data) for data in files.keys])

    @classmethod
    def open(cls, directory: Path, *, now: float | None = None) -> Keys:
        """Those of a directory (KeyFiles.open). Raises ConfigError."""
        return cls.load(KeyFiles.open(directory, now=now))

    @classmethod
    def ephemeral(cls, issuer: str = "mxart-test") -> Keys:
        """Keys that live in memory only."""
        return cls(issuer, [ECKey.import_key(new_key())])

    @property
    def signing_id(self) -> str:
        """What names the signing key in a token (`kid`): its thumbprint (RFC 7638)."""
        return self.signing.thumbprint()

    def find(self, key_id: str) -> ECKey | None:
        """The key of that name, if it may still verify."""
        return self._by_id.get(key_id)
