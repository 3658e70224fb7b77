"""The real go command gets private modules through us from git, and has the same of them as when it asks git itself."""

from __future__ import annotations

import io
import json
import threading
import urllib.request
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kit.git_server import Asked, GitHosts, Reply, Repository, git_hosts
from kit.go_command import GoCommand, ModuleServer, Refused
from kit.modules import TOML
from kit.servers import Mxart, mxart, wait_until
from kit.sumdb import Database
from mxart.repos.go.notes import SignerKey

HOSTS = ("corp.test", "git.test", "github.com", "gopkg.in")
LIBRARY = "corp.test/team/lib"


@pytest.fixture
def hosts(room: Path) -> Iterator[GitHosts]:
    with git_hosts(room / "hosts", *HOSTS) as running:
        yield running


def served(hosts: GitHosts, more: str = "", login: str = "", ttl: int = 0) -> str:
    return f"""
[upstreams]
proxy = "{hosts.proxy}"

[repository.corp]
format = "go"
kind = "vcs"
modules = ["corp.test", "github.com/acme/*", "gopkg.in"]
path = "/go"
ttl = {ttl}
negative_ttl = 0
{more}

[[repository.corp.login]]
ca_file = "{hosts.ca}"
{login}
"""


def ours(server: Mxart, room: Path, name: str = "ours", path: str = "/go", version: str = "") -> GoCommand:
    return GoCommand(room / name, server.url + path, version=version)


def direct(hosts: GitHosts, room: Path, name: str = "direct", version: str = "") -> GoCommand:
    """The go command by itself, with nobody between it and git."""
    return GoCommand(
        room / name, "direct", hosts.ca, version=version, HTTPS_PROXY=hosts.proxy, GIT_SSL_CAINFO=str(hosts.ca)
    )


def published(hosts: GitHosts, path: str, root: str, *more: str) -> Repository:
    """A repository on git.test, and the page that says that it is the one of a root."""
    repository = hosts.repository(f"git.test/{path}")
    hosts.site(root.partition("/")[0]).tells(root, f"https://git.test/{path}", "git", *more)
    return repository


def source(module: str, go: str = "1.16") -> dict[str, str | bytes | None]:
    return {"go.mod": f"module {module}\n\ngo {go}\n", "lib.go": "package lib\n\nconst Is = 1\n"}


HOSTILE: dict[str, str | bytes | None] = {
    ".gitattributes": "* export-subst\nhidden/ export-ignore\n*.crlf text eol=crlf\n*.auto text=auto\nident.go ident\n",
    "version.go": "package lib\n\nconst Version = `$Format:%H$`\n",
    "ident.go": "package lib\n\nconst Ident = `$Id$`\n",
    "hidden/hidden.go": "package hidden\n",
    "lines.crlf": "one\ntwo\n",
    "lines.auto": "one\r\ntwo\r\n",
    "sub/nested/go.mod": "module corp.test/team/lib/sub/nested\n",
    "sub/nested/nested.go": "package nested\n",
    "sub/Go.MOD.txt": "no module\n",
    "vendor/modules.txt": "# vendored\n",
    "vendor/other.test/x/x.go": "package x\n",
    "deep/vendor/right.go": "package vendor\n",
    "deep/vendor/other.test/y/y.go": "package y\n",
    "Übung/datei mit leer.txt": "x\n",
    "data.bin": bytes(range(256)) * 64,
    "LICENSE": "Do what you like.\n",
}


def fill(hosts: GitHosts) -> list[str]:
    """Modules of every sort; what each version is called."""
    lib = published(hosts, "lib", LIBRARY)
    lib.commit(source(LIBRARY) | HOSTILE, "v1.0.0")
    lib.link("link.go", "lib.go")
    lib.commit(source(LIBRARY, "1.24") | {"more.go": "package lib\n"}, "v1.1.0", "v1.2.0-rc.1")
    lib.tag("v1.1.1", annotated=True)
    nested = {f"part/{name}": content for name, content in source(f"{LIBRARY}/part").items()}
    lib.commit(nested, "part/v0.1.0", "part/v0.2.0-beta")
    lib.commit({**source(f"{LIBRARY}/v2"), "part/part.go": "package lib\n"}, "v2.0.0", "part/v0.3.0")
    both = published(hosts, "both", "corp.test/team/both")
    inner = {f"v2/{name}": content for name, content in source("corp.test/team/both/v2").items()}
    both.commit(source("corp.test/team/both") | inner, "v1.5.0", "v2.1.0")
    old = published(hosts, "old", "corp.test/Old")
    old.commit({"old.go": "package old\n"}, "v1.0.0", "v2.3.0", "v3.0.0")
    hub = hosts.repository("github.com/acme/Hub")
    hub.commit(source("github.com/acme/Hub"), "v0.9.0")
    dotted = hosts.repository("corp.test/x/dotted.git")
    dotted.commit({f"in/{name}": content for name, content in source("corp.test/x/dotted.git/in").items()}, "in/v1.0.0")
    linked = published(hosts, "linked", "corp.test/linked")
    linked.link("LICENSE", "COPYING")
    linked.submodule("other")
    linked.commit({})
    linked.commit({f"in/{name}": text for name, text in source("corp.test/linked/in").items()}, "in/v1.0.0", "v1.0.0")
    yaml = hosts.repository("gopkg.in/yaml.v2")
    hosts.site("gopkg.in").tells("gopkg.in/yaml.v2", "https://gopkg.in/yaml.v2")
    yaml.commit({"yaml.go": "package yaml\n"}, "v2.0.0", "v1.0.0")
    yaml.commit({"go.mod": "module gopkg.in/yaml.v2\n"}, "v2.1.0")
    return [
        "gopkg.in/yaml.v2@v2.0.0",
        "gopkg.in/yaml.v2@v2.1.0",
        "corp.test/linked/in@v1.0.0",
        "corp.test/linked@v1.0.0",
        *(f"{LIBRARY}@{version}" for version in ("v1.0.0", "v1.1.0", "v1.1.1", "v1.2.0-rc.1")),
        *(f"{LIBRARY}/part@{version}" for version in ("v0.1.0", "v0.2.0-beta", "v0.3.0")),
        f"{LIBRARY}/v2@v2.0.0",
        "corp.test/team/both@v1.5.0",
        "corp.test/team/both/v2@v2.1.0",
        "corp.test/Old@v1.0.0",
        "corp.test/Old@v2.3.0+incompatible",
        "github.com/acme/Hub@v0.9.0",
        "corp.test/x/dotted.git/in@v1.0.0",
    ]


def told(go: GoCommand, *names: str) -> dict[str, tuple[str, str, bytes, str]]:
    """What a go command has of versions: checksums, go.mod, and when they were made."""
    return {
        name: (one.sum, one.mod_sum, one.mod, json.loads(one.info)["Time"]) for name, one in go.download(*names).items()
    }


@pytest.mark.parametrize("version", ["1.24", ""])
def test_every_sort_of_module_is_the_same_as_from_git_itself(hosts: GitHosts, room: Path, version: str) -> None:
    names = fill(hosts)
    with mxart(room / "mxart", served(hosts, ttl=300), workers=2) as server:
        got = told(ours(server, room, version=version), *names)
        assert set(got) == set(names)
        assert got == told(direct(hosts, room, version=version), *names)
        hosts.stop()
        again = told(ours(server, room, "again", version=version), *names)
        assert again == got  # from now on nobody need be asked


def test_lists_and_the_latest_are_the_same_as_from_git_itself(hosts: GitHosts, room: Path) -> None:
    fill(hosts)
    retracting = published(hosts, "retracting", "corp.test/retracting")
    retracting.commit(source("corp.test/retracting"), "v1.0.0", "v1.1.0")
    retracting.commit({"go.mod": "module corp.test/retracting\n\nretract v1.2.0\nretract v1.1.0\n"}, "v1.2.0")
    untagged = published(hosts, "untagged", "corp.test/untagged")
    untagged.commit(source("corp.test/untagged"))
    paths = [
        LIBRARY,
        f"{LIBRARY}/v2",
        f"{LIBRARY}/part",
        "corp.test/team/both/v2",
        "corp.test/Old",
        "corp.test/retracting",
        "corp.test/untagged",
        "gopkg.in/yaml.v2",
    ]
    with mxart(room / "mxart", served(hosts)) as server:
        commands = ours(server, room), direct(hosts, room)
        for arguments in (["-versions", *paths], [f"{path}@latest" for path in paths]):
            mine, theirs = (go.run("list", "-m", *arguments) for go in commands)
            assert mine == theirs
            assert mine.count("\n") == len(paths)
        assert "corp.test/retracting v1.0.0" in mine


def test_branches_and_commits_have_the_versions_that_go_itself_gives_them(hosts: GitHosts, room: Path) -> None:
    lib = published(hosts, "lib", LIBRARY)
    first = lib.commit(source(LIBRARY))
    second = lib.commit({"a.go": "package lib\n"}, "v1.0.0", "v1.1.0-rc.1", "v9.9.9")
    third = lib.commit({"b.go": "package lib\n"})
    feature = lib.commit({"c.go": "package lib\n"}, branch="feature")
    tagged = lib.commit({"d.go": "package lib\n"}, "v1.3.0+meta", "v1.4", "other", branch="release")
    part = lib.commit({f"part/{name}": text for name, text in source(f"{LIBRARY}/part").items()}, branch="main")
    queries = [
        *(f"{LIBRARY}@{query}" for query in (first, second, third[:10], "main", "feature", "release", "other", "HEAD")),
        *(f"{LIBRARY}@{query}" for query in (feature[:7], tagged, "v1.0", "v1", "v1.4")),
        f"{LIBRARY}/part@{part}",
        f"{LIBRARY}/part@main",
    ]
    with mxart(room / "mxart", served(hosts)) as server:
        go, itself = ours(server, room), direct(hosts, room)
        found = {query: _version(go, query) for query in queries}
        assert found == {query: _version(itself, query) for query in queries}
        versions = sorted({answer for answer in found.values() if answer})
        assert any("-0." in version for version in versions)
        assert told(go, *versions) == told(itself, *versions)


def _version(go: GoCommand, query: str) -> str:
    try:
        return go.run("list", "-m", query).strip().replace(" ", "@")
    except Refused:
        return ""


@pytest.mark.parametrize(
    "version",
    [
        "v1.0.1-0.20200101000000-{}",  # another time
        "v1.0.2-0.{time}-{}",  # after a version that is not there
        "v0.0.0-{time}-{}x",
        "v1.0.0-{time}-{}",
        "v0.0.0-{time}-000000000000",
        "v1.5.0",
        "v2.0.0+incompatible",
    ],
)
def test_versions_that_a_commit_cannot_have_are_not_found(hosts: GitHosts, room: Path, version: str) -> None:
    lib = published(hosts, "lib", LIBRARY)
    lib.commit(source(LIBRARY), "v1.0.0", "v2.0.0")
    commit = lib.commit({"a.go": "package lib\n"})
    with mxart(room / "mxart", served(hosts)) as server:
        go = ours(server, room)
        (line,) = go.run("list", "-m", f"{LIBRARY}@main").splitlines()
        right = line.split()[1]
        time = right.split("-")[1].removeprefix("0.")
        wanted = version.replace("{time}", time).replace("{}", commit[:12])
        with pytest.raises(Refused, match=r"(?s)404 Not Found.*there is no version"):
            go.download(f"{LIBRARY}@{wanted}")
        with pytest.raises(Refused):
            direct(hosts, room).download(f"{LIBRARY}@{wanted}")
        assert go.download(f"{LIBRARY}@{right}")


def test_a_root_may_stand_for_a_folder_of_its_repository(hosts: GitHosts, room: Path) -> None:
    """Since Go 1.25."""
    mono = published(hosts, "mono", "corp.test/mono", "go/src")
    files = {f"go/src/{name}": text for name, text in source("corp.test/mono").items()}
    mono.commit({**files, "LICENSE": "Do what you like.\n"}, "go/src/v1.0.0")
    name = "corp.test/mono@v1.0.0"
    with mxart(room / "mxart", served(hosts)) as server:
        assert told(ours(server, room), name) == told(direct(hosts, room), name)


def test_a_page_does_not_say_where_others_are(hosts: GitHosts, room: Path) -> None:
    published(hosts, "lib", LIBRARY).commit(source(LIBRARY), "v1.0.0")
    evil = "corp.test/bob"
    hosts.site("corp.test").pages["/bob"] = Reply(
        body=b'<meta name="go-import" content="corp.test git https://git.test/lib">'
    )
    hosts.site("corp.test").pages["/lost"] = Reply(status=404, body=b"not here")
    with mxart(room / "mxart", served(hosts)) as server:
        go = ours(server, room)
        with pytest.raises(Refused, match=r"(?s)404 Not Found.*says nothing of corp\.test/bob"):
            go.download(f"{evil}@v1.0.0")
        with pytest.raises(Refused, match=r"(?s)404 Not Found.*answered with 404.*only repository corp is asked"):
            go.download("corp.test/lost@v1.0.0")


def test_a_moved_tag_stays_what_it_was(hosts: GitHosts, room: Path) -> None:
    lib = published(hosts, "lib", LIBRARY)
    lib.commit(source(LIBRARY), "v1.0.0")
    name = f"{LIBRARY}@v1.0.0"
    with mxart(room / "mxart", served(hosts), workers=2) as server:
        ours(server, room, "first").run("list", "-m", name)  # it has been told, and no more
        lib.commit({"lib.go": "package lib\n\nconst Is = 2\n"}, "v1.0.0")
        first = ours(server, room).download(name)[name]
        with zipfile.ZipFile(io.BytesIO(first.zip)) as archive:
            assert b"const Is = 1" in archive.read(f"{name}/lib.go")
        ours(server, room, "lists").run("list", "-m", "-versions", LIBRARY)
        assert "the tag v1.0.0 of https://git.test/lib was moved" in server.log()
        assert ours(server, room, "again").download(name)[name].sum == first.sum
        assert direct(hosts, room).download(name)[name].sum != first.sum


def test_a_moved_tag_whose_commit_is_lost_is_no_other_version(hosts: GitHosts, room: Path) -> None:
    lib = published(hosts, "lib", LIBRARY)
    start = lib.commit(source(LIBRARY))
    lib.commit({"lib.go": "package lib\n\nconst Is = 1\n"}, "v1.0.0")
    with mxart(room / "mxart", served(hosts)) as server:
        ours(server, room, "first").run("list", "-m", f"{LIBRARY}@v1.0.0")
        lib.rewind(start)
        lib.commit({"lib.go": "package lib\n\nconst Is = 2\n"}, "v1.0.0")
        lib.prune()
        for copy in (server.data / "git" / "copies").iterdir():
            if copy.is_dir():
                copy.rename(server.data / "git" / "tmp" / copy.name)
        with pytest.raises(Refused, match=r"(?s)502 Bad Gateway.*was commit [0-9a-f]{12} when it was first told here"):
            ours(server, room).download(f"{LIBRARY}@v1.0.0")


def test_nothing_private_is_asked_of_anybody_else(hosts: GitHosts, room: Path) -> None:
    """The group has the modules of everybody; what matches a pattern is git's, and is told to nobody."""
    published(hosts, "lib", LIBRARY).commit(source(LIBRARY), "v1.0.0")
    sums = Database("sums.example.test")
    sums.fill(40)
    sums.knows(TOML)
    public = ModuleServer(room / "public", [TOML])
    sums.lay_out(public.tree / "sumdb" / "sums.example.test")
    more = f"""
[repository.public]
format = "go"
kind = "proxy"
upstream = "{public.url}"
proxy = ""
sumdb = "{sums.key} {public.url}/sumdb/sums.example.test"
[repository.all]
format = "go"
kind = "group"
members = ["public", "corp"]
path = "/all"
"""
    config = served(hosts).replace("[repository.corp]", more + "[repository.corp]")
    with mxart(room / "mxart", config) as server:
        verifies = {"GOSUMDB": f"{sums.key} {server.url}/all/sumdb/sums.example.test"}
        strict = GoCommand(room / "strict", f"{server.url}/all", **verifies)
        with pytest.raises(Refused, match=r"(?s)403 Forbidden.*private here.*or GONOSUMDB=corp\.test,"):
            strict.download(f"{LIBRARY}@v1.0.0")
        go = GoCommand(room / "careful", f"{server.url}/all", GONOSUMDB="corp.test", **verifies)
        go.run("get", f"{LIBRARY}@v1.0.0", f"{TOML.path}@{TOML.version}")
        for path in (f"{LIBRARY}/no/such/package", "corp.test/nobody/knows"):
            with pytest.raises(Refused):
                go.run("get", path)
        with pytest.raises(Refused, match=r"(?s)404 Not Found.*belongs here, by corp\.test: only repository corp"):
            go.download("corp.test/nobody@v1.0.0")
    asked = list(public.asked())
    public.stop()
    assert any(path.startswith(TOML.base.partition("/@v/")[0]) for path in asked)
    assert any("/lookup/" in path for path in asked)
    assert not any("corp.test" in path for path in asked)  # nor the host itself, the parent of everything


def test_who_is_not_let_in_is_told_so_and_not_that_there_is_nothing(hosts: GitHosts, room: Path) -> None:
    published(hosts, "lib", LIBRARY).commit(source(LIBRARY), "v1.0.0")
    hosts.site("git.test").users = {"robot": "secret-of-robots"}
    name = f"{LIBRARY}@v1.0.0"
    refused = pytest.raises(Refused, match=r"(?s)502 Bad Gateway.*git\.test/lib: it refuses us: look at the login")
    with mxart(room / "stranger", served(hosts)) as server, refused:
        ours(server, room, "stranger-go").download(name)
    netrc = room / "netrc"
    netrc.write_text("machine git.test login robot password secret-of-robots\n")
    for number, login in enumerate(['username = "robot"\npassword = "secret-of-robots"', f'netrc_file = "{netrc}"']):
        with mxart(room / f"mxart{number}", served(hosts, login=login)) as server:
            assert ours(server, room, f"go{number}").download(name)
            assert "secret-of-robots" not in server.log()


def test_a_login_goes_to_its_own_host_only(hosts: GitHosts, room: Path) -> None:
    published(hosts, "lib", LIBRARY).commit(source(LIBRARY), "v1.0.0")
    hosts.site("git.test").on = lambda asked: Reply(
        302, b"", (("location", f"https://corp.test{asked.path}?{asked.query}"),)
    )
    login = 'hosts = "git.test"\nusername = "robot"\npassword = "secret-of-robots"'
    refused = pytest.raises(Refused, match=r"(?s)502 Bad Gateway.*leads elsewhere")
    with mxart(room / "mxart", served(hosts, login=login) + _everybody(hosts)) as server, refused:
        ours(server, room).download(f"{LIBRARY}@v1.0.0")
    assert not [asked for asked in hosts.asked if asked.authorization and asked.host != "git.test"]


def _everybody(hosts: GitHosts) -> str:
    return f'\n[[repository.corp.login]]\nca_file = "{hosts.ca}"\n'


def test_two_hundred_at_once_make_one_fetch(hosts: GitHosts, room: Path) -> None:
    published(hosts, "lib", LIBRARY).commit(source(LIBRARY), "v1.0.0")

    def get(url: str) -> bytes:
        with urllib.request.urlopen(url, timeout=60) as response:
            data: bytes = response.read()
            return data

    with mxart(room / "mxart", served(hosts, ttl=300), workers=2) as server:
        base = f"{server.url}/go/{LIBRARY}/@v"
        urls = [f"{base}/{name}" for name in ("list", "v1.0.0.info", "v1.0.0.mod", "v1.0.0.zip")] * 50
        with ThreadPoolExecutor(len(urls)) as pool:
            found = dict(zip(urls, pool.map(get, urls), strict=True))
        assert found[f"{base}/v1.0.0.zip"].startswith(b"PK")
        assert ours(server, room).download(f"{LIBRARY}@v1.0.0")
    assert hosts.count("/info/refs") == 2  # what there is; and one fetch
    assert hosts.fetches() == 3


def test_a_server_that_hangs_is_given_up_and_its_list_is_served_from_before(hosts: GitHosts, room: Path) -> None:
    lib = published(hosts, "lib", LIBRARY)
    lib.commit(source(LIBRARY), "v1.0.0")
    config = served(hosts).replace("[upstreams]", "[upstreams]\nfirst_byte_seconds = 1\nidle_seconds = 1")
    held = threading.Event()

    def hang(asked: Asked) -> Reply | None:
        return Reply(hold=held) if "go-get=1" not in asked.query else None

    with mxart(room / "mxart", config) as server:
        go = ours(server, room)
        assert go.run("list", "-m", "-versions", LIBRARY) == f"{LIBRARY} v1.0.0\n"
        lib.tag("v1.1.0")
        hosts.site("git.test").on = hang
        assert ours(server, room, "later").run("list", "-m", "-versions", LIBRARY) == f"{LIBRARY} v1.0.0\n"
        with pytest.raises(Refused, match=r"(?s)504 Gateway Timeout.*it has gone silent"):
            ours(server, room, "new").download(f"{LIBRARY}@v1.1.0")
        held.set()
        hosts.site("git.test").on = lambda asked: None
        last = ours(server, room, "last")
        wait_until(lambda: _version(last, f"{LIBRARY}@v1.1.0"), "a server that is asked again")
        assert last.download(f"{LIBRARY}@v1.1.0")


def test_urls_of_the_configuration_come_before_what_hosts_say(hosts: GitHosts, room: Path) -> None:
    hosts.repository("git.test/libs/lib.git").commit(source("corp.test/libs/lib"), "v1.0.0")
    more = '[repository.corp.urls]\n"corp.test/*/*" = "https://git.test/*/*.git"\n'
    with mxart(room / "mxart", served(hosts, more)) as server:
        assert ours(server, room).download("corp.test/libs/lib@v1.0.0")
    assert not [asked for asked in hosts.asked if asked.host == "corp.test"]


def test_go_verifies_what_comes_from_git_by_our_own_checksum_database(hosts: GitHosts, room: Path) -> None:
    lib = published(hosts, "lib", LIBRARY)
    lib.commit(source(LIBRARY), "v1.0.0")
    name = f"{LIBRARY}@v1.0.0"
    with mxart(room / "mxart", served(hosts)) as server:
        (file,) = (server.data / "sumdb").glob("*.key")
        key = str(SignerKey.parse(file.read_text().strip()).verifier)
        sums = f"{key} {server.url}/go/sumdb/{key.partition('+')[0]}"
        go = GoCommand(room / "verifies", f"{server.url}/go", GOSUMDB=sums)
        go.run("get", name)
        assert go.download(name)[name].sum in (go.work / "go.sum").read_text()
        lib.commit({"lib.go": "package lib\n\nconst Is = 2\n"}, "v1.0.0")
        again = GoCommand(room / "again", f"{server.url}/go", GOSUMDB=sums)
        assert again.download(name)[name].sum == go.download(name)[name].sum


def test_offline_is_what_was_had_before(hosts: GitHosts, room: Path) -> None:
    published(hosts, "lib", LIBRARY).commit(source(LIBRARY), "v1.0.0", "v1.1.0")
    name = f"{LIBRARY}@v1.0.0"
    with mxart(room / "mxart", served(hosts)) as server:
        assert ours(server, room).download(name)
        assert ours(server, room, "lists").run("list", "-m", "-versions", LIBRARY)
    asked = len(hosts.asked)
    with mxart(room / "mxart", served(hosts, "offline = true")) as server:
        go = ours(server, room, "offline")
        assert go.download(name)
        assert go.run("list", "-m", "-versions", LIBRARY) == f"{LIBRARY} v1.0.0 v1.1.0\n"
        with pytest.raises(Refused, match=r"(?s)503 Service Unavailable.*offline"):
            go.download("corp.test/other@v1.0.0")
    assert len(hosts.asked) == asked


def test_killed_in_mid_fetch_it_begins_anew(hosts: GitHosts, room: Path) -> None:
    published(hosts, "lib", LIBRARY).commit(source(LIBRARY), "v1.0.0")
    name = f"{LIBRARY}@v1.0.0"
    held = threading.Event()
    hosts.site("git.test").on = lambda asked: Reply(hold=held) if asked.is_fetch else None
    running = Mxart(room / "mxart", served(hosts), workers=2)
    go = ours(running, room)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(go.download, name)
        wait_until(lambda: any(asked.is_fetch for asked in hosts.asked), "a fetch")
        running.service.kill()
        with pytest.raises(Refused):
            waiting.result()
    held.set()
    hosts.site("git.test").on = lambda asked: None
    with mxart(room / "mxart", served(hosts), workers=2) as server:
        assert told(ours(server, room, "after"), name) == told(direct(hosts, room), name)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"a.go": "package a\n", "A.go": "package a\n"}, "differ in case only"),
        ({"aux.go": "package a\n"}, "Windows keeps"),
        ({"go.mod": "module corp.test/team/lib/v3\n"}, "go.mod is that of"),
        ({"go.mod": "nothing\n"}, "names no module"),
        ({"go.mod": None}, None),
    ],
    ids=["case", "windows", "major", "none", "without"],
)
def test_what_is_no_module_reaches_nobody(
    hosts: GitHosts, room: Path, files: dict[str, str | bytes | None], why: str | None
) -> None:
    lib = published(hosts, "lib", LIBRARY)
    lib.commit(source(LIBRARY))
    lib.commit(files, "v1.0.0")
    name = f"{LIBRARY}@v1.0.0"
    with mxart(room / "mxart", served(hosts)) as server:
        if why is None:  # a module without a go.mod is one all the same
            assert told(ours(server, room), name) == told(direct(hosts, room), name)
            return
        for attempt in range(2):
            with pytest.raises(Refused) as refused:
                ours(server, room, f"go{attempt}").download(name)
        assert why in str(refused.value)
        with pytest.raises(Refused):
            direct(hosts, room).download(name)
