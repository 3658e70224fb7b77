"""The way to an upstream: names, proxies, and what is never dialled."""

from __future__ import annotations

import socket

import pytest
import trio

from kit.proxies import connect_proxy, fake_nameserver, forwarder, socks5_proxy
from kit.upstream import fake_upstream, say
from mxart.config import Upstreams
from mxart.errors import ConfigError, Forbidden, UpstreamFailed, UpstreamTimeout, UpstreamUnavailable
from mxart.upstream.base import Ask
from mxart.upstream.dial import Dialer, refuse_reason
from mxart.upstream.failure import Cause, Trouble
from mxart.upstream.proxies import Proxy, Ways, parse_proxies
from mxart.upstream.remote import Remote
from mxart.upstream.resolver import Resolver, in_turn
from mxart.upstream.timing import Patience

ASK = Ask("GET", "x")


async def pull(url: str, upstreams: Upstreams, proxy: str | None = None, **more: float) -> bytes:
    dialer = Dialer(upstreams, connect_timeout=more.get("connect", 5.0))
    hub = Remote("hub", [url], dialer, proxy=proxy, patience=Patience(rounds=1))
    try:
        with trio.fail_after(10):
            async with hub.open(ASK) as reply:
                return await reply.receive()
    finally:
        await hub.aclose()


async def test_the_table_says_where_a_name_is() -> None:
    async with fake_upstream() as up:
        up.on("/x", say("fine"))
        assert (
            await pull(f"http://Registry.Invalid:{up.port}", Upstreams(resolve={"registry.invalid": "127.0.0.1"}))
            == b"fine"
        )
        assert up.requests[0].headers["host"] == f"registry.invalid:{up.port}"


async def test_nameservers_are_asked_instead_of_the_system_and_remembered() -> None:
    async with fake_nameserver() as dns, fake_upstream() as up:
        up.on("/x", say("fine"))
        dns.names["registry.invalid"] = ["127.0.0.1"]
        resolver = Resolver({}, [f"127.0.0.1:{dns.port}"])
        assert await resolver.resolve("Registry.invalid.") == ["127.0.0.1"]
        assert await resolver.resolve("registry.invalid") == ["127.0.0.1"]
        assert sorted(dns.asked) == ["registry.invalid"] * 2  # A and AAAA, once
        upstreams = Upstreams(nameservers=(f"127.0.0.1:{dns.port}",))
        assert await pull(f"http://registry.invalid:{up.port}", upstreams) == b"fine"
        # Even a name that the system knows is theirs to answer.
        with pytest.raises(UpstreamUnavailable, match="no such name"):
            await pull(f"http://localhost:{up.port}", upstreams)


async def test_a_nameserver_that_is_silent_is_told_and_an_old_answer_used_meanwhile() -> None:
    async with fake_nameserver() as dns:
        resolver = Resolver({}, [f"127.0.0.1:{dns.port}"], timeout=0.2)
        dns.names["a.invalid"] = ["127.0.0.1", "::1"]
        assert await resolver.resolve("a.invalid") == ["::1", "127.0.0.1"]
        dns.mute = True
        resolver._answers["a.invalid"].expires = trio.current_time() - 1
        assert await resolver.resolve("a.invalid") == ["::1", "127.0.0.1"]
        with pytest.raises(Trouble, match=r"b\.invalid") as caught:
            await resolver.resolve("b.invalid")
        assert caught.value.cause is Cause.UNRESOLVED


async def test_the_systems_resolver_serves_where_nothing_else_is_said() -> None:
    assert "127.0.0.1" in await Resolver({}).resolve("localhost")
    assert await Resolver({}).resolve("192.0.2.1") == ["192.0.2.1"]


def test_addresses_of_both_kinds_in_turn() -> None:
    assert in_turn(["1.1.1.1", "2.2.2.2", "1.1.1.1", "::1"]) == ["::1", "1.1.1.1", "2.2.2.2"]


def test_a_table_or_nameservers_that_are_no_addresses_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"upstreams\.resolve.*IP address"):
        Resolver({"a": "b.example"})
    for wrong in ("dns.example", "1.2.3.4:x", "1.2.3.4:0", ""):
        with pytest.raises(ConfigError, match="nameservers"):
            Resolver({}, [wrong])


async def test_a_dead_address_does_not_keep_us_from_a_live_one() -> None:
    async with fake_nameserver() as dns, fake_upstream() as up:
        up.on("/x", say("fine"))
        dns.names["a.invalid"] = ["::1", "127.0.0.1"]  # the fake listens on IPv4 only
        assert await pull(f"http://a.invalid:{up.port}", Upstreams(nameservers=(f"127.0.0.1:{dns.port}",))) == b"fine"


async def test_an_address_that_answers_nothing_is_overtaken() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.3", 0))
        full.listen(0)
        port = full.getsockname()[1]
        # A backlog that is full drops SYNs: connecting takes for ever.
        fill = [socket.socket() for _ in range(3)]
        for one in fill:
            one.setblocking(False)
            one.connect_ex(("127.0.0.3", port))
        listener = trio.socket.socket()
        with listener:
            await listener.bind(("127.0.0.1", port))
            listener.listen(5)
            async with fake_nameserver() as dns:
                dns.names["a.invalid"] = ["127.0.0.3", "127.0.0.1"]
                dialer = Dialer(Upstreams(nameservers=(f"127.0.0.1:{dns.port}",)))
                with trio.fail_after(3):
                    sock = await dialer.connect("a.invalid", port)
                assert sock.getpeername()[0] == "127.0.0.1"
                sock.close()
        with pytest.raises(UpstreamTimeout, match=r"took longer than 0\.1 s"):
            await pull(f"http://127.0.0.3:{port}", Upstreams(), connect=0.1)
        for one in fill:
            one.close()


async def test_a_name_that_leads_back_to_us_is_a_loop() -> None:
    async with fake_upstream() as up:
        up.on("/x", say("fine"))
        for own in ("127.0.0.1", "0.0.0.0", "::"):
            dialer = Dialer(Upstreams(resolve={"registry.invalid": "127.0.0.1"}))
            dialer.listening([(own, up.port)])
            hub = Remote("hub", [f"http://registry.invalid:{up.port}"], dialer)
            with pytest.raises(
                UpstreamFailed, match=r"loop: registry\.invalid \(127\.0\.0\.1\) resolves to this server; set"
            ):
                async with hub.open(ASK):
                    pass
            assert up.connections == 0


async def test_an_upstream_on_another_port_of_this_machine_is_no_loop() -> None:
    async with fake_upstream() as up:
        dialer = Dialer(Upstreams(resolve={"registry.invalid": "127.0.0.1"}))
        dialer.listening([("0.0.0.0", up.port + 1)])
        (await dialer.connect("registry.invalid", up.port)).close()


@pytest.mark.parametrize("login", ["", "me:p%40ss w"])
async def test_through_an_http_proxy_which_resolves_the_name(login: str) -> None:
    async with connect_proxy() as proxy, fake_upstream() as up:
        up.on("/x", say("fine"))
        proxy.names["registry.invalid"] = "127.0.0.1"
        proxy.login = "me:p@ss w" if login else ""
        user = f"{login.replace(' ', '%20')}@" if login else ""
        upstreams = Upstreams(proxy=f"http://{user}127.0.0.1:{proxy.port}")
        assert await pull(f"http://registry.invalid:{up.port}", upstreams) == b"fine"
        assert proxy.asked == [("registry.invalid", up.port)]


@pytest.mark.parametrize("login", ["", "me:pw"])
async def test_through_a_socks5_proxy_which_resolves_the_name(login: str) -> None:
    async with socks5_proxy() as proxy, fake_upstream() as up:
        up.on("/x", say("fine"))
        proxy.names["registry.invalid"] = "127.0.0.1"
        proxy.login = login
        user = f"{login}@" if login else ""
        upstreams = Upstreams(proxy=f"socks5://{user}127.0.0.1:{proxy.port}")
        assert await pull(f"http://registry.invalid:{up.port}", upstreams) == b"fine"
        assert await pull(f"http://127.0.0.1:{up.port}", upstreams) == b"fine"
        assert proxy.asked == [("registry.invalid", up.port), ("127.0.0.1", up.port)]


async def test_through_an_l4_proxy_that_knows_where_it_leads() -> None:
    async with fake_upstream() as up, forwarder("127.0.0.1", up.port) as proxy:
        up.on("/x", say("fine"))
        assert await pull("http://registry.invalid", Upstreams(proxy=f"l4://127.0.0.1:{proxy.port}")) == b"fine"
        assert up.requests[0].headers["host"] == "registry.invalid"


async def test_through_a_chain_of_proxies_in_order() -> None:
    async with connect_proxy() as one, socks5_proxy() as two, fake_upstream() as up:
        up.on("/x", say("fine"))
        two.names["registry.invalid"] = "127.0.0.1"
        chain = f"http://127.0.0.1:{one.port}, socks5://127.0.0.1:{two.port}"
        assert await pull(f"http://registry.invalid:{up.port}", Upstreams(proxy=chain)) == b"fine"
        assert (one.asked, two.asked) == ([("127.0.0.1", two.port)], [("registry.invalid", up.port)])


async def test_a_repositorys_own_proxy_overrides_and_an_empty_one_is_direct() -> None:
    async with connect_proxy() as one, connect_proxy() as two, fake_upstream() as up:
        up.on("/x", say("fine"))
        upstreams = Upstreams(proxy=f"http://127.0.0.1:{one.port}")
        assert await pull(up.url, upstreams, proxy=f"http://127.0.0.1:{two.port}") == b"fine"
        assert await pull(up.url, upstreams, proxy="") == b"fine"
        assert (len(one.asked), len(two.asked)) == (0, 1)


async def test_a_hosts_own_proxy_comes_before_a_repositorys_and_before_the_one_for_all() -> None:
    async with (
        connect_proxy() as everyone,
        connect_proxy() as repository,
        socks5_proxy() as named,
        fake_upstream() as up,
    ):
        up.on("/x", say("fine"))
        for proxy in (everyone, repository, named):
            proxy.names["registry.invalid"] = proxy.names["a.b.invalid"] = "127.0.0.1"
        upstreams = Upstreams(
            proxy=f"http://127.0.0.1:{everyone.port}",
            proxy_for={"*.b.invalid": f"socks5://127.0.0.1:{named.port}", "127.0.0.1": ""},
        )
        own = f"http://127.0.0.1:{repository.port}"
        assert await pull(f"http://a.b.invalid:{up.port}", upstreams, proxy=own) == b"fine"
        assert await pull(f"http://registry.invalid:{up.port}", upstreams, proxy=own) == b"fine"
        assert await pull(f"http://registry.invalid:{up.port}", upstreams) == b"fine"
        assert await pull(up.url, upstreams, proxy=own) == b"fine"  # "" is direct
        assert [len(proxy.asked) for proxy in (named, repository, everyone)] == [1, 1, 1]
        # A tunnel has no repository.
        (await Dialer(upstreams).connect_tcp("A.b.invalid.", up.port)).close()
        assert named.asked[1:] == [("A.b.invalid.", up.port)]


def test_the_exact_name_then_the_longest_pattern_says_which_way_to_go() -> None:
    ways = Ways({"*.example.com": "l4://a:1", "*.b.example.com": "l4://b:1", "x.b.example.com": ""}, "l4://c:1")
    found = {name: [proxy.host for proxy in ways.to(name)] for name in NAMES}
    assert found == NAMES
    assert Ways({}, "").to("example.com") == ()
    assert ways.instead("").to("example.com") == ()
    assert ways.instead(None).to("example.com") == ways.to("example.com")


NAMES = {
    "example.com": ["c"],
    "y.example.com": ["a"],
    "y.z.example.com": ["a"],
    "b.example.com": ["a"],
    "Y.b.EXAMPLE.com.": ["b"],
    "x.b.example.com": [],
    "y.x.b.example.com": ["b"],
    "10.0.0.1": ["c"],
    "::1": ["c"],
}


async def test_the_table_holds_behind_proxies_too() -> None:
    async with socks5_proxy() as proxy, fake_upstream() as up:
        up.on("/x", say("fine"))
        upstreams = Upstreams(proxy=f"socks5://127.0.0.1:{proxy.port}", resolve={"registry.invalid": "127.0.0.1"})
        assert await pull(f"http://registry.invalid:{up.port}", upstreams) == b"fine"
        assert proxy.asked == [("127.0.0.1", up.port)]


@pytest.mark.parametrize(
    ("refuse", "match"),
    [
        (b"HTTP/1.1 403 No\r\n\r\n", "refused to connect to 127.0.0.1:1: 403"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 502 No\r\n\r\n", "502"),
        (b"garbage\r\n\r\n", "does not answer CONNECT as an HTTP proxy does"),
        (b"x" * 20000, "answers without an end"),
        (b"HTTP/1.1 200", "closed the connection"),
    ],
)
async def test_an_http_proxy_in_trouble_is_named(refuse: bytes, match: str) -> None:
    async with connect_proxy() as proxy:
        proxy.refuse = refuse
        with pytest.raises(UpstreamFailed, match=match) as caught:
            await pull("http://127.0.0.1:1", Upstreams(proxy=f"http://u:secret@127.0.0.1:{proxy.port}"))
        assert "secret" not in str(caught.value)


async def test_wrong_credentials_for_a_proxy_are_told() -> None:
    async with connect_proxy() as http, socks5_proxy() as socks:
        http.login = socks.login = "me:pw"
        with pytest.raises(UpstreamFailed, match=r"407.*other credentials"):
            await pull("http://127.0.0.1:1", Upstreams(proxy=f"http://me:no@127.0.0.1:{http.port}"))
        with pytest.raises(UpstreamFailed, match="refuses the credentials"):
            await pull("http://127.0.0.1:1", Upstreams(proxy=f"socks5://me:no@127.0.0.1:{socks.port}"))
        with pytest.raises(UpstreamFailed, match="wants other credentials"):
            await pull("http://127.0.0.1:1", Upstreams(proxy=f"socks5://127.0.0.1:{socks.port}"))


@pytest.mark.parametrize(
    ("refuse", "match"),
    [
        (b"\x05\x05\x00\x01\0\0\0\0\0\0", "connection refused"),
        (b"\x05\x99\x00\x01\0\0\0\0\0\0", "code 153"),
        (b"\x05", "closed the connection"),
    ],
)
async def test_a_socks5_proxy_in_trouble_is_named(refuse: bytes, match: str) -> None:
    async with socks5_proxy() as proxy:
        proxy.refuse = refuse
        with pytest.raises(UpstreamFailed, match=match):
            await pull("http://127.0.0.1:1", Upstreams(proxy=f"socks5://127.0.0.1:{proxy.port}"))


async def test_a_dead_proxy_is_named_and_not_gone_around() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        async with fake_upstream() as up:
            with pytest.raises(UpstreamUnavailable, match=rf"proxy http://127\.0\.0\.1:{port}: cannot connect"):
                await pull(up.url, Upstreams(proxy=f"http://127.0.0.1:{port}"))
            assert up.connections == 0


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_what_follows_a_proxys_answer_belongs_to_the_tunnel(kind: str) -> None:
    async with connect_proxy() if kind == "http" else socks5_proxy() as proxy, fake_upstream() as up:
        proxy.greeting = b"220 hello"
        dialer = Dialer(Upstreams(proxy=f"{kind}://127.0.0.1:{proxy.port}"))
        sock = trio.socket.from_stdlib_socket(await dialer.connect_tcp("127.0.0.1", up.port, explicit=True))
        assert await sock.recv(100) == b"220 hello"
        sock.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("http://h", (Proxy("http", "h", 80),)),
        ("socks5://u:p%3A@h", (Proxy("socks5", "h", 1080, "u", "p:"),)),
        ("l4://[::1]:8443", (Proxy("l4", "::1", 8443),)),
    ],
)
def test_proxies_of_the_configuration(text: str, expected: tuple[Proxy, ...]) -> None:
    assert parse_proxies(text) == expected


@pytest.mark.parametrize(
    "text", ["h:80", "https://h:1", "l4://h", "l4://u:p@h:1", "http://h:99999", "http://", "http://h/path"]
)
def test_what_is_no_proxy_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="proxy"):
        parse_proxies(text)


OWN = {("10.0.0.5", 443)}


@pytest.mark.parametrize(
    ("address", "refused"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("0.0.0.0", True), ("::", True),
        ("169.254.169.254", True),
        ("fe80::1", True), ("224.0.0.1", True), ("255.255.255.255", True), ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.5", True),
        ("10.0.0.5", True), ("10.0.0.6", False), ("9.9.9.9", False), ("2001:db8::1", False),
    ],
)  # fmt: skip
def test_what_a_stranger_may_not_have_dialled(address: str, refused: bool) -> None:
    assert (refuse_reason((address, 443), OWN, explicit=False) is not None) == refused
    assert refuse_reason((address, 443), OWN, explicit=True) is None


async def test_a_tunnel_is_refused_to_loopback_unless_its_to_says_so() -> None:
    async with fake_upstream() as up:
        dialer = Dialer(Upstreams(resolve={"sni.invalid": "127.0.0.1"}))
        for host in ("127.0.0.1", "localhost", "sni.invalid"):
            with pytest.raises(Forbidden, match="loopback"):
                await dialer.connect_tcp(host, up.port)
        (await dialer.connect_tcp("sni.invalid", up.port, explicit=True)).close()
        with pytest.raises(UpstreamUnavailable, match=r"tunnel to 127\.0\.0\.1:1: "):
            await dialer.connect_tcp("127.0.0.1", 1, explicit=True)


async def test_a_tunnel_through_a_proxy_is_refused_the_same_addresses() -> None:
    async with connect_proxy() as proxy:
        dialer = Dialer(Upstreams(proxy=f"http://127.0.0.1:{proxy.port}", resolve={"sni.invalid": "169.254.169.254"}))
        for host in ("127.0.0.1", "sni.invalid"):
            with pytest.raises(Forbidden):
                await dialer.connect_tcp(host, 80)
        assert proxy.asked == []
