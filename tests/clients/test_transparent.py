"""Connections that a firewall sends to us, meant for others: three machines, real rules of nftables, both ways.

The client's machine has its default route through ours, and knows registries by addresses that nobody has.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from kit.clients import Skopeo, clean_environment, curl
from kit.network import Host, network
from kit.registry import Images, Registry, running
from kit.servers import Mxart, Service, mxart, program, wait_until

PORTS = "{ 22, 80, 443 }"
REDIRECT = f"""
table inet t {{
chain redirected {{
type nat hook prerouting priority dstnat
iifname "eth0" fib daddr type != local tcp dport {PORTS} redirect to :8443
}}
}}
"""
TPROXY = f"""
table inet t {{
chain kept {{
type filter hook prerouting priority mangle
iifname "eth0" fib daddr type != local meta nfproto ipv4 tcp dport {PORTS} meta mark set 1 tproxy ip to :8443 accept
iifname "eth0" fib daddr type != local meta nfproto ipv6 tcp dport {PORTS} meta mark set 1 tproxy ip6 to :8443 accept
}}
}}
"""
NOBODY = "203.0.113.7"  # an address of no machine
OPEN, OPEN6 = "10.2.0.2", "fd02::2"  # in a network that may be reached
CLOSED = "10.3.0.2"  # the same machine by an address that may not
GATEWAY = "10.1.0.1"

# Says whom it sees, in the manner of each port: SSH's, where the server speaks first; HTTP; HTTP in TLS.
_TELLER = """
import socket, socketserver, ssl, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
class Speaker(socketserver.StreamRequestHandler):
    def handle(self):
        who = self.client_address[0].removeprefix("::ffff:").encode()
        if self.server.server_address[1] == 22:
            self.wfile.write(b"SSH-2.0-teller " + who + b"\\r\\n")
            self.wfile.write(self.rfile.readline())
            return
        while self.rfile.readline().strip():
            pass
        self.wfile.write(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\nover there I see " + who)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    address_family = socket.AF_INET6
    def get_request(self):
        sock, address = super().get_request()
        if self.server_address[1] == 443:
            sock = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return sock, address
    def handle_error(self, *_):
        pass
for port in (22, 80, 443):
    threading.Thread(target=Server(("::", port), Speaker).serve_forever).start()
print("telling", flush=True)
"""

# Connects, and says what comes: at once, and after a line of its own.
_VISITOR = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10) as sock:
    file = sock.makefile("rb")
    first = file.readline()
    sock.sendall(b"hello\\n")
    print((first + file.readline()).decode())
"""


@dataclass
class Place:
    """Three machines in a row."""

    client: Host
    gateway: Host
    remote: Host
    registry: Registry
    authority: Path  # of the remote machine's own certificate
    room: Path

    def serve(self, more: str = "", listener: str = "") -> AbstractContextManager[Mxart]:
        config = f"""
[[listener]]
address = ":8443"
transparent = true
{listener}
[limits]
handshake_seconds = 3
[tls]
names = ["mxart.test"]
[repository.hub]
format = "oci"
kind = "proxy"
upstream = "http://{OPEN}:{self.registry.port}"
hosts = ["docker.io", "registry-1.docker.io", "index.docker.io"]
path = "/docker.io"
[[tunnel]]
sni = ["passed.test"]
to = "{OPEN}:443"
[[tunnel]]
networks = ["10.2.0.0/24", "fd02::/64"]
{more}
"""
        return mxart(self.room / "mxart", config, listen=(), within=self.gateway.enter)

    @property
    def ca(self) -> Path:
        return self.room / "mxart" / "data" / "ca" / "ca.pem"

    def curl(self, *arguments: str, ca: Path | None = None) -> str:
        return curl(self.client, "--max-time", "20", *arguments, ca=ca or self.authority, home=self.room).decode()

    def fails(self, *arguments: str) -> tuple[int, bytes]:
        """curl's exit code and output."""
        done = subprocess.run(
            [*self.client.enter, program("curl"), "--max-time", "20", "--insecure", *arguments],
            capture_output=True,
            timeout=60,
            env=clean_environment(self.room),
            check=False,
        )
        return done.returncode, done.stdout

    def visit(self, address: str) -> str:
        """What a visitor of the port of SSH hears."""
        command = [*self.client.enter, sys.executable, "-c", _VISITOR, address, "22"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.strip()


@pytest.fixture
def place(room: Path, filled: Path) -> Iterator[Place]:
    authority = trustme.CA()
    issued = authority.issue_cert("passed.test", "other.test", OPEN, OPEN6)
    authority.cert_pem.write_to_path(str(room / "remote-ca.pem"))
    issued.private_key_pem.write_to_path(str(room / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(room / "cert.pem"))
    with network(room / "net") as net:
        client, gateway, remote = net.host("client"), net.host("gateway"), net.host("remote")
        net.join({client: "10.1.0.2/24", gateway: f"{GATEWAY}/24"})
        net.join({gateway: "10.2.0.1/24", remote: f"{OPEN}/24"})
        client.also("fd01::2/64")
        gateway.also("fd01::1/64")
        gateway.set_up("eth1", "fd02::1/64")
        remote.also(f"{OPEN6}/64")
        remote.also(f"{CLOSED}/32")
        gateway.forward()
        gateway.route(f"{CLOSED}/32", via=OPEN)
        client.route("default", via=GATEWAY)
        client.route("default", via="fd01::1")
        remote.route("default", via="10.2.0.1")
        remote.route("default", via="fd02::1")
        names = ("docker.io", "registry-1.docker.io", "index.docker.io", "passed.test")
        client.knows({**dict.fromkeys(names, NOBODY), "other.test": OPEN, "closed.test": CLOSED})
        teller = Service(
            "teller",
            [sys.executable, "-c", _TELLER, room / "cert.pem", room / "key.pem"],
            room / "teller",
            within=remote.enter,
        )
        teller.wait_for_line("telling")
        shutil.copytree(filled, room / "root")
        with running(Registry(room / "root", room / "registry", inside=remote, address=OPEN)) as registry:
            yield Place(client, gateway, remote, registry, room / "remote-ca.pem", room)
        teller.kill()


@pytest.fixture(params=["redirect", "tproxy"])
def redirected(request: pytest.FixtureRequest, place: Place) -> Place:
    """The firewall's rules, in force."""
    if request.param == "redirect":
        place.gateway.firewall(REDIRECT)
        return place
    place.gateway.firewall(TPROXY)
    for family in ("-4", "-6"):
        place.gateway.run("ip", family, "rule", "add", "fwmark", "1", "lookup", "100")
        place.gateway.run("ip", family, "route", "add", "local", "default", "dev", "lo", "table", "100")
    return place


def test_a_machine_that_knows_nothing_of_us_pulls_through_us(redirected: Place, images: Images) -> None:
    with redirected.serve():
        skopeo = Skopeo(redirected.room / "skopeo", redirected.client, ca=redirected.ca)
        for _ in range(2):
            assert skopeo.pull_all("docker.io/library/tool:1.0") == images.index.data
        blobs = [asked for asked in redirected.registry.asked() if "/blobs/" in asked.path]
        assert len(blobs) == len({asked.path for asked in blobs}) > 0, "fetched once"


def test_what_is_not_ours_goes_on_to_where_it_was_meant_to_go(redirected: Place) -> None:
    """A name that is listed, one that is not, none at all, an address; HTTP; SSH, where the client waits to hear."""
    with redirected.serve() as server:
        there = "over there I see "
        assert redirected.curl("https://passed.test/").startswith(there)
        assert redirected.curl("https://other.test/").startswith(there)
        assert redirected.curl(f"https://{OPEN}/").startswith(there)
        assert redirected.curl(f"https://[{OPEN6}]/").startswith(there)
        assert redirected.curl("http://other.test/").startswith(there)
        for address in (OPEN, OPEN6):
            assert redirected.visit(address).split() == ["SSH-2.0-teller", _source(address), "hello"]
        wait_until(lambda: server.log().count('"by":"address"') == 6, "a line for each tunnel")
        assert '"by":"sni","sni":"passed.test"' in server.log()
        assert '"by":"address","name":"other.test"' in server.log()


def _source(address: str) -> str:
    """Whom the remote machine sees: us."""
    return "10.2.0.1" if "." in address else "fd02::1"


def test_plain_http_for_a_name_of_ours_is_served(redirected: Place) -> None:
    with redirected.serve():
        assert redirected.fails("http://registry-1.docker.io/v2/") == (0, b"{}")


def test_with_tls_plain_http_for_a_name_of_ours_is_sent_to_https(redirected: Place) -> None:
    with redirected.serve(listener="tls = true"):
        told = ["--write-out", "%{http_code} %{redirect_url}", "--output", "/dev/null"]
        code, out = redirected.fails(*told, "http://registry-1.docker.io/v2/")
        assert (code, out) == (0, b"308 https://registry-1.docker.io/v2/")
        assert redirected.curl("http://other.test/").startswith("over there")


def test_where_no_network_is_open_everything_else_is_refused_and_logged(redirected: Place) -> None:
    with redirected.serve() as server:
        code, _ = redirected.fails("https://closed.test/")
        assert code == 35, "an alert"
        code, text = redirected.fails("http://closed.test/")
        assert b"closed.test is not served here, and no [[tunnel]] has a network with 10.3.0.2:80" in text
        assert redirected.visit(CLOSED) == ""
        for word in ("closed.test is not served here", "10.3.0.2:443", "10.3.0.2:80", "10.3.0.2:22"):
            wait_until(lambda word=word: word in server.log(), word)


def test_who_comes_to_the_listener_itself_meets_an_ordinary_one(redirected: Place) -> None:
    redirected.client.knows({"mxart.test": GATEWAY, "registry-1.docker.io": GATEWAY, "evil.test": GATEWAY})
    with redirected.serve():
        assert redirected.curl("https://mxart.test:8443/v2/", ca=redirected.ca) == "{}"
        assert redirected.curl("https://registry-1.docker.io:8443/v2/", ca=redirected.ca) == "{}"
        assert redirected.fails("http://registry-1.docker.io:8443/v2/") == (0, b"{}")
        assert redirected.fails("https://evil.test:8443/v2/")[0] == 35


def test_a_rule_that_catches_our_own_connections_is_found_out(place: Place) -> None:
    """The output hook without an exception for the server: a tunnel would come back for ever."""
    place.gateway.firewall(
        REDIRECT.replace("inet t", "inet own")
        .replace("prerouting priority dstnat", "output priority -100")
        .replace('iifname "eth0" ', "")
    )
    place.gateway.firewall(REDIRECT)
    with place.serve() as server:
        code, _ = place.fails("https://other.test/")
        assert code != 0
        wait_until(lambda: "loop: this tunnel comes back" in server.log(), "the loop is named")
        assert server.log().count('"to":"10.2.0.2:443"') == 2
        # SSH has nothing in its first bytes that would tell it from another one.
        assert place.visit(OPEN) == ""
        wait_until(lambda: server.log().count("loop: this tunnel comes back") >= 2, "and so is this one")
