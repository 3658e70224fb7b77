"""What a token is asked for is read leniently."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxart.access.scopes import MAX_CHARACTERS, MAX_SCOPES, Scope, parse_scope, parse_scopes
from mxart.errors import BadRequest


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("repository:library/alpine:pull", Scope("repository", "library/alpine", ("pull",))),
        ("repository:a:pull,push,pull", Scope("repository", "a", ("pull", "push"))),
        ("repository:host.test:5000/a/b:pull", Scope("repository", "host.test:5000/a/b", ("pull",))),
        ("repository(plugin):vendor/x:pull", Scope("repository", "vendor/x", ("pull",))),
        ("registry:catalog:*", Scope("registry", "catalog", ("*",))),
        ("repository:samalba/my-app:delete", Scope("repository", "samalba/my-app", ("delete",))),
        ("", None),
        ("repository", None),
        ("repository:a", None),
        ("repository:a:", None),
        ("repository::pull", None),
        ("repository:a:pull,", None),
        ("repository:a:PULL", None),
        ("Repository:a:pull", None),
        ("repository:a\n:pull", None),
        ("repository:a:pull\n", None),
        ('repository:a"b:pull', None),
        ("repository:ä:pull", None),
        (f"repository:{'a' * 301}:pull", None),
    ],
)
def test_one_scope(text: str, scope: Scope | None) -> None:
    assert parse_scope(text) == scope


def test_many_scopes_are_one_for_each_resource_and_nonsense_asks_for_nothing() -> None:
    found = parse_scopes(["repository:a:pull nonsense", "repository:b:push repository:a:push", "", ":::"])
    assert found == (Scope("repository", "a", ("pull", "push")), Scope("repository", "b", ("push",)))
    assert parse_scopes([]) == ()


def test_far_too_much_at_once_is_refused() -> None:
    assert len(parse_scopes([f"repository:a{n}:pull" for n in range(MAX_SCOPES)])) == MAX_SCOPES
    with pytest.raises(BadRequest, match="too much"):
        parse_scopes(["repository:a:pull"] * (MAX_SCOPES + 1))
    with pytest.raises(BadRequest, match="too much"):
        parse_scopes(["repository:a:pull " * (MAX_SCOPES + 1)])
    with pytest.raises(BadRequest, match="too much"):
        parse_scopes(["x" * (MAX_CHARACTERS + 1)])


names = st.text("abz09._:/@-", min_size=1, max_size=12).map(lambda rest: "n" + rest)
actions = st.lists(st.sampled_from(["pull", "push", "delete", "*"]), min_size=1, max_size=4, unique=True).map(tuple)
scopes = st.builds(Scope, st.sampled_from(["repository", "registry", "x1"]), names, actions)


@given(scopes)
def test_what_is_written_is_read_back(scope: Scope) -> None:
    assert parse_scope(str(scope)) == scope
