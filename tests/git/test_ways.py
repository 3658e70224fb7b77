"""How git gets to a server: by our own resolver's addresses, or by one proxy, and never where it must not be led."""

from __future__ import annotations

import pytest

from mxart.config import Upstreams
from mxart.errors import UpstreamFailed, UpstreamUnavailable
from mxart.git.url import GitUrl
from mxart.git.ways import Way, Ways
from mxart.upstream.dial import Dialer

GIT = GitUrl.parse("https://git.test/app")
SSH = GitUrl.parse("ssh://git@git.test/app")


def ways(proxy: str | None = None, **settings: object) -> Ways:
    return Ways(Dialer(Upstreams(**settings)), proxy)  # type: ignore[arg-type] the test names its fields


async def test_a_name_is_looked_up_by_us() -> None:
    assert await ways(resolve={"git.test": "10.0.0.7"}).to(GIT) == Way(("10.0.0.7",))
    with pytest.raises(UpstreamUnavailable, match=r"https://git\.invalid/app: .*does not know git\.invalid"):
        await ways().to(GitUrl.parse("https://git.invalid/app"))


@pytest.mark.parametrize(
    ("chain", "given"),
    [
        ("http://proxy.test:3128", "http://proxy.test:3128"),
        ("http://ann:se%40cret@proxy.test:3128", "http://ann:se%40cret@proxy.test:3128"),
        ("socks5://[::1]:1080", "socks5h://[::1]:1080"),
    ],
)
async def test_a_proxy_is_told_to_git_with_its_password_and_to_nobody_else(chain: str, given: str) -> None:
    way = await ways(chain).to(GIT)
    assert way.proxy == given
    assert not way.addresses
    assert "cret" not in repr(way)


@pytest.mark.parametrize(
    ("url", "chain", "why"),
    [
        (GIT, "http://one.test:1, http://two.test:2", "by no other"),
        (GIT, "l4://one.test:1", "by no other"),
        (SSH, "http://one.test:1", "ssh goes by no proxy"),
    ],
)
async def test_what_git_cannot_do_is_told_with_what_would_be_right(url: GitUrl, chain: str, why: str) -> None:
    with pytest.raises(UpstreamFailed, match=rf'{why}.*say upstreams\.proxy_for\."git\.test" = ""'):
        await ways(chain).to(url)
    direct = await ways(chain, proxy_for={"git.test": ""}, resolve={"git.test": "10.0.0.7"}).to(url)
    assert direct == Way(("10.0.0.7",))


@pytest.mark.parametrize(
    ("host", "target", "follows"),
    [
        ("203.0.113.7", "169.254.169.254", False),  # where clouds answer with credentials
        ("8.8.8.8", "127.0.0.1", False),
        ("8.8.8.8", "10.0.0.7", False),
        ("8.8.8.8", "9.9.9.9", True),
        ("10.0.0.1", "10.0.0.7", True),
        ("10.0.0.1", "127.0.0.1", False),
    ],
)
async def test_a_host_leads_only_where_it_is_itself(host: str, target: str, follows: bool) -> None:
    url = GitUrl.parse(f"https://{target}/app")
    found = ways(resolve={"corp.test": host})
    assert await found.to(url) == Way((target,))  # the configuration itself may name any place
    if follows:
        assert await found.to(url, "corp.test") == Way((target,))
        return
    with pytest.raises(UpstreamFailed, match=r"corp\.test leads to .*: that is not followed; if it is meant"):
        await found.to(url, "corp.test")
