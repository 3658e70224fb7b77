"""Builds the parts of a worker from the configuration: stores, upstreams, repositories, routes."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from mxart.app_space import keep_space, quotas_of
from mxart.build_trust import Trust
from mxart.config import Config
from mxart.config import Repository as Settings
from mxart.errors import Problem
from mxart.metrics import Metrics
from mxart.repos.base import Format, Repository
from mxart.repos.behind import Behind
from mxart.repos.go.format import Go
from mxart.repos.group import Group, building_order
from mxart.repos.local import Local
from mxart.repos.maven.format import Maven
from mxart.repos.oci.format import Oci
from mxart.repos.oci.media import is_manifest
from mxart.repos.oci.names import is_docker_hub
from mxart.repos.own_keys import OwnKey, open_log
from mxart.repos.own_sums import OwnSums
from mxart.repos.owning import OwningProxy, owning
from mxart.repos.proxy import Proxy
from mxart.repos.relinking import relink
from mxart.repos.remote import Remote as Asking
from mxart.repos.remote import Rules, Verifier
from mxart.repos.sources import Way
from mxart.repos.stock import Memory, Shelf, Stock
from mxart.repos.sums import NoSums, Sums
from mxart.repos.upstream_sums import UpstreamSums
from mxart.server.index import Index
from mxart.server.metrics import UpstreamObserver
from mxart.server.routes import Mount, Routes
from mxart.store.base import Origin
from mxart.store.blobs import DiskBlobs
from mxart.store.catalog import SqliteCatalog
from mxart.store.changing import SqliteChanges
from mxart.store.contents import Contents
from mxart.store.generation import Generation
from mxart.store.housekeeping import keep_house
from mxart.store.paths import DataPaths, GitPaths, stores
from mxart.store.publications import SqlitePublications
from mxart.store.transfers import DiskTransfers
from mxart.store.turns import FileTurns
from mxart.store.uploads import DiskUploads
from mxart.upstream.base import Ask
from mxart.upstream.dial import Dialer
from mxart.upstream.download import Download
from mxart.upstream.remote import Remote
from mxart.upstream.timing import Timeouts
from mxart.upstream.tls import ClientTls
from mxart.upstream.tokens import Credentials

if TYPE_CHECKING:  # whoever has nothing in git need not wait for it at every start
    from mxart.repos.vcs.hosts import Hosts

log = logging.getLogger(__name__)


class Parts:
    """Everything that answers requests in one worker. Built in the worker; `start` first, `stop` last."""

    def __init__(
        self,
        config: Config,
        trust: Trust,
        generation: Generation,
        metrics: Metrics,
        dialer: Dialer,
        *,
        pseudonym: str = "",
        own_key: OwnKey | None = None,
    ) -> None:
        """`own_key` is what our own checksum database signs with; None: there is none."""
        self._config = config
        self._trust = trust
        self._pseudonym = pseudonym
        self._catalog = SqliteCatalog(DataPaths(config.data).catalog, generation)
        self._publications = SqlitePublications(self._catalog, quotas_of(config))
        self._changes = SqliteChanges(self._catalog, quotas_of(config))
        self.contents = Contents(DataPaths(config.data).catalog)
        self._turns = FileTurns(DataPaths(config.data).turns)
        self._paths = stores(config)
        self._blobs = {name: DiskBlobs(paths) for name, paths in self._paths.items()}
        self._transfers = {name: DiskTransfers(paths, self._blobs[name]) for name, paths in self._paths.items()}
        self._uploads = {name: DiskUploads(paths) for name, paths in self._paths.items()}
        self._observer = UpstreamObserver(metrics)
        self._memory = Memory()
        self._behind = Behind()
        self._remotes: list[Remote | Hosts] = []
        self.dialer = dialer
        place = DataPaths(config.data).sumdb_log
        self.own_sums = OwnSums(own_key, open_log(place)) if own_key is not None else None
        self.repositories: dict[str, Repository] = {}
        self.indexes: dict[str, Index] = {}
        self.routes = Routes(
            (
                Mount(name, settings.format, settings.hosts, settings.path, index=bool(settings.index))
                for name, settings in config.repositories.items()
            ),
            config.token_server.hosts,
        )

    async def start(self, nursery: trio.Nursery) -> None:
        """Begin the background work in a nursery of the worker's."""
        for transfers in self._transfers.values():
            await nursery.start(transfers.run)
        nursery.start_soon(keep_house, self._catalog, tuple(self._paths.values()))
        settings = self._config.repositories
        groups = {name: item.members for name, item in settings.items() if item.kind == "group"}
        for name, item in settings.items():
            if name not in groups:
                self.repositories[name] = self._single(name, item, nursery)
        for name in building_order(groups, self.repositories):
            members = [self.repositories[member] for member in groups[name]]
            self.repositories[name] = Group(name, _format(settings[name]), members, settings[name].targets)
        if self.own_sums is not None:
            self.own_sums.serve(self.repositories)
        nursery.start_soon(self._keep_space)
        if self._trust.vcs:
            from mxart.git.tidying import keep_tidy  # noqa: PLC0415  # few have git

            nursery.start_soon(keep_tidy, GitPaths(self._config.data))

    async def _keep_space(self) -> None:
        """Nothing is evicted before it is known what needs what."""
        try:
            await self._relink()
        except (Problem, OSError) as error:
            log.warning("what older caches need is noted at the next start: %s", error)
        await keep_space(self._config, self._catalog)

    async def _relink(self) -> None:
        """Once in the life of a data directory. Raises Problem, OSError."""
        linked = DataPaths(self._config.data).linked
        if linked.exists():
            return
        for name, settings in self._config.repositories.items():
            if settings.kind == "proxy" and settings.format == "oci":
                done = await relink(
                    partial(self._catalog.unlinked, name), is_manifest, _format(settings), self._stock(settings)
                )
                log.info(
                    "%s: of %d manifests that were kept by an older program it is noted what they need", name, done
                )
        linked.touch(0o600)

    def _single(self, name: str, settings: Settings, nursery: trio.Nursery) -> Repository:
        stock = self._stock(settings)
        modules = owning(name, self._trust.modules.get(name))
        if settings.kind == "local":
            return Local(
                name,
                self._format_of(settings),
                stock,
                lends=self._lends,
                max_upload=self._config.limits.max_body,
                staging=settings.staging,
                registrar=self.own_sums if settings.format == "go" else None,
                reserved=modules,
            )
        if settings.kind == "vcs":
            return self._vcs(settings, stock, nursery)
        remote = self._remote(name, settings, settings.upstreams, self._trust.credentials[name])
        if settings.index:
            index = self._remote(name, settings, (settings.index,), Credentials())
            # A caller's credentials are for the upstream and for nobody else.
            relays = settings.relay != "never" and index.site == remote.site
            self.indexes[name] = Index(index, relays=relays, offline=settings.offline)

        def origin(ask: Ask) -> Origin:
            return Download(remote, ask)

        rules = Rules(
            ttl=settings.ttl,
            negative_ttl=settings.negative_ttl,
            offline=settings.offline,
            relay=settings.relay,
        )
        form = _format(settings)
        asking = Asking(name, form, remote, stock, Shelf(name, form, stock), nursery, origin, rules)
        verifier = self._verifier(settings, asking)
        if modules is not None:
            return OwningProxy(
                modules, name, form, remote, stock, nursery=nursery, origin=origin, rules=rules, verifier=verifier
            )
        return Proxy(
            name,
            form,
            remote,
            stock,
            nursery=nursery,
            origin=origin,
            rules=rules,
            verifier=verifier,
            closed=self._trust.closed.get(name),
        )

    def _verifier(self, settings: Settings, asking: Asking) -> Verifier | None:
        if settings.format == "maven":
            return UpstreamSums(asking)
        return self._sums(settings, asking) if settings.format == "go" else None

    def _sums(self, settings: Settings, asking: Asking) -> Verifier:
        database, private = self._trust.sums[asking.name]
        if database is None:
            return NoSums()
        key = database.key
        direct = self._remote(asking.name, settings, (database.url or f"https://{key.name}",), Credentials())
        ways = [] if database.url else [Way(asking, f"sumdb/{key.name}/")]
        ways.append(Way(replace(asking, upstream=direct), ""))
        sums = Sums(key, private, asking, ways)
        if self.own_sums is not None:
            self.own_sums.believe(asking.name, sums)
        return sums

    def _stock(self, settings: Settings) -> Stock:
        return Stock(
            self._blobs[settings.store],
            self._transfers[settings.store],
            self._catalog,
            self._publications,
            self._changes,
            self._uploads[settings.store],
            self._turns,
            self._memory,
            self._behind,
        )

    def _format_of(self, settings: Settings) -> Format:
        """That of a local repository: of Maven's it knows who takes what this one refuses."""
        if settings.format != "maven":
            return _format(settings)
        others = (
            item for item in self._config.repositories.values() if item.format == "maven" and item.kind == "local"
        )
        elsewhere = tuple(item.name for item in others if item.name != settings.name and item.policy != settings.policy)
        return Maven(settings.policy, elsewhere)

    def _lends(self, repository: str) -> bool:
        """Whether its blobs may be mounted elsewhere: what upstream shows to some only stays with its proxy."""
        settings = self._config.repositories.get(repository)
        return settings is not None and (settings.kind == "local" or settings.relay == "never")

    def _vcs(self, settings: Settings, stock: Stock, nursery: trio.Nursery) -> Repository:
        from mxart.build_vcs import make_vcs  # noqa: PLC0415  # few have git

        trust = self._trust.vcs[settings.name]

        def make(url: str, tls: ClientTls, credentials: Credentials) -> Remote:
            return self._asking(settings.name, settings, (url,), credentials, tls)

        made, hosts = make_vcs(self._config, settings, trust, stock, self.dialer, nursery, make)
        self._remotes.append(hosts)
        return made

    def _remote(self, name: str, settings: Settings, mirrors: Sequence[str], credentials: Credentials) -> Remote:
        remote = self._asking(name, settings, mirrors, credentials, self._trust.tls[name])
        self._remotes.append(remote)
        return remote

    def _asking(
        self, name: str, settings: Settings, mirrors: Sequence[str], credentials: Credentials, tls: ClientTls
    ) -> Remote:
        upstreams = self._config.upstreams
        return Remote(
            name,
            mirrors,
            self.dialer,
            proxy=settings.proxy,
            tls=tls,
            credentials=credentials,
            timeouts=Timeouts(
                connect=upstreams.connect_seconds,
                first_byte=upstreams.first_byte_seconds,
                idle=upstreams.idle_seconds,
            ),
            concurrency=settings.concurrency,
            observer=self._observer,
            pseudonym=self._pseudonym,
        )

    def sweep(self) -> None:
        """Close upstream connections that nobody uses any more. Now and then; cheap."""
        for remote in self._remotes:
            remote.sweep()

    async def stop(self, seconds: float) -> None:
        """Let downloads finish, and what was answered be kept, for so long, then close everything.

        Cancelled: closes at once.
        """
        try:
            async with trio.open_nursery() as nursery:
                for transfers in self._transfers.values():
                    nursery.start_soon(transfers.stop, seconds)
                with trio.move_on_after(seconds):
                    await self._behind.settle()
        finally:
            for remote in self._remotes:
                await remote.aclose()
            self.contents.close()
            if self.own_sums is not None:
                self.own_sums.close()
            await self._catalog.aclose(time.time())


def _format(settings: Settings) -> Format:
    if settings.format == "go":
        return Go()
    if settings.format == "maven":
        return Maven()
    # Docker Hub by its name, whichever mirror the bytes come from.
    hosts = sorted((f"https://{host}" for host in settings.hosts), key=lambda url: not is_docker_hub((url,)))
    return Oci((*hosts, *settings.upstreams))
