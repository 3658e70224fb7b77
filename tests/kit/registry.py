"""A real registry upstream: Debian's docker-registry on loopback, filled with real images whose bytes are known.

The images are made here, the same bytes every time, so that a test can compare what a client kept
with what was published.  What the registry was asked is read from its access log.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import io
import json
import random
import re
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from kit.netns import World
from kit.servers import Service, free_port, program, wait_until

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@dataclass(frozen=True)
class Blob:
    """Bytes with a type."""

    media_type: str
    data: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.data).hexdigest()

    def descriptor(self) -> dict[str, object]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data)}


@dataclass(frozen=True)
class Image:
    """One platform's image."""

    manifest: Blob
    config: Blob
    layers: tuple[Blob, ...]

    @property
    def blobs(self) -> tuple[Blob, ...]:
        return (self.config, *self.layers)


def image(*layers: bytes, docker: bool = False, named: bool = True, architecture: str = "amd64") -> Image:
    """An image of tar files.

    `docker`: schema 2 instead of OCI; `named`: whether the manifest says its own mediaType (umoci's do not).
    """
    config = Blob(
        _DOCKER_CONFIG if docker else _OCI_CONFIG,
        _json(
            {
                "architecture": architecture,
                "os": "linux",
                "created": "2024-01-01T00:00:00Z",
                "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
                "rootfs": {
                    "type": "layers",
                    "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in layers],
                },
                "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "kit"} for _ in layers],
            }
        ),
    )
    packed = tuple(Blob(_DOCKER_LAYER if docker else _OCI_LAYER, gzip.compress(tar, 1, mtime=0)) for tar in layers)
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    fields: dict[str, object] = {"schemaVersion": 2}
    if named:
        fields["mediaType"] = media_type
    fields |= {"config": config.descriptor(), "layers": [layer.descriptor() for layer in packed]}
    return Image(Blob(media_type, _json(fields)), config, packed)


def index(images: dict[str, Image]) -> Blob:
    """An OCI index over images by architecture."""
    entries = [
        {**item.manifest.descriptor(), "platform": {"architecture": name, "os": "linux"}}
        for name, item in images.items()
    ]
    return Blob(OCI_INDEX, _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}))


def tar(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    """A tar file with nothing in it that changes from one run to the next."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for folder in sorted({str(Path(name).parent) for name in [*files, *(links or {})]} - {"."}):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return out.getvalue()


def _json(value: object) -> bytes:
    # Three spaces, as Docker writes them: bytes that any re-encoding would change.
    return json.dumps(value, indent=3).encode()


@dataclass(frozen=True)
class Images:
    """What every upstream of the tests holds."""

    amd64: Image  # library/tool:1.0 is an index over these two
    arm64: Image
    index: Blob
    docker: Image  # team/app:2, Docker schema 2
    nameless: Image  # team/deep/app:latest, a manifest without mediaType


def standard_images() -> Images:
    """A busybox that runs, a layer of 4 MiB that does not compress, and the shapes of manifest that clients meet."""
    busybox = Path(program("busybox")).read_bytes()
    base = tar({"bin/busybox": busybox}, {f"bin/{name}": "busybox" for name in ("sh", "cat", "echo", "ls")})
    big = tar({"data/noise": random.Random(1).randbytes(4 << 20)})
    small = tar({"etc/hello": b"hello from the registry\n"})
    amd64 = image(base, big, small)
    arm64 = image(tar({"data/other": random.Random(2).randbytes(64 << 10)}), architecture="arm64")
    return Images(
        amd64=amd64,
        arm64=arm64,
        index=index({"amd64": amd64, "arm64": arm64}),
        docker=image(base, tar({"etc/team": b"app\n"}), docker=True),
        nameless=image(base, small, named=False),
    )


class Asked(NamedTuple):
    """One line of the registry's access log."""

    method: str
    path: str
    status: int


class Registry:
    """A docker-registry over a folder; can be stopped and started again on its port."""

    def __init__(
        self,
        root: Path,
        folder: Path,
        *,
        inside: World | None = None,
        address: str = "127.0.0.1",
        certificate: tuple[Path, Path] | None = None,
        auth: str = "",
    ) -> None:
        """`inside` a world, `address` may use its port 443; `certificate` and key make it speak TLS.

        `auth` is the section of that name of its configuration, in flow style.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._enter = inside.enter if inside else []
        self._runs = 0
        self._marks = 0
        self._service: Service | None = None
        self._tls = certificate is not None
        self.port = 443 if certificate else free_port()
        self._address = f"{address}:{self.port}"
        tls = f"tls: {{certificate: {certificate[0]}, key: {certificate[1]}}}" if certificate else ""
        self._config = folder / "registry.yml"
        self._config.write_text(
            f"""version: 0.1
log: {{level: info, formatter: text, accesslog: {{disabled: false}}}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http:
  addr: "{self._address}"
  {tls}
{f"auth: {auth}" if auth else ""}
"""
        )

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://{self._address}"

    def start(self) -> None:
        """Returns when it listens."""
        self._runs += 1
        command = [program("docker-registry"), "serve", self._config]
        self._service = Service(f"registry-{self._runs}", command, self._folder, within=self._enter)
        self._service.wait_for_line(r"listening on \d+\.")

    def stop(self) -> None:
        """Idempotent. Requests are refused from now on."""
        if self._service is not None:
            self._service.kill()  # it holds no state worth a drain
            self._service = None

    def asked(self) -> list[Asked]:
        """Every request since the latest start that has been answered, but for those of the kit itself."""
        assert self._service is not None
        self._settle()
        lines = re.findall(
            r'^\S+ - - \[[^]]*\] "(\S+) (\S+) HTTP/[0-9.]+" (\d+)', self._service.out.read_text(), re.MULTILINE
        )
        return [Asked(method, path, int(status)) for method, path, status in lines if "kit-mark" not in path]

    def _settle(self) -> None:
        """The log is written after the answer: wait for the line of a request made now."""
        assert self._service is not None
        self._marks += 1
        mark = f"kit-mark={self._marks}&"
        command = [*self._enter, program("curl"), "-sSk", "--noproxy", "*", f"{self.url}/v2/?{mark}"]
        subprocess.run(command, check=True, capture_output=True, timeout=20)
        out = self._service.out
        wait_until(lambda: mark in out.read_text() or None, "the registry's access log")

    def publish(self, repository: str, *blobs: Blob) -> None:
        """Upload blobs."""
        for blob in blobs:
            location = self._call("POST", f"/v2/{repository}/blobs/uploads/", None, 202)
            path = location.partition(f":{self.port}")[2] or location
            self._call("PUT", f"{path}&digest={blob.digest}", Blob("application/octet-stream", blob.data), 201)

    def tag(self, repository: str, name: str, manifest: Blob) -> None:
        """Upload a manifest under a tag or its digest; also moves a tag."""
        self._call("PUT", f"/v2/{repository}/manifests/{name}", manifest, 201)

    def publish_image(self, repository: str, tag: str, item: Image) -> None:
        self.publish(repository, *item.blobs)
        self.tag(repository, tag, item.manifest)

    def _call(self, method: str, path: str, body: Blob | None, expected: int) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            headers = {"Content-Type": body.media_type} if body else {}
            connection.request(method, path, body.data if body else None, headers)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == expected, (method, path, answer.status, text)
            return answer.getheader("Location") or ""


def fill(root: Path, folder: Path, images: Images) -> None:
    """Make a registry's folder that holds the standard images."""
    registry = Registry(root, folder)
    registry.start()
    try:
        for item in (images.amd64, images.arm64):
            registry.publish_image("library/tool", item.manifest.digest, item)
        registry.tag("library/tool", "1.0", images.index)
        registry.publish_image("team/app", "2", images.docker)
        registry.publish_image("team/deep/app", "latest", images.nameless)
    finally:
        registry.stop()


@contextlib.contextmanager
def running(registry: Registry) -> Iterator[Registry]:
    """Started now, stopped at the end."""
    registry.start()
    try:
        yield registry
    finally:
        registry.stop()
