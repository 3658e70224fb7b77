"""Whatever is deployed, deleted and retired in whatever order: what the catalog says of a version is what is there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.space import DAY, NOW
from mxart.config import Retention
from mxart.digest import Digest
from mxart.errors import Conflict, NotFound
from mxart.repos.maven import media, metadata
from mxart.repos.maven.builds import HIGHEST, MAX_BUILD, told
from mxart.repos.maven.coordinates import FilePath, file_path
from mxart.repos.maven.indexes import Indexes
from mxart.repos.maven.versions import BUILDS
from mxart.repos.maven.writes import MAX_FILE, Deploys
from mxart.repos.operations import Index
from mxart.repos.publishing import Release, Removal, Spot
from mxart.store.base import FileRecord
from mxart.store.catalog import SqliteCatalog
from mxart.store.changes import Change, View
from mxart.store.changing import SqliteChanges
from mxart.store.space.ledger import Ledger
from mxart.store.space.retire import retire
from mxart.store.space.task import Member

PACKAGE = "org/app"
ENDS = (".jar", ".pom", "-sources.jar", ".jar.asc")
MEMBER = Member("own", "default", builds=BUILDS, retention=(Retention(keep=1, days=3),))
SPOT = Spot("own", NOW)


class House:
    """A repository, and the names that were ever given away in it."""

    def __init__(self, data: Path) -> None:
        self.path = data / "catalog"
        self.catalog = SqliteCatalog(self.path)
        self.changes = SqliteChanges(self.catalog)
        self.role = Deploys()
        self.ever: dict[str, str] = {}

    def paths(self) -> dict[str, str]:
        return {record.path: str(record.digest) for record in self.changes.view().below("own", "org")}

    async def put(self, path: str, mark: str, age: int) -> None:
        place = file_path(path)
        digest = Digest.of(mark.encode())
        created = NOW - age * DAY
        record = FileRecord("own", place.package, path, digest, 5, media.of(place), created=created)
        operation = Release(place.package, path, "file", MAX_FILE)
        await self._change(lambda view: self.role.place(operation, record, view, Spot("own", created)))

    async def remove(self, path: str) -> None:
        await self._change(lambda view: self.role.remove(Removal(path, "file"), view, SPOT)[1])

    async def _change(self, decide: Callable[[View], Change]) -> None:
        before = self.paths()
        try:
            change = await self.changes.change(decide, lambda: True)
        except (Conflict, NotFound):
            assert self.paths() == before
        else:
            # A name means the same for ever, unless the file was deleted under that very name.
            for record in change.files:
                build = file_path(record.path).build
                if build is not None and record.path not in self.ever:
                    known = self.changes.view().notes("own", record.path.rpartition("/")[0])
                    assert int(known[HIGHEST]) >= build[1]
                self.ever[record.path] = str(record.digest)

    def retire(self) -> None:
        ledger = Ledger(self.path, None, (MEMBER,))
        try:
            retire(ledger, MEMBER, NOW)
        finally:
            ledger.close()

    def check(self) -> None:
        """The versions' names, and every list, are those of the files."""
        view = self.changes.view()
        files = self.paths()
        assert all(self.ever[path] == digest for path, digest in files.items())
        by_version: dict[str, list[FilePath]] = {}
        for path in files:
            by_version.setdefault(file_path(path).version, []).append(file_path(path))
        assert {tag.name for tag in view.tags("own", PACKAGE)} == by_version.keys()
        for version, mine in by_version.items():
            tag = view.tag("own", PACKAGE, version)
            assert tag is not None
            assert str(tag.digest) in {files[path.path] for path in mine}
        assert view.has_package("own", PACKAGE) == bool(files)
        self._check_lists(view, by_version)

    def _check_lists(self, view: View, by_version: dict[str, list[FilePath]]) -> None:
        composed = Indexes().compose(Index(PACKAGE, f"{PACKAGE}/maven-metadata.xml", "metadata"), view, "own")
        assert (composed is not None) == bool(by_version)
        if composed is not None:
            assert set(metadata.parse(composed[0]).versions) == by_version.keys()
        path = f"{PACKAGE}/2-SNAPSHOT/maven-metadata.xml"
        composed = Indexes().compose(Index(PACKAGE, path, "metadata"), view, "own")
        said = metadata.parse(composed[0]) if composed is not None else metadata.Metadata()
        complete = told(view, "own", f"{PACKAGE}/2-SNAPSHOT") or MAX_BUILD
        files = by_version.get("2-SNAPSHOT", ())
        builds = [found for found in files if found.build is not None and found.build[1] <= complete]
        for build in said.builds:
            assert any((found.value, found.extension) == (build.value, build.extension) for found in builds)
        assert {(found.classifier, found.extension) for found in builds} == {
            (build.classifier, build.extension) for build in said.builds
        }


_MARK = st.sampled_from(("a", "b"))
_AGE = st.integers(0, 6)
_BUILD = st.builds("2-2024010{0}.120000-{1}".format, st.integers(1, 3), st.integers(1, 4))
_END = st.sampled_from(ENDS)
_PATH = st.one_of(
    st.builds(f"{PACKAGE}/{{0}}/app-{{0}}{{1}}".format, st.sampled_from(("1", "1.1")), _END),
    st.builds(f"{PACKAGE}/2-SNAPSHOT/app-{{}}{{}}".format, _BUILD, _END),
    st.builds(f"{PACKAGE}/2-SNAPSHOT/app-2-SNAPSHOT{{}}".format, _END),
)
_PUT = st.tuples(st.just("put"), _PATH, _MARK, _AGE)
_REMOVE = st.tuples(
    st.just("remove"),
    st.one_of(_PATH, st.sampled_from((PACKAGE, f"{PACKAGE}/1", f"{PACKAGE}/1.1", f"{PACKAGE}/2-SNAPSHOT"))),
    st.just(""),
    st.just(0),
)
_RETIRE = st.just(("retire", "", "", 0))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(_PUT, _PUT, _PUT, _REMOVE, _RETIRE), min_size=4, max_size=20))
def test_versions_and_lists_are_always_those_of_the_files(steps: list[tuple[str, str, str, int]]) -> None:
    async def run(folder: Path) -> None:
        house = House(folder)
        for what, path, mark, age in steps:
            if what == "put":
                await house.put(path, mark, age)
            elif what == "remove":
                await house.remove(path)
            else:
                house.retire()
            house.check()
        await house.catalog.aclose(0.0)

    with tempfile.TemporaryDirectory() as folder:
        trio.run(run, Path(folder))
