"""The real go command gets modules through a proxy, over HTTP/1.1 and HTTP/2, and shows its user what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from kit.go_command import GoCommand, ModuleServer, Refused
from kit.modules import COMMIT, GRAPH, OLD, TOML, TOOLS, Module
from kit.netns import world
from kit.pushes import mxart_command
from kit.servers import Mxart, mxart, wait_until

APP = GRAPH[1]
CANDIDATE = GRAPH[2]
NEEDED = (APP, TOOLS, TOML, COMMIT, OLD)


def served(upstream: ModuleServer, more: str = "", ttl: int = 0) -> str:
    return f"""
[repository.mirror]
format = "go"
kind = "proxy"
upstream = "{upstream.url}"
path = "/go"
ttl = {ttl}
sumdb = "off"
{more}
"""


@pytest.fixture
def upstream(room: Path) -> Iterator[ModuleServer]:
    server = ModuleServer(room / "upstream", GRAPH)
    yield server
    server.stop()


@pytest.fixture(params=["http1", "http2"])
def server(request: pytest.FixtureRequest, upstream: ModuleServer, room: Path) -> Iterator[Mxart]:
    """cmd/go speaks HTTP/1.1 in plain text, and HTTP/2 over TLS."""
    with mxart(room / "mxart", served(upstream), tls=request.param == "http2", workers=2) as running:
        yield running


def command(server: Mxart, room: Path, name: str = "client", path: str = "/go", **variables: str) -> GoCommand:
    ca = server.ca if server.url.startswith("https") else None
    return GoCommand(room / name, server.url + path, ca, **variables)


def test_a_graph_is_downloaded_byte_for_byte_once_and_then_without_upstream(
    server: Mxart, upstream: ModuleServer, room: Path
) -> None:
    go = command(server, room)
    go.requires(APP)
    found = go.download("all")
    assert set(found) == {f"{module.path}@{module.version}" for module in NEEDED}
    for module in NEEDED:
        one = found[f"{module.path}@{module.version}"]
        assert (one.zip, one.mod) == (module.zip, module.mod)
    go.run("mod", "verify")
    spoken = "2+tls" if server.url.startswith("https") else "1.1"
    assert f" {spoken} " in server.log() or f'"{spoken}"' in server.log() or f"protocol={spoken}" in server.log()
    cold = upstream.asked()
    assert {cold[f"{module.base}.zip"] for module in NEEDED} == {1}
    assert set(cold.values()) == {1}

    upstream.stop()
    again = command(server, room, "again")
    again.requires(APP)
    assert again.download("all") == found


def test_versions_are_listed_in_order_and_the_latest_is_a_release(server: Mxart, room: Path) -> None:
    go = command(server, room)
    assert go.run("list", "-m", "-versions", APP.path) == f"{APP.path} v1.9.0 v1.10.0 v1.11.0-rc.1\n"
    assert go.run("list", "-m", f"{APP.path}@latest") == f"{APP.path} v1.10.0\n"
    assert go.run("list", "-m", f"{APP.path}@v1.11.0-rc.1") == f"{APP.path} v1.11.0-rc.1\n"
    assert go.run("list", "-m", f"{TOML.path}@<v1.2.0") == f"{TOML.path} v1.1.0\n"
    assert go.run("list", "-m", f"{OLD.path}@latest") == f"{OLD.path} {OLD.version}\n"


def test_get_finds_the_module_of_a_package_and_updates_it(server: Mxart, upstream: ModuleServer, room: Path) -> None:
    go = command(server, room)
    go.run("get", f"{APP.path}@v1.9.0")
    assert f"{APP.path} v1.9.0" in (go.work / "go.mod").read_text()
    go.run("get", f"{TOOLS.path}")  # not at the root: every parent is asked for
    go.run("get", f"{APP.path}@upgrade")
    text = (go.work / "go.mod").read_text()
    assert f"{APP.path} v1.10.0" in text
    assert f"{TOOLS.path} v2.3.0" in text
    sums = (go.work / "go.sum").read_text()
    assert f"{APP.path} v1.10.0 h1:" in sums
    assert upstream.asked()[f"{APP.base}.zip"] == 1


def test_a_new_version_is_seen_at_once_where_the_ttl_is_nothing(
    server: Mxart, upstream: ModuleServer, room: Path
) -> None:
    go = command(server, room)
    go.run("get", APP.path)
    Module(APP.path, "v1.12.0").lay_out(upstream.tree)
    go.run("get", f"{APP.path}@latest")
    assert f"{APP.path} v1.12.0" in (go.work / "go.mod").read_text()


def test_parents_that_are_no_modules_are_asked_for_once(upstream: ModuleServer, room: Path) -> None:
    deep = f"{APP.path}/a/b/c"
    with mxart(room / "mxart", served(upstream)) as server:
        for name in ("one", "two"):
            with pytest.raises(Refused):
                command(server, room, name).run("get", f"{deep}/d")
    asked = upstream.asked()
    for prefix in (f"{deep}/d", deep, f"{APP.path}/a/b", f"{APP.path}/a"):
        assert asked[f"{prefix}/@v/list"] == 1


def test_a_module_that_nobody_has_is_not_found_and_the_next_proxy_is_asked(
    server: Mxart, upstream: ModuleServer, room: Path
) -> None:
    missing = Module("example.com/elsewhere", "v1.0.0")
    with pytest.raises(Refused, match=r"404 Not Found\\n.*mirror(: .* answers 404| has no)"):
        command(server, room).download("example.com/elsewhere@v1.0.0")
    other = ModuleServer(room / "other", [missing])
    go = command(server, room, "both", path=f"/go,{other.url}")
    assert go.download("example.com/elsewhere@v1.0.0")
    other.stop()


def test_trouble_stops_the_go_command_and_it_shows_why(server: Mxart, upstream: ModuleServer, room: Path) -> None:
    """What is answered in upstream's trouble is no 404: nothing goes on to the next proxy."""
    upstream.file(APP, "mod").write_bytes(b"<html>\n<body>We are sorry</body>\n")
    next_one = ModuleServer(room / "next", GRAPH)
    go = command(server, room, path=f"/go,{next_one.url}")
    with pytest.raises(Refused, match=r"(?s)502 Bad Gateway.*module directive"):
        go.download(f"{APP.path}@{APP.version}")
    upstream.stop()
    with pytest.raises(Refused, match=r"50[234] .*\n?.*"):
        go.download(f"{TOML.path}@{TOML.version}")
    assert not next_one.asked()
    next_one.stop()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (GRAPH[0].zip, f"has to begin with {APP.path}@{APP.version}/"),
        (TOML.zip, "has to begin with"),
        (APP.zip[:-100], "not a zip archive"),
        (b"<html>We are sorry</html>", "not a zip archive"),
    ],
    ids=["version", "module", "short", "page"],
)
def test_a_zip_that_is_not_that_of_the_version_reaches_nobody(
    server: Mxart, upstream: ModuleServer, room: Path, data: bytes, why: str
) -> None:
    upstream.file(APP, "zip").write_bytes(data)
    name = f"{APP.path}@{APP.version}"
    go = command(server, room)
    with pytest.raises(Refused):  # the first one sees it break off
        go.download(name)
    with pytest.raises(Refused, match=f"502 Bad Gateway.*upstream's zip of {name} is refused: .*({why})"):
        go.download(name)
    assert upstream.asked()[f"{APP.base}.zip"] <= 2  # one for each worker
    upstream.file(APP, "zip").write_bytes(APP.zip)
    for other in (TOML, COMMIT):
        assert go.download(f"{other.path}@{other.version}")
    with mxart(room / "another", served(upstream)) as another:
        assert command(another, room, "other").download(name)[name].zip == APP.zip


def test_what_is_cached_only_is_what_somebody_has_asked_for(server: Mxart, room: Path) -> None:
    name = f"{TOML.path}@{TOML.version}"
    careful = command(server, room, "careful", path="/go/cached-only")
    with pytest.raises(Refused, match=r"(?s)404 Not Found.*only what is kept was asked for"):
        careful.download(name)
    command(server, room).download(name)

    def had() -> bool:
        """It is kept a moment after it was answered, and the other worker may be asked."""
        with suppress(Refused):
            return careful.download(name)[name].zip == TOML.zip
        return False

    wait_until(had, "what was downloaded is kept")


def test_a_group_serves_what_its_members_have(upstream: ModuleServer, room: Path) -> None:
    ours = Module("example.com/app", "v1.20.0")
    second = ModuleServer(room / "second", [ours, Module("example.com/second", "v0.1.0")])
    more = f"""
[repository.second]
format = "go"
kind = "proxy"
upstream = "{second.url}"
sumdb = "off"
[repository.own]
format = "go"
kind = "local"
[repository.inner]
format = "go"
kind = "group"
members = ["own", "mirror"]
[repository.all]
format = "go"
kind = "group"
members = ["inner", "second"]
path = "/all"
"""
    with mxart(room / "mxart", served(upstream, more)) as server:
        go = command(server, room, path="/all")
        assert go.run("list", "-m", "-versions", APP.path) == f"{APP.path} v1.9.0 v1.10.0 v1.11.0-rc.1 v1.20.0\n"
        go.run("get", APP.path, "example.com/second")
        text = (go.work / "go.mod").read_text()
        assert f"{APP.path} v1.20.0" in text
        assert "example.com/second v0.1.0" in text
        go.requires(APP)
        assert len(go.download("all")) == len(NEEDED)
    second.stop()


def test_a_host_of_our_own_serves_its_modules_to_a_go_command_without_any_proxy(room: Path) -> None:
    """`GOPROXY=direct`: the go command asks the host in the module's path, which DNS leads here."""
    lib = Module("modules.test/team/lib", "v1.2.0", (("modules.test/team/Base/v2", "v2.0.1"),))
    base = Module("modules.test/team/Base/v2", "v2.0.1")
    with world(room / "world", {"modules.test": "127.0.0.1"}) as inside:
        upstream = ModuleServer(room / "upstream", [lib, base], within=inside.enter)
        config = served(upstream, 'hosts = ["modules.test"]')
        with mxart(room / "mxart", config, tls=True, listen=["127.0.0.1:443"], within=inside.enter) as server:
            go = GoCommand(room / "client", "direct", server.ca, within=inside.enter)
            go.run("get", "modules.test/team/lib")
            found = go.download("all")
            assert [found[f"{one.path}@{one.version}"].zip for one in (lib, base)] == [lib.zip, base.zip]
        upstream.stop()


def test_many_go_commands_at_once_on_a_cold_graph_fetch_each_file_once(upstream: ModuleServer, room: Path) -> None:
    with mxart(room / "mxart", served(upstream, ttl=300), tls=True, workers=2) as server:
        commands = [command(server, room, f"client{n}") for n in range(8)]
        for go in commands:
            go.requires(APP)
        with ThreadPoolExecutor(len(commands)) as pool:
            found = list(pool.map(lambda go: go.download("all"), commands))
    for one in found:
        assert {name: item.zip for name, item in one.items()} == {f"{m.path}@{m.version}": m.zip for m in NEEDED}
    assert set(upstream.asked().values()) == {1}


def test_a_module_that_only_users_may_see_is_shown_to_whoever_is_in_netrc(upstream: ModuleServer, room: Path) -> None:
    rules = f"""
[[permission]]
repository = "mirror"
path = "{TOOLS.path}"
groups = ["core"]
actions = ["read", "fetch"]
"""
    name = f"{TOOLS.path}@{TOOLS.version}"
    with mxart(room / "mxart", served(upstream, rules), tls=True) as server:
        mxart_command(server, "group", "add", "core")
        for user, options in (("ann", ["--group", "core"]), ("bob", [])):
            mxart_command(server, "user", "add", user, "--password-stdin", *options, stdin=f"{user}-and-her-password\n")
        nobody = command(server, room, "nobody")
        with pytest.raises(Refused, match="401 Unauthorized"):
            nobody.download(name)
        assert nobody.download(f"{TOML.path}@{TOML.version}")
        bob = command(server, room, "bob")
        bob.logs_in(server.address, "bob", "bob-and-her-password")
        with pytest.raises(Refused, match=f"403 Forbidden.*{TOOLS.path}"):
            bob.download(name)
        assert not any(TOOLS.base in path for path in upstream.asked())
        ann = command(server, room, "ann")
        ann.logs_in(server.address, "ann", "ann-and-her-password")
        assert ann.download(name)[name].zip == TOOLS.zip
        with pytest.raises(Refused, match="401 Unauthorized"):
            nobody.download(name)
