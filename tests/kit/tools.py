"""skopeo, podman and buildah: three commands over one library, each with storage and logins of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from kit.client_base import Commands, accepts_anything
from kit.netns import World
from kit.registry import Blob
from kit.servers import program


class _Tool(Commands):
    """Logging in is the same for all three. `options` are those of every command that talks to a registry."""

    def __init__(
        self, folder: Path, inside: World, name: str, *, ca: Path | None, options: Sequence[str], registries: str
    ) -> None:
        super().__init__(folder, inside, ca)
        self._program = program(name)
        self._options = options
        self._conf = folder / "registries.conf"
        self._conf.write_text(registries)
        logins = folder / "auth.json"
        logins.write_text("{}")
        self.env |= {"CONTAINERS_REGISTRIES_CONF": str(self._conf), "REGISTRY_AUTH_FILE": str(logins)}

    def login(self, registry: str, user: str, password: str) -> None:
        how = [flag for flag in self.flags() if flag.startswith(("--tls-verify", "--cert-dir"))]
        secret = ["--username", user, "--password-stdin"]
        self.run(self._program, "login", *how, *secret, registry, stdin=password.encode())

    def logout(self, registry: str) -> None:
        self.run(self._program, "logout", registry)

    def flags(self, prefix: str = "") -> list[str]:
        return [f"--{prefix}{option}" for option in self._options]

    def digest_file(self) -> Path:
        """Where a push is to write the digest."""
        file = self.folder / "digest"
        file.unlink(missing_ok=True)
        return file


class Skopeo(_Tool):
    """Copies into a folder of plain files, out of one, and between registries."""

    def __init__(
        self, folder: Path, inside: World, *, ca: Path | None = None, options: Sequence[str] = (), registries: str = ""
    ) -> None:
        super().__init__(folder, inside, "skopeo", ca=ca, options=options, registries=registries)
        self._base = [program("skopeo"), "--policy", str(accepts_anything(folder))]
        self._base += ["--registries-conf", str(self._conf), "--override-arch", "amd64"]
        self.target = folder / "copy"

    def pull(self, reference: str) -> str:
        shutil.rmtree(self.target, ignore_errors=True)
        self.run(*self._base, "copy", *self.flags("src-"), f"docker://{reference}", f"dir:{self.target}")
        return str(json.loads((self.target / "manifest.json").read_bytes())["config"]["digest"])

    def pull_all(self, reference: str) -> bytes:
        """Every platform; the manifest list as kept."""
        shutil.rmtree(self.target, ignore_errors=True)
        flags = ["--all", "--preserve-digests", *self.flags("src-")]
        self.run(*self._base, "copy", *flags, f"docker://{reference}", f"dir:{self.target}")
        return (self.target / "manifest.json").read_bytes()

    def push(self, source: str, target: str) -> str:
        return self.copy(f"docker://{source}", f"docker://{target}")

    def copy(self, source: str, target: str, *flags: str) -> str:
        """From one place to another, each with its transport (`docker://`, `dir:`, `oci:`); the digest as written."""
        file = self.digest_file()
        both = [*self.flags("src-"), *self.flags("dest-"), "--digestfile", str(file)]
        self.run(*self._base, "copy", *both, *flags, source, target)
        return file.read_text().strip()

    def sync(self, source: str, target: str) -> None:
        """Every tag of a repository, every platform, to below `target`."""
        both = [*self.flags("src-"), *self.flags("dest-")]
        self.run(*self._base, "sync", "--all", *both, "--src", "docker", "--dest", "docker", source, target)

    def delete(self, reference: str) -> None:
        self.run(*self._base, "delete", *self.flags(), f"docker://{reference}")

    def inspect(self, reference: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.run(*self._base, "inspect", *self.flags(), f"docker://{reference}"))
        return found

    def raw_manifest(self, reference: str) -> bytes:
        return self.run(*self._base, "inspect", "--raw", *self.flags(), f"docker://{reference}")

    def tags(self, name: str) -> list[str]:
        answer = json.loads(self.run(*self._base, "list-tags", *self.flags(), f"docker://{name}"))
        return list(answer["Tags"])

    def kept(self, blob: Blob) -> bool | None:
        hexadecimal = blob.digest.partition(":")[2]
        names = ("manifest.json", f"{hexadecimal}.manifest.json", hexadecimal)
        return any((self.target / name).exists() and (self.target / name).read_bytes() == blob.data for name in names)


class Podman(_Tool):
    """Pulls into a storage of its own (vfs: no mounts, any file system)."""

    def __init__(
        self, folder: Path, inside: World, *, ca: Path | None = None, options: Sequence[str] = (), registries: str = ""
    ) -> None:
        super().__init__(folder, inside, "podman", ca=ca, options=options, registries=registries)
        containers = folder / "containers.conf"
        # No limit above what an ordinary hard limit allows; no journal.
        containers.write_text(
            """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
events_logger = "none"
runtime = "runc"
"""
        )
        self.env["CONTAINERS_CONF"] = str(containers)
        self._base = [program("podman"), "--root", str(folder / "root"), "--runroot", str(folder / "run")]
        self._base += ["--tmpdir", str(folder / "tmp"), "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]

    def pull(self, reference: str) -> str:
        self.run(*self._base, "image", "rm", "--all", "--force")
        flags = ["--quiet", "--arch", "amd64", "--signature-policy", str(accepts_anything(self.folder)), *self.flags()]
        self.run(*self._base, "pull", *flags, reference)
        return self.identity(reference)

    def identity(self, reference: str) -> str:
        """The configuration's digest of an image in its storage."""
        return "sha256:" + self.run(*self._base, "image", "inspect", "--format", "{{.Id}}", reference).decode().strip()

    def push(self, source: str, target: str, *flags: str) -> str:
        file = self.digest_file()
        policy = ["--signature-policy", str(accepts_anything(self.folder))]
        self.run(*self._base, "push", "--digestfile", file, *policy, *self.flags(), *flags, source, target)
        return file.read_text().strip()

    def execute(self, reference: str, *command: str) -> str:
        """Run a container of a pulled image and return what it prints."""
        flags = ["--rm", "--network", "none", "--pull", "never"]
        return self.run(*self._base, "run", *flags, reference, *command).decode()

    def kept(self, blob: Blob) -> bool | None:
        return None  # layers are kept unpacked; it has checked them against the configuration


class Buildah(_Tool):
    """Pulls into a storage of its own, and builds there."""

    def __init__(
        self, folder: Path, inside: World, *, ca: Path | None = None, options: Sequence[str] = (), registries: str = ""
    ) -> None:
        super().__init__(folder, inside, "buildah", ca=ca, options=options, registries=registries)
        self._base = [program("buildah"), "--root", str(folder / "root"), "--runroot", str(folder / "run")]
        self._base += ["--storage-driver", "vfs"]

    def pull(self, reference: str) -> str:
        self.run(*self._base, "rmi", "--all", "--force")
        flags = ["--quiet", "--arch", "amd64", "--signature-policy", str(accepts_anything(self.folder)), *self.flags()]
        identity = self.run(*self._base, "pull", *flags, reference).decode().split()[-1]
        return f"sha256:{identity}"

    def build(self, files: dict[str, bytes], name: str) -> str:
        """An image of nothing but these files; the configuration's digest."""
        made = self.run(*self._base, "from", "scratch").decode().strip()
        for path, data in files.items():
            file = self.folder / "added"
            file.write_bytes(data)
            file.chmod(0o755)
            self.run(*self._base, "copy", "--quiet", made, file, f"/{path}")
        policy = ["--signature-policy", str(accepts_anything(self.folder))]
        return "sha256:" + self.run(*self._base, "commit", "--rm", "--quiet", *policy, made, name).decode().strip()

    def push(self, source: str, target: str, *flags: str) -> str:
        file = self.digest_file()
        policy = ["--signature-policy", str(accepts_anything(self.folder))]
        self.run(
            *self._base, "push", "--digestfile", file, *policy, *self.flags(), *flags, source, f"docker://{target}"
        )
        return file.read_text().strip()

    def push_list(self, name: str, images: Sequence[str], target: str) -> str:
        """A multi-platform image of images in its storage."""
        policy = ["--signature-policy", str(accepts_anything(self.folder))]
        self.run(*self._base, "manifest", "create", name, *images)
        file = self.digest_file()
        both = ["--all", "--digestfile", file, *policy, *self.flags()]
        self.run(*self._base, "manifest", "push", *both, name, f"docker://{target}")
        return file.read_text().strip()

    def kept(self, blob: Blob) -> bool | None:
        return None  # as podman
