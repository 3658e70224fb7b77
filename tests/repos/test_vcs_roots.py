"""Where a module's repository is: what the configuration names, what its host says, and whom nobody believes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from msgspec import Struct

from mxart.errors import NotFound, Problem, UpstreamDenied, UpstreamFailed, UpstreamUnavailable
from mxart.git.logins import Login, Logins
from mxart.message import Headers
from mxart.repos.go.hosts import Urls
from mxart.repos.vcs.roots import Roots
from mxart.upstream.base import Ask, Reply, Upstream

MODULE = "corp.test/team/lib"


class Page(Struct):
    """What a URL is answered with: a page, or trouble on the way."""

    body: bytes = b""
    status: int = 200
    problem: Problem | None = None


class _Reply:
    located = ""

    def __init__(self, page: Page, origin: str) -> None:
        self.status = page.status
        self.headers = Headers()
        self.origin = origin
        self._body = page.body

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        piece, self._body = self._body[:4096], self._body[4096:]
        return piece


class _Site:
    def __init__(self, web: Web, url: str) -> None:
        self.name = self.site = url
        self._web = web

    @asynccontextmanager
    async def open(self, ask: Ask) -> AsyncIterator[Reply]:
        assert ask.lenient  # whatever the status is, it is the page that counts
        url = f"{self.name}/{ask.path}"
        self._web.asked.append(url)
        page = self._web.pages.get(url, Page(b"not here", 404))
        if page.problem is not None:
            raise page.problem
        yield _Reply(page, self.name)


class Web:
    """Hosts (repos.vcs.hosts) with pages by their URLs."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.asked: list[str] = []

    def at(self, url: str) -> Upstream:
        return _Site(self, url)

    def says(self, path: str, *contents: str, status: int = 200, scheme: str = "https") -> None:
        metas = "".join(f'<meta name="go-import" content="{content}">' for content in contents)
        host, _, rest = path.partition("/")
        self.pages[f"{scheme}://{host}/{rest}?go-get=1"] = Page(f"<head>{metas}</head>".encode(), status)


@pytest.fixture
def web() -> Web:
    return Web()


def roots(web: Web, login: Login | None = None, ttl: float = 60.0, **urls: str) -> Roots:
    clock = iter(range(0, 10_000, 10))
    named = Urls({root.replace("__", "/").replace("_", "."): url for root, url in urls.items()})
    logins = Logins([login] if login is not None else [])
    return Roots(named, logins, web, ttl, lambda: float(next(clock)))  # type: ignore[arg-type] no Remote is needed


async def test_the_host_says_where_and_its_root_has_to_say_the_same(web: Web) -> None:
    said = f"{MODULE} git https://git.test/lib"
    web.says(MODULE, said)
    web.says(f"{MODULE}/sub", said)
    found = await roots(web).find(f"{MODULE}/sub")
    assert (found.root.path, str(found.url), found.named_by) == (MODULE, "https://git.test/lib", "corp.test")
    assert web.asked == [f"https://{MODULE}/sub?go-get=1", f"https://{MODULE}?go-get=1"]
    web.says(MODULE, f"{MODULE} git https://git.test/other")
    with pytest.raises(UpstreamFailed, match=f"the page of {MODULE} do not say the same of {MODULE}/sub"):
        await roots(web).find(f"{MODULE}/sub")


async def test_a_host_of_its_own_is_its_own_root(web: Web) -> None:
    web.says("go.corp.test", "go.corp.test git ssh://git@git.test/go sub/dir")
    found = await roots(web).find("go.corp.test")
    assert (found.root.folder, str(found.url)) == ("sub/dir", "ssh://git@git.test/go")


async def test_it_is_asked_again_after_a_while(web: Web) -> None:
    web.says(MODULE, f"{MODULE} git https://git.test/lib")
    known = roots(web, ttl=25)
    for _ in range(4):
        await known.find(MODULE)
    assert len(web.asked) == 2


@pytest.mark.parametrize("status", [200, 404, 403, 500])
async def test_a_page_counts_whatever_its_status_is(web: Web, status: int) -> None:
    web.says(MODULE, f"{MODULE} git https://git.test/lib", status=status)
    assert (await roots(web).find(MODULE)).root.path == MODULE


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (200, NotFound),
        (404, NotFound),
        (410, NotFound),
        (401, UpstreamDenied),
        (403, UpstreamDenied),
        (429, UpstreamUnavailable),
        (500, UpstreamUnavailable),
        (503, UpstreamUnavailable),
    ],
)
async def test_a_page_that_says_nothing_is_not_found_or_trouble(web: Web, status: int, problem: type[Problem]) -> None:
    web.says(MODULE, status=status)
    with pytest.raises(
        problem, match=rf"https://{MODULE}\?go-get=1 is answered with {status} and says nothing of"
    ) as got:
        await roots(web).find(MODULE)
    assert type(got.value) is problem


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (f"{MODULE} git file:///etc", "no URL of a git repository"),
        (f"{MODULE} git ext::sh", "no URL of a git repository"),
        (f"{MODULE} git https://ann:pw@git.test/lib", "go into a login"),
        (f"{MODULE} git http://git.test/lib", "read in plain text"),
        (f"{MODULE} git https://git.test/lib ../other", "no folder"),
        (f"{MODULE} git https://git.test/lib -x", "no folder"),
    ],
)
async def test_what_a_host_must_not_say_is_refused(web: Web, content: str, why: str) -> None:
    web.says(MODULE, content)
    with pytest.raises(UpstreamFailed, match=why) as caught:
        await roots(web).find(MODULE)
    assert "pw@" not in caught.value.message


async def test_other_sorts_of_repositories_are_named(web: Web) -> None:
    web.says(MODULE, f"{MODULE} mod https://proxy.test")
    with pytest.raises(NotFound, match=r"at a GOPROXY, 'https://proxy\.test': give that to a proxy repository"):
        await roots(web).find(MODULE)
    web.says(MODULE, f"{MODULE} hg https://hg.test/lib")
    with pytest.raises(NotFound, match="repository of 'hg', and only git is read here"):
        await roots(web).find(MODULE)


async def test_plain_http_is_asked_only_where_that_is_said(web: Web) -> None:
    web.says(MODULE, f"{MODULE} git http://git.test/lib", scheme="http")
    down = Page(problem=UpstreamUnavailable("it is down"))
    web.pages[f"https://{MODULE}?go-get=1"] = down
    with pytest.raises(UpstreamUnavailable, match="it is down"):
        await roots(web).find(MODULE)
    assert web.asked == [f"https://{MODULE}?go-get=1"]
    found = await roots(web, Login(("*.test",), insecure=True)).find(MODULE)
    assert str(found.url) == "http://git.test/lib"


async def test_what_the_configuration_names_is_asked_of_nobody(web: Web) -> None:
    found = await roots(web, corp_test__team__lib="ssh://git@git.test/lib.git").find(f"{MODULE}/v2")
    assert (found.root.path, found.named_by) == (MODULE, "")
    assert str((await roots(web).find("github.com/acme/x/y")).url) == "https://github.com/acme/x"
    with pytest.raises(NotFound, match="names no repository"):
        await roots(web).find("github.com/acme")
    assert not web.asked


async def test_a_page_without_an_end_is_read_to_its_begin_only(web: Web) -> None:
    web.says(MODULE, f"{MODULE} git https://git.test/lib")
    page = web.pages[f"https://{MODULE}?go-get=1"]
    page.body += b"<p>" * 2_000_000
    assert (await roots(web).find(MODULE)).root.path == MODULE
