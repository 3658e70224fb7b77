"""Every nesting of http, socks5 and l4 proxies, one to three deep, with real proxies: all that a pull needs goes there.

Each is gone by a pull that is challenged (so the token server is asked), authorised, and redirected to another host,
over TLS that is verified by name; and by a raw tunnel.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trustme

from kit.chains import CHAINS, Chain, Chains, chains, host, label, microsocks, station, tinyproxy
from kit.http import get
from kit.repos import manifest
from kit.servers import free_port, mxart, wait_until
from kit.upstream import FakeUpstream, Seen, challenge, fake_upstream, redirect, say
from mxart.config import Upstreams
from mxart.errors import UpstreamFailed
from mxart.upstream.base import Ask
from mxart.upstream.dial import Dialer
from mxart.upstream.remote import Remote
from mxart.upstream.timing import Patience
from mxart.upstream.tls import ClientTls

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ASK = Ask("GET", "v2/a/blobs/1", scope="repository:a:pull")
DOCUMENT = Ask("GET", "v2/a/manifests/1", scope="repository:a:pull")


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def leaf(ca: trustme.CA) -> trustme.LeafCert:
    return ca.issue_cert(*(f"*.{label(chain)}.far.test" for chain in CHAINS), "::1")


@pytest.fixture(scope="module")
def tls(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> ClientTls:
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(file))
    return ClientTls(str(file))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chains]:
    with chains(tmp_path_factory.mktemp("chains"), free_port()) as made:
        yield made


def registry(up: FakeUpstream, chain: Chain) -> None:
    """A registry that wants a token, and keeps its blobs elsewhere."""
    auth, cdn = (f"https://{host(chain, what)}:{up.port}" for what in ("auth", "cdn"))

    def guarded(seen: Seen, answer: object) -> object:
        if seen.headers.get("authorization") == "Bearer good":
            return answer
        return challenge(f'Bearer realm="{auth}/token",service="s",scope="repository:a:pull"')

    up.on("/token", say(json.dumps({"token": "good"})))
    up.on("/v2/a/blobs/1", lambda seen: guarded(seen, redirect(f"{cdn}/1?signature=x")))
    up.on("/v2/a/manifests/1", lambda seen: guarded(seen, say(b"manifest")))
    up.on("/1", say(b"layer"))


async def pull(remote: Remote, ask: Ask) -> bytes:
    with trio.fail_after(20):
        async with remote.open(ask) as reply:
            return await reply.receive()


def gone(running: Chains, chain: Chain, before: list[int]) -> None:
    """What the logs say since then shows every station, in order, with the name of what came next."""
    names = [station(chain, n) for n in range(len(chain))]
    for n, (scheme, beyond) in enumerate(zip(chain, [*names[1:], host(chain)], strict=True)):
        wanted = names[n] if scheme == "l4" else beyond  # l4 logs its own name: where it leads to is configured

        def told(n: int = n, wanted: str = wanted) -> bool | None:
            return wanted in running.asked(chain, n)[before[n] :] or None

        wait_until(told, f"station {n} is asked for {wanted}")


def marks(running: Chains, chain: Chain) -> list[int]:
    """How long the stations' logs are."""
    return [len(running.asked(chain, n)) for n in range(len(chain))]


@pytest.mark.parametrize("chain", CHAINS, ids=label)
async def test_a_pull_with_its_token_and_its_redirect_goes_through_every_nesting(
    chain: Chain, running: Chains, leaf: trustme.LeafCert, tls: ClientTls
) -> None:
    before = marks(running, chain)
    async with fake_upstream(tls=leaf, port=running.port) as up:
        registry(up, chain)
        dialer = Dialer(Upstreams(proxy=running.proxy(chain)))
        hub = Remote("hub", [f"https://{host(chain)}:{up.port}"], dialer, tls=tls, patience=Patience(rounds=1))
        assert await pull(hub, ASK) == b"layer"
        assert await pull(hub, DOCUMENT) == b"manifest"
        await hub.aclose()
        hosts = [seen.headers["host"].partition(".")[0] for seen in up.requests]
        assert hosts == ["registry", "auth", "registry", "cdn", "registry"]
    gone(running, chain, before)


@pytest.mark.parametrize("chain", CHAINS, ids=label)
async def test_a_tunnel_goes_through_every_nesting_and_a_host_may_have_its_own(
    chain: Chain, running: Chains, leaf: trustme.LeafCert, ca: trustme.CA
) -> None:
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    ca.configure_trust(context)
    before = marks(running, chain)
    async with fake_upstream(tls=leaf, port=running.port) as up:
        up.on("/", say(b"through"))
        upstreams = Upstreams(
            proxy="http://127.0.0.1:1", proxy_for={f"*.{label(chain)}.far.test": running.proxy(chain)}
        )
        with trio.fail_after(20):
            sock = trio.socket.from_stdlib_socket(await Dialer(upstreams).connect_tcp(host(chain), up.port))
            stream = trio.SSLStream(trio.SocketStream(sock), context, server_hostname=host(chain))
            await stream.send_all(f"GET / HTTP/1.1\r\nHost: {host(chain)}\r\n\r\n".encode())
            answer = b""
            while not answer.endswith(b"through"):
                answer += await stream.receive_some()
            await trio.aclose_forcefully(stream)
    gone(running, chain, before)


async def test_the_program_goes_by_host_then_by_repository_then_by_the_way_for_all(
    running: Chains, leaf: trustme.LeafCert, ca: trustme.CA, tmp_path: Path
) -> None:
    ways: dict[str, Chain] = {
        "host": ("http", "socks5", "l4"),
        "repository": ("socks5", "http"),
        "all": ("l4", "http", "socks5"),
    }
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with fake_upstream(tls=leaf, port=running.port) as up:
        up.on("/v2/a/manifests/1", say(manifest("one"), headers={"content-type": MANIFEST}))
        lines = [
            "[upstreams]",
            f'proxy = "{running.proxy(ways["all"])}"',
            f'proxy_for = {{ "*.{label(ways["host"])}.far.test" = "{running.proxy(ways["host"])}" }}',
        ]
        for name, chain in ways.items():
            lines += [
                f"[repository.{name}]",
                'format = "oci"',
                'kind = "proxy"',
                f'path = "/{name}"',
                f'upstream = "https://{host(chain)}:{up.port}"',
                f'ca_file = "{tmp_path}/ca.pem"',
            ]
            if name != "all":
                lines.append(f'proxy = "{running.proxy(ways["repository"])}"')
        before = {name: marks(running, chain) for name, chain in ways.items()}
        with mxart(tmp_path, "\n".join(lines)) as server:
            for name in ways:
                with trio.fail_after(20):
                    answer = await get(server.port, f"/v2/{name}/a/manifests/1")
                assert (answer.status, answer.body) == (200, manifest("one")), answer.body
    for name, chain in ways.items():
        gone(running, chain, before[name])


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_a_proxy_and_an_upstream_may_both_be_ipv6_literals(
    kind: str, tmp_path: Path, leaf: trustme.LeafCert, tls: ClientTls
) -> None:
    port = free_port()
    service = (tinyproxy if kind == "http" else microsocks)(tmp_path / kind, port, listen="::1")
    try:
        service.wait_for_port(port, "::1")
        async with fake_upstream(tls=leaf, listen="::1") as up:
            up.on("/v2/a/blobs/1", say(b"layer"))
            dialer = Dialer(Upstreams(proxy=f"{kind}://[::1]:{port}"))
            hub = Remote("hub", [f"https://[::1]:{up.port}"], dialer, tls=tls, patience=Patience(rounds=1))
            assert await pull(hub, ASK) == b"layer"
            assert up.requests[0].headers["host"] == f"[::1]:{up.port}"
            await hub.aclose()
    finally:
        service.kill()


async def test_an_l4_proxy_that_leads_somewhere_else_is_found_out_by_the_certificate(
    running: Chains, leaf: trustme.LeafCert, tls: ClientTls
) -> None:
    chain = ("l4",)
    async with fake_upstream(tls=leaf, port=running.port) as up:
        dialer = Dialer(Upstreams(proxy=running.proxy(chain)))
        hub = Remote("hub", [f"https://registry.elsewhere.test:{up.port}"], dialer, tls=tls)
        with pytest.raises(UpstreamFailed, match=r"certificate is not trusted.*registry\.elsewhere\.test"):
            await pull(hub, ASK)
        assert up.requests == []


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_wrong_credentials_for_a_real_proxy_are_told_without_showing_them(kind: str, running: Chains) -> None:
    chain = ("l4", kind)
    proxy = running.proxy(chain).replace("s3cr3t", "wr0ng")
    hub = Remote("hub", ["http://registry.test"], Dialer(Upstreams(proxy=proxy)), patience=Patience(rounds=1))
    with pytest.raises(UpstreamFailed, match=r"credentials|401|407") as caught:
        await pull(hub, ASK)
    assert "wr0ng" not in str(caught.value)
    assert station(chain, 1) in str(caught.value)
