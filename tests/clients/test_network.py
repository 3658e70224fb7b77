"""The tests' own network: machines with addresses of their own reach one another by the routes they were given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from kit.network import Host, network
from kit.servers import Service

_TELL = """
import socket
server = socket.create_server(("::", 7), family=socket.AF_INET6, dualstack_ipv6=True)
print("telling", flush=True)
while True:
    sock, address = server.accept()
    sock.sendall(address[0].removeprefix("::ffff:").encode())
    sock.close()
"""
_ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], 7), timeout=5) as sock:
    print(sock.makefile().read())
"""


def _ask(host: Host, where: str) -> str:
    return host.run(sys.executable, "-c", _ASK, where).decode().strip()


def test_hosts_know_one_another_by_name_and_route(room: Path) -> None:
    with network(room / "net") as net:
        client, router, one, two = [net.host(name) for name in ("client", "router", "one", "two")]
        net.join({client: "10.1.0.2/24", router: "10.1.0.1/24"})
        net.join({router: "10.2.0.1/24", one: "10.2.0.2/24", two: "10.2.0.3/24"})
        two.also("fd02::3/64")
        one.also("fd02::2/64")
        router.forward()
        for host, gateway in ((client, "10.1.0.1"), (one, "10.2.0.1"), (two, "10.2.0.1")):
            host.route("default", via=gateway)
        client.knows({"two.test": "10.2.0.3"})
        teller = Service("teller", [sys.executable, "-c", _TELL], room / "teller", within=two.enter)
        teller.wait_for_line("telling")
        assert _ask(client, "two.test") == client.address == "10.1.0.2"
        assert _ask(one, "10.2.0.3") == one.address
        assert _ask(one, "fd02::3") == "fd02::2"
        assert _ask(two, "127.0.0.1") == "127.0.0.1"
        client.knows({})
        names = subprocess.run([*client.enter, "getent", "hosts", "two.test"], timeout=20, check=False)
        assert names.returncode == 2
        router.firewall(
            """table ip t {
            chain translate {
            type nat hook postrouting priority srcnat
            masquerade
            }
            }"""
        )
        assert _ask(client, "10.2.0.3") == "10.2.0.1", "the router speaks for its client now"
        teller.kill()
