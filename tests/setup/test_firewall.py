"""The rules for a firewall: nftables takes them, twice too, and they send what they should, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.netns import World, world
from kit.servers import Service, program
from kit.settings import Kept, configured
from mxart.config import Config
from mxart.setup.firewall import FILE, firewall
from mxart.setup.plan import Plan, SetupError

_BOTH = """
[[listener]]
address = ":8443"
tls = true
transparent = true
[[listener]]
address = ":8081"
transparent = true
"""
_FAR = "203.0.113.9"  # RFC 5737: nobody has it
_NOBODY = "65534"


@pytest.fixture
def both() -> Config:
    return configured(_BOTH)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[World]:
    """A machine with a way out that leads nowhere: what it sends to the outside is answered by a reset."""
    with world(tmp_path / "world") as made:
        for command in (
            "ip link add out type veth peer name far",
            "ip address add 192.0.2.1/24 dev out",
            "ip link set out up",
            "ip link set far up",
            "ip route add default via 192.0.2.2",
        ):
            made.run(*command.split())
        reject = "table inet outside {\nchain out {\ntype filter hook output priority 10;\n"
        reject += "ip daddr { 203.0.113.0/24, 10.0.0.0/8 } meta l4proto tcp reject with tcp reset\n}\n}\n"
        _load(made, tmp_path / "outside.nft", reject)
        yield made


@pytest.fixture
def neighbour(tmp_path: Path, alone: World) -> Iterator[World]:
    """Another machine, whose way out leads through the first."""
    with world(tmp_path / "neighbour") as made:
        alone.run("ip", "link", "set", "far", "netns", str(made._holder.pid))
        for command in (
            "ip address add 192.0.2.2/24 dev far",
            "ip link set far up",
            "ip route add default via 192.0.2.1",
        ):
            made.run(*command.split())
        yield made


def _rules(plan: Plan) -> str:
    (change,) = plan.changes
    assert change.path == FILE
    return change.content


def _load(inside: World, file: Path, text: str) -> None:
    file.write_text(text)
    inside.run(program("nft"), "-f", file)


@pytest.mark.parametrize("listener", ['":8443"', '"192.0.2.1:8443"', '"[2001:db8::1]:8443"'])
@pytest.mark.parametrize("user", ["", "nobody", _NOBODY])
@pytest.mark.parametrize("networks", [(), ("198.51.100.0/24", "2001:db8:1::/48"), ("198.51.100.7",)])
def test_nftables_loads_them_again_and_again(
    alone: World, tmp_path: Path, listener: str, user: str, networks: tuple[str, ...]
) -> None:
    config = configured(f"[[listener]]\naddress = {listener}\ntls = true\ntransparent = true\n")
    text = _rules(firewall(config, Kept(), user=user, networks=networks))
    _load(alone, tmp_path / "mxart.nft", text)
    once = alone.run(program("nft"), "list", "ruleset")
    _load(alone, tmp_path / "mxart.nft", text)
    assert alone.run(program("nft"), "list", "ruleset") == once
    assert b"table inet outside" in once
    alone.run(program("nft"), "delete", "table", "inet", "mxart")


def test_tproxy_rules_and_routes_are_taken(alone: World, both: Config, tmp_path: Path) -> None:
    plan = firewall(both, Kept(), tproxy=True)
    _load(alone, tmp_path / "mxart.nft", _rules(plan))
    assert plan.commands[0] == f"nft -f {FILE}"
    for command in plan.commands[1:]:
        alone.run(*command.split())
    rule = alone.run("ip", "rule", "list", "fwmark", "0x6d78").decode()
    assert rule
    (undo,) = [note.removeprefix("to undo: ") for note in plan.notes if note.startswith("to undo: ")]
    for command in undo.split("; "):
        alone.run(*command.split())
    assert b"mxart" not in alone.run(program("nft"), "list", "ruleset")


@pytest.fixture
def answering(alone: World, tmp_path: Path) -> Iterator[None]:
    """Listeners, transparent ones, that say to whoever connects which they are and where he wanted to go."""
    script = """
import select, socket, struct
socks = [socket.socket() for _ in range(2)]
for sock, port in zip(socks, (8443, 8081)):
    sock.setsockopt(socket.SOL_IP, 19, 1)  # IP_TRANSPARENT
    sock.bind(("", port))
    sock.listen()
print("ready", flush=True)
while True:
    for sock in select.select(socks, [], [])[0]:
        connection, _ = sock.accept()
        try:  # SO_ORIGINAL_DST, which REDIRECT leaves
            port, address = struct.unpack("!2xH4s8x", connection.getsockopt(socket.SOL_IP, 80, 16))
            wanted = f"{socket.inet_ntoa(address)}:{port}"
        except OSError:
            wanted = "%s:%d" % connection.getsockname()
        connection.sendall(f"{sock.getsockname()[1]} for {wanted}".encode())
        connection.close()
"""
    service = Service("answering", [program("python3"), "-c", script], tmp_path, within=alone.enter)
    service.wait_for_line("ready")
    yield
    service.kill()


def _connect(inside: World, port: int, *, user: str = "0", host: str = _FAR) -> str:
    """What answers at an address of the outside; "" if a reset does."""
    script = (
        "import socket\n"
        f"try:\n    print(socket.create_connection(('{host}', {port}), 10).recv(99).decode())\n"
        "except ConnectionRefusedError:\n    print()\n"
    )
    as_user = [program("setpriv"), "--reuid", user, "--clear-groups"]
    return inside.run(*as_user, program("python3"), "-c", script).decode().strip()


@pytest.mark.usefixtures("answering")
def test_this_machines_connections_are_taken_but_for_the_servers(alone: World, both: Config, tmp_path: Path) -> None:
    assert _connect(alone, 443) == ""
    _load(alone, tmp_path / "mxart.nft", _rules(firewall(both, Kept(), user=_NOBODY)))
    assert _connect(alone, 443) == f"8443 for {_FAR}:443"
    assert _connect(alone, 80) == f"8081 for {_FAR}:80"
    assert _connect(alone, 22) == ""
    assert _connect(alone, 443, host="10.1.2.3") == ""  # private networks are left alone
    assert _connect(alone, 443, user=_NOBODY) == ""  # no loop
    _load(alone, tmp_path / "mxart.nft", _rules(firewall(both, Kept(), user=_NOBODY, networks=["10.1.2.0/24"])))
    assert _connect(alone, 443) == ""
    assert _connect(alone, 443, host="10.1.2.3") == "8443 for 10.1.2.3:443"


@pytest.mark.usefixtures("answering")
@pytest.mark.parametrize("tproxy", [False, True], ids=["redirect", "tproxy"])
def test_what_is_forwarded_is_taken(alone: World, neighbour: World, both: Config, tmp_path: Path, tproxy: bool) -> None:
    plan = firewall(both, Kept(), tproxy=tproxy)
    _load(alone, tmp_path / "mxart.nft", _rules(plan))
    for command in plan.commands[1:]:
        alone.run(*command.split())
    assert _connect(neighbour, 443) == f"8443 for {_FAR}:443"
    assert _connect(neighbour, 80) == f"8081 for {_FAR}:80"
    assert _connect(neighbour, 8443, host="192.0.2.1") == "8443 for 192.0.2.1:8443"  # our own address is not touched
    assert _connect(alone, 443) == ""


def test_without_a_transparent_listener_the_user_is_told_what_to_add() -> None:
    with pytest.raises(SetupError, match=r"add .* \[\[listener\]\] with .*transparent = true"):
        firewall(configured(""), Kept())


def test_one_listener_takes_both_ports_with_tls_and_one_without(both: Config) -> None:
    text = _rules(firewall(both, Kept(), networks=["198.51.100.0/24"]))
    assert "tcp dport 443 redirect to :8443\n" in text
    assert "tcp dport 80 redirect to :8081\n" in text
    alone = configured('[[listener]]\naddress = ":8443"\ntls = true\ntransparent = true\n')
    assert "tcp dport 80 redirect to :8443\n" in _rules(firewall(alone, Kept()))
    plain = configured('[[listener]]\naddress = ":8081"\ntransparent = true\n')
    assert "dport 443" not in _rules(firewall(plain, Kept()))


@pytest.mark.parametrize(
    ("address", "options", "why"),
    [
        (":8443", {"user": "root"}, "a user of its own"),
        (":8443", {"user": "0"}, "a user of its own"),
        (":8443", {"user": "mxart", "tproxy": True}, "leave --user or --tproxy out"),
        (":8443", {"networks": ["10.0.0.1/8"]}, "write a network as"),
        (":8443", {"user": 'x" accept; #'}, "not a user's name"),
        (":0", {}, "a port that a rule can name"),
        ("127.0.0.1:8443", {}, "this machine only: --user USER"),
        ("10.0.0.1:8443", {"tproxy": True}, "on every address"),
        ("localhost:8443", {"user": "mxart"}, "rules need an address"),
    ],
)
def test_what_cannot_work_is_refused(address: str, options: dict[str, object], why: str) -> None:
    config = configured(f'[[listener]]\naddress = "{address}"\ntls = true\ntransparent = true\n')
    with pytest.raises(SetupError, match=why):
        firewall(config, Kept(), **options)  # type: ignore[arg-type]


def test_a_listener_on_the_loopback_takes_this_machines_own_alone() -> None:
    config = configured('[[listener]]\naddress = "127.0.0.1:8443"\ntls = true\ntransparent = true\n')
    text = _rules(firewall(config, Kept(), user="mxart"))
    assert "prerouting" not in text
    assert "dnat ip to 127.0.0.1:8443" in text
    assert "ip6 daddr { ::1" in text  # left alone
    assert "dnat ip6" not in text


def test_what_the_rules_would_cut_off_is_told(both: Config) -> None:
    assert any("is refused, every other https site too" in note for note in firewall(both, Kept()).notes)
    everything = '[[tunnel]]\nnetworks = ["0.0.0.0/0", "::/0"]\n'
    assert not any("is refused" in note for note in firewall(configured(_BOTH + everything), Kept()).notes)
