"""Go commands of several years do with us what they do with anybody: the whole way of a module, and who they log in as.

The newest goes through all the other tests; what is here differs between them, or is what everybody does every day.
"""

from __future__ import annotations

import base64
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.go_command import GO_VERSIONS, GoCommand, ModuleServer, Refused
from kit.modules import COMMIT, GRAPH, OLD, TOML, TOOLS, Module
from kit.pushes import mxart_command
from kit.servers import Mxart, mxart
from kit.sumdb import Database

APP = GRAPH[1]
NEEDED = (APP, TOOLS, TOML, COMMIT, OLD)
OURS = Module("corp.example.test/Team/lib", "v1.2.0", tuple((module.path, module.version) for module in NEEDED))
NAME = "sums.example.test"
PASSWORD = "ann-and-her-password"


@pytest.fixture
def upstream(room: Path) -> Iterator[ModuleServer]:
    """Modules, and the checksum database that knows them."""
    server = ModuleServer(room / "upstream", GRAPH)
    yield server
    server.stop()


@pytest.fixture
def sums(upstream: ModuleServer) -> Database:
    database = Database(NAME)
    database.fill(20)
    database.knows(*GRAPH)
    database.lay_out(upstream.tree / "sumdb" / NAME)
    return database


def nested(upstream: ModuleServer, sums: Database) -> str:
    """A group in a group: what is our own, then what upstream has."""
    return f"""
[repository.mirror]
format = "go"
kind = "proxy"
upstream = "{upstream.url}"
sumdb = "{sums.key} {upstream.url}/sumdb/{NAME}"
private = ["corp.example.test"]
path = "/mirror"
ttl = 0
[repository.own]
format = "go"
kind = "local"
path = "/own"
[repository.inner]
format = "go"
kind = "group"
members = ["own", "mirror"]
[repository.all]
format = "go"
kind = "group"
members = ["inner"]
path = "/go"
[[permission]]
repository = "mirror"
path = "{TOOLS.path}"
groups = ["core"]
actions = ["read", "fetch"]
"""


def publish(server: Mxart, *modules: Module) -> None:
    """As the administrator."""
    login = "admin:" + (server.data / "admin-password").read_text().strip()
    trust = ssl.create_default_context(cafile=str(server.ca))
    for module in modules:
        request = urllib.request.Request(f"{server.url}/own/{module.base}.zip", module.zip, method="PUT")
        request.add_header("authorization", "Basic " + base64.b64encode(login.encode()).decode())
        with urllib.request.urlopen(request, timeout=30, context=trust) as answer:
            assert answer.status == 201


def add_ann(server: Mxart) -> None:
    mxart_command(server, "group", "add", "core")
    mxart_command(server, "user", "add", "ann", "--password-stdin", "--group", "core", stdin=f"{PASSWORD}\n")


@pytest.mark.parametrize("tls", [False, True], ids=["http1", "http2"])
@pytest.mark.parametrize("version", GO_VERSIONS)
def test_modules_of_our_own_and_of_an_upstream_are_had_listed_updated_vendored_and_verified(
    version: str, tls: bool, upstream: ModuleServer, sums: Database, room: Path
) -> None:
    config = nested(upstream, sums).partition("[[permission]]")[0]
    with mxart(room / "mxart", config, tls=tls) as server:
        variables = {"GOSUMDB": sums.key, "GONOSUMDB": "corp.example.test"}
        ca = server.ca if tls else None
        go = GoCommand(room / "client", f"{server.url}/go", ca, version=version, **variables)
        publish(server, OURS)
        go.requires(OURS)
        found = go.download("all")
        for module in (OURS, *NEEDED):
            one = found[f"{module.path}@{module.version}"]
            assert (one.zip, one.mod) == (module.zip, module.mod)
        go.run("mod", "verify")
        publish(server, Module(OURS.path, "v1.10.0", OURS.needs), Module(OURS.path, "v1.11.0-rc.1"))
        listed = go.run("list", "-m", "-versions", OURS.path)
        assert listed == f"{OURS.path} v1.2.0 v1.10.0 v1.11.0-rc.1\n"
        assert go.run("list", "-m", "-u", OURS.path) == f"{OURS.path} v1.2.0 [v1.10.0]\n"
        (go.work / "main.go").write_text(f'package main\n\nimport _ "{OURS.path}"\n\nfunc main() {{}}\n')
        go.run("get", "-u", f"{OURS.path}@latest")
        assert f"{OURS.path} v1.10.0" in (go.work / "go.mod").read_text()
        go.run("mod", "tidy")
        go.run("mod", "vendor")
        assert (go.work / "vendor" / OURS.path / f"{OURS.name}.go").read_bytes() == found_source(OURS, "v1.10.0")
        assert go.run("list", "-mod=vendor", OURS.path) == f"{OURS.path}\n"
        assert {name: upstream.asked()[f"{TOML.base}.{name}"] for name in ("info", "mod", "zip")} == {
            "info": 1,
            "mod": 1,
            "zip": 1,
        }


def found_source(module: Module, version: str) -> bytes:
    return Module(module.path, version).files[f"{module.name}.go"]


@pytest.mark.parametrize("version", GO_VERSIONS)
def test_a_line_in_netrc_names_the_port(version: str, upstream: ModuleServer, sums: Database, room: Path) -> None:
    """As `mxart setup go` says."""
    name = f"{TOOLS.path}@{TOOLS.version}"
    with mxart(room / "mxart", nested(upstream, sums), tls=True) as server:
        add_ann(server)
        for machine, taken in (
            (server.address, True),
            (server.address.partition(":")[0], False),
        ):
            go = GoCommand(room / f"taken-{taken}", f"{server.url}/mirror", server.ca, version=version)
            (Path(go.env["HOME"]) / ".netrc").write_text(f"machine {machine} login ann password {PASSWORD}\n")
            if taken:
                assert go.download(name)[name].zip == TOOLS.zip
            else:
                with pytest.raises(Refused, match="401 Unauthorized"):
                    go.download(name)


@pytest.mark.parametrize("version", GO_VERSIONS)
def test_a_token_comes_from_a_command_of_goauth_or_in_the_url(
    version: str, upstream: ModuleServer, sums: Database, room: Path
) -> None:
    """GOAUTH came with 1.24 (golang/go#26232); an older one passes it over, and reads the URL as all do."""
    name = f"{TOOLS.path}@{TOOLS.version}"
    with mxart(room / "mxart", nested(upstream, sums), tls=True) as server:
        add_ann(server)
        token = mxart_command(server, "token", "create", "--user", "ann", "--name", "go").strip()
        script = room / "token"
        script.write_text(f"#!/bin/sh\nprintf '%s\\n\\nAuthorization: Bearer %s\\n\\n' {server.url} '{token}'\n")
        script.chmod(0o700)
        proxy = f"{server.url}/mirror"
        go = GoCommand(room / "command", proxy, server.ca, version=version, GOAUTH=str(script))
        if version == "1.21":
            with pytest.raises(Refused, match="401 Unauthorized"):
                go.download(name)
        else:
            assert go.download(name)[name].zip == TOOLS.zip
        within = GoCommand(room / "url", proxy.replace("://", f"://ann:{token}@"), server.ca, version=version)
        assert within.download(name)[name].zip == TOOLS.zip
