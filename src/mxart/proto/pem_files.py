"""Certificates and keys that the user brings, from files in PEM."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from mxart.errors import ConfigError

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey


def read_chain(path: str) -> tuple[x509.Certificate, ...]:
    """At least one certificate, in the file's order. Raises ConfigError."""
    try:
        return tuple(x509.load_pem_x509_certificates(_read(path)))
    except ValueError as error:
        raise ConfigError(f"{path} holds no certificates in PEM, the server's own first") from error


def read_key(path: str) -> PrivateKey:
    """Raises ConfigError."""
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise ConfigError(f"{path} is not a private key in PEM without a password") from error
    if not isinstance(key, PrivateKey):
        raise ConfigError(f"{path} is of a kind that TLS servers do not use; RSA and elliptic curves are fine")
    return key


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
