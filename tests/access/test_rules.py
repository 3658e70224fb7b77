"""Which rule decides: the most specific path, a deny before an allow, and nobody locks the administrators out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mxart.access.base import ACTIONS, Action
from mxart.access.rules import ADMINS, EVERYBODY, USERS, Rule, Rules
from mxart.patterns import EVERYWHERE, PathPattern

NONE: frozenset[str] = frozenset()


def rule(
    effect: str,
    who: str,
    path: str = "**",
    repository: str = "*",
    actions: str = "read",
    place: str = "permission[0]",
) -> Rule:
    """`who` is a user, or "@group"."""
    return Rule(
        place,
        effect,
        frozenset(actions.split()),
        None if repository == "*" else frozenset(repository.split()),
        PathPattern.parse(path),
        users=frozenset() if who.startswith("@") else frozenset((who,)),
        groups=frozenset((who[1:],)) if who.startswith("@") else frozenset(),
    )


def test_reading_is_everybodys_publishing_the_users_and_the_rest_the_administrators() -> None:
    rules = Rules(publishable=["local"])

    def may(user: str, groups: frozenset[str], action: Action, repository: str = "local") -> bool:
        return rules.decide(user, groups, action, repository, "team/app").allowed

    assert [action for action in ACTIONS if may("", NONE, action)] == ["read", "fetch"]
    assert [action for action in ACTIONS if may("ann", NONE, action)] == ["read", "fetch", "publish", "overwrite"]
    assert [action for action in ACTIONS if may("ann", NONE, action, "hub")] == ["read", "fetch"]
    assert [action for action in ACTIONS if may("ann", frozenset((ADMINS,)), action, "hub")] == list(ACTIONS)


def test_the_most_specific_path_decides_for_everybody() -> None:
    rules = Rules([rule("allow", "@core", "example.com/secret/**", "go")])
    core = frozenset(("core",))
    assert rules.decide("ann", core, "read", "go", "example.com/secret/x").allowed
    assert rules.decide("ann", core, "read", "go", "example.com/secret").allowed
    for user, groups in (("", NONE), ("bob", NONE), ("", core)):
        verdict = rules.decide(user, groups, "read", "go", "example.com/secret/x")
        assert not verdict.allowed
        assert "permission[0]" in verdict.why
        assert rules.decide(user, groups, "read", "go", "example.com/other").allowed
        assert rules.decide(user, groups, "read", "another", "example.com/secret/x").allowed
    # What it does not name is as it was.
    assert rules.decide("bob", NONE, "fetch", "go", "example.com/secret/x").allowed


def test_a_deny_wins_among_equals_and_only_among_equals() -> None:
    rules = Rules([rule("allow", "ann", "a/**"), rule("deny", "@users", "a/**"), rule("allow", "ann", "a/b")])
    assert not rules.decide("ann", NONE, "read", "r", "a/x").allowed
    assert rules.decide("ann", NONE, "read", "r", "a/b").allowed
    # A deny for others denies only them.
    rules = Rules([rule("allow", "@anonymous", "a/**"), rule("deny", "bob", "a/**")])
    assert rules.decide("", NONE, "read", "r", "a/x").allowed
    assert not rules.decide("bob", NONE, "read", "r", "a/x").allowed


def test_who_is_denied_alone_is_the_only_one_denied() -> None:
    rules = Rules([rule("deny", "bob", "secret/**"), rule("deny", "@robots")], publishable=["local"])
    assert rules.decide("ann", NONE, "read", "local", "secret/x").allowed
    assert rules.decide("", NONE, "read", "local", "secret/x").allowed
    assert not rules.decide("bob", NONE, "read", "local", "secret/x").allowed
    assert rules.decide("bob", NONE, "read", "local", "other").allowed
    assert not rules.decide("ci", frozenset(("robots",)), "read", "local", "other").allowed


def test_a_repository_that_is_named_is_more_specific_than_all_but_less_than_a_path() -> None:
    rules = Rules([rule("deny", "@anonymous", "**", "*"), rule("allow", "@anonymous", "**", "open shared")])
    assert rules.decide("", NONE, "read", "shared", "x").allowed
    assert not rules.decide("", NONE, "read", "other", "x").allowed
    rules = Rules([rule("deny", "@anonymous", "a/**", "*"), rule("allow", "@anonymous", "**", "open")])
    assert not rules.decide("", NONE, "read", "open", "a/x").allowed


def test_nobody_locks_the_administrators_out() -> None:
    rules = Rules([rule("deny", "@anonymous", actions=" ".join(ACTIONS)), rule("deny", "@admins", "a")])
    assert rules.decide("root", frozenset((ADMINS,)), "manage", "r", "a").allowed
    assert not rules.decide("", frozenset((ADMINS,)), "read", "r", "a").allowed


def test_whether_a_repository_is_open_to_all() -> None:
    assert Rules().is_open("r")
    assert not Rules([rule("allow", "@core", "secret/**", "r")]).is_open("r")
    assert Rules([rule("allow", "@core", "secret/**", "r")]).is_open("other")
    assert not Rules([rule("deny", "@anonymous", "a/**")]).is_open("r")
    assert Rules([rule("deny", "bob")]).is_open("r")
    # docker shows its login only to a door that asks for one, and he who may fetch has to.
    assert not Rules([rule("allow", "@users", actions="fetch")]).is_open("r")
    assert Rules([rule("deny", "@anonymous", actions="publish")]).is_open("r")


segments = st.sampled_from(["a", "b", "ab", "*", "a*", "**"])
patterns = st.lists(segments, min_size=1, max_size=4).map("/".join)
paths = st.lists(st.sampled_from(["a", "b", "ab", "abc"]), max_size=4).map("/".join)
who = st.sampled_from(["ann", "bob", "@core", "@users", "@anonymous"])
some_rules = st.lists(
    st.builds(
        rule,
        st.sampled_from(["allow", "deny"]),
        who,
        patterns,
        st.sampled_from(["*", "one", "two", "one two"]),
        st.sampled_from(["read", "publish", "read publish delete"]),
    ),
    max_size=6,
)
callers = st.sampled_from([("", NONE), ("ann", NONE), ("bob", frozenset(("core",))), ("eve", NONE)])
questions = st.tuples(st.sampled_from(ACTIONS), st.sampled_from(["one", "two", "three"]), paths)


@given(some_rules, callers, questions, st.randoms())
def test_the_order_of_the_rules_means_nothing(
    rules: list[Rule], caller: tuple[str, frozenset[str]], asked: tuple[Action, str, str], random: object
) -> None:
    before = Rules(rules).decide(*caller, *asked).allowed
    random.shuffle(rules)
    assert Rules(rules).decide(*caller, *asked).allowed == before


@given(some_rules, callers, questions)
def test_a_further_deny_never_lets_anybody_in(
    rules: list[Rule], caller: tuple[str, frozenset[str]], asked: tuple[Action, str, str]
) -> None:
    """As specific as the deciding one, or more so: it cannot open what was closed."""
    if not Rules(rules).decide(*caller, *asked).allowed:
        path = asked[2] or "**"
        for denied in (rule("deny", "@users", path), rule("deny", "eve", "**")):
            verdict = Rules([*rules, denied]).decide(*caller, *asked)
            assert not verdict.allowed


@given(some_rules, callers, questions)
def test_the_highest_rules_that_are_for_him_or_open_something_decide(
    rules: list[Rule], caller: tuple[str, frozenset[str]], asked: tuple[Action, str, str]
) -> None:
    user, groups = caller
    about = [one for one in rules if one.is_about(*asked)]
    saying = [one.rank for one in about if one.effect == "allow" or one.is_for(user, groups)]
    if not saying:
        assert Rules(rules).decide(*caller, *asked) == Rules().decide(*caller, *asked)
        return
    mine = [one for one in about if one.rank == max(saying) and one.is_for(user, groups)]
    expected = bool(mine) and all(one.effect == "allow" for one in mine)
    assert Rules(rules).decide(*caller, *asked).allowed == expected


def test_the_words_say_which_rule_and_what_it_is_about() -> None:
    rules = Rules([rule("deny", "bob", "a/**", "one", "publish delete", place="permission[3]")])
    assert rules.decide("bob", NONE, "delete", "one", "a/b").why == (
        "permission[3]: deny bob delete, publish on a/** of one"
    )
    assert EVERYBODY in rules.decide("", NONE, "read", "one", "a").why
    assert USERS in Rules(publishable=["one"]).decide("", NONE, "publish", "one", "a").why
    assert (
        "nothing as specific is for somebody" in Rules(publishable=["one"]).decide("", NONE, "publish", "one", "a").why
    )
    assert EVERYWHERE.matches("")
