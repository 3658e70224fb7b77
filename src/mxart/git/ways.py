"""How git gets to a server: at the addresses that our own resolver tells, or by the proxy of the configuration.

git dials by itself.  The system's DNS may lead to this very server, and an upstream may have named a place that is not
for strangers; so it is told which addresses it may dial, and no name is left to be looked up again.
"""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import quote

from mxart.discreet import Discreet
from mxart.errors import UpstreamFailed
from mxart.git.url import GitUrl
from mxart.upstream.dial import Dialer
from mxart.upstream.failure import Trouble
from mxart.upstream.proxies import Proxy
from mxart.upstream.zones import zone_of


class Way(Discreet, frozen=True):
    """`addresses` of the host, empty where a proxy looks it up; `proxy` is that, as a URL that may hold a password."""

    hidden: ClassVar = frozenset({"proxy"})

    addresses: tuple[str, ...] = ()
    proxy: str = ""


class Ways:
    """Those of one repository; `proxy` as in its settings."""

    def __init__(self, dialer: Dialer, proxy: str | None = None) -> None:
        self._dialer = dialer
        self._ways = dialer.ways(proxy)

    async def to(self, url: GitUrl, named_by: str = "") -> Way:
        """The way to a repository's server.

        `named_by` is the host that named it; "" the configuration itself.  Raises UpstreamUnavailable where the name
        has no address, UpstreamFailed for a way that git cannot go, or where that host must not lead us.
        """
        chain = self._ways.to(url.host)
        if chain:
            return Way(proxy=_proxy(url, chain))
        try:
            addresses = tuple(await self._dialer.resolver.resolve(url.host))
            if named_by and named_by != url.host and self._dialer.resolver.fixed(url.host) is None:
                await self._judge(url, addresses, named_by)
        except Trouble as error:
            raise error.problem(str(url)) from None
        return Way(addresses)

    async def _judge(self, url: GitUrl, addresses: tuple[str, ...], named_by: str) -> None:
        reach = await self._dialer.reach(named_by, self._ways.to(named_by))
        wrong = next((address for address in addresses if zone_of(address) not in reach), None)
        if wrong is not None:
            raise UpstreamFailed(
                f"{named_by} leads to {url}, whose address {wrong} is {zone_of(wrong).value}: that is not followed;"
                " if it is meant, name it in `urls` or upstreams.resolve"
            )


def _proxy(url: GitUrl, chain: tuple[Proxy, ...]) -> str:
    """Raises UpstreamFailed."""
    if url.scheme == "ssh" or len(chain) > 1 or chain[0].scheme == "l4":
        what = (
            "ssh goes by no proxy" if url.scheme == "ssh" else "git goes by one http or socks5 proxy, and by no other"
        )
        way = ", ".join(map(str, chain))
        raise UpstreamFailed(f'{url}: {what}, and here is {way}: say upstreams.proxy_for."{url.host}" = ""')
    (proxy,) = chain
    # The proxy's resolver answers for the name, as everywhere.
    scheme = "socks5h" if proxy.scheme == "socks5" else "http"
    login = f"{quote(proxy.username, safe='')}:{quote(proxy.password, safe='')}@" if proxy.username else ""
    host = f"[{proxy.host}]" if ":" in proxy.host else proxy.host
    return f"{scheme}://{login}{host}:{proxy.port}"
