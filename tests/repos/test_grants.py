"""What a caller may not do is not asked of anybody, and what he may not see stands in no list."""

from __future__ import annotations

import pytest

from kit.wire import PEER
from mxart.access.base import ANYBODY, Action
from mxart.digest import Digest
from mxart.errors import Forbidden, NotFound, Unauthorized
from mxart.message import Headers, Request, Trace
from mxart.repos.answers import answer
from mxart.repos.callers import NOBODY, Caller
from mxart.repos.group import Group
from mxart.repos.oci.format import Oci
from mxart.repos.operations import Blob, File, Found, Listed, Listing

SUM = Digest.of(b"x")


class Only:
    """Grants reading of the listed packages, each as "repository:package"."""

    def __init__(self, *readable: str) -> None:
        self._readable = readable

    def may(self, action: Action, repository: str, path: str) -> bool:
        return action == "read" and f"{repository}:{path}" in self._readable

    def demand(self, action: Action, repository: str, path: str) -> None:
        if not self.may(action, repository, path):
            raise Forbidden(f"not you: {action} {repository}:{path}")

    def sees(self, repository: str, path: str) -> bool:
        return self.may("read", repository, path)


class Store:
    """Holds packages, in pages of two, and remembers what it was asked."""

    site = ""

    def __init__(self, name: str, *packages: str, owned: bool = False, hub: bool = False) -> None:
        self.name = name
        self.format = Oci(("https://registry-1.docker.io",) if hub else ())
        self.packages = sorted(packages)
        self.owned = owned
        self.asked: list[str] = []

    def owns(self, package: str) -> bool:
        return self.owned and package in self.packages

    async def admit(self, caller: Caller, trace: Trace) -> None:
        self.asked.append("admit")

    async def file(self, operation: File, trace: Trace, caller: Caller = NOBODY) -> Found:
        self.asked.append(operation.package)
        if operation.package not in self.packages:
            raise NotFound("no such package", subject="name")
        return Found(SUM, 1, b"x", Headers(), '"x"')

    async def listing(self, operation: Listing, trace: Trace, caller: Caller = NOBODY) -> Listed:
        size = 2 if operation.limit is None else min(2, operation.limit)
        after = [name for name in self.packages if name > operation.after]
        return Listed(after[:size], more=len(after) > size)


def blob(package: str) -> Blob:
    return Blob(package, f"{package}/blobs/{SUM}", "blob", SUM)


def catalog(limit: int | None = None, after: str = "") -> Listing:
    return Listing("", "_catalog", "list", "packages", after, limit)


def request(target: str = "/v2/x") -> Request:
    return Request("GET", target, "localhost", Headers(), PEER)


async def test_the_repository_is_asked_only_for_what_the_caller_may_read() -> None:
    store = Store("local", "a", "b")
    caller = Caller(name="ann", grants=Only("local:a"))
    assert (await answer(store, blob("a"), request(), caller)).status == 200
    with pytest.raises(Forbidden):
        await answer(store, blob("b"), request(), caller)
    with pytest.raises(Forbidden):
        await answer(store, Listing("b", "b/tags/list", "name", "tags"), request(), caller)
    assert store.asked == ["a"]


async def test_a_short_name_of_docker_hub_is_judged_by_its_full_one() -> None:
    store = Store("hub", "alpine", hub=True)
    with pytest.raises(Forbidden, match="hub:library/alpine"):
        await answer(store, blob("alpine"), request(), Caller(grants=Only("hub:alpine")))
    assert (await answer(store, blob("alpine"), request(), Caller(grants=Only("hub:library/alpine")))).status == 200


async def test_a_catalog_shows_what_the_caller_may_see_in_pages_as_long_as_asked_for() -> None:
    names = [f"p{number}" for number in range(9)]
    caller = Caller(name="ann", grants=Only("local:p3", "local:p4", "local:p8"))
    store = Store("local", *names)
    answered = await answer(store, catalog(limit=2), request("/v2/_catalog?n=2"), caller)
    assert b"".join(answered.body.segments) == b'{"repositories":["p3","p4"]}'
    assert answered.headers.get("link") == '</v2/_catalog?n=2&last=p4>; rel="next"'
    answered = await answer(store, catalog(2, "p4"), request("/v2/_catalog?n=2&last=p4"), caller)
    assert b"".join(answered.body.segments) == b'{"repositories":["p8"]}'
    assert answered.headers.get("link") is None
    with pytest.raises(Forbidden):
        await answer(store, catalog(), request(), Caller(name="bob", grants=Only()))


async def test_a_group_asks_only_the_members_that_the_caller_may_read() -> None:
    open_, closed = Store("open"), Store("closed", "a")
    group = Group("g", Oci(), [open_, closed])
    with pytest.raises(NotFound):
        await group.file(blob("a"), Trace(), Caller(name="ann", grants=Only("open:a")))
    assert (open_.asked, closed.asked) == (["a"], [])
    found = await group.file(blob("a"), Trace(), Caller(name="ann", grants=Only("closed:a")))
    assert found.content == b"x"
    assert open_.asked == ["a"]
    with pytest.raises(Forbidden):
        await group.file(blob("a"), Trace(), Caller(name="ann", grants=Only()))


async def test_a_name_that_a_member_owns_is_asked_nowhere_else_by_those_who_may_not_read_it_there() -> None:
    """Or an upstream's package of that name would be handed out to them as ours."""
    internal, public = Store("internal", "app", owned=True), Store("public", "app")
    group = Group("g", Oci(), [internal, public])
    with pytest.raises(Forbidden, match="internal:app"):
        await group.file(blob("app"), Trace(), Caller(name="ann", grants=Only("public:app")))
    assert internal.asked == public.asked == []


async def test_a_groups_catalog_shows_of_each_member_what_may_be_seen_there() -> None:
    group = Group("g", Oci(), [Store("one", "a", "b", "c", "d"), Store("two", "b", "e", "f")])
    caller = Caller(name="ann", grants=Only("one:d", "two:b", "two:f", "g:b", "g:d", "g:f"))
    listed = await group.listing(catalog(limit=2), Trace(), caller)
    assert (listed.names, listed.more) == (["b", "d"], True)
    assert (await group.listing(catalog(2, "d"), Trace(), caller)).names == ["f"]


def test_where_nobody_says_otherwise_everybody_reads_and_nobody_writes() -> None:
    assert NOBODY.grants is ANYBODY
    assert ANYBODY.may("read", "x", "y")
    assert ANYBODY.sees("x", "y")
    ANYBODY.demand("fetch", "x", "y")
    for action in ("publish", "overwrite", "delete", "manage"):
        with pytest.raises(Unauthorized):
            ANYBODY.demand(action, "x", "y")
