"""Several machines of a test's own, joined by cables: each with its addresses, its names and its nameservers.

    with network(room / "net") as net:
        client, gateway, registry = net.host("client"), net.host("gateway"), net.host("registry")
        net.join({client: "10.1.0.2/24", gateway: "10.1.0.1/24"})
        net.join({gateway: "10.2.0.1/24", registry: "10.2.0.2/24"})
        gateway.forward()
        client.route("default", via=gateway.address)
        client.knows({"registry.test": "10.2.0.2"})
        client.run("curl", "http://registry.test/")

A `Host` is a `World` (kit.netns), so whatever runs in one runs on the other: pass `host.enter` as `within` to `mxart`,
`nginx` or a `Service`, and the host itself as `inside` to a client or a registry.  Nothing leads out of the network,
and nothing of it is left when it is closed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from kit.netns import World
from kit.servers import program


class Host(World):
    """One machine. Cables are named eth0, eth1, ... in the order in which they were joined."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(folder, {}, network=True)
        self.name = name
        self.addresses: list[str] = []
        self._cables = 0

    @property
    def address(self) -> str:
        """The address on its first cable."""
        return self.addresses[0]

    def plug(self) -> str:
        """The name of the next cable's end."""
        self._cables += 1
        return f"eth{self._cables - 1}"

    def set_up(self, device: str, interface: str) -> None:
        """Give an address and its network ("10.0.0.1/24", "fd00::1/64") to a device, and take it into use."""
        address = ipaddress.ip_interface(interface)
        # An IPv6 address is checked for duplicates first, for a second or more; here nobody else has it.
        self.run("ip", "address", "add", interface, "dev", device, *(["nodad"] if address.version == 6 else []))
        self.run("ip", "link", "set", device, "up")
        self.addresses.append(str(address.ip))

    def also(self, interface: str, device: str = "eth0") -> None:
        """A further address, on a device that is in use."""
        self.set_up(device, interface)

    def route(self, network: str, *, via: str = "", device: str = "") -> None:
        """The way to a network, or to everything else ("default")."""
        version = ["-6"] if ":" in via or ":" in network else []
        way = [*(["via", via] if via else []), *(["dev", device] if device else [])]
        self.run("ip", *version, "route", "replace", network, *way)

    def forward(self) -> None:
        """Be a router: pass on packets that are for others."""
        self.setting("net/ipv4/ip_forward", "1")
        self.setting("net/ipv6/conf/all/forwarding", "1")

    def setting(self, path: str, value: str) -> None:
        """Write a value below /proc/sys; those of the network are this host's alone."""
        self.run("sh", "-c", 'echo "$2" >"/proc/sys/$1"', "sh", path, value)

    def firewall(self, rules: str) -> None:
        """Add rules of nftables. A statement needs a line of its own."""
        self.feed(rules, program("nft"), "--file", "-")

    def feed(self, text: str, *command: str | Path) -> bytes:
        """Run a command that reads `text`; it must succeed."""
        done = subprocess.run(
            [*self.enter, *command], input=text.encode(), capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, (command, done.returncode, done.stderr.decode(errors="replace"))
        return done.stdout

    def __repr__(self) -> str:
        return f"Host({self.name!r}, {self.addresses!r})"


class Network:
    """Hosts and the cables between them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._switch: Host | None = None
        self.hosts: dict[str, Host] = {}

    def host(self, name: str) -> Host:
        """A new machine, with nothing but its loopback."""
        made = Host(name, self._folder / name)
        self.hosts[name] = made
        return made

    def join(self, members: Mapping[Host, str]) -> None:
        """Join hosts, each by its address ("10.0.0.1/24"): two by a cable, more by a switch between them."""
        if len(members) == 2:
            (one, first), (other, second) = members.items()
            near, far = one.plug(), other.plug()
            _cable(one, near, other, far)
            one.set_up(near, first)
            other.set_up(far, second)
            return
        if self._switch is None:
            self._switch = self.host("switch")
        switch = self._switch
        bridge = f"br{switch.plug()}"
        switch.run("ip", "link", "add", bridge, "type", "bridge")
        switch.run("ip", "link", "set", bridge, "up")
        for host, interface in members.items():
            end, port = host.plug(), switch.plug()
            _cable(switch, port, host, end)
            switch.run("ip", "link", "set", port, "master", bridge, "up")
            host.set_up(end, interface)

    def close(self) -> None:
        """The machines vanish with their cables, and with whatever still runs on them."""
        for host in self.hosts.values():
            host.close()


def _cable(one: Host, near: str, other: Host, far: str) -> None:
    one.run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", str(other.pid))


@contextlib.contextmanager
def network(folder: Path) -> Iterator[Network]:
    """An empty network; everything of it is gone at the end."""
    made = Network(folder)
    try:
        yield made
    finally:
        made.close()
