"""Real Mavens get artifacts and whole builds through a proxy and nested groups, and show their users what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.maven_command import MAVENS, Maven, Refused
from kit.maven_project import LANG, write_build
from kit.maven_tree import Artifact, MavenServer
from kit.maven_world import APP, BASE, served
from kit.servers import Mxart, mxart

LANG_JAR = "org/apache/commons/commons-lang3/3.14.0/commons-lang3-3.14.0.jar"


@pytest.fixture
def upstream(room: Path) -> Iterator[MavenServer]:
    server = MavenServer(room / "upstream", (BASE, APP))
    yield server
    server.stop()


def client(server: Mxart, room: Path, name: str = "client", *, version: str = "3.8", path: str = "/maven") -> Maven:
    return Maven(room / name, server.url + path, version=version, ca=server.ca if "https" in server.url else None)


@pytest.mark.parametrize(
    ("version", "tls"), [("3.8", False), ("3.9", True), ("4", True)], ids=["3.8-http", "3.9-https", "4-https"]
)
def test_a_build_with_an_empty_local_repository_asks_upstream_once_and_then_not_at_all(
    version: str, tls: bool, upstream: MavenServer, room: Path
) -> None:
    """Over HTTP/1.1 in plain text and on TLS, and over HTTP/2 by Maven 4."""
    with mxart(room / "mxart", served(upstream.url), tls=tls, workers=2) as server:
        cold = client(server, room, "cold", version=version)
        cold.run("verify", cwd=write_build(room / "build", "1.0"))
        assert cold.kept(LANG_JAR) == (upstream.tree / LANG_JAR).read_bytes()
        asked = upstream.asked()
        assert asked[LANG_JAR] == 1
        assert max(asked.values()) == 1, asked.most_common(5)

        upstream.stop()
        alone = client(server, room, "alone", version=version)
        alone.run("verify", cwd=write_build(room / "offline", "1.0"))
        assert alone.kept(LANG_JAR) == cold.kept(LANG_JAR)


@pytest.mark.parametrize("version", MAVENS)
def test_an_artifact_and_all_that_it_needs_are_got_and_a_range_means_the_newest_anywhere(
    version: str, upstream: MavenServer, room: Path
) -> None:
    """Metadata of two upstreams, one of them behind two groups, is one list."""
    second = MavenServer(room / "second", (Artifact("com.example", "app", "1.10"),), real=False)
    more = f"""
[repository.second]
format = "maven"
kind = "proxy"
upstream = "{second.url}"
[repository.inner]
format = "maven"
kind = "group"
members = ["second", "hosted"]
[repository.all]
format = "maven"
kind = "group"
members = ["inner", "central"]
path = "/all"
"""
    upstream.publish(Artifact("com.example", "app", "1.9"))
    try:
        with mxart(room / "mxart", served(upstream.url, more), workers=2) as server:
            maven = client(server, room, version=version, path="/all")
            maven.get(APP.coordinates)
            assert maven.kept(f"{APP.base}.jar") == APP.jar
            assert maven.kept(f"{BASE.base}.jar") == BASE.jar
            maven.get("com.example:app:[1.0,2.0)")
            assert maven.kept("com/example/app/1.10/app-1.10.jar")
            assert not maven.kept("com/example/app/1.9/app-1.9.jar")
            maven.get(f"{LANG}:jar:sources")
    finally:
        second.stop()


@pytest.mark.parametrize("version", MAVENS)
def test_what_nobody_has_is_not_found(version: str, upstream: MavenServer, room: Path) -> None:
    with mxart(room / "mxart", served(upstream.url)) as server:
        maven = client(server, room, version=version)
        for _ in range(2):
            with pytest.raises(Refused, match=r"(?i)could not find artifact com\.example:none:(jar|pom):1\.0"):
                maven.get("com.example:none:1.0", "-U")
        assert upstream.asked()["com/example/none/1.0/none-1.0.pom"] == 1


@pytest.mark.parametrize("version", MAVENS)
def test_a_page_or_a_wrong_file_from_upstream_stops_the_build_with_the_reason(
    version: str, upstream: MavenServer, room: Path
) -> None:
    """Nothing wrong is kept."""
    upstream.write(f"{APP.base}.pom", b"<html><body>We are sorry</body></html>")
    with mxart(room / "mxart", served(upstream.url), workers=2) as server:
        maven = client(server, room, version=version)
        with pytest.raises(Refused, match=r"502") as page:
            maven.get(APP.coordinates, "-U")
        assert "upstream's app-1.0.pom is refused" in str(page.value)
        upstream.write(f"{APP.base}.pom", APP.pom)
        upstream.write(f"{APP.base}.jar", BASE.jar, checksums=False)
        with pytest.raises(Refused):
            maven.get(APP.coordinates, "-U")
        with pytest.raises(Refused, match=r"502"):
            maven.get(APP.coordinates, "-U")
        assert maven.kept(f"{APP.base}.jar") is None
    upstream.write(f"{APP.base}.jar", APP.jar)
    with mxart(room / "mxart", served(upstream.url)) as again:  # which has forgotten what it refused
        other = client(again, room, "other", version=version)
        other.get(APP.coordinates)
        assert other.kept(f"{APP.base}.jar") == APP.jar


def test_an_upstream_in_trouble_is_no_missing_artifact(upstream: MavenServer, room: Path) -> None:
    with mxart(room / "mxart", served(upstream.url)) as server:
        maven = client(server, room)
        maven.get(BASE.coordinates)
        upstream.stop()
        with pytest.raises(Refused, match=r"50[234]") as trouble:
            maven.get(APP.coordinates)
        assert "could not find artifact" not in str(trouble.value).lower()
        upstream.start()
        maven.get(APP.coordinates, "-U")


def test_names_of_our_own_are_never_asked_of_upstream(upstream: MavenServer, room: Path) -> None:
    config = served(upstream.url, options='private = ["com.example.*"]')
    with mxart(room / "mxart", config) as server:
        maven = client(server, room)
        with pytest.raises(Refused, match=r"(?i)could not find artifact"):
            maven.get(APP.coordinates)
        assert not [path for path in upstream.asked() if path.startswith("com/example/")]


def test_checksums_are_told_without_being_asked_for(upstream: MavenServer, room: Path) -> None:
    """Maven 4 takes them from the answer: of what is kept, it asks for no .sha1."""
    with mxart(room / "mxart", served(upstream.url)) as server:
        client(server, room, "first", version="4").get(APP.coordinates)
        before = server.log().count(f"{APP.base}.jar.sha1")
        client(server, room, "second", version="4").get(APP.coordinates)
        assert server.log().count(f"{APP.base}.jar.sha1") == before
        assert server.log().count(f"{APP.base}.jar") > 1
