"""Copies of repositories: what is asked of their servers, how often, and what becomes of trouble."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from base64 import b64encode
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from kit.git_server import Asked, GitHosts, Reply
from kit.servers import wait_until
from mxart.errors import NotFound, UpstreamDenied, UpstreamFailed, UpstreamTimeout, UpstreamUnavailable
from mxart.git.clones import Clone, Clones
from mxart.git.depot import Depot
from mxart.git.failures import Gone
from mxart.git.logins import Login, Logins
from mxart.git.process import Git
from mxart.git.tidying import UNUSED_SECONDS, tidy
from mxart.git.url import GitUrl


def url_of(hosts: GitHosts, path: str, host: str = "git.test") -> GitUrl:
    return GitUrl.parse(f"https://{host}:{hosts.port}/{path}")


def clone_of(clones: Clones, hosts: GitHosts, path: str = "app") -> Clone:
    return clones.of(url_of(hosts, path))


def relogged(depot: Depot, login: Login) -> Clones:
    return Clones(replace(depot, logins=Logins([login])))


async def test_branches_and_tags_are_what_the_server_has(hosts: GitHosts, clones: Clones) -> None:
    repository = hosts.repository("git.test/app")
    first = repository.commit({"a": "1"}, "v1.0.0")
    second = repository.commit({"a": "2"}, branch="feature")
    repository.tag("v2.0.0", first, annotated=True)
    found = await clone_of(clones, hosts).references(0)
    assert found.tags() == {"v1.0.0": first, "v2.0.0": first}  # an annotated one is what it is about
    assert found.named("feature") == ("refs/heads/feature", second)
    assert found.head == first
    assert found.named("missing") is None


async def test_they_are_asked_for_again_when_they_are_old_and_by_nobody_else(hosts: GitHosts, depot: Depot) -> None:
    hosts.repository("git.test/app").commit({"a": "1"})
    now = 1000.0
    depot = replace(depot, clock=lambda: now)
    one, other = Clones(depot), Clones(depot)  # two workers
    for clones in (one, other, one):
        await clone_of(clones, hosts).references(60)
    assert hosts.count("/info/refs") == 1
    now = 1061.0
    for clones in (one, other):
        await clone_of(clones, hosts).references(60)
    assert hosts.count("/info/refs") == 2


async def test_a_commit_is_fetched_once_without_its_history(hosts: GitHosts, clones: Clones) -> None:
    repository = hosts.repository("git.test/app")
    first = repository.commit({"a": "1"})
    second = repository.commit({"a": "2", "sub/b": "3"}, "v1.0.0")
    clone = clone_of(clones, hosts)
    await clone.references(0)
    before = hosts.fetches()
    for _ in range(3):
        await clone.obtain(second, "refs/tags/v1.0.0")
    assert hosts.fetches() - before == 2  # references, then objects
    assert await clone.expand(first) == ""
    assert [entry.path for entry in await clone.files(second)] == ["a", "sub/b"]
    entries = await clone.entries(second, "a", "sub", "missing", "a/b")
    assert sorted(entries) == ["a", "sub"]
    assert await clone.read(entries["a"], 10) == b"2"
    assert (await clone.commit(second)).name == second


async def test_history_comes_when_it_is_asked_for(hosts: GitHosts, clones: Clones) -> None:
    repository = hosts.repository("git.test/app")
    first = repository.commit({"a": "1"}, "v1.0.0")
    second = repository.commit({"a": "2"}, "v1.1.0")
    third = repository.commit({"a": "3"})
    clone = clone_of(clones, hosts)
    references = await clone.references(0)
    await clone.obtain(third, "refs/heads/main")
    await clone.history(references)
    asked = len(hosts.asked)
    await clone.history(references)
    assert len(hosts.asked) == asked
    assert sorted(await clone.tags_before(second)) == ["v1.0.0", "v1.1.0"]
    assert await clone.expand(first[:10]) == first
    assert await clone.descends(third, first)
    assert not await clone.descends(first, third)


@pytest.mark.parametrize("kind", ["sha1", "sha256"])
async def test_both_sorts_of_names_are_known(hosts: GitHosts, clones: Clones, kind: str) -> None:
    commit = hosts.repository("git.test/app", kind).commit({"a": "1"}, "v1.0.0")
    clone = clone_of(clones, hosts)
    assert (await clone.references(0)).tags() == {"v1.0.0": commit}
    await clone.obtain(commit, "refs/tags/v1.0.0")
    assert [entry.path for entry in await clone.files(commit)] == ["a"]


async def test_many_fetches_do_not_make_many_packs(
    hosts: GitHosts, depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mxart.git.clones._MAX_PACKS", 3)
    repository = hosts.repository("git.test/app")
    commits = [repository.commit({"a": str(number)}, f"v1.{number}.0") for number in range(8)]
    clone = clone_of(Clones(depot), hosts)
    await clone.references(0)
    for number, commit in enumerate(commits):
        await clone.obtain(commit, f"refs/tags/v1.{number}.0")
    folder = depot.paths.copy(depot.paths.name("corp", str(clone.url)))
    assert len(list(folder.glob("objects/pack/*.pack"))) <= 4
    for number, commit in enumerate(commits):
        (entry,) = await clone.files(commit)
        assert await clone.read(entry, 10) == str(number).encode()


async def test_two_hundred_who_want_the_same_make_one_fetch(hosts: GitHosts, depot: Depot) -> None:
    commit = hosts.repository("git.test/app").commit({"a": "1"}, "v1.0.0")
    workers = [clone_of(Clones(depot), hosts) for _ in range(4)]

    async def want(clone: Clone) -> None:
        references = await clone.references(60)
        await clone.obtain(references.tags()["v1.0.0"], "refs/tags/v1.0.0")
        assert [entry.path for entry in await clone.files(commit)] == ["a"]

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(want, workers[number % 4])
    assert hosts.count("/info/refs") == 2  # one that asks, one that fetches
    assert hosts.fetches() == 3


async def test_a_moved_tag_is_told_and_what_it_was_is_not_lost(
    hosts: GitHosts, clones: Clones, caplog: pytest.LogCaptureFixture
) -> None:
    repository = hosts.repository("git.test/app")
    first = repository.commit({"a": "1"}, "v1.0.0")
    clone = clone_of(clones, hosts)
    await clone.references(0)
    await clone.obtain(first, "refs/tags/v1.0.0")
    second = repository.commit({"a": "2"}, "v1.0.0")
    assert (await clone.references(0)).tags() == {"v1.0.0": second}
    assert f"the tag v1.0.0 of {clone.url} was moved from {first} to {second}" in caplog.text
    await clone.obtain(second, "refs/tags/v1.0.0")
    await clone.history(await clone.references(0))
    for commit in (first, second):
        await clone.obtain(commit)
        assert [entry.path for entry in await clone.files(commit)] == ["a"]


async def test_a_commit_that_no_name_leads_to_is_had_for_as_long_as_the_server_has_it(
    hosts: GitHosts, clones: Clones
) -> None:
    repository = hosts.repository("git.test/app")
    first = repository.commit({"a": "1"})
    lost = repository.commit({"a": "2"})
    repository.rewind(first)
    clone = clone_of(clones, hosts)
    with pytest.raises(Gone, match="no longer has commit"):
        await clone.obtain(lost)  # nobody may make us serve what is in no branch
    await clone.obtain(lost, by_hash=True)  # but what we have served before
    repository.commit({"a": "3"})
    pruned = repository.commit({"a": "4"})
    repository.rewind(first)
    repository.prune()
    with pytest.raises(Gone, match="no longer has commit"):
        await clone.obtain(pruned, by_hash=True)


# trouble


async def test_who_is_not_known_is_refused_and_nobody_is_asked(hosts: GitHosts, depot: Depot) -> None:
    hosts.repository("git.test/app").commit({"a": "1"})
    hosts.site("git.test").users = {"ann": "secret-of-anns"}
    clone = clone_of(Clones(depot), hosts)
    with pytest.raises(UpstreamDenied, match="look at the login of its host"):
        await clone.references(0)
    for wrong in ("other", ""):
        login = Login(("git.test",), "ann", wrong, ca_file=str(hosts.ca))
        with pytest.raises(UpstreamDenied, match="look at the login"):
            await clone_of(relogged(depot, login), hosts).references(0)
    right = Login(("git.test",), "ann", "secret-of-anns", ca_file=str(hosts.ca))
    assert (await clone_of(relogged(depot, right), hosts).references(0)).head


async def test_a_token_goes_as_a_password(hosts: GitHosts, depot: Depot) -> None:
    commit = hosts.repository("git.test/app").commit({"a": "1"}, "v1.0.0")
    hosts.site("git.test").users = {"oauth2": "token-of-ours"}
    login = Login(("*.test",), token="token-of-ours", ca_file=str(hosts.ca))
    clone = clone_of(relogged(depot, login), hosts)
    await clone.references(0)
    await clone.obtain(commit, "refs/tags/v1.0.0")


async def test_a_repository_that_is_not_there_is_not_found(hosts: GitHosts, clones: Clones) -> None:
    with pytest.raises(NotFound, match=r"git\.test:\d+/missing: there is no such repository"):
        await clone_of(clones, hosts, "missing").references(0)


async def test_a_redirect_is_not_followed_and_the_login_stays_at_home(hosts: GitHosts, depot: Depot) -> None:
    hosts.repository("other.test/app").commit({"a": "1"})
    hosts.repository("git.test/app").commit({"a": "1"})
    away = f"https://other.test:{hosts.port}/app"
    hosts.site("git.test").on = lambda asked: Reply(302, b"", (("location", f"{away}/info/refs?{asked.query}"),))
    login = Login(("git.test",), "ann", "secret-of-anns", ca_file=str(hosts.ca))
    with pytest.raises(UpstreamFailed, match="leads elsewhere, which is not followed"):
        await clone_of(relogged(depot, login), hosts).references(0)
    assert {asked.host for asked in hosts.asked} == {"git.test"}


async def test_a_secret_stands_in_no_argument_and_in_no_file(hosts: GitHosts, depot: Depot) -> None:
    hosts.repository("git.test/app").commit({"a": "1"})
    hosts.site("git.test").users = {"ann": "secret-of-anns"}
    held = threading.Event()
    hosts.site("git.test").on = lambda asked: Reply(hold=held) if not held.is_set() else None
    login = Login(("git.test",), "ann", "secret-of-anns", ca_file=str(hosts.ca))
    clone = clone_of(relogged(depot, login), hosts)
    shown = b64encode(b"ann:secret-of-anns")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clone.references, 0)
        await trio.to_thread.run_sync(wait_until, lambda: hosts.asked, "a question")
        pids = _gits(depot.paths.home)
        assert len(pids) > 1  # git, and what it talks by
        for arguments in map(_arguments, pids):
            assert b"secret-of-anns" not in arguments
            assert shown not in arguments
        nursery.cancel_scope.cancel()
    held.set()
    hosts.site("git.test").on = lambda asked: None
    commit = (await clone.references(0)).head
    await clone.obtain(commit, "HEAD")
    for file in depot.paths.root.rglob("*"):
        if file.is_file():
            assert shown not in file.read_bytes()
            assert b"secret-of-anns" not in file.read_bytes()


@pytest.mark.parametrize(
    ("status", "problem"), [(403, UpstreamDenied), (500, UpstreamFailed), (503, UpstreamUnavailable)]
)
async def test_no_trouble_is_taken_for_not_found(
    hosts: GitHosts, clones: Clones, status: int, problem: type[Exception]
) -> None:
    hosts.site("git.test").on = lambda asked: Reply(status)
    with pytest.raises(problem):
        await clone_of(clones, hosts).references(0)


async def test_a_server_that_nobody_vouches_for_is_not_believed(hosts: GitHosts, depot: Depot) -> None:
    hosts.repository("git.test/app").commit({"a": "1"})
    with pytest.raises(UpstreamFailed, match="not who it should be"):
        await clone_of(relogged(depot, Login(("*",))), hosts).references(0)
    assert not hosts.asked


async def test_a_server_that_is_down_is_told(hosts: GitHosts, clones: Clones) -> None:
    clone = clone_of(clones, hosts)
    hosts.stop()
    with pytest.raises(UpstreamUnavailable, match="cannot be reached"):
        await clone.references(0)


async def test_a_server_that_hangs_is_given_up_and_git_ended(hosts: GitHosts, depot: Depot) -> None:
    hosts.repository("git.test/app").commit({"a": "1"}, "v1.0.0")
    held = threading.Event()
    hosts.site("git.test").on = lambda asked: Reply(hold=held)
    clone = clone_of(Clones(replace(depot, git=Git(depot.paths.home, silence=0.5))), hosts)
    with pytest.raises(UpstreamTimeout, match=r"nothing was heard for 0\.5 s"):
        await clone.references(0)
    wait_until(lambda: not _gits(depot.paths.home), "an end of git")
    held.set()
    hosts.site("git.test").on = lambda asked: None
    with pytest.raises(UpstreamTimeout):
        await clone.references(0)  # it is left alone for a moment
    assert (await clone_of(Clones(depot), hosts).references(0)).head


async def test_of_all_who_wait_for_a_server_that_hangs_one_asks(hosts: GitHosts, depot: Depot) -> None:
    hosts.repository("git.test/app").commit({"a": "1"}, "v1.0.0")
    held = threading.Event()
    hosts.site("git.test").on = lambda asked: Reply(hold=held)
    clone = clone_of(Clones(replace(depot, git=Git(depot.paths.home, silence=4))), hosts)
    told: list[str] = []

    async def want() -> None:
        with pytest.raises(UpstreamTimeout) as caught:
            await clone.references(0)
        told.append(caught.value.message)

    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(want)
    held.set()
    assert len(told) == 200
    assert len(set(told)) == 1
    assert hosts.count("/info/refs") == 1


def _gits(home: Path) -> list[int]:
    """Processes that have our home for their own."""
    found: list[int] = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and f"HOME={home}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:
            continue
    return found


async def test_who_is_cancelled_leaves_no_git_behind(hosts: GitHosts, depot: Depot) -> None:
    hosts.repository("git.test/app").commit({"a": "1"}, "v1.0.0")
    held = threading.Event()
    hosts.site("git.test").on = lambda asked: Reply(hold=held)
    clone = clone_of(Clones(depot), hosts)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clone.references, 0)
        await trio.to_thread.run_sync(wait_until, lambda: hosts.asked, "a question")
        nursery.cancel_scope.cancel()
    wait_until(lambda: not _gits(depot.paths.home), "an end of git")
    held.set()
    hosts.site("git.test").on = lambda asked: None
    assert (await clone.references(0)).head


async def test_a_server_that_breaks_off_in_mid_fetch_harms_nothing(hosts: GitHosts, clones: Clones) -> None:
    commit = hosts.repository("git.test/app").commit({"a": os.urandom(1 << 20)}, "v1.0.0")
    clone = clone_of(clones, hosts)
    await clone.references(0)
    site, posts = hosts.site("git.test"), 0

    def break_off(asked: Asked) -> Reply | None:
        nonlocal posts
        posts += asked.is_fetch
        return Reply(200, b"0" * 100_000, (), cut=5000) if asked.is_fetch and posts > 1 else None

    site.on = break_off
    with pytest.raises(UpstreamFailed):
        await clone.obtain(commit, "refs/tags/v1.0.0")
    site.on = lambda asked: None
    await clone.obtain(commit, "refs/tags/v1.0.0")
    assert [entry.size for entry in await clone.files(commit)] == [1 << 20]


async def test_a_pack_without_an_end_is_cut_and_leaves_nothing(hosts: GitHosts, depot: Depot) -> None:
    repository = hosts.repository("git.test/app")
    commit = repository.commit({"a": os.urandom(3 << 20)}, "v1.0.0")
    small = replace(depot, git=Git(depot.paths.home, silence=10, max_file=1 << 20))
    clone = clone_of(Clones(small), hosts)
    await clone.references(0)
    with pytest.raises(UpstreamFailed, match=r"git fails .*index-pack"):
        await clone.obtain(commit, "refs/tags/v1.0.0")
    folder = depot.paths.copy(depot.paths.name("corp", str(clone.url)))
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 1 << 20
    await clone_of(Clones(depot), hosts).obtain(commit, "refs/tags/v1.0.0")
    assert not list(folder.rglob("tmp_*"))


async def test_what_a_killed_process_left_is_waited_for_and_cleared_away(
    hosts: GitHosts, depot: Depot, tmp_path: Path
) -> None:
    """kill -9 of us in mid-fetch: our git still has the lock for as long as it lives."""
    commit = hosts.repository("git.test/app").commit({"a": "1"}, "v1.0.0")
    clone = clone_of(Clones(depot), hosts)
    await clone.references(0)
    held = threading.Event()
    hosts.site("git.test").on = lambda asked: Reply(hold=held) if asked.is_fetch else None
    script = tmp_path / "victim.py"
    script.write_text(_VICTIM)
    arguments = [str(tmp_path / "data"), str(clone.url), str(hosts.ca), commit]
    victim = subprocess.Popen([sys.executable, str(script), *arguments])  # noqa: ASYNC220 it is waited for below
    try:
        fetching = len(hosts.asked)
        wait_until(lambda: len(hosts.asked) > fetching + 1, "a fetch")
        (orphan,) = {pid for pid in _gits(depot.paths.home) if _is_fetch(pid)}
        assert orphan
    finally:
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    folder = depot.paths.copy(depot.paths.name("corp", str(clone.url)))
    (folder / "shallow.lock").touch()  # as a git that is killed leaves it
    with trio.move_on_after(0.3) as scope:
        await clone.obtain(commit, "refs/tags/v1.0.0")
    assert scope.cancelled_caught  # the orphan has the lock
    os.kill(orphan, signal.SIGKILL)
    held.set()
    hosts.site("git.test").on = lambda asked: None
    with trio.fail_after(20):
        await clone.obtain(commit, "refs/tags/v1.0.0")
    assert not (folder / "shallow.lock").exists()
    assert [entry.path for entry in await clone.files(commit)] == ["a"]


def _is_fetch(pid: int) -> bool:
    return b"fetch" in _arguments(pid).split(b"\0")


def _arguments(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


_VICTIM = """
import sys
from pathlib import Path
import trio
from mxart.config import Upstreams
from mxart.git.clones import Clones
from mxart.git.depot import Depot
from mxart.git.logins import Login, Logins
from mxart.git.process import Git
from mxart.git.url import GitUrl
from mxart.git.ways import Ways
from mxart.store.paths import GitPaths
from mxart.upstream.dial import Dialer

data, url, ca, commit = sys.argv[1:]
paths = GitPaths(Path(data))
ways = Ways(Dialer(Upstreams(resolve={"git.test": "127.0.0.1"})))
depot = Depot("corp", Git(paths.home), paths, Logins([Login(("*",), ca_file=ca)]), ways)
trio.run(lambda: Clones(depot).of(GitUrl.parse(url)).obtain(commit, "refs/tags/v1.0.0"))
"""


# housekeeping


async def test_copies_that_nobody_uses_are_removed_and_made_again(hosts: GitHosts, depot: Depot) -> None:
    commit = hosts.repository("git.test/app").commit({"a": "1"}, "v1.0.0")
    clone = clone_of(Clones(depot), hosts)
    await clone.references(0)
    await clone.obtain(commit, "refs/tags/v1.0.0")
    now = (await trio.Path(depot.paths.references(depot.paths.name("corp", str(clone.url)))).stat()).st_mtime
    assert tidy(depot.paths, now + UNUSED_SECONDS - 10) == 0
    assert tidy(depot.paths, now + UNUSED_SECONDS + 10) == 1
    assert not list(depot.paths.copies.iterdir())
    assert not list(depot.paths.temporary.iterdir())
    await clone.obtain(commit, "refs/tags/v1.0.0")
    assert [entry.path for entry in await clone.files(commit)] == ["a"]


async def test_a_copy_that_is_damaged_is_no_missing_repository_and_heals(hosts: GitHosts, depot: Depot) -> None:
    commit = hosts.repository("git.test/app").commit({"a": "1"}, "v1.0.0")
    clone = clone_of(Clones(depot), hosts)
    await clone.references(0)
    await clone.obtain(commit, "refs/tags/v1.0.0")
    for pack in depot.paths.copies.rglob("*.pack"):
        pack.chmod(0o600)
        pack.write_bytes(b"PACK")
    with pytest.raises(UpstreamFailed, match=r"the copy of .* cannot be read"):
        await clone.files(commit)
    await clone.obtain(commit, "refs/tags/v1.0.0")  # it was thrown away, and heals
    assert [entry.path for entry in await clone.files(commit)] == ["a"]


async def test_one_owners_copy_is_not_anothers(hosts: GitHosts, depot: Depot) -> None:
    """What one login may see must not be had by another."""
    hosts.repository("git.test/app").commit({"a": "1"}, "v1.0.0")
    await clone_of(Clones(depot), hosts).references(0)
    other = Clones(replace(depot, name="other", logins=Logins([Login(("*",))])))
    with pytest.raises(UpstreamFailed, match="not who it should be"):
        await clone_of(other, hosts).references(60)
