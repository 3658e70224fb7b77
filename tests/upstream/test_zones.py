"""Where an upstream may lead us: never from the Internet into the site, this machine, or the cloud's metadata."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio

from kit.proxies import FakeNameserver, connect_proxy, fake_nameserver, forwarder, socks5_proxy
from kit.upstream import FakeUpstream, challenge, fake_upstream, redirect, say
from mxart.config import Upstreams
from mxart.errors import UpstreamFailed
from mxart.upstream.base import Ask
from mxart.upstream.dial import Dialer
from mxart.upstream.remote import Remote
from mxart.upstream.timing import Patience
from mxart.upstream.zones import Zone, reach_of, zone_of

PUBLIC = "9.9.9.9"
ASK = Ask("GET", "v2/a/blobs/1")
METADATA = "169.254.169.254"


@pytest.mark.parametrize(
    ("address", "zone"),
    [
        ("9.9.9.9", Zone.PUBLIC), ("2620:fe::fe", Zone.PUBLIC), ("64:ff9b::9.9.9.9", Zone.PUBLIC),
        ("10.0.0.1", Zone.PRIVATE), ("172.31.0.1", Zone.PRIVATE), ("192.168.1.1", Zone.PRIVATE),
        ("100.64.0.1", Zone.PRIVATE), ("198.18.0.1", Zone.PRIVATE), ("fd00:ec2::254", Zone.PRIVATE),
        ("fec0::2", Zone.PRIVATE), ("::7f00:1", Zone.PRIVATE), ("::ffff:0:7f00:1", Zone.PRIVATE),
        ("::ffff:10.0.0.1", Zone.PRIVATE), ("64:ff9b::10.0.0.1", Zone.PRIVATE), ("2002:a00:1::1", Zone.PRIVATE),
        ("169.254.169.254", Zone.LINK), ("fe80::1", Zone.LINK), ("::ffff:169.254.169.254", Zone.LINK),
        ("64:ff9b:1::a9fe:a9fe", Zone.LINK), ("2002:a9fe:a9fe::", Zone.LINK),
        ("127.0.0.1", Zone.LOOPBACK), ("127.8.9.1", Zone.LOOPBACK), ("::1", Zone.LOOPBACK), ("0.0.0.0", Zone.LOOPBACK),
        ("::", Zone.LOOPBACK), ("::ffff:127.0.0.1", Zone.LOOPBACK), ("64:ff9b::7f00:1", Zone.LOOPBACK),
        ("224.0.0.1", Zone.NOWHERE), ("ff02::1", Zone.NOWHERE), ("255.255.255.255", Zone.NOWHERE),
    ],
)  # fmt: skip
def test_the_zone_of_an_address(address: str, zone: Zone) -> None:
    assert zone_of(address) is zone


def test_a_server_leads_where_each_of_its_addresses_might() -> None:
    assert reach_of(["9.9.9.9"]) == {Zone.PUBLIC}
    assert reach_of(["10.0.0.1", "fd00::1"]) == {Zone.PUBLIC, Zone.PRIVATE}
    assert reach_of(["10.0.0.1", "9.9.9.9"]) == {Zone.PUBLIC}
    assert reach_of(["127.0.0.1", "::1"]) == {Zone.PUBLIC, Zone.PRIVATE, Zone.LOOPBACK}
    assert Zone.LINK not in reach_of(["10.0.0.1"]) | reach_of(["127.0.0.1"])
    assert Zone.LINK in reach_of(["fe80::1"])
    assert reach_of([]) == {Zone.PUBLIC}


@dataclass
class World:
    """An upstream that is, for all that its name says, at `address`, and a place inside that it leads to."""

    outside: FakeUpstream
    inside: FakeUpstream
    dns: FakeNameserver
    upstreams: Upstreams

    async def pull(self, **more: object) -> bytes:
        upstreams = Upstreams(
            **{name: more.get(name, getattr(self.upstreams, name)) for name in Upstreams.__struct_fields__}  # type: ignore[arg-type]
        )
        dialer = Dialer(upstreams)
        hub = Remote("hub", ["http://registry.test"], dialer, patience=Patience(rounds=1))
        try:
            with trio.fail_after(10):
                async with hub.open(ASK) as reply:
                    return await reply.receive()
        finally:
            await hub.aclose()


@asynccontextmanager
async def world(address: str = PUBLIC) -> AsyncIterator[World]:
    async with (
        fake_upstream() as outside,
        fake_upstream() as inside,
        fake_nameserver() as dns,
        forwarder("127.0.0.1", outside.port) as way,
    ):
        inside.on("/secret", say(b"inside"))
        inside.on("/token", say(json.dumps({"token": "good"})))
        upstreams = Upstreams(
            resolve={"registry.test": address},
            nameservers=(f"127.0.0.1:{dns.port}",),
            proxy_for={"registry.test": f"l4://127.0.0.1:{way.port}"},
        )
        yield World(outside, inside, dns, upstreams)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "a.localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "127.1.2.3"]
)
async def test_an_upstream_of_the_internet_does_not_lead_to_this_machine(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with world() as it:
        it.dns.names["localhost"] = it.dns.names["a.localhost"] = ["127.0.0.1"]
        it.outside.on("/v2/a/blobs/1", redirect(f"http://{host}:{it.inside.port}/secret"))
        with caplog.at_level(logging.WARNING), pytest.raises(UpstreamFailed, match="is loopback, where an upstream"):
            await it.pull()
        assert "which is loopback: refused" in caplog.text
        assert it.inside.connections == 0


@pytest.mark.parametrize(
    "host", [METADATA, "10.0.0.1", "[fe80::1]", "[fd00:ec2::254]", "192.168.0.1", "[64:ff9b::a9fe:a9fe]"]
)
async def test_nor_to_the_site_nor_to_the_clouds_metadata_also_not_through_a_proxy(host: str) -> None:
    async with world() as it, connect_proxy() as http, socks5_proxy() as socks:
        it.outside.on("/v2/a/blobs/1", redirect(f"http://{host}/latest/meta-data/"))
        for proxy in ("", f"http://127.0.0.1:{http.port}", f"socks5://127.0.0.1:{socks.port}"):
            with pytest.raises(UpstreamFailed, match="where an upstream outside must not lead us"):
                await it.pull(proxy=proxy)
        assert http.asked == socks.asked == []


async def test_a_name_that_means_another_address_each_time_is_judged_by_the_one_that_is_dialled() -> None:
    async with world() as it:
        it.dns.names["rebind.test"] = [METADATA, "127.0.0.1", "::1"]
        it.outside.on("/v2/a/blobs/1", redirect(f"http://rebind.test:{it.inside.port}/secret"))
        with pytest.raises(UpstreamFailed, match=r"rebind\.test \(.*must not lead us"):
            await it.pull()
        assert it.inside.connections == 0


async def test_a_token_server_inside_is_not_asked_for_an_upstream_outside() -> None:
    async with world() as it:
        it.dns.names["auth.registry.test"] = ["127.0.0.1"]
        realm = f"http://auth.registry.test:{it.inside.port}/token"
        it.outside.on("/v2/a/blobs/1", challenge(f'Bearer realm="{realm}",service="s"'))
        with pytest.raises(UpstreamFailed, match="must not lead us"):
            await it.pull()
        assert it.inside.connections == 0


@pytest.mark.parametrize("named", ["resolve", "proxy_for"])
async def test_what_the_configuration_names_is_meant(named: str) -> None:
    async with world() as it:
        it.dns.names["minio.test"] = ["127.0.0.1"]
        it.outside.on("/v2/a/blobs/1", redirect(f"http://minio.test:{it.inside.port}/secret"))
        entry = {"minio.test": "127.0.0.1"} if named == "resolve" else {"minio.test": "", **it.upstreams.proxy_for}
        assert await it.pull(**{named: {**getattr(it.upstreams, named), **entry}}) == b"inside"


async def test_a_domain_that_is_reached_without_the_proxy_is_not_one_that_anybody_may_lead_to() -> None:
    """ "*.corp.example" = "" is how all that is inside is named; it is what must be kept from those outside."""
    async with world() as it:
        it.dns.names["vault.corp.test"] = ["127.0.0.1"]
        it.outside.on("/v2/a/blobs/1", redirect(f"http://vault.corp.test:{it.inside.port}/secret"))
        with pytest.raises(UpstreamFailed, match="where an upstream outside must not lead us"):
            await it.pull(proxy_for={"*.corp.test": "", **it.upstreams.proxy_for})
        assert it.inside.connections == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.9"])
async def test_an_upstream_inside_may_lead_to_others_inside(address: str) -> None:
    async with world(address) as it:
        it.outside.on("/v2/a/blobs/1", redirect(f"http://127.0.0.1:{it.inside.port}/secret"))
        assert await it.pull() == b"inside"


async def test_a_redirect_to_this_very_server_is_a_loop_by_address_too() -> None:
    async with world("127.0.0.1") as it:
        dialer = Dialer(it.upstreams)
        dialer.listening([("127.0.0.1", it.inside.port)])
        it.outside.on("/v2/a/blobs/1", redirect(f"http://127.0.0.1:{it.inside.port}/secret"))
        hub = Remote("hub", ["http://registry.test"], dialer, patience=Patience(rounds=1))
        with pytest.raises(UpstreamFailed, match=r"loop: 127\.0\.0\.1 .*resolves to this server"):
            async with hub.open(ASK):
                pass
        await hub.aclose()


async def test_behind_a_proxy_a_name_is_the_proxys_to_resolve() -> None:
    async with world() as it, connect_proxy() as proxy:
        proxy.names["cdn.test"] = "127.0.0.1"
        it.outside.on("/v2/a/blobs/1", redirect(f"http://cdn.test:{it.inside.port}/secret"))
        assert await it.pull(proxy=f"http://127.0.0.1:{proxy.port}") == b"inside"
        assert proxy.asked == [("cdn.test", it.inside.port)]


@pytest.mark.parametrize("host", ["2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "10.1", "127.1"])
async def test_an_address_in_an_old_notation_is_one_also_behind_a_proxy(host: str) -> None:
    """inet_aton(3) reads them, and so does whoever resolves by the C library, as proxies do."""
    async with world() as it, connect_proxy() as http, socks5_proxy() as socks:
        it.outside.on("/v2/a/blobs/1", redirect(f"http://{host}:{it.inside.port}/secret"))
        for proxy in (f"http://127.0.0.1:{http.port}", f"socks5://127.0.0.1:{socks.port}"):
            with pytest.raises(UpstreamFailed, match="where an upstream outside must not lead us"):
                await it.pull(proxy=proxy)
        assert http.asked == socks.asked == []


async def test_the_place_of_an_upload_is_no_way_inside() -> None:
    async with world() as it:
        place = f"http://127.0.0.1:{it.inside.port}/secret"
        it.outside.on("/v2/a/blobs/uploads/", say(status=202, headers={"location": place}))
        hub = Remote("hub", ["http://registry.test"], Dialer(it.upstreams), patience=Patience(rounds=1))
        async with hub.open(Ask("POST", "v2/a/blobs/uploads/")) as reply:
            assert reply.located == place
        with pytest.raises(UpstreamFailed, match="is loopback, where an upstream outside must not lead us"):
            async with hub.open(Ask("PATCH", "", url=place, body=b"bytes", once=True)):
                raise AssertionError
        assert it.inside.connections == 0
        await hub.aclose()
