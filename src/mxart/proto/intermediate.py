"""An intermediate CA of the user's, to mint with instead of the program's own: read and judged before it is used.

What a client would refuse later, for each connection and in its own words, is refused here once (RFC 5280
sections 4.2.1.3, 4.2.1.9, 4.2.1.12, 6.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID

from mxart.errors import ConfigError
from mxart.proto.authority import Authority, IssuerKey
from mxart.proto.pem_files import read_chain, read_key

_SERVERS = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)


def open_intermediate(cert: str, key: str, *, now: datetime | None = None) -> Authority:
    """The CA of two files: its certificate first, then those above it; and its key. Raises ConfigError."""
    chain, private = read_chain(cert), read_key(key)
    if not isinstance(private, IssuerKey):
        raise ConfigError(f"{key}: a CA here has an RSA or an elliptic curve key, which every client can check")
    if private.public_key() != chain[0].public_key():
        raise ConfigError(f"{cert} and {key} cannot be used together: is the key another's?")
    for depth, certificate in enumerate(chain):
        why = _unfit(certificate, depth, datetime.now(UTC) if now is None else now)
        if why is not None:
            raise ConfigError(f"{cert}: {certificate.subject.rfc4514_string() or 'a certificate'} {why}")
    _check_order(cert, chain)
    return Authority(chain[0], private, chain[1:])


def _unfit(certificate: x509.Certificate, below: int, now: datetime) -> str | None:
    """Why it cannot be a CA with so many others below it."""
    if now >= certificate.not_valid_after_utc:
        return f"has expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if now < certificate.not_valid_before_utc:
        return f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    try:
        extensions = certificate.extensions
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        return f"has extensions that cannot be read: {error}"
    try:
        basic = extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return "is not a CA's: it has no basicConstraints"
    if not basic.ca:
        return "is not a CA's: bring the one that issues, not a server's"
    if basic.path_length is not None and basic.path_length < below:
        return f"allows {basic.path_length} CAs below it, and there are {below}"
    try:
        if not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign:
            return "may not sign certificates (keyUsage lacks keyCertSign)"
    except x509.ExtensionNotFound:
        pass
    try:
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if not any(purpose in _SERVERS for purpose in purposes):
            return "is not for TLS servers (extendedKeyUsage lacks serverAuth)"
    except x509.ExtensionNotFound:
        pass
    return None


def _check_order(file: str, chain: Sequence[x509.Certificate]) -> None:
    for lower, upper in pairwise(chain):
        try:
            lower.verify_directly_issued_by(upper)
        except (ValueError, TypeError, InvalidSignature):
            raise ConfigError(
                f"{file}: {lower.subject.rfc4514_string()} was not issued by {upper.subject.rfc4514_string()}, which "
                "follows it: the CA's own certificate comes first, then the one that issued it, and so on"
            ) from None
