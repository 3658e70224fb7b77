"""The real Gradle resolves through a proxy and nested groups, and uploads what Maven and other builds then get."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.gradle_command import Gradle
from kit.maven_command import Maven, Refused
from kit.maven_project import LANG, LOGGING, TEXT
from kit.maven_tree import Artifact, MavenServer
from kit.maven_world import APP, BASE, served
from kit.people import add_user, new_token
from kit.servers import mxart

READERS_ONLY = """
[[permission]]
repository = "maven"
path = "**"
groups = ["users"]
actions = ["read", "publish"]
"""
WORDS = "com.example.build:words:1.0"


@pytest.fixture
def upstream(room: Path) -> Iterator[MavenServer]:
    server = MavenServer(room / "upstream", (BASE, APP))
    yield server
    server.stop()


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_dependencies_are_resolved_cold_and_then_without_upstream(tls: bool, upstream: MavenServer, room: Path) -> None:
    """Everything wants a login here: Gradle shows it when it is asked to."""
    with mxart(room / "mxart", served(upstream.url, READERS_ONLY), tls=tls, workers=2) as server:
        login = add_user(server, "ann", "ann-and-her-password")
        ca = server.ca if tls else None
        gradle = Gradle(room / "gradle", f"{server.url}/maven", ca=ca, login=login)
        found = gradle.resolve(APP.coordinates, TEXT, LOGGING)
        assert found["app-1.0.jar"] == APP.jar
        assert found["base-1.0.jar"] == BASE.jar
        assert {"commons-text-1.12.0.jar", "commons-lang3-3.14.0.jar", "slf4j-api-2.0.13.jar"} <= set(found)
        assert max(upstream.asked().values()) == 1
        upstream.stop()
        gradle.forget()
        assert gradle.resolve(APP.coordinates, TEXT, LOGGING) == found
        nobody = Gradle(room / "nobody", f"{server.url}/maven", ca=ca)
        with pytest.raises(Refused, match=r"401"):
            nobody.resolve(APP.coordinates)


def test_a_dynamic_version_is_the_newest_of_all_members(upstream: MavenServer, room: Path) -> None:
    with mxart(room / "mxart", served(upstream.url, ttl=0)) as server:
        gradle = Gradle(room / "gradle", f"{server.url}/maven")
        assert "app-1.0.jar" in gradle.resolve("com.example:app:1.+")
        upstream.publish(Artifact("com.example", "app", "1.1"))
        assert "app-1.1.jar" in gradle.resolve("com.example:app:1.+", refresh=True)


def test_what_nobody_has_is_not_found_and_trouble_is_trouble(upstream: MavenServer, room: Path) -> None:
    with mxart(room / "mxart", served(upstream.url)) as server:
        gradle = Gradle(room / "gradle", f"{server.url}/maven")
        with pytest.raises(Refused, match=r"Could not find com\.example:none:1\.0"):
            gradle.resolve("com.example:none:1.0")
        upstream.stop()
        with pytest.raises(Refused, match=r"Received status code 50[234]"):
            gradle.resolve(LANG)


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_what_gradle_uploads_maven_gets(tls: bool, upstream: MavenServer, room: Path) -> None:
    """A release and a snapshot, with a token; then other builds have both."""
    with mxart(room / "mxart", served(upstream.url), tls=tls, workers=2) as server:
        add_user(server, "ann", "ann-and-her-password")
        login, ca = new_token(server, "ann"), server.ca if tls else None
        Gradle(room / "gradle", f"{server.url}/maven", ca=ca, login=login).publish()
        Gradle(room / "next", f"{server.url}/maven", ca=ca, login=login, version="1.1-SNAPSHOT").publish()
        maven = Maven(room / "maven", f"{server.url}/maven", ca=ca)
        maven.get(WORDS)
        built = (room / "gradle/project/build/libs/words-1.0.jar").read_bytes()
        assert maven.kept("com/example/build/words/1.0/words-1.0.jar") == built
        maven.get("com.example.build:words:1.1-SNAPSHOT")
        another = Gradle(room / "another", f"{server.url}/maven", ca=ca, name="another")
        assert another.resolve(WORDS)["words-1.0.jar"] == built
        assert "words-1.1-SNAPSHOT.jar" in another.resolve("com.example.build:words:1.1-SNAPSHOT")


def test_whoever_may_not_upload_is_told_so(upstream: MavenServer, room: Path) -> None:
    with mxart(room / "mxart", served(upstream.url)) as server:
        add_user(server, "ann", "ann-and-her-password")
        gradle = Gradle(room / "gradle", f"{server.url}/maven", login=("ann", "wrong"))
        with pytest.raises(Refused, match=r"(?i)401|not authorized|unauthorized"):
            gradle.publish()
