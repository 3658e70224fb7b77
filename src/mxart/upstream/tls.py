"""Whom we believe: the TLS contexts for other servers. Verification is always on."""

from __future__ import annotations

import ssl
from functools import cached_property

from mxart.errors import ConfigError


class ClientTls:
    """Two contexts with the same trust, that differ in what they offer by ALPN (RFC 7301).

    `ca_file` (PEM) replaces the system's certificates: whoever names his CA means that one.  Raises
    ConfigError when it cannot be used.  Reading the system's takes tens of milliseconds: share it; it
    happens at first use, so that a server is ready before.  `ours` is the certificate of this server's own CA (PEM).
    """

    def __init__(self, ca_file: str = "", ours: bytes = b"") -> None:
        self._ca_file = ca_file
        self._ours = ours
        if ca_file:
            _ = self.files, self.documents

    @cached_property
    def files(self) -> ssl.SSLContext:
        """For large files, which HTTP/1.1 carries best."""
        return _context(self._ca_file, ["http/1.1"])

    @cached_property
    def documents(self) -> ssl.SSLContext:
        """For everything else."""
        return _context(self._ca_file, ["h2", "http/1.1"])

    @cached_property
    def ourselves(self) -> ssl.SSLContext | None:
        """Believes nobody but this server, to find out whether it is that which answers; None: unknown."""
        if not self._ours:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it may be an intermediate
        context.load_verify_locations(cadata=self._ours.decode("ascii", "replace"))
        return context


def _context(ca_file: str, protocols: list[str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except ssl.SSLError as error:
        raise ConfigError(
            f"ca_file {ca_file!r} holds no certificate that can be read ({error.reason}); PEM is wanted"
        ) from None
    except OSError as error:
        raise ConfigError(f"ca_file {ca_file!r} cannot be read: {error.strerror}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(protocols)
    return context
