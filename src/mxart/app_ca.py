"""Which CA our certificates come from, and whether it serves for the configuration: at start, for `check`, for `ca`."""

from __future__ import annotations

import logging
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mxart.claims import ca_scope, claimed_hosts, own_names
from mxart.config import Config
from mxart.domains import registrable_domain
from mxart.errors import ConfigError
from mxart.proto.authority import Authority
from mxart.proto.certificates import Sessions
from mxart.proto.intermediate import open_intermediate
from mxart.proto.tls import TlsServer
from mxart.store.paths import DataPaths

log = logging.getLogger(__name__)

_CA_ENDS_SOON = timedelta(days=30)


def authority(config: Config) -> Authority:
    """The CA that our certificates come from: the user's, or the program's own, made at first use.

    Raises ConfigError.
    """
    if config.tls.ca_cert:
        return open_intermediate(config.tls.ca_cert, config.tls.ca_key)
    paths = DataPaths(config.data)
    paths.create()
    return Authority.open(paths.authority, ca_scope(config, socket.gethostname()))


def renew_authority(config: Config) -> tuple[Authority, Path | None]:
    """A new CA of the program's own, and where the old one is kept, if there was one. Raises ConfigError."""
    if config.tls.ca_cert:
        raise ConfigError(f"tls.ca_cert: {config.tls.ca_cert} is renewed by whoever made it; then reload the server")
    paths = DataPaths(config.data)
    paths.create()
    return Authority.renew(paths.authority, ca_scope(config, socket.gethostname()))


def check_certificates(config: Config) -> None:
    """Whether the certificates and the CA serve for the configuration; nothing is made. Raises ConfigError."""
    if config.tls.ca_cert:
        ca = open_intermediate(config.tls.ca_cert, config.tls.ca_key)
    else:
        found = Authority.find(DataPaths(config.data).authority)
        ca = found or Authority.ephemeral(ca_scope(config, socket.gethostname()))
    tls_server(config, ca, Sessions())


def tls_server(config: Config, ca: Authority, sessions: Sessions) -> TlsServer:
    """Our CA vouches for what the configuration claims, and for what this machine is called. Raises ConfigError."""
    claimed = claimed_hosts(config)
    ours = {name for name in (*claimed, *own_names(socket.gethostname())) if ca.permits(name)}
    tls = TlsServer(
        ca, ours.__contains__, certificates=config.tls.certificates, names=config.tls.names, sessions=sessions
    )
    if missing := tls.needs(claimed):
        why = _not_permitted(config, ca, missing)
        if any(listener.tls for listener in config.listeners):
            raise ConfigError(why)
        log.warning("%s", why)  # plain HTTP does without
    if ca.not_after < datetime.now(UTC) + _CA_ENDS_SOON:
        log.warning("the CA %s ends on %s", ca.certificate.subject.rfc4514_string(), f"{ca.not_after:%Y-%m-%d}")
    return tls


def _not_permitted(config: Config, ca: Authority, names: tuple[str, ...]) -> str:
    subject, shown = ca.certificate.subject.rfc4514_string(), ", ".join(names)
    if config.tls.ca_cert:
        return (
            f"tls.ca_cert: {subject} is not permitted to vouch for {shown}: bring one that is, or a certificate for "
            "the name in tls.certificates"
        )
    domains = ", ".join(f'"{domain}"' for domain in dict.fromkeys(map(registrable_domain, names)))
    return (
        f"the CA in {DataPaths(config.data).authority} is not permitted to vouch for {shown}: `mxart ca renew` makes "
        "one that is, and clients must trust it anew; list domains that are yours, and that more names will come "
        f"from, before: [tls] ca_domains = [{domains}]"
    )
