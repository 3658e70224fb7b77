"""What `mxart setup CLIENT --write` writes is all that a client needs: it pulls through us by the usual names.

The world has addresses for the server's own names and for no registry: what is pulled came through us.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from kit.clients import Ctr, Dockerd, Podman, Skopeo, clean_environment
from kit.netns import World, world
from kit.pulls import hub
from kit.registry import Images, Registry, running
from kit.servers import Mxart, Service, mxart, program, wait_until

_ADDRESS = "10.9.8.7"
_OURS = "images.test"
_HUB = "hub.test"
_LINK = f'[tls]\nnames = ["{_OURS}"]\n'
_FOLDERS = ("/etc/containers", "/etc/containerd", "/usr/local/share/ca-certificates", "/etc/ssl/certs")

ways = pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])


@pytest.fixture
def office(room: Path) -> Iterator[World]:
    """A machine with empty folders for settings, where our names lead to an address that is not the loopback."""
    with world(room / "office", {_OURS: _ADDRESS, _HUB: _ADDRESS}) as made:
        made.run("ip", "address", "add", f"{_ADDRESS}/32", "dev", "lo")
        for folder in _FOLDERS:
            made.run("mount", "-t", "tmpfs", "none", folder)
        yield made


@pytest.fixture
def remote(filled: Path, room: Path, office: World) -> Iterator[Registry]:
    shutil.copytree(filled, room / "remote-root")
    with running(Registry(room / "remote-root", room / "remote", inside=office)) as registry:
        yield registry


@pytest.fixture
def served(remote: Registry, office: World, room: Path, tls: bool) -> Iterator[Mxart]:
    config = hub(remote, names=(_HUB,)) + _LINK
    listen = [f"{_ADDRESS}:8443"]
    with mxart(room / "mxart", config, listen=listen, tls=tls, within=office.enter) as server:
        yield server


def _setup(office: World, served: Mxart, client: str, *arguments: str) -> str:
    """Run the command inside; what it prints."""
    where = f"{served.url.partition(':')[0]}://{_OURS}:8443"
    command = [sys.executable, "-m", "mxart", "--config", str(served.data.parent / "mxart.toml")]
    command += ["--data", str(served.data), "setup", client, "--url", where, *arguments]
    return office.run(*command).decode()


def _wrote(office: World, served: Mxart, client: str, *arguments: str) -> list[str]:
    """Set up a client, twice: the second run finds everything done. What has to be run afterwards."""
    first = _setup(office, served, client, "--write", *arguments)
    assert "\nwrote /" in first
    assert _setup(office, served, client, "--write", *arguments) == "nothing to do: everything is set already\n"
    return [line.strip() for line in first.partition("then run:\n")[2].splitlines()]


def _names() -> tuple[str, str]:
    """The usual name, and the full one that begins with ours."""
    return "docker.io/library/tool:1.0", f"{_OURS}:8443/docker.io/library/tool:1.0"


def _check(
    pull: Callable[[str], str], served: Mxart, remote: Registry, images: Images, names: Sequence[str] = _names()
) -> None:
    """Each of the names is asked of us, whoever asked for it before."""
    for name in names:
        before = _asked(served)
        assert pull(name) == images.amd64.config.digest, name
        wait_until(lambda before=before: _asked(served) > before, f"{name} in our log")  # type: ignore[misc]
    assert any("/blobs/" in asked.path for asked in remote.asked())


def _asked(served: Mxart) -> int:
    return served.log().count("/library/tool/manifests/")


@ways
def test_docker(tls: bool, office: World, served: Mxart, remote: Registry, images: Images, room: Path) -> None:
    """The classic store: daemon.json keeps what the engine was told before."""
    del tls
    _put(office, "/etc/docker/daemon.json", json.dumps(dict(Dockerd.SETTINGS), indent=4))
    assert _wrote(office, served, "docker") == ["systemctl reload docker"]
    assert json.loads(office.run("cat", "/etc/docker/daemon.json.before-mxart")) == Dockerd.SETTINGS
    docker = Dockerd(room / "dockerd", office, config=Path("/etc/docker/daemon.json"))
    try:
        _check(docker.pull, served, remote, images)
    finally:
        docker.close()


@ways
def test_folders_of_hosts(
    tls: bool, office: World, served: Mxart, remote: Registry, images: Images, room: Path
) -> None:
    """containerd's own reader of hosts.toml, which Docker's containerd store has too, finds us by both folders."""
    for client, folder in (("docker", "/etc/docker/certs.d"), ("containerd", "/etc/containerd/certs.d")):
        _wrote(office, served, client)
        ctr = Ctr(room / client, office)
        ctr._flags += ["--hosts-dir", folder]
        # Our own name without TLS: the engine goes by daemon.json.
        names = _names()[:1] if client == "docker" and not tls else _names()
        try:
            _check(ctr.pull, served, remote, images, names)
        finally:
            ctr.close()


@ways
def test_podman_and_its_kin(
    tls: bool, office: World, served: Mxart, remote: Registry, images: Images, room: Path
) -> None:
    """One setup is for podman, skopeo and buildah."""
    del tls
    _wrote(office, served, "podman")
    podman = Podman(room / "podman", office)
    del podman.env["CONTAINERS_REGISTRIES_CONF"]
    _check(podman.pull, served, remote, images)

    skopeo = Skopeo(room / "skopeo", office)
    place = skopeo._base.index("--registries-conf")
    del skopeo._base[place : place + 2]
    _check(skopeo.pull, served, remote, images)

    policy = room / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    env = clean_environment(room / "home")
    base = [program("buildah"), "--root", str(room / "b"), "--runroot", str(room / "r"), "--storage-driver", "vfs"]

    def pull(reference: str) -> str:
        office.run(*base, "rmi", "--all", "--force", env=env)
        image = office.run(*base, "pull", "--quiet", "--signature-policy", policy, reference, env=env).decode().strip()
        return f"sha256:{image}"

    _check(pull, served, remote, images)


@ways
def test_cri(tls: bool, office: World, served: Mxart, remote: Registry, images: Images, room: Path) -> None:
    """As a kubelet asks for it: by gRPC, of a containerd whose configuration had something to say before."""
    del tls
    socket_path = room / "c.sock"
    _put(
        office,
        "/etc/containerd/config.toml",
        f"""version = 2
root = "{room}/containerd/root"
state = "{room}/containerd/state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
# where to find it
[grpc]
  address = "{socket_path}"
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native" # no mounts
""",
    )
    assert _wrote(office, served, "cri") == ["systemctl restart containerd"]
    assert b"# no mounts" in office.run("cat", "/etc/containerd/config.toml")
    dump = office.run(program("containerd"), "--config", "/etc/containerd/config.toml", "config", "dump").decode()
    assert 'config_path = "/etc/containerd/certs.d"' in dump
    assert 'snapshotter = "native"' in dump
    daemon = Service(
        "containerd",
        [program("containerd")],
        room / "containerd",
        env=clean_environment(room / "home"),
        within=office.enter,
    )
    try:
        daemon.wait_for_line("containerd successfully booted")
        _check(lambda reference: _cri_pull(socket_path, reference), served, remote, images)
    finally:
        daemon.stop()


@pytest.mark.parametrize("tls", [True])
def test_transparent(tls: bool, office: World, served: Mxart, remote: Registry, images: Images, room: Path) -> None:
    """Nothing is set but trust: the name is redirected, and every program of the machine believes us."""
    del tls
    served.stop()
    for command in _wrote(office, served, "skopeo", "--mode", "transparent"):
        office.run(*command.split())
    names = room / "office" / "hosts"
    names.write_text(f"{names.read_text()}{_ADDRESS} registry-1.docker.io\n")
    config = hub(remote)
    with mxart(room / "mxart", config, listen=[f"{_ADDRESS}:443"], tls=True, within=office.enter):
        skopeo = Skopeo(room / "skopeo", office)
        assert skopeo.pull("docker.io/library/tool:1.0") == images.amd64.config.digest


@pytest.mark.parametrize("client", ["podman", "buildah", "docker", "skopeo"])
def test_proxy_settings_lead_clients_to_us(office: World, room: Path, client: str) -> None:
    """Whatever answers at our address: that is whom they ask to connect them to Docker Hub."""
    policy = room / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    env = clean_environment(room / "home")
    store = ["--root", str(room / "s"), "--runroot", str(room / "r"), "--storage-driver", "vfs"]
    pull = ["--signature-policy", str(policy), "docker.io/library/tool:1.0"]
    commands = {
        "podman": [program("podman"), *store, "pull", *pull],
        "buildah": [program("buildah"), *store, "pull", *pull],
        "skopeo": [program("skopeo"), "--policy", str(policy), "inspect", "docker://docker.io/library/tool:1.0"],
    }
    script = """
import socket
listening = socket.create_server(("10.9.8.7", 8443))
print("ready", flush=True)
while True:
    connection, _ = listening.accept()
    print(connection.recv(9999).decode().splitlines()[0], flush=True)
    connection.sendall(b"HTTP/1.1 403 Forbidden\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
    connection.close()
"""
    office.run("mkdir", "-p", "/etc/systemd/system")
    office.run("mount", "-t", "tmpfs", "none", "/etc/systemd/system")
    command = [sys.executable, "-m", "mxart", "--data", str(room / "data"), "setup", client]
    command += ["--url", f"http://{_OURS}:8443", "--mode", "proxy"]
    shown = subprocess.run([*office.enter, *command, "--write"], capture_output=True, check=True, timeout=60)
    proxy = Service("proxy", [program("python3"), "-c", script], room / "proxy", within=office.enter)
    docker: Dockerd | None = None
    try:
        proxy.wait_for_line("ready")
        match client:
            case "docker":
                drop_in = "/etc/systemd/system/docker.service.d/mxart-proxy.conf"
                said = re.findall(r'^Environment="(.*?)=(.*)"$', office.run("cat", drop_in).decode(), re.MULTILINE)
                docker = Dockerd(room / "dockerd", office, env=dict(said))
                with pytest.raises(AssertionError, match="Forbidden"):
                    docker.pull("docker.io/library/tool:1.0")
            case "skopeo":
                (said_so,) = re.findall(r"^note: in its environment: export (.*)", shown.stderr.decode(), re.MULTILINE)
                env |= dict(word.split("=", 1) for word in said_so.split())
        asking = Service(client, commands[client], room / client, env=env, within=office.enter) if not docker else None
        proxy.wait_for_line("^CONNECT registry-1.docker.io:443 HTTP/1.1")
        if asking:
            asking.kill()
    finally:
        if docker:
            docker.close()
        proxy.kill()


def _put(office: World, path: str, text: str) -> None:
    done = subprocess.run(
        [*office.enter, "tee", path], input=text.encode(), stdout=subprocess.DEVNULL, timeout=20, check=True
    )
    assert done.returncode == 0


def _cri_pull(socket_path: Path, reference: str) -> str:
    """`runtime.v1.ImageService/PullImage` (kubernetes, cri-api api.proto): the image's reference."""
    image = _field(1, reference.encode())
    answer = _grpc(socket_path, "/runtime.v1.ImageService/PullImage", _field(1, image))
    assert answer[0] == 0x0A, answer  # field 1, a string shorter than 128 bytes
    return answer[2 : 2 + answer[1]].decode()


def _field(number: int, data: bytes) -> bytes:
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data


def _grpc(socket_path: Path, path: str, message: bytes) -> bytes:
    """One unary call over a Unix socket; fails with the status that the server gives."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    head = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost", "te": "trailers"}
    connection.send_headers(1, [*head.items(), ("content-type", "application/grpc")])
    connection.send_data(1, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
    said: dict[str, str] = {}
    body = b""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(socket_path))
        sock.sendall(connection.data_to_send())
        while data := sock.recv(65536):
            for event in connection.receive_data(data):
                match event:
                    case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                        said |= dict(event.headers)
                    case h2.events.DataReceived():
                        body += event.data
                    case h2.events.StreamEnded():
                        assert said.get("grpc-status") == "0", said
                        return body[5:]
            sock.sendall(connection.data_to_send())
    raise AssertionError(f"the call ended early: {said}")
