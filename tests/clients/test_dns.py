"""Clients that know nothing but our address as their nameserver: dig, the C library, Go. Forwarders: dnsmasq."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kit.clients import CLIENTS, Make
from kit.nameserver import Dnsmasq
from kit.network import Host, Network, network
from kit.pulls import check_three_pulls, hub
from kit.registry import Images, Registry, running
from kit.servers import Service, free_port, mxart, program, wait_until
from kit.settings import configured
from mxart.commands.dns import _with
from mxart.errors import ConfigError

REGISTRIES = ("docker.io", "registry-1.docker.io", "index.docker.io", "gcr.io", "ghcr.io", "quay.io", "registry.k8s.io")


@contextlib.contextmanager
def mxart_dns(folder: Path, *options: str, config: str = "", within: Sequence[str] = ()) -> Iterator[Service]:
    """`mxart dns`, ready; ended by SIGTERM."""
    folder.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [sys.executable, "-m", "mxart"]
    if config:
        (folder / "mxart.toml").write_text(config)
        command += ["--config", folder / "mxart.toml"]
    service = Service("mxart-dns", [*command, "dns", *options], folder, within=within)
    try:
        service.wait_for_line("^mxart dns ready: dns://")
        yield service
        assert service.stop() == 0, service.output()
        assert "Traceback" not in service.output(), service.output()
    finally:
        service.kill()


def dig(inside: Host | None, *arguments: str, port: int = 53) -> str:
    """What dig says, however it ends; one try, so that what is lost is seen."""
    enter = inside.enter if inside is not None else []
    command = [*enter, program("dig"), "-p", str(port), "+tries=1", "+time=5", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout


def status(said: str) -> str:
    match = re.search(r"status: (\w+)", said)
    return match[1] if match else said


class Site:
    """A client and our box in one network, a resolver behind the box, a stranger on its other side."""

    def __init__(self, net: Network) -> None:
        self.client, self.box = net.host("client"), net.host("box")
        self.resolver, self.stranger = net.host("resolver"), net.host("stranger")
        net.join({self.client: "10.1.0.2/24", self.box: "10.1.0.1/24"})
        net.join({self.box: "10.3.0.1/24", self.resolver: "10.3.0.2/24"})
        net.join({self.box: "203.0.113.1/24", self.stranger: "203.0.113.2/24"})
        self.box.also("10.1.0.9/24")
        for host, address in ((self.client, "fd00:1::2/64"), (self.box, "fd00:1::1/64"), (self.box, "fd00:1::9/64")):
            host.also(address)
        self.client.asks("10.1.0.1")


@pytest.fixture
def site(room: Path) -> Iterator[Site]:
    with network(room / "net") as net:
        yield Site(net)


@pytest.fixture
def names(site: Site, room: Path) -> Iterator[Dnsmasq]:
    """What the resolver knows."""
    texts = [f"txt-record=big.test,{letter * 200}" for letter in "abcdefghijkl"]
    found = Dnsmasq(
        room / "resolver",
        53,
        "host-record=up.test,192.0.2.1,2001:db8::1",
        "cname=alias.test,up.test",
        "local=/nowhere.test/",
        *texts,
        address="10.3.0.2",
        within=site.resolver.enter,
    )
    yield found
    found.close()


def test_without_a_configuration_the_public_registries_are_here(site: Site, names: Dnsmasq, room: Path) -> None:
    with mxart_dns(room / "dns", "--answer", "10.1.0.1", "--forward", "10.3.0.2", within=site.box.enter) as server:
        assert server.out.read_text() == "mxart dns ready: dns://localhost:53\n"
        for transport in ("+notcp", "+tcp"):
            said = dig(site.client, "@10.1.0.1", "+short", transport, *REGISTRIES)
            assert said.split() == ["10.1.0.1"] * len(REGISTRIES)
        for name in REGISTRIES:
            for kind in ("AAAA", "HTTPS"):
                said = dig(site.client, "@10.1.0.1", name, kind)
                assert (status(said), "SOA" in said) == ("NOERROR", True), said
        assert dig(site.client, "@10.1.0.1", "+short", "up.test").split() == ["192.0.2.1"]
        assert status(dig(site.client, "@10.1.0.1", "a.nowhere.test")) == "NXDOMAIN"
        assert names.asked() == ["A up.test", "A a.nowhere.test"]
        assert server.err.read_text() == ""


def test_the_c_library_finds_our_address_and_the_names_of_others_on_every_address_of_ours(
    site: Site, names: Dnsmasq, room: Path
) -> None:
    options = ["--answer", "10.1.0.1", "--answer", "fd00:1::1", "--forward", "10.3.0.2", "--name", "*.corp.test"]
    with mxart_dns(room / "dns", *options, within=site.box.enter):

        def addresses(name: str, base: str = "ahosts") -> set[str]:
            lines = site.client.run("getent", base, name).decode().splitlines()
            return {line.split()[0] for line in lines}

        assert addresses("docker.io") == {"10.1.0.1", "fd00:1::1"}
        assert addresses("registry.corp.test") == {"10.1.0.1", "fd00:1::1"}
        assert addresses("alias.test") == {"192.0.2.1", "2001:db8::1"}
        began = time.monotonic()
        with pytest.raises(AssertionError):
            addresses("a.nowhere.test")
        assert time.monotonic() - began < 3
        assert site.client.run("getent", "hosts", "192.0.2.1").split()[1] == b"up.test"

        # From where it was asked, by one socket; dig drops what comes from elsewhere.
        for address in ("10.1.0.1", "10.1.0.9", "10.3.0.1", "fd00:1::1", "fd00:1::9"):
            said = dig(site.client if "3" not in address else site.box, f"@{address}", "docker.io")
            assert "10.1.0.1" in said, said
            assert "unexpected source" not in said

        # What is large comes by TCP all the way.
        said = dig(site.client, "@10.1.0.1", "big.test", "TXT")
        assert "(TCP)" in said
        assert len(re.findall(r"^big\.test\.\s", said, re.MULTILINE)) == 12
        cut = dig(site.client, "@10.1.0.1", "big.test", "TXT", "+ignore")
        assert "flags: qr tc rd ra" in cut


@pytest.mark.parametrize("client", CLIENTS, indirect=True)
def test_docker_hub_is_pulled_through_us_by_a_client_that_only_asks_our_dns(
    client: Make,
    site: Site,
    names: Dnsmasq,
    filled: Path,
    images: Images,
    room: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Go's own resolver, over UDP; then our CA, our cache. Nothing else on the client is changed."""
    monkeypatch.setenv("GODEBUG", "netdns=go")
    shutil.copytree(filled, room / "root")
    upstream = Registry(room / "root", room / "upstream", inside=site.box)
    config = '[dns]\nanswer = ["10.1.0.1", "fd00:1::1"]\nforward = ["10.3.0.2"]\n'
    with (
        running(upstream),
        mxart(
            room / "mxart", hub(upstream) + config, listen=[":443"], tls=True, workers=2, within=site.box.enter
        ) as server,
    ):
        check_three_pulls(client(site.client, ca=server.ca), upstream, "docker.io/library/tool:1.0", images.amd64)
        assert names.asked() == [], "the names that we claim are asked of nobody"


def test_it_is_no_open_resolver(site: Site, names: Dnsmasq, room: Path) -> None:
    options = ["--answer", "10.1.0.1", "--forward", "10.3.0.2"]
    with mxart_dns(room / "dns", *options, within=site.box.enter) as server:
        for name in ("up.test", "docker.io"):
            said = dig(site.stranger, "@203.0.113.1", name)
            assert (status(said), "ANSWER: 0" in said) == ("REFUSED", True), said
        assert status(dig(site.stranger, "@203.0.113.1", "up.test", "+tcp")) not in ("NOERROR", "SERVFAIL")
        assert names.asked() == []
        log = server.err.read_text()
        assert log.count("203.0.113.2") == 1, "once in a while, not for every packet"
    with mxart_dns(room / "open", *options, "--client", "203.0.113.0/24", within=site.box.enter):
        assert dig(site.stranger, "@203.0.113.1", "+short", "up.test").split() == ["192.0.2.1"]
        assert status(dig(site.client, "@10.1.0.1", "up.test")) == "REFUSED"


def test_answers_are_kept_and_equal_questions_share_one(site: Site, names: Dnsmasq, room: Path) -> None:
    with mxart_dns(room / "dns", "--answer", "10.1.0.1", "--forward", "10.3.0.2", within=site.box.enter):
        assert dig(site.client, "@10.1.0.1", "+short", *["alias.test"] * 20).count("192.0.2.1") == 20
        assert names.asked() == ["A alias.test"]
        names.service.kill()
        said = dig(site.client, "@10.1.0.1", "ALIAS.test")
        assert "192.0.2.1" in said
        assert "ALIAS.test." in said


def test_a_dead_forwarder_costs_the_first_clients_a_moment_and_when_all_are_dead_clients_hear_so(
    site: Site, names: Dnsmasq, room: Path
) -> None:
    """10.3.0.99 swallows everything, as a machine that is off does."""
    site.box.run("ip", "neigh", "replace", "10.3.0.99", "lladdr", "02:00:00:00:00:99", "dev", "eth1")
    alone = ["--listen", "10.1.0.9:53", "--answer", "10.1.0.1", "--forward", "10.3.0.99"]
    both = ["--listen", "10.1.0.1:53", "--answer", "10.1.0.1", "--forward", "10.3.0.99", "--forward", "10.3.0.2"]
    with (
        mxart_dns(room / "alone", *alone, within=site.box.enter),
        mxart_dns(room / "dns", *both, within=site.box.enter) as server,
        ThreadPoolExecutor() as background,
    ):
        in_vain = background.submit(dig, site.client, "@10.1.0.9", "up.test")  # takes a while: dig's patience is 5 s
        took: list[int] = []
        for question in (["up.test", "A"], ["up.test", "AAAA"], ["alias.test", "A"]):
            said = dig(site.client, "@10.1.0.1", *question)
            assert status(said) == "NOERROR"
            took += map(int, re.findall(r"Query time: (\d+) msec", said))
        assert max(took) < 2000
        assert took[2] < 600, "from now on it comes last"
        assert "forwarder 10.3.0.99:53" in server.err.read_text()
        assert dig(site.client, "@10.1.0.9", "+short", "docker.io").split() == ["10.1.0.1"]
        assert status(in_vain.result()) == "SERVFAIL"
        assert "No Reachable Authority" in in_vain.result()


def test_a_forwarder_that_asks_us_in_turn_makes_no_storm(site: Site, room: Path) -> None:
    circle = Dnsmasq(room / "circle", 53, "server=10.3.0.1", address="10.3.0.2", within=site.resolver.enter)
    with mxart_dns(room / "dns", "--answer", "10.1.0.1", "--forward", "10.3.0.2", within=site.box.enter) as server:
        began = time.monotonic()
        assert status(dig(site.client, "@10.1.0.1", "somewhere.example.test")) == "SERVFAIL"
        assert time.monotonic() - began < 3, "it is noticed, not waited for"
        assert len(circle.asked()) <= 4
        assert "came back from 10.3.0.2" in server.err.read_text()
    circle.close()


def test_a_reload_takes_new_names_and_loses_no_query(site: Site, room: Path) -> None:
    config = '[dns]\nanswer = ["10.1.0.1"]\nnames = ["first.test"]\n'
    config += '[repository.mine]\nformat = "oci"\nkind = "local"\npath = "/"\n'
    with mxart(room / "mxart", config, listen=["10.1.0.1:80"], workers=2, within=site.box.enter) as server:
        assert "dns://localhost:53" in server.service.out.read_text()
        assert status(dig(site.client, "@10.1.0.1", "second.test")) == "REFUSED"
        (room / "mxart" / "mxart.toml").write_text(config.replace("first.test", "second.test"))
        os.kill(server.service.pid, signal.SIGHUP)
        names = ["first.test", "second.test"]

        def taken() -> bool:
            answers = [status(dig(site.client, "@10.1.0.1", name)) for name in names]
            assert set(answers) <= {"NOERROR", "REFUSED"}, answers
            return answers == ["REFUSED", "NOERROR"]

        wait_until(taken, "the new names")
        metrics = site.client.run("curl", "-s", "http://10.1.0.1/-/metrics").decode()
        assert re.search(r'mxart_dns_queries_total\{outcome="own"\} [1-9]', metrics)
        assert re.search(r'mxart_dns_queries_total\{outcome="refused"\} [1-9]', metrics)


def test_it_alone_reloads_and_ends_with_its_supervisor(room: Path) -> None:
    config = '[dns]\nanswer = ["10.0.0.5"]\nnames = ["first.test"]\n'
    port = free_port()
    with mxart_dns(room / "dns", "--listen", f"127.0.0.1:{port}", config=config) as server:
        assert dig(None, "@127.0.0.1", "+short", "first.test", port=port).split() == ["10.0.0.5"]
        (room / "dns" / "mxart.toml").write_text(config.replace("first.test", "second.test"))
        os.kill(server.pid, signal.SIGHUP)
        wait_until(
            lambda: "10.0.0.5" in dig(None, "@127.0.0.1", "+short", "second.test", port=port),
            "the new name to be known",
        )
        (room / "dns" / "mxart.toml").write_text("[dns]\nanswer = []\n")
        os.kill(server.pid, signal.SIGHUP)
        server.wait_for_line("the new configuration is not used")
        assert dig(None, "@127.0.0.1", "+short", "second.test", port=port).split() == ["10.0.0.5"]
    killed = Service(
        "killed", [sys.executable, "-m", "mxart", "dns", "--listen", f"127.0.0.1:{port}", "--answer", "10.0.0.5"], room
    )
    killed.wait_for_line("^mxart dns ready")
    os.kill(killed.pid, signal.SIGKILL)
    wait_until(lambda: "refused" in dig(None, "@127.0.0.1", "docker.io", port=port), "the worker's end")
    killed.kill()


def test_what_the_user_gets_wrong_is_told_in_one_line(room: Path) -> None:
    room.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "mxart", "dns"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, cwd=room)
    assert done.returncode == 2, done
    assert done.stderr == ("mxart: which address is ours? give --answer 10.0.0.5, or write it into the [dns] table\n")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"answer": ("here",)}, "--answer: 'here' is not an IP address"),
        ({"clients": ("all",)}, "--client: 'all'"),
        ({"names": ("UPPER",)}, "--name: 'UPPER'"),
        ({"forward": ("dns.example",)}, "--forward: 'dns.example'"),
        ({"listen": "10.0.0.5"}, "--listen: '10.0.0.5' is not an address"),
    ],
)
def test_what_is_wrong_is_named_by_its_option(given: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        _with(configured(""), {"answer": ("10.0.0.5",), **given})
