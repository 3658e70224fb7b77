"""Real container clients, each with a home of its own: nothing of the machine's configuration is read or changed.

A client pulls an image and proves that it has it: `pull` returns what the client itself calls the
image's identity, the digest of its configuration, after it has checked every layer.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from kit.netns import World
from kit.registry import Blob
from kit.servers import Service, program

_NAMES_OF_CA_AND_PROXY = ("SSL_CERT", "CA_BUNDLE", "CAINFO", "CA_CERTS", "PROXY", "DOCKER_")


def clean_environment(home: Path, ca: Path | None = None) -> dict[str, str]:
    """The environment without proxies and foreign trust; `ca` becomes all that is trusted."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not any(part in key.upper() for part in _NAMES_OF_CA_AND_PROXY)
    }
    home.mkdir(parents=True, exist_ok=True)
    kept |= {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "TMPDIR": str(home)}
    if ca is not None:
        kept |= {"SSL_CERT_FILE": str(ca), "SSL_CERT_DIR": "/nonexistent", "CURL_CA_BUNDLE": str(ca)}
    return kept


class Client(Protocol):
    """Something that pulls."""

    def pull(self, reference: str) -> str:
        """Pull `host[:port]/name:tag` as if for the first time; the config digest of what was kept."""
        ...

    def kept(self, blob: Blob) -> bool | None:
        """Whether these very bytes are in the client's store; None where it keeps them in a form of its own."""
        ...

    def close(self) -> None: ...


class _Commands:
    """What the clients share: running a command in the world, with a clean environment."""

    def __init__(self, folder: Path, inside: World, ca: Path | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.inside = inside
        self.env = clean_environment(folder / "home", ca)

    def run(self, *command: str | Path, seconds: float = 90.0) -> bytes:
        return self.inside.run(*command, env=self.env, seconds=seconds)

    def close(self) -> None:
        """Nothing runs on."""


def _policy(folder: Path) -> Path:
    file = folder / "policy.json"
    file.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    return file


class Skopeo(_Commands):
    """Copies into a folder of plain files."""

    def __init__(
        self, folder: Path, inside: World, *, ca: Path | None = None, options: Sequence[str] = (), registries: str = ""
    ) -> None:
        super().__init__(folder, inside, ca)
        conf = folder / "registries.conf"
        conf.write_text(registries)
        self._base = [program("skopeo"), "--policy", str(_policy(folder)), "--registries-conf", str(conf)]
        self._base += ["--override-arch", "amd64"]
        self._options = options
        self.target = folder / "copy"

    def pull(self, reference: str) -> str:
        shutil.rmtree(self.target, ignore_errors=True)
        self.run(*self._base, "copy", *self._source("src-"), f"docker://{reference}", f"dir:{self.target}")
        return str(json.loads((self.target / "manifest.json").read_bytes())["config"]["digest"])

    def pull_all(self, reference: str) -> bytes:
        """Every platform; the manifest list as kept."""
        shutil.rmtree(self.target, ignore_errors=True)
        flags = ["--all", "--preserve-digests", *self._source("src-")]
        self.run(*self._base, "copy", *flags, f"docker://{reference}", f"dir:{self.target}")
        return (self.target / "manifest.json").read_bytes()

    def inspect(self, reference: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(
            self.run(*self._base, "inspect", *self._source(""), f"docker://{reference}")
        )
        return found

    def raw_manifest(self, reference: str) -> bytes:
        return self.run(*self._base, "inspect", "--raw", *self._source(""), f"docker://{reference}")

    def tags(self, name: str) -> list[str]:
        answer = json.loads(self.run(*self._base, "list-tags", *self._source(""), f"docker://{name}"))
        return list(answer["Tags"])

    def kept(self, blob: Blob) -> bool | None:
        hexadecimal = blob.digest.partition(":")[2]
        names = ("manifest.json", f"{hexadecimal}.manifest.json", hexadecimal)
        return any((self.target / name).exists() and (self.target / name).read_bytes() == blob.data for name in names)

    def _source(self, prefix: str) -> list[str]:
        return [f"--{prefix}{option}" for option in self._options]


class Podman(_Commands):
    """Pulls into a storage of its own (vfs: no mounts, any file system)."""

    def __init__(
        self, folder: Path, inside: World, *, ca: Path | None = None, options: Sequence[str] = (), registries: str = ""
    ) -> None:
        super().__init__(folder, inside, ca)
        conf, containers = folder / "registries.conf", folder / "containers.conf"
        conf.write_text(registries)
        # No limit above what an ordinary hard limit allows; no journal.
        containers.write_text(
            """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
events_logger = "none"
runtime = "runc"
"""
        )
        self.env |= {"CONTAINERS_REGISTRIES_CONF": str(conf), "CONTAINERS_CONF": str(containers)}
        self._options = [f"--{option}" for option in options]
        self._base = [program("podman"), "--root", str(folder / "root"), "--runroot", str(folder / "run")]
        self._base += ["--tmpdir", str(folder / "tmp"), "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]

    def pull(self, reference: str) -> str:
        self.run(*self._base, "image", "rm", "--all", "--force")
        flags = ["--quiet", "--arch", "amd64", "--signature-policy", str(_policy(self.folder)), *self._options]
        self.run(*self._base, "pull", *flags, reference)
        return "sha256:" + self.run(*self._base, "image", "inspect", "--format", "{{.Id}}", reference).decode().strip()

    def execute(self, reference: str, *command: str) -> str:
        """Run a container of a pulled image and return what it prints."""
        flags = ["--rm", "--network", "none", "--pull", "never"]
        return self.run(*self._base, "run", *flags, reference, *command).decode()

    def kept(self, blob: Blob) -> bool | None:
        return None  # layers are kept unpacked; it has checked them against the configuration


class Buildah(_Commands):
    """Pulls into a storage of its own."""

    def __init__(self, folder: Path, inside: World, *, ca: Path | None = None, registries: str = "") -> None:
        super().__init__(folder, inside, ca)
        conf = folder / "registries.conf"
        conf.write_text(registries)
        self.env["CONTAINERS_REGISTRIES_CONF"] = str(conf)
        self._base = [program("buildah"), "--root", str(folder / "root"), "--runroot", str(folder / "run")]
        self._base += ["--storage-driver", "vfs"]

    def pull(self, reference: str) -> str:
        self.run(*self._base, "rmi", "--all", "--force")
        flags = ["--quiet", "--arch", "amd64", "--signature-policy", str(_policy(self.folder))]
        identity = self.run(*self._base, "pull", *flags, reference).decode().split()[-1]
        return f"sha256:{identity}"

    def kept(self, blob: Blob) -> bool | None:
        return None  # as podman


class Ctr(_Commands):
    """containerd with its plain client."""

    def __init__(
        self,
        folder: Path,
        inside: World,
        *,
        ca: Path | None = None,
        hosts: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """`hosts` are hosts.toml files by the registry that they are for."""
        super().__init__(folder, inside, ca)
        self.env |= env or {}
        self._socket = folder / "c.sock"
        self._root = folder / "root"
        config = folder / "containerd.toml"
        config.write_text(
            f"""version = 2
root = "{self._root}"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{self._socket}"
"""
        )
        self._flags = ["--snapshotter", "native", "--platform", "linux/amd64"]
        if hosts is not None:
            self._flags += ["--hosts-dir", str(folder / "hosts.d")]
            for name, text in hosts.items():
                place = folder / "hosts.d" / name
                place.mkdir(parents=True)
                (place / "hosts.toml").write_text(text)
        self._service = Service(
            "containerd", [program("containerd"), "--config", config], folder, env=self.env, within=inside.enter
        )
        self._service.wait_for_line("containerd successfully booted")
        self._base = [program("ctr"), "--address", str(self._socket)]

    def pull(self, reference: str) -> str:
        for name in self.run(*self._base, "images", "ls", "-q").decode().split():
            self.run(*self._base, "images", "rm", "--sync", name)
        self.run(*self._base, "images", "pull", *self._flags, reference)
        manifest = json.loads(self.run(*self._base, "content", "get", self._digest(reference)))
        if "manifests" in manifest:
            (chosen,) = (
                entry["digest"] for entry in manifest["manifests"] if entry["platform"]["architecture"] == "amd64"
            )
            manifest = json.loads(self.run(*self._base, "content", "get", chosen))
        return str(manifest["config"]["digest"])

    def kept(self, blob: Blob) -> bool | None:
        hexadecimal = blob.digest.partition(":")[2]
        file = self._root / "io.containerd.content.v1.content" / "blobs" / "sha256" / hexadecimal
        return file.exists() and file.read_bytes() == blob.data

    def _digest(self, reference: str) -> str:
        for line in self.run(*self._base, "images", "ls").decode().splitlines():
            columns = line.split()
            if columns[0] == reference:
                return columns[2]
        raise AssertionError(f"{reference} was not kept")

    def close(self) -> None:
        with contextlib.suppress(AssertionError):
            self._service.stop()
        self._service.kill()


class Dockerd(_Commands):
    """The Docker engine, with a containerd of its own, and the docker command."""

    SETTINGS: Mapping[str, object] = {
        "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 1024, "Soft": 1024}},
        "storage-driver": "vfs",
    }
    """What it needs to run in a test."""

    def __init__(
        self,
        folder: Path,
        inside: World,
        *,
        ca: Path | None = None,
        mirrors: Sequence[str] = (),
        config: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """`config` is a daemon.json with these settings instead of one made here, as the world sees it."""
        super().__init__(folder, inside, ca)
        self.env |= env or {}
        if config is None:
            config = folder / "daemon.json"
            config.write_text(json.dumps({**self.SETTINGS, "registry-mirrors": list(mirrors)}))
        socket = f"unix://{folder}/d.sock"
        flags = ["--iptables=false", "--ip6tables=false", "--bridge=none", "--config-file", str(config)]
        places = ["--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")]
        self._exec = folder / "exec"
        self._service = Service(
            "dockerd",
            [program("dockerd"), *flags, *places, "-H", socket, "--pidfile", str(folder / "d.pid")],
            folder,
            env=self.env,
            within=inside.enter,
        )
        try:
            self._service.wait_for_line("API listen on", seconds=60)
        except BaseException:
            self.close()
            raise
        self._base = [program("docker"), "-H", socket]

    def pull(self, reference: str) -> str:
        self.run(*self._base, "image", "prune", "--all", "--force")
        self.run(*self._base, "pull", "--quiet", reference)
        return self.run(*self._base, "image", "inspect", "--format", "{{.Id}}", reference).decode().strip()

    def kept(self, blob: Blob) -> bool | None:
        return None  # layers are kept unpacked; it has checked them against the configuration

    def close(self) -> None:
        """The engine's own containerd runs in a session of its own: it goes with the engine, or is ended here."""
        with contextlib.suppress(AssertionError):
            self._service.stop()
        self._service.kill()
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self._exec / "containerd" / "containerd.pid").read_text()), 9)


CLIENTS = ("skopeo", "podman", "ctr", "dockerd")

Make = Callable[..., Client]
"""What the fixture `client` gives: makes the client that the test's parameter names."""


@contextlib.contextmanager
def closing(client: Client) -> Iterator[Client]:
    """Close a client at the end."""
    try:
        yield client
    finally:
        client.close()


def curl(inside: World | None, *arguments: str | Path, ca: Path | None = None, home: Path) -> bytes:
    """Run curl quietly and return what it printed; an HTTP error is a failure."""
    command = [
        *(inside.enter if inside else []),
        program("curl"),
        "--silent",
        "--show-error",
        "--fail",
        "--noproxy",
        "*",
    ]
    if ca is not None:
        command += ["--cacert", str(ca)]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, env=clean_environment(home), timeout=60, check=False
    )
    assert done.returncode == 0, (arguments, done.returncode, done.stderr)
    return done.stdout
