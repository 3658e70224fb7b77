"""Remotes from the configuration."""

from __future__ import annotations

from mxart.config import Repository
from mxart.upstream.dial import Dialer
from mxart.upstream.observe import SILENT, Observer
from mxart.upstream.remote import Remote
from mxart.upstream.timing import USUAL_TIMEOUTS, Timeouts
from mxart.upstream.tls import ClientTls
from mxart.upstream.tokens import Credentials


class Remotes:
    """Makes the remote of each proxy repository; repositories with the same `ca_file` share its contexts."""

    def __init__(self, dialer: Dialer, *, observer: Observer = SILENT, timeouts: Timeouts = USUAL_TIMEOUTS) -> None:
        self._dialer = dialer
        self._observer = observer
        self._timeouts = timeouts
        self._tls: dict[str, ClientTls] = {}

    def build(self, repository: Repository) -> Remote:
        """Raises ConfigError. The secrets of `_file` keys are expected in their plain keys already."""
        tls = None
        if repository.ca_file:
            tls = self._tls.get(repository.ca_file)
            if tls is None:
                tls = self._tls[repository.ca_file] = ClientTls(repository.ca_file)
        return Remote(
            repository.name,
            repository.upstreams,
            self._dialer,
            proxy=repository.proxy,
            tls=tls,
            credentials=Credentials(repository.username, repository.password, repository.token),
            timeouts=self._timeouts,
            concurrency=repository.concurrency,
            observer=self._observer,
        )
