"""`Access.decide`: rules, then a token's ceiling, then what a signed one was asked for; each can only take away."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mxart.access import schema
from mxart.access.base import ACTIONS, Action
from mxart.access.control import NOBODY, Access, Principal, Scopes, principal_of, publishable, rules_of
from mxart.access.directory import Directory
from mxart.access.management import Management
from mxart.access.people import Ceiling, User
from mxart.access.rules import ADMINS
from mxart.config_file import decode

CONFIG = decode(
    """
    [repository.oci]
    format = "oci"
    kind = "local"
    path = "/"
    [repository.hub]
    format = "oci"
    kind = "proxy"
    upstream = "https://registry-1.docker.io"
    [[permission]]
    repository = "oci"
    path = "secret/**"
    groups = "core"
    actions = ["read", "publish"]
    [[permission]]
    users = "eve"
    actions = ["read", "fetch", "publish", "overwrite"]
    effect = "deny"
    """,
    file="mxart.toml",
    environment={},
)
ACCESS = Access(rules_of(CONFIG))
ANN, EVE = User(1, "ann", frozenset(("core",))), User(2, "eve")
ROOT = User(3, "root", frozenset((ADMINS,)))


def test_it_says_who_decided_and_why() -> None:
    for principal, asked, by, rule, allowed in (
        (Principal(ANN), ("read", "oci", "secret/x"), "rules", "permission[0]", True),
        (Principal(EVE), ("read", "hub", "x"), "rules", "permission[1]", False),
        (NOBODY, ("read", "hub", "x"), "rules", "built in", True),
        (NOBODY, ("publish", "hub", "x"), "rules", "", False),
        (Principal(ROOT), ("manage", "*", ""), "rules", "admins", True),
        (Principal(User(4, "off", frozenset((ADMINS,)), disabled=True)), ("read", "hub", "x"), "user", "", False),
        (Principal(ANN, "t", Ceiling.of(["read"])), ("publish", "oci", "x"), "ceiling", "built in", False),
        (Principal(ROOT, "t", Ceiling.of((), ["oci:a/**"])), ("read", "oci", "b"), "ceiling", "admins", False),
        (Principal(ANN, scopes=Scopes()), ("read", "oci", "x"), "scopes", "built in", False),
        (Principal(ANN, scopes=Scopes(catalog=True)), ("read", "oci", ""), "scopes", "built in", True),
    ):
        decision = ACCESS.decide(principal, *asked)
        assert (decision.allowed, decision.rule) == (allowed, rule), decision
        assert decision.by == ("rules" if allowed else by)
        assert decision.why


def test_what_takes_publications() -> None:
    assert publishable(CONFIG) == {"oci"}


actions = st.sampled_from(ACTIONS)
packages = st.sampled_from(["x", "secret/x", "a/b", ""])
repositories = st.sampled_from(["oci", "hub"])
ceilings = st.builds(
    Ceiling.of, st.lists(actions, max_size=3), st.lists(st.sampled_from(["oci", "hub:a/**", "*:x"]), max_size=2)
)
scopes = st.none() | st.builds(
    Scopes, st.dictionaries(st.tuples(repositories, packages), st.frozensets(actions)), st.booleans()
)


@given(st.sampled_from([None, ANN, EVE, ROOT]), ceilings, scopes, actions, repositories, packages)
def test_neither_ceiling_nor_scopes_ever_add_anything(
    user: User | None, ceiling: Ceiling, scopes: Scopes | None, action: Action, repository: str, package: str
) -> None:
    bounded = ACCESS.decide(Principal(user, "t", ceiling, scopes), action, repository, package)
    if bounded.allowed:
        assert ACCESS.decide(Principal(user), action, repository, package).allowed
        assert ceiling.allows(action, repository, package)


def test_whoever_is_not_there_is_told_so(tmp_path: Path) -> None:
    schema.prepare(tmp_path / "access.sqlite")
    directory = Directory(tmp_path / "access.sqlite")
    manage = Management(directory, clock=lambda: 100.0)
    manage.create_user("ann", robot=True)
    manage.create_user("bob", robot=True)
    token, _ = manage.create_token("ann", "x", seconds=10, actions=["read"])
    assert principal_of(directory, "") == NOBODY
    assert principal_of(directory, "eve") == "there is no user eve"
    assert principal_of(directory, "bob", token.id) == f"bob has no token {token.id}"
    assert principal_of(directory, "ann", token.id, 110.0) == f"the token {token.id} has expired"
    found = principal_of(directory, "ann", token.id, 109.0)
    assert isinstance(found, Principal)
    assert found.ceiling == token.ceiling
    directory.close()
