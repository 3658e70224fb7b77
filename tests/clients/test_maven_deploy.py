"""Real Mavens deploy releases and snapshots, other builds get them, and whoever may not is told why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.maven_command import MAVENS, MIRROR, Maven, Refused
from kit.maven_project import DEPLOY_PLUGIN, GROUP, write_build, write_consumer
from kit.maven_tree import Artifact, MavenServer
from kit.maven_world import APP, BASE, served
from kit.people import add_user, new_token
from kit.servers import Mxart, mxart

OURS = GROUP.replace(".", "/")
WAYS = [("3.8", False, "password"), ("3.9", True, "token"), ("4", False, "token"), ("4", True, "password")]
WAYS_NAMES = ["3.8-http", "3.9-https", "4-http", "4-https"]


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MavenServer]:
    server = MavenServer(tmp_path_factory.mktemp("upstream"), (BASE, APP))
    yield server
    server.stop()


@pytest.fixture
def server(upstream: MavenServer, room: Path) -> Iterator[Mxart]:
    with mxart(room / "mxart", served(upstream.url), workers=2) as running:
        yield running


class Team:
    """Whoever deploys: a client with a login, and builds of theirs."""

    def __init__(self, server: Mxart, room: Path, login: tuple[str, str] | None, version: str = "3.8") -> None:
        ca = server.ca if server.url.startswith("https") else None
        self.room = room
        self.url = server.url
        self.maven = Maven(room / "team", f"{server.url}/maven", version=version, ca=ca, login=login)

    def deploys(self, version: str, path: str = "/maven") -> str:
        """The three modules."""
        build = write_build(self.room / f"build-{version}", version)
        return self.maven.run("deploy", self.maven.deploys_to(f"{self.url}{path}"), cwd=build)

    def deploys_file(self, artifact: Artifact, path: str = "/maven") -> str:
        """A jar of any sort, with its POM."""
        for kind, data in (("jar", artifact.jar), ("pom", artifact.pom)):
            (self.room / f"deployed.{kind}").write_bytes(data)
        files = (f"-Dfile={self.room}/deployed.jar", f"-DpomFile={self.room}/deployed.pom")
        where = (f"-Durl={self.url}{path}", f"-DrepositoryId={MIRROR}")
        return self.maven.run(f"{DEPLOY_PLUGIN}:deploy-file", *files, *where)


def reader(server: Mxart, room: Path, name: str = "reader", version: str = "3.8") -> Maven:
    ca = server.ca if server.url.startswith("https") else None
    return Maven(room / name, f"{server.url}/maven", version=version, ca=ca)


def _why(version: str, status: int, words: str) -> str:
    """What Maven prints of a refusal; Maven 4's transport (2.0.13) reads no body of an answer to PUT."""
    return rf"HTTP Status: {status}" if version == "4" else rf"(?is){status}.{{0,400}}{words}"


@pytest.mark.parametrize(("version", "tls", "by"), WAYS, ids=WAYS_NAMES)
def test_a_build_is_released_and_another_build_gets_it(
    version: str, tls: bool, by: str, upstream: MavenServer, room: Path
) -> None:
    with mxart(room / "mxart", served(upstream.url), tls=tls, workers=2) as server:
        login = add_user(server, "ann", "ann-and-her-password")
        if by == "token":
            login = new_token(server, "ann")
        team = Team(server, room, login, version)
        team.deploys("1.0")
        other = reader(server, room, version=version)
        other.run("verify", cwd=write_consumer(room / "consumer", "1.0"))
        built = room / "build-1.0/lib/target/lib-1.0.jar"
        assert other.kept(f"{OURS}/lib/1.0/lib-1.0.jar") == built.read_bytes()
        other.get(f"{GROUP}:lib:1.0:jar:sources")
        assert other.kept(f"{OURS}/lib/1.0/lib-1.0-sources.jar")
        assert not [path for path in upstream.asked() if path.startswith(f"{OURS}/") and path.endswith(".jar")]


@pytest.mark.parametrize("version", MAVENS)
def test_snapshots_are_built_anew_and_another_build_gets_the_newest(version: str, server: Mxart, room: Path) -> None:
    """Each build has a time and a number of its own; who asks for the snapshot has the last one."""
    team = Team(server, room, add_user(server, "ann", "ann-and-her-password"), version)
    other = reader(server, room, version=version)
    consumer = write_consumer(room / "consumer", "2.0-SNAPSHOT")
    jars = []
    for number in (1, 2):
        build = write_build(room / "build-2.0-SNAPSHOT", "2.0-SNAPSHOT")
        (build / "lib/src/main/resources").mkdir(parents=True, exist_ok=True)
        (build / "lib/src/main/resources/number.txt").write_text(f"{number}\n")
        team.deploys("2.0-SNAPSHOT")
        other.run("verify", "-U", cwd=consumer)
        jars.append((build / "lib/target/lib-2.0-SNAPSHOT.jar").read_bytes())
        kept = sorted((other.local / OURS / "lib/2.0-SNAPSHOT").glob(f"lib-2.0-*-{number}.jar"))
        assert [file.read_bytes() for file in kept] == [jars[-1]]
    assert jars[0] != jars[1]


@pytest.mark.parametrize("version", MAVENS)
def test_a_release_is_for_good(version: str, server: Mxart, room: Path) -> None:
    """The same files again are a success, for whoever tries again; others are refused, and Maven says why."""
    team = Team(server, room, add_user(server, "ann", "ann-and-her-password"), version)
    first = Artifact("com.example", "tool", "1.0")
    team.deploys_file(first)
    team.deploys_file(first)
    with pytest.raises(Refused, match=_why(version, 409, "(immutable|exists|already|other)")):
        team.deploys_file(Artifact("com.example", "tool", "1.0", extra={"other.txt": b"other"}))
    other = reader(server, room, version=version)
    other.get(first.coordinates)
    assert other.kept(f"{first.base}.jar") == first.jar


@pytest.mark.parametrize("version", MAVENS)
def test_whoever_may_not_deploy_is_told_so(version: str, upstream: MavenServer, room: Path) -> None:
    rules = """
[[permission]]
repository = "maven-releases"
path = "com/example/**"
groups = ["core"]
actions = ["publish"]
[[permission]]
repository = "maven-releases"
path = "com/example/**"
groups = ["anonymous"]
actions = ["read"]
"""
    tool = Artifact("com.example", "tool", "1.0")
    with mxart(room / "mxart", served(upstream.url, rules)) as server:
        team = Team(server, room, None, version)
        with pytest.raises(
            Refused, match=r"(?i)401|unauthori[sz]ed|authentication failed|too many authentication attempts"
        ):
            team.deploys_file(tool)
        login = add_user(server, "bob", "bob-and-his-password")
        team.maven.logs_in(("bob", "wrong"))
        with pytest.raises(
            Refused, match=r"(?i)401|unauthori[sz]ed|authentication failed|too many authentication attempts"
        ):
            team.deploys_file(tool)
        team.maven.logs_in(login)
        with pytest.raises(Refused, match=r"(?i)403|forbidden|authorization failed"):
            team.deploys_file(tool)
        team.deploys_file(Artifact("org.example", "tool", "1.0"))
        with pytest.raises(Refused, match=r"(?i)could not find artifact"):
            reader(server, room, version=version).get(tool.coordinates)


@pytest.mark.parametrize("version", MAVENS)
def test_a_repository_of_releases_takes_no_snapshot_and_says_who_does(version: str, server: Mxart, room: Path) -> None:
    team = Team(server, room, add_user(server, "ann", "ann-and-her-password"), version)
    with pytest.raises(Refused, match=_why(version, 409, "snapshot")):
        team.deploys_file(Artifact("com.example", "tool", "1.0-SNAPSHOT"), "/releases")
    with pytest.raises(Refused, match=_why(version, 409, "(release|snapshot)")):
        team.deploys_file(Artifact("com.example", "tool", "1.0"), "/snapshots")
    team.deploys_file(Artifact("com.example", "tool", "1.0-SNAPSHOT"))
    team.deploys_file(Artifact("com.example", "tool", "1.0"))
    other = reader(server, room, version=version)
    other.get("com.example:tool:1.0")
    other.get("com.example:tool:1.0-SNAPSHOT")
