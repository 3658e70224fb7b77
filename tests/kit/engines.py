"""containerd and the Docker engine: daemons of the test's own, and their commands."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from kit.client_base import Commands
from kit.netns import World
from kit.registry import Blob
from kit.servers import Service, program


class Ctr(Commands):
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
        self._service.wait_for_line("containerd successfully booted", seconds=60)
        self._base = [program("ctr"), "--address", str(self._socket)]
        self._users: dict[str, str] = {}

    def login(self, registry: str, user: str, password: str) -> None:
        """It keeps no logins: from now on it is told with every command, and nothing is asked now."""
        self._users[registry] = f"{user}:{password}"

    def logout(self, registry: str) -> None:
        del self._users[registry]

    def _registry_flags(self, reference: str) -> list[str]:
        user = self._users.get(reference.partition("/")[0])
        place = self._flags.index("--hosts-dir") if "--hosts-dir" in self._flags else None
        hosts = [] if place is None else self._flags[place : place + 2]
        return [*hosts, *(["--user", user] if user else [])]

    def push(self, source: str, target: str) -> str:
        """Of a multi-platform image the platform that was pulled."""
        self._tag(source, target)
        flags = ["--platform", "linux/amd64", *self._registry_flags(target)]
        self.run(*self._base, "images", "push", *flags, target)
        return self._chosen(self._digest(target))

    def push_all(self, source: str, target: str) -> str:
        """All of what `pull_all` brought."""
        self._tag(source, target)
        self.run(*self._base, "images", "push", *self._registry_flags(target), target)
        return self._digest(target)

    def _tag(self, source: str, target: str) -> None:
        self.run(*self._base, "images", "tag", "--force", source, target)

    def pull_all(self, reference: str) -> str:
        """Every platform; the digest of the manifest list."""
        flags = ["--all-platforms", *self._registry_flags(reference)]
        self.run(*self._base, "content", "fetch", *flags, reference)
        return self._digest(reference)

    def pull(self, reference: str) -> str:
        for name in self.run(*self._base, "images", "ls", "-q").decode().split():
            self.run(*self._base, "images", "rm", "--sync", name)
        user = self._users.get(reference.partition("/")[0])
        self.run(*self._base, "images", "pull", *self._flags, *(["--user", user] if user else []), reference)
        chosen = self._chosen(self._digest(reference))
        return str(json.loads(self.run(*self._base, "content", "get", chosen))["config"]["digest"])

    def _chosen(self, digest: str) -> str:
        """The manifest for this machine's platform: itself, or the one that an index names."""
        manifest = json.loads(self.run(*self._base, "content", "get", digest))
        if "manifests" not in manifest:
            return digest
        (chosen,) = (
            str(entry["digest"]) for entry in manifest["manifests"] if entry["platform"]["architecture"] == "amd64"
        )
        return chosen

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


class Dockerd(Commands):
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
        return self.identity(reference)

    def login(self, registry: str, user: str, password: str) -> None:
        secret = ["--username", user, "--password-stdin"]
        self.run(*self._base, "login", *secret, registry, stdin=password.encode())

    def logout(self, registry: str) -> None:
        self.run(*self._base, "logout", registry)

    def push(self, source: str, target: str) -> str:
        self.run(*self._base, "tag", source, target)
        told = self.run(*self._base, "push", target).decode()
        found = re.search(r"digest: (sha256:[0-9a-f]{64}) size: \d+", told)
        assert found, told
        return found[1]

    def build(self, files: dict[str, bytes], name: str) -> str:
        """An image of nothing but these files; the configuration's digest."""
        context = self.folder / "context"
        shutil.rmtree(context, ignore_errors=True)
        for path, data in files.items():
            file = context / "files" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            file.chmod(0o755)
        (context / "Dockerfile").write_text("FROM scratch\nCOPY files /\n")
        self.env["DOCKER_BUILDKIT"] = "0"  # which is a plugin of the command
        self.run(*self._base, "build", "--quiet", "--tag", name, context)
        return self.identity(name)

    def identity(self, reference: str) -> str:
        """The configuration's digest of an image that it has."""
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
