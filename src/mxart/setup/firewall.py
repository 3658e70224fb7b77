"""nftables rules that send connections meant for registries to a transparent listener. Pure.

REDIRECT rewrites where a connection goes (nat), and the listener asks the kernel where it was meant to
go.  TPROXY leaves the packet as it is and gives it to the listener's socket, which needs a route for
marked packets as well (Linux, Documentation/networking/tproxy.rst).  Both see what is forwarded through
this machine, that is other machines and this one's containers.  This machine's own programs are
redirected by the output hook; the server's own connections leave there, too, so they are known by the
user that it runs as.  The file replaces its table in one transaction, and touches no other.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from msgspec import Struct

from mxart.config import PRIVATE_NETWORKS, Config, Listener, parse_address
from mxart.domains import is_ip
from mxart.setup.facts import is_loopback
from mxart.setup.plan import Files, Plan, SetupError, own_file

FILE = "/etc/nftables.d/mxart.nft"
MARK = 0x6D78  # "mx"
_TABLE = 27960  # of routes for marked packets
_ANY = ("", "0.0.0.0", "::")  # noqa: S104  # compared, not bound
_MISSING = (
    "no listener is transparent: add to the configuration a [[listener]] with"
    ' address = ":8443", tls = true and transparent = true'
)


class Way(Struct, frozen=True):
    """Where the connections to a port go: a listener's port, and its address if it has one of its own."""

    port: int
    host: str
    to: int


def firewall(
    config: Config, files: Files, *, user: str = "", networks: Sequence[str] = (), tproxy: bool = False
) -> Plan:
    """Rules for the configuration's transparent listeners.

    `networks` are the destinations to take; empty: all but private ones.  `user`: this machine's own programs are
    redirected as well, but for those of this user, whom the server runs as.  Raises SetupError.
    """
    if user in ("root", "0"):
        raise SetupError("as root run Docker, containerd and podman, too: let mxart run as a user of its own")
    if user and not re.fullmatch(r"[A-Za-z0-9_.-]+\$?", user):
        raise SetupError(f"{user!r} is not a user's name")
    if user and tproxy:
        raise SetupError("TPROXY takes what other machines send through this one: leave --user or --tproxy out")
    ways = _ways(config)
    _reachable(ways, own=bool(user), tproxy=tproxy)
    chosen = [_network(network) for network in networks]
    plan = own_file(files, FILE, _text(ways, user, chosen, tproxy), "the rules, as a table of its own")
    commands = [f"nft -f {FILE}"]
    notes = [f'at every boot: a line `include "{FILE}"` in /etc/nftables.conf']
    undo = ["nft delete table inet mxart"]
    if tproxy:
        for family in ("-4", "-6"):
            commands += [
                f"ip {family} rule add fwmark {MARK:#x} lookup {_TABLE}",
                f"ip {family} route add local default dev lo table {_TABLE}",
            ]
            undo.append(f"ip {family} rule del fwmark {MARK:#x} lookup {_TABLE}")
        notes.append("TPROXY: the server needs CAP_NET_ADMIN; the rules of `ip` go into the network's configuration")
    if not any(tunnel.networks for tunnel in config.tunnels):
        notes.append(
            "what no repository and no [[tunnel]] claims is refused, every other https site too. To let it through:"
            ' [[tunnel]] networks = ["0.0.0.0/0", "::/0"]; or take less: --to NETWORK'
        )
    notes.append(f"to undo: {'; '.join(undo)}")
    return plan + Plan(commands=tuple(commands), notes=tuple(notes))


def _ways(config: Config) -> tuple[Way, ...]:
    found = [listener for listener in config.listeners if listener.transparent]
    if not found:
        raise SetupError(_MISSING)
    with_tls = next((listener for listener in found if listener.tls), None)
    without = next((listener for listener in found if not listener.tls), None)
    ways = [_way(443, with_tls)] if with_tls else []
    # Plain HTTP on a listener with TLS is sent to https, as registries do it.
    other = without or with_tls
    return (*ways, _way(80, other)) if other else tuple(ways)


def _way(port: int, listener: Listener) -> Way:
    host, to = parse_address(listener.address)
    if to == 0:
        raise SetupError(f'a transparent listener needs a port that a rule can name: address = "{host}:8443"')
    return Way(port, "" if host in _ANY else host, to)


def _reachable(ways: Sequence[Way], *, own: bool, tproxy: bool) -> None:
    for way in ways:
        if tproxy and way.host:
            raise SetupError(f'TPROXY needs a listener on every address: address = ":{way.to}"')
        if way.host and is_loopback(way.host) and not own:
            raise SetupError(
                f"{way.host}:{way.to} takes connections of this machine only: --user USER for those,"
                f' or address = ":{way.to}"'
            )
        if way.host and not is_ip(way.host):
            raise SetupError(f'{way.host}: rules need an address: address = ":{way.to}", or an IP address')


def _text(ways: Sequence[Way], user: str, networks: Sequence[str], tproxy: bool) -> str:
    chains = [
        "\tchain forwarded {\n"
        + _hook("filter" if tproxy else "nat", "prerouting", tproxy)
        + _rules(ways, networks, tproxy)
        + "\t}\n"
    ]
    if all(way.host and is_loopback(way.host) for way in ways):
        chains.clear()  # what is forwarded cannot reach a listener on the loopback
    if user:
        shown = user if user.isdigit() else f'"{user}"'
        own = f'\t\tmeta skuid {shown} return\n\t\toif "lo" return\n'
        chains.append("\tchain own {\n" + _hook("nat", "output", False) + own + _rules(ways, networks, False) + "\t}\n")
    body = "\n".join(chains)
    # Made if missing, then deleted: what is loaded a second time does not add up.
    return f"table inet mxart\ndelete table inet mxart\n\ntable inet mxart {{\n{body}}}\n"


def _hook(kind: str, hook: str, tproxy: bool) -> str:
    priority = "mangle" if tproxy else "dstnat" if hook == "prerouting" else "-100"
    return f"\t\ttype {kind} hook {hook} priority {priority}; policy accept;\n"


def _rules(ways: Sequence[Way], networks: Sequence[str], tproxy: bool) -> str:
    lines = ["fib daddr type != unicast return"]  # our own addresses, broadcast
    if not networks:
        lines += [f"{family} daddr {{ {_set(PRIVATE_NETWORKS, number)} }} return" for family, number in _FAMILIES]
    for way in ways:
        for family, number in _FAMILIES:
            if (there := _set(networks, number)) or not networks:
                chosen = f"{family} daddr {{ {there} }} " if there else f"meta nfproto ipv{number} "
                if verdict := _verdict(way, number, tproxy):
                    lines.append(f"{chosen}tcp dport {way.port} {verdict}")
    return "".join(f"\t\t{line}\n" for line in lines)


_FAMILIES = (("ip", 4), ("ip6", 6))


def _verdict(way: Way, number: int, tproxy: bool) -> str:
    family = "ip" if number == 4 else "ip6"
    if tproxy:
        return f"meta mark set {MARK:#x} tproxy {family} to :{way.to} accept"
    if not way.host:
        return f"redirect to :{way.to}"
    address = ipaddress.ip_address(way.host)
    if address.version != number:
        return ""
    shown = f"[{address}]" if number == 6 else str(address)
    return f"dnat {family} to {shown}:{way.to}"


def _set(networks: Sequence[str], number: int) -> str:
    return ", ".join(network for network in networks if ipaddress.ip_network(network).version == number)


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise SetupError(f'{error}: write a network as "203.0.113.0/24", one address as it is') from None
