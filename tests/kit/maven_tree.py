"""A Maven upstream: nginx over a real tree, filled by `kit.maven_fill`, beside artifacts of the tests' own."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from kit.maven_fill import place
from kit.servers import Service, free_port, missing, nginx


@dataclass(frozen=True)
class Artifact:
    """A small one of the tests' own: its POM, and a jar of a few files."""

    group: str
    artifact: str
    version: str
    needs: tuple[str, ...] = ()  # group:artifact:version
    extra: dict[str, bytes] = field(default_factory=dict)

    @property
    def coordinates(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def base(self) -> str:
        """Path of its files, without the extension."""
        return f"{self.folder}/{self.artifact}-{self.version}"

    @property
    def folder(self) -> str:
        return f"{self.group.replace('.', '/')}/{self.artifact}/{self.version}"

    @property
    def pom(self) -> bytes:
        needs = (one.split(":") for one in self.needs)
        dependencies = "".join(
            f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version>"
            "</dependency>"
            for group, name, version in needs
        )
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n<project xmlns="http://maven.apache.org/POM/4.0.0">\n'
            f"<modelVersion>4.0.0</modelVersion>\n<groupId>{self.group}</groupId><artifactId>{self.artifact}</artifactId>"
            f"<version>{self.version}</version>\n<dependencies>{dependencies}</dependencies>\n</project>\n"
        ).encode()

    @property
    def jar(self) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
            manifest = {"META-INF/MANIFEST.MF": b"Manifest-Version: 1.0\r\n\r\n"}
            for name, data in {**manifest, "name.txt": self.coordinates.encode(), **self.extra}.items():
                archive.writestr(zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0)), data)
        return out.getvalue()

    @property
    def files(self) -> dict[str, bytes]:
        """By path in a repository."""
        return {f"{self.base}.pom": self.pom, f"{self.base}.jar": self.jar}


def real_tree() -> Path:
    """What `kit.maven_fill` filled; without it the test is skipped, or fails where clients are required."""
    folder = place()
    return folder if folder.exists() else missing("no Maven tree: PYTHONPATH=tests python3 -m kit.maven_fill")


class MavenServer:
    """nginx over files; `real` has it begin with the real tree. What it was asked for is in its log."""

    def __init__(
        self,
        folder: Path,
        artifacts: Iterable[Artifact] = (),
        *,
        real: bool = True,
        within: Sequence[str] = (),
        rate: str = "",
    ) -> None:
        """`rate` is what each connection gets at most, as nginx writes it."""
        self.tree = folder / "tree"
        if real:
            shutil.copytree(real_tree() / "tree", self.tree, copy_function=_link)
        self.tree.mkdir(parents=True, exist_ok=True)
        self._folder, self._within = folder, within
        self._log = folder / "asked"
        self.port = free_port()
        self._server = f"""
          server {{
            listen 127.0.0.1:{self.port}; root {self.tree}; access_log {self._log} plain;
            types {{ application/java-archive jar; text/xml xml pom; }} default_type application/octet-stream;
            {f"limit_rate {rate};" if rate else ""}
          }}"""
        for artifact in artifacts:
            self.publish(artifact)
        self._service: Service | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def publish(self, artifact: Artifact) -> None:
        """Its files, and the metadata that lists its version beside those that are there, in the order they came."""
        for path, data in artifact.files.items():
            self.write(path, data)
        folder = self.tree / artifact.folder
        versions = [
            one.name for one in sorted(folder.parent.iterdir(), key=lambda one: one.stat().st_ctime_ns) if one.is_dir()
        ]
        listed = "".join(f"<version>{version}</version>" for version in versions)
        text = (
            f"<metadata><groupId>{artifact.group}</groupId><artifactId>{artifact.artifact}</artifactId><versioning>"
            f"<latest>{versions[-1]}</latest><release>{versions[-1]}</release><versions>{listed}</versions>"
            "<lastUpdated>20240101000000</lastUpdated></versioning></metadata>\n"
        )
        self.write(f"{Path(artifact.folder).parent}/maven-metadata.xml", text.encode())

    def write(self, path: str, data: bytes, *, checksums: bool = True) -> None:
        """Put a file there, with its checksums, or with those of what was there before."""
        for suffix in ("", ".sha1", ".md5") if checksums else ("",):
            file = self.tree / f"{path}{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)  # it may be a link to the real tree's
            file.write_bytes(hashlib.new(suffix[1:], data).hexdigest().encode() if suffix else data)

    def asked(self, method: str = "GET") -> Counter[str]:
        """How often each path was asked for."""
        lines = (line.split() for line in self._log.read_text().splitlines())
        return Counter(unquote(line[1]).removeprefix("/") for line in lines if line[0] == method)

    def start(self) -> None:
        """On its port, again after a stop."""
        self._service = nginx(self._folder, self._server, port=self.port, within=self._within)

    def stop(self) -> None:
        """Idempotent."""
        if self._service is not None:
            self._service.stop()
            self._service = None


def _link(source: str, target: str) -> None:
    """A second name for a file of the real tree, or a copy where it is on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
