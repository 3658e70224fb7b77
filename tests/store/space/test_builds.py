"""Builds of a version: so many of each kind of file stay, and what is said of the version stays right."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from msgspec import structs
from msgspec.structs import replace

from kit.space import CACHE, DAY, NOW, Warehouse
from mxart.config import Retention
from mxart.digest import Digest
from mxart.repos.maven.versions import BUILDS, TOLD
from mxart.store.base import FileRecord
from mxart.store.changes import Change, Note
from mxart.store.changing import SqliteChanges
from mxart.store.space.builds import File, plan_builds, read_builds
from mxart.store.space.gc import collect
from mxart.store.space.retention import Going
from mxart.store.space.retire import retire
from mxart.store.space.task import Member, Retired

SNAPSHOTS = Member("own", "default", builds=BUILDS, complete=TOLD)
BASE = "org/app/1.0-SNAPSHOT/app-1.0"
JAR, POM, SOURCES = ".jar", ".pom", "-sources.jar"


def path(number: int, end: str = JAR, base: str = BASE) -> str:
    return f"{base}-202401{number:02d}.120000-{number}{end}"


def plan(
    paths: Sequence[str], *rules: Retention, ages: Sequence[float] = (), complete: dict[str, int] | None = None
) -> list[str]:
    files = [
        File(name, f"sha256:{number}", 1, NOW - age * DAY)
        for number, (name, age) in enumerate(zip(paths, ages or [1.0] * len(paths), strict=True))
    ]
    going = plan_builds("org/app", read_builds(files, BUILDS), rules, NOW, complete)
    return [file.path for build, _ in going for file in build.files]


def test_the_newest_of_each_kind_stay_and_releases_are_not_looked_at() -> None:
    jars, sources = [path(number) for number in (1, 2, 10, 11)], [path(number, SOURCES) for number in (1, 2)]
    others = ["org/app/1.0/app-1.0.jar", "org/app/1.0-SNAPSHOT/app-1.0-SNAPSHOT.jar", "org/app/1.0"]
    assert plan([*jars, *sources, *others], Retention(keep=2)) == [path(1), path(2)]
    assert plan([*jars, *sources, *others], Retention(keep=1)) == [path(1, SOURCES), path(1), path(2), path(10)]
    assert plan([*jars, *sources, *others]) == []


def test_a_signature_goes_with_its_file_and_counts_with_it() -> None:
    signed = [f"{path(1)}.asc", f"{path(1)}.sigstore.json", path(1), path(2), path(3)]
    assert plan(signed, Retention(keep=2)) == sorted(signed[:3])


@pytest.mark.parametrize(
    ("rules", "gone"),
    [
        ([Retention(days=5)], {1, 2}),
        ([Retention(days=5, keep=3)], {1}),
        ([Retention(days=5), Retention(keep=4)], set()),
        ([Retention(days=5, tags="2.*")], set()),
        ([Retention(days=5, tags=("2.*", "1.0-*"))], {1, 2}),
        ([Retention(days=5, packages="org/*")], {1, 2}),
        ([Retention(days=5, packages="com/**")], set()),
        ([Retention(keep=0)], {1, 2, 3, 4}),
    ],
    ids=range(8),
)
def test_rules_are_those_of_tags(rules: list[Retention], gone: set[int]) -> None:
    paths = [path(number) for number in (1, 2, 3, 4)]
    assert plan(paths, *rules, ages=(30, 20, 4, 1)) == [path(number) for number in sorted(gone)]


def test_a_build_that_is_under_way_takes_no_complete_ones_place() -> None:
    jars = [path(number) for number in (1, 2, 3, 4)]
    assert plan(jars, Retention(keep=1), complete={"1.0-SNAPSHOT": 2}) == [path(1)]
    assert plan(jars, Retention(keep=1), complete={"2.0-SNAPSHOT": 2}) == jars[:3]
    assert plan(jars, Retention(days=5), ages=(9, 9, 9, 1), complete={"1.0-SNAPSHOT": 2}) == jars[:3]
    assert plan(jars, Retention(keep=0), complete={"1.0-SNAPSHOT": 2}) == jars


def test_what_counts_is_the_time_in_the_name_then_the_number() -> None:
    names = [f"{BASE}-{rest}.jar" for rest in ("20240101.120000-9", "20240102.120000-2", "20240102.120000-10")]
    assert plan(names, Retention(keep=1)) == [names[0], names[1]]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (path(3), ("1.0-SNAPSHOT", "20240103.120000", "3", ".jar")),
        (f"{path(3, SOURCES)}.asc", ("1.0-SNAPSHOT", "20240103.120000", "3", "-sources.jar")),
        ("g/a-1/SNAPSHOT/a-1-20240103.120000-3.tar.gz", ("SNAPSHOT", "20240103.120000", "3", ".tar.gz")),
        ("g/a/1-b-SNAPSHOT/a-1-b-20240103.120000-3-x-y.jar", ("1-b-SNAPSHOT", "20240103.120000", "3", "-x-y.jar")),
        ("g/a/1-SNAPSHOT/a-2-20240103.120000-3.jar", None),
        ("g/a/1-SNAPSHOT/a-1-SNAPSHOT.jar", None),
        ("g/a/1/a-1-20240103.120000-3.jar", None),
    ],
)
def test_a_path_tells_its_build(name: str, said: tuple[str, str, str, str] | None) -> None:
    found = [(b.version, b.time, str(b.number), b.kind) for b in read_builds([File(name, "d", 1, 0.0)], BUILDS)]
    assert found == ([said] if said else [])


class Deployed(Warehouse):
    """A repository of snapshots, in which every file is a day older than the next build's."""

    def __init__(self, data: Path) -> None:
        super().__init__(data, (SNAPSHOTS, CACHE))
        self.changes = SqliteChanges(self.catalog)

    async def deploy(self, number: int, *ends: str, base: str = BASE, package: str = "org/app") -> None:
        records = []
        for end in ends:
            data = f"{base} {number} {end}".encode()
            digest = await self.put(data)
            kind = "application/xml" if end == POM else "application/java-archive"
            name, created = path(number, end, base), NOW - 30 * DAY + number
            records.append(FileRecord("own", package, name, digest, len(data), kind, created=created))
        folder = base.rpartition("/")[0]
        tag = (folder.rpartition("/")[2], replace(records[-1], path=folder))
        note = Note("own", folder, "own build", f"202401{number:02d}.120000-{number}")
        change = Change(files=tuple(records), tags=(tag,), notes=(note, Note("own", folder, "build", str(number))))
        await self.changes.change(lambda view: change, lambda: True)

    def retire(self, *rules: Retention, dry_run: bool = False) -> tuple[Retired, list[tuple[str, str, int]]]:
        went: list[tuple[str, str, int]] = []

        def note(package: str, going: Going, freed: int) -> None:
            assert going.what == "build"
            assert going.why
            went.append((package, going.name, freed))

        with self.ledger() as ledger:
            member = structs.replace(SNAPSHOTS, retention=rules)
            return retire(ledger, member, NOW, dry_run=dry_run, note=note), went

    def held(self) -> list[str]:
        return [record.path for record in self.changes.view().below("own", "org")]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Deployed]:
    house = Deployed(tmp_path / "data")
    yield house
    house.close()


async def test_old_builds_go_and_their_bytes_with_the_next_collection(house: Deployed) -> None:
    for number in (1, 2, 3):
        await house.deploy(number, JAR, POM)
    generation = house.catalog.generation()
    dry = house.retire(Retention(keep=1), dry_run=True)
    assert len(house.held()) == 6
    assert house.retire(Retention(keep=1)) == dry
    size = 2 * len(f"{BASE} 1 .jar{BASE} 1 .pom")
    assert dry[0] == Retired(bytes=size, builds=4)
    assert dry[1][0] == ("org/app", "1.0-SNAPSHOT/20240101.120000-1.jar", size // 4)
    assert house.held() == [path(3), path(3, POM)]
    assert house.catalog.generation() != generation
    assert house.retire(Retention(keep=1)) == (Retired(), [])
    with house.ledger() as ledger:
        collect(house.task(), ledger, NOW)
    assert house.has(Digest.of(f"{BASE} 3 .jar".encode()))
    assert not house.has(Digest.of(f"{BASE} 2 .jar".encode()))
    assert house.counted_right()


async def test_the_name_of_a_version_stays_as_long_as_it_has_a_file_and_is_that_of_one(house: Deployed) -> None:
    await house.deploy(1, JAR, POM)
    await house.deploy(2, JAR)
    await house.deploy(3, SOURCES, POM)
    view = house.changes.view()
    house.retire(Retention(keep=1))
    assert house.held() == [path(2), path(3, SOURCES), path(3, POM)]
    tag = view.tag("own", "org/app", "1.0-SNAPSHOT")
    assert tag is not None
    assert tag.digest == Digest.of(f"{BASE} 3 .pom".encode())
    await house.changes.change(lambda view: Change(gone=(("own", path(3, POM)),)), lambda: True)
    await house.deploy(4, JAR)
    house.retire(Retention(keep=1))
    house.retire(Retention(keep=0))
    assert house.held() == []
    assert view.tag("own", "org/app", "1.0-SNAPSHOT") is None
    assert not view.has_package("own", "org/app")
    assert house.counted_right()


async def test_a_version_known_by_a_file_that_goes_is_known_by_another(house: Deployed) -> None:
    await house.deploy(2, JAR)
    await house.deploy(1, SOURCES, JAR)
    house.retire(Retention(keep=1))
    assert house.held() == [path(1, SOURCES), path(2)]
    tag = house.changes.view().tag("own", "org/app", "1.0-SNAPSHOT")
    assert tag is not None
    assert tag.digest == Digest.of(f"{BASE} 2 .jar".encode())


async def test_the_highest_number_outlasts_all_builds_and_nothing_joins_one_that_is_gone(house: Deployed) -> None:
    await house.deploy(7, JAR)
    house.retire(Retention(days=1))
    assert house.held() == []
    assert house.changes.view().notes("own", "org/app/1.0-SNAPSHOT") == {"build": "7"}


async def test_a_deploy_that_was_broken_off_costs_no_complete_build(house: Deployed) -> None:
    for number in (1, 2):
        await house.deploy(number, JAR, POM)
    await house.deploy(3, JAR)
    note = Note("own", "org/app/1.0-SNAPSHOT", TOLD, "2")
    await house.changes.change(lambda view: Change(notes=(note,)), lambda: True)
    house.retire(Retention(keep=1))
    assert house.held() == [path(2), path(2, POM), path(3)]


async def test_many_builds_go_in_several_transactions(house: Deployed) -> None:
    base = "org/app/2.0-SNAPSHOT/app-2.0"
    records = []
    digest = await house.put(b"all the same")
    for number in range(1, 400):
        name = f"{base}-20240101.{number:06d}-{number}.jar"
        records.append(FileRecord("own", "org/app", name, digest, 12, "a/b", created=NOW - 30 * DAY))
    change = Change(files=tuple(records))
    await house.changes.change(lambda view: change, lambda: True)
    await house.deploy(1, JAR)
    retired, went = house.retire(Retention(keep=10))
    assert retired == Retired(bytes=0, builds=389)
    assert len(went) == 389
    assert len(house.held()) == 11
    retired, _ = house.retire(Retention(keep=0))
    assert retired == Retired(bytes=12 + len(f"{BASE} 1 .jar"), builds=11)
