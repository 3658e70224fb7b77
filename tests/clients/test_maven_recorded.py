"""What Maven's wagon and resolver, Gradle, sbt, Coursier and the JDK's client really send is answered as they need it.

The recordings were made with a server that wants a login for everything and had two artifacts; ours has the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.maven_recorded import LOGIN, Exchange, Replay, recorded, replaying
from kit.maven_tree import Artifact
from kit.people import add_user
from kit.servers import Mxart, mxart

BASE = Artifact("com.example", "base", "1.0")
APP = Artifact("com.example", "app", "1.0", (BASE.coordinates,))
RECORDINGS = (
    "maven-3.8.7-wagon",
    "maven-3.9.16-apache",
    "maven-4.0.0-rc-5-jdk",
    "gradle-4.4.1",
    "sbt-1.9.9",
    "coursier-2.1.10",
    "jdk-17-httpclient",
)
CONFIG = """
[repository.own]
format = "maven"
kind = "local"
path = "/maven"
[[permission]]
repository = "own"
path = "**"
groups = ["users"]
actions = ["read", "publish"]
"""


@pytest.fixture
def server(room: Path) -> Iterator[Mxart]:
    with mxart(room / "mxart", CONFIG, workers=2) as running:
        add_user(running, *LOGIN)
        with replaying(running.port) as replay:
            for artifact in (BASE, APP):
                for path, data in artifact.files.items():
                    assert replay.send(like("jdk-17-httpclient", path, data)).status == 201
        yield running


def like(name: str, path: str, data: bytes) -> Exchange:
    """Another file, sent as the first PUT of a recording was: every field but the length."""
    model = next(one for one in recorded(name) if one.method == "PUT" and b"Authorization" in one.head)
    head = re.sub(rb"(?i)(content-length:) *\d+", rb"\1 %d" % len(data), model.head)
    return Exchange(1, re.sub(rb"^PUT \S+", f"PUT /maven/{path}".encode(), head), data, 201)


def asking(name: str, path: str) -> Exchange:
    """Another file, asked for as the first GET of a recording was."""
    model = next(one for one in recorded(name) if one.method == "GET" and b"Authorization" in one.head)
    return Exchange(1, re.sub(rb"^GET \S+", f"GET /maven/{path}".encode(), model.head), model.body, 200)


@pytest.mark.parametrize("name", RECORDINGS)
def test_what_a_build_tool_sent_is_answered_as_it_was(name: str, server: Mxart) -> None:
    """The same statuses; a client that waits is told to go on, once; what it put is there, and metadata tells it.

    Then the same again, as by somebody who tries again, seven bytes at a time.
    """
    for again, pieces in ((False, 1 << 20), (True, 7)):
        _replay(name, server, again=again, pieces=pieces)


def _replay(name: str, server: Mxart, *, again: bool, pieces: int) -> None:
    ours = {**BASE.files, **APP.files}
    with replaying(server.port) as replay:
        put: dict[str, bytes] = {}
        for exchange in recorded(name):
            answer = replay.send(exchange, pieces=pieces)
            path = exchange.path.removeprefix("/maven/")
            where = (exchange.method, path, answer)
            if exchange.status == 404 and (again or path.endswith("maven-metadata.xml")):
                assert answer.status in (200, 404), where  # the server may know by itself already
            else:
                assert answer.status // 100 == exchange.status // 100, where
                assert exchange.status in (answer.status, 201), where
            if answer.status == 401:
                assert re.fullmatch(r'Basic realm="[^"]+"(, charset="UTF-8")?', answer.headers["www-authenticate"])
            if exchange.method == "PUT" and answer.status // 100 == 2:
                put[path] = exchange.body
                assert answer.told == ((100,) if exchange.waits else ()), where
            if answer.status == 200 and (data := ours.get(path)) is not None:
                assert answer.headers["content-length"] == str(len(data))
                assert answer.body == (b"" if exchange.method == "HEAD" else data)
        _check_what_was_put(replay, name, put)


def _check_what_was_put(replay: Replay, name: str, put: dict[str, bytes]) -> None:
    for path, data in put.items():
        answer = replay.send(asking(name, path))
        assert answer.status == 200, (path, answer)
        if "maven-metadata" not in path:
            assert answer.body == data, (path, answer)
    for version in {Path(path).parent for path in put if path.endswith(".pom")}:
        listing = replay.send(asking(name, f"{version.parent}/maven-metadata.xml"))
        assert f"<version>{version.name}</version>" in listing.body.decode(), (name, version)
        digest = replay.send(asking(name, f"{version.parent}/maven-metadata.xml.sha1"))
        assert digest.body.decode().strip() == hashlib.sha1(listing.body).hexdigest()


def test_whoever_waits_with_the_body_is_refused_before_it(server: Mxart) -> None:
    """No 100 to somebody without a login, or with a wrong one; who does not wait is answered all the same."""
    wrongs = (b"", b"Authorization: Basic YWxpY2U6d3Jvbmc=\r\n")
    for name, wrong in [(name, wrong) for name in RECORDINGS if not name.startswith("coursier") for wrong in wrongs]:
        model = like(name, "com/example/app/9.0/app-9.0.jar", Artifact("com.example", "app", "9.0").jar)
        head = re.sub(rb"Authorization: [^\r]+\r\n", wrong, model.head)
        with replaying(server.port) as replay:
            answer = replay.send(Exchange(1, head, model.body, 401))
        assert (answer.status, answer.told) == (401, ())
        assert answer.headers["www-authenticate"].startswith("Basic realm=")
    with replaying(server.port) as replay:
        assert replay.send(asking("sbt-1.9.9", "com/example/app/9.0/app-9.0.jar")).status == 404


def test_gradle_publishes_in_the_order_of_its_newer_versions(server: Mxart) -> None:
    """Since 5: jar, POM, module metadata, each before four checksums; then metadata whose latest is this version."""
    newest, older = (Artifact("com.example", "lib", version) for version in ("2.0", "1.5"))
    with replaying(server.port) as replay:
        for artifact in (newest, older, newest):  # the last time is that of a retry
            module = f'{{"formatVersion": "1.1", "component": {{"version": "{artifact.version}"}}}}\n'.encode()
            for path, data in {**artifact.files, f"{artifact.base}.module": module}.items():
                _put_as_gradle(replay, path, data)
            metadata = (
                f"<metadata><groupId>com.example</groupId><artifactId>lib</artifactId><versioning><latest>"
                f"{artifact.version}</latest><release>{artifact.version}</release><versions><version>{artifact.version}"
                "</version></versions><lastUpdated>20240101000000</lastUpdated></versioning></metadata>\n"
            )
            _put_as_gradle(replay, "com/example/lib/maven-metadata.xml", metadata.encode())
        listing = replay.send(asking("gradle-4.4.1", "com/example/lib/maven-metadata.xml")).body.decode()
    assert re.findall(r"<version>(.*?)</version>", listing) == ["1.5", "2.0"]
    assert "<release>2.0</release>" in listing
    assert "<latest>2.0</latest>" in listing


def _put_as_gradle(replay: Replay, path: str, data: bytes) -> None:
    for suffix in ("", ".sha1", ".md5", ".sha256", ".sha512"):
        body = hashlib.new(suffix[1:], data).hexdigest().encode() if suffix else data
        answer = replay.send(like("gradle-4.4.1", f"{path}{suffix}", body))
        assert answer.status in (200, 201), (path, suffix, answer)
