"""A Maven repository as its clients write to it."""

from __future__ import annotations

import hashlib
import io
import zipfile

from kit.bodies import GivenBody
from kit.publishing import EVERYTHING
from kit.repos import World, body_of
from mxart.repos.callers import Caller
from mxart.repos.group import Group
from mxart.repos.local import Local
from mxart.repos.maven.coordinates import ALGORITHMS, file_path
from mxart.repos.maven.format import Maven
from mxart.repos.maven.writes import Policy

ALGORITHMS_OF_WAGON = ("sha1", "md5")


def jar(mark: str = "") -> bytes:
    """A small jar; `mark` makes it another one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("mark"), mark)
    return buffer.getvalue()


def pom(group: str = "org.example", artifact: str = "app", version: str = "1.0", mark: str = "") -> bytes:
    """A POM."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<project xmlns="http://maven.apache.org/POM/4.0.0">\n'
        f"  <modelVersion>4.0.0</modelVersion>\n  <groupId>{group}</groupId>\n  <artifactId>{artifact}</artifactId>\n"
        f"  <version>{version}</version>\n  <description>{mark}</description>\n</project>\n"
    ).encode()


def sample(path: str, mark: str = "") -> bytes:
    """Bytes that are what a path says; `mark` makes them others."""
    place = file_path(path)
    if place.extension == "pom":
        return pom(place.group, place.artifact, place.version, mark)
    if place.extension.endswith(".asc"):
        return f"-----BEGIN PGP SIGNATURE-----\n{mark}\n".encode()
    if place.extension.endswith((".json", "module")):
        return f'{{"mark": "{mark}"}}'.encode()
    return jar(mark)


def sums(data: bytes) -> dict[str, str]:
    """All checksums of some bytes, by algorithm."""
    return {algorithm: hashlib.new(algorithm, data, usedforsecurity=False).hexdigest() for algorithm in ALGORITHMS}


ALICE = Caller(name="alice", grants=EVERYTHING)


class Deploying:
    """A local repository, and those who deploy to it."""

    def __init__(self, world: World, policy: Policy = "mixed", *, staging: bool = False) -> None:
        self.world = world
        self.own = self.repository("own", policy, staging=staging)

    def repository(self, name: str, policy: Policy = "mixed", *, staging: bool = False) -> Local:
        form = Maven(policy, ("elsewhere",))
        return Local(name, form, self.world.stock, self.world.clock, staging=staging)

    async def put(
        self,
        path: str,
        data: bytes | GivenBody,
        *fields: tuple[str, str],
        caller: Caller | None = None,
        to: Local | Group | None = None,
        method: str = "PUT",
    ) -> int:
        """The status; what was said is in `said`."""
        response = await self.world.send(to or self.own, method, f"/{path}", data, *fields, caller=caller or ALICE)
        self.fields = dict(response.headers)
        self.said = (await body_of(response)).decode()
        return response.status

    async def delete(self, path: str, caller: Caller | None = None) -> int:
        return await self.put(path, b"", caller=caller, method="DELETE")

    async def get(self, path: str, of: Local | Group | None = None) -> bytes | None:
        response, _ = await self.world.ask(of or self.own, f"/{path}")
        data = await body_of(response)
        return data if response.status == 200 else None

    def names(self, folder: str = "org", repository: str = "own") -> list[str]:
        return [record.path for record in self.world.changes.view().below(repository, folder)]

    def versions(self, package: str = "org/example/app") -> list[str]:
        return [version.name for version in self.world.catalog.tags("own", package, "", 1000)]


def listing(*versions: str, artifact: str = "app", group: str = "org.example", more: str = "") -> bytes:
    """A list of an artifact's versions, as a client sends it."""
    listed = "".join(f"<version>{version}</version>" for version in versions)
    names = f"<groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
    return f"<metadata>{names}<versioning><versions>{listed}</versions></versioning>{more}</metadata>".encode()
