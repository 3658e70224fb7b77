"""Which tags and manifests stay: by rules, and because something that stays needs them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mxart.config import Retention
from mxart.store.space.retention import DAY, Bundle, Manifest, Package, Tag, attached_to, plan

NOW = 1_700_000_000.0


def digest(name: str) -> str:
    return f"sha256:{name.encode().hex():0<64}"


def manifest(
    name: str, *links: str, age: float = 100, used: float | None = None, subject: str = "", size: int = 10
) -> Manifest:
    """Ages and uses in days before now."""
    return Manifest(
        digest(name),
        size,
        NOW - age * DAY,
        0.0 if used is None else NOW - used * DAY,
        frozenset(map(digest, links)),
        digest(subject) if subject else "",
    )


def tag(name: str, target: str, age: float) -> Tag:
    return Tag(name, digest(target), NOW - age * DAY)


def package(tags: Sequence[Tag], manifests: Sequence[Manifest] = (), parts: Iterable[str] = (), name: str = "app"):  # type: ignore[no-untyped-def]  # of a test
    known = {item.digest for item in manifests}
    implied = [Manifest(item.digest, 10, item.created, 0.0) for item in tags if item.digest not in known]
    return Package(name, tags, [*manifests, *implied], {digest(part): 100 for part in parts})


def gone(found: Package, *rules: Retention) -> dict[str, str]:
    """Why, by the names that the test gave."""
    going = [going for bundle in plan(found, rules, NOW) for going in bundle.going]
    return {_name(item.name) if item.what == "manifest" else f":{item.name}": item.why for item in going}


def _name(text: str) -> str:
    return bytes.fromhex(text.partition(":")[2]).rstrip(b"\0").decode()


def test_the_newest_stay_of_each_package() -> None:
    tags = [tag(f"v{number}", f"m{number}", age=number) for number in range(5)]
    assert set(gone(package(tags), Retention(keep=3))) == {":v3", ":v4", "m3", "m4"}
    assert gone(package(tags), Retention(keep=5)) == {}
    assert len(gone(package(tags), Retention(keep=0))) == 10


def test_the_young_stay() -> None:
    tags = [tag(f"v{number}", f"m{number}", age=number * 10) for number in range(4)]
    assert gone(package(tags), Retention(days=15))[":v2"] == "older than 15 days (*)"
    assert set(gone(package(tags), Retention(days=15))) == {":v2", ":v3", "m2", "m3"}


def test_of_number_and_age_both_have_to_let_it_go() -> None:
    tags = [tag(f"v{number}", f"m{number}", age=number * 10) for number in range(5)]
    assert {name for name in gone(package(tags), Retention(keep=1, days=25)) if name[0] == ":"} == {":v3", ":v4"}
    assert {name for name in gone(package(tags), Retention(keep=4, days=5)) if name[0] == ":"} == {":v4"}
    why = gone(package(tags), Retention(keep=1, days=25))[":v3"]
    assert why == "not one of the newest 1, and older than 25 days (*)"


def test_a_tag_that_no_rule_names_stays_and_one_rule_that_keeps_is_enough() -> None:
    tags = [tag(name, name, age=50) for name in ("latest", "v1", "v2", "dev-1", "dev-2")]
    found = gone(package(tags), Retention(tags="dev-*", days=7), Retention(tags=("v*", "dev-1"), keep=2))
    assert set(found) == {":dev-2", "dev-2", ":v2", "v2"}
    assert gone(package(tags), Retention(tags="*", days=7), Retention(tags=("*",), keep=9)) == {}


def test_rules_are_for_the_packages_that_they_name() -> None:
    tags = [tag("1", "m", age=50)]
    rule = Retention(packages="team/**", keep=0)
    assert gone(package(tags, name="team/app"), rule)
    assert gone(package(tags, name="other/app"), rule) == {}


def test_a_manifest_with_another_tag_stays_and_only_the_tag_goes() -> None:
    tags = [tag("old", "m", age=50), tag("latest", "m", age=50)]
    assert set(gone(package(tags), Retention(tags="old", keep=0))) == {":old"}


def test_an_indexs_manifests_go_with_it_and_stay_with_another_one() -> None:
    manifests = [manifest("i1", "a", "b"), manifest("i2", "b"), manifest("a"), manifest("b")]
    tags = [tag("1", "i1", age=50), tag("2", "i2", age=1)]
    found = gone(package(tags, manifests), Retention(keep=1))
    assert set(found) == {":1", "i1", "a"}
    assert found["i1"] == "its tags go"
    assert found["a"] == f"only {digest('i1')[:19]} needed it, which goes"


def test_a_tag_of_an_indexs_manifest_goes_and_the_manifest_stays_for_the_index() -> None:
    manifests = [manifest("index", "a"), manifest("a")]
    tags = [tag("multi", "index", age=1), tag("amd64", "a", age=50)]
    assert set(gone(package(tags, manifests), Retention(days=7))) == {":amd64"}


def test_signatures_stay_with_what_they_are_attached_to_and_go_with_it() -> None:
    manifests = [
        manifest("old"),
        manifest("new", age=1),
        manifest("s1", subject="old"),
        manifest("s2", subject="new"),
        manifest("s3", subject="s2"),
    ]
    tags = [tag("1", "old", age=50), tag("2", "new", age=1)]
    found = gone(package(tags, manifests), Retention(keep=1, untagged_days=0))
    assert set(found) == {":1", "old", "s1"}
    assert found["s1"] == f"attached to {digest('old')[:19]}, which goes"


def test_signatures_by_tag_are_none_of_the_rules_business() -> None:
    names = {name: digest(name).replace(":", "-") for name in ("old", "new", "never")}
    manifests = [manifest("old"), manifest("new"), manifest("s1"), manifest("s2"), manifest("s3")]
    tags = [
        tag("1", "old", age=50),
        tag("2", "new", age=40),
        tag(f"{names['old']}.sig", "s1", age=1),
        tag(f"{names['new']}.sig", "s2", age=60),
        tag(f"{names['never']}.sig", "s3", age=60),
    ]
    found = gone(package(tags, manifests), Retention(keep=1))
    assert set(found) == {":1", "old", f":{names['old']}.sig", "s1", f":{names['never']}.sig", "s3"}


def test_what_goes_with_very_many_tags_goes_bit_by_bit() -> None:
    """A bundle is one transaction, and everybody else waits for that."""
    found = package([tag(f"v{number:04}", "m", age=1) for number in range(1000)])
    bundles = plan(found, [Retention(keep=0)], NOW)
    assert max(len(bundle.going) for bundle in bundles) < 200
    assert sum(len(bundle.tags) for bundle in bundles) == 1000
    assert [len(bundle.manifests) for bundle in bundles] == [0] * (len(bundles) - 1) + [1], (
        "the manifest before its tags"
    )


def test_untagged_manifests_go_when_nobody_pushed_or_pulled_them_for_long() -> None:
    manifests = [manifest("old"), manifest("pulled", used=2), manifest("young", age=3), manifest("child")]
    manifests.append(manifest("index", "child", age=100, used=1))
    found = gone(package([], manifests), Retention(untagged_days=7))
    assert found == {"old": "nothing points at it, and nobody pushed or pulled it for 7 days"}
    assert gone(package([], manifests), Retention(keep=0)) == {}, "rules about tags are about tags"
    rules = Retention(untagged_days=1), Retention(packages="app", untagged_days=400)
    assert gone(package([], manifests), *rules) == {}, "the longest time counts"


def test_an_index_attached_to_what_it_links_is_no_way_to_stay_for_ever_nor_to_vanish() -> None:
    manifests = [manifest("x", age=100), manifest("i", "x", subject="x", age=100)]
    assert gone(package([], manifests), Retention(keep=0)) == {}
    assert set(gone(package([], manifests), Retention(untagged_days=7))) == {"x", "i"}
    assert gone(package([tag("t", "i", age=1)], manifests), Retention(untagged_days=7, keep=1)) == {}
    assert gone(package([tag("t", "x", age=1)], manifests), Retention(untagged_days=7, keep=1)) == {}


def test_bytes_are_of_what_nothing_that_stays_needs_each_once() -> None:
    manifests = [manifest("a", "l1", "l2"), manifest("b", "l2", "l3"), manifest("c", "l3")]
    tags = [tag(name, name, age) for name, age in (("a", 50), ("b", 40), ("c", 1))]
    bundles = plan(package(tags, manifests, ["l1", "l2", "l3"]), [Retention(keep=1)], NOW)
    freed = [set(map(_name, bundle.freed)) for bundle in bundles]
    assert freed == [{"a", "l1"}, {"b", "l2"}]
    assert sum(sum(bundle.freed.values()) for bundle in bundles) == 220


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("sha256-" + "a" * 64, "sha256:" + "a" * 64),
        ("sha256-" + "a" * 64 + ".sig", "sha256:" + "a" * 64),
        ("sha256-short", ""),
        ("latest", ""),
        ("sha256-" + "A" * 64, ""),
    ],
)
def test_whose_attachment_a_tag_is(name: str, subject: str) -> None:
    assert attached_to(name) == subject


# For any package and any rules.

NAMES = st.integers(0, 7)


@st.composite
def packages(draw: st.DrawFn) -> Package:
    manifests = []
    for number in range(draw(st.integers(0, 8))):
        before = st.integers(0, max(0, number - 1))
        links = draw(st.frozensets(before, max_size=3)) if number else frozenset()
        subject = draw(st.one_of(st.none(), before)) if number else None
        manifests.append(
            manifest(
                f"m{number}",
                *(f"m{link}" for link in links),
                f"part{draw(NAMES)}",
                age=draw(st.integers(0, 60)),
                used=draw(st.one_of(st.none(), st.integers(0, 60))),
                subject="" if subject is None else f"m{subject}",
            )
        )
    tags = []
    for number in range(draw(st.integers(0, 6)) if manifests else 0):
        target = draw(st.sampled_from(manifests))
        attached = draw(st.sampled_from([None, None, *manifests]))
        name = (
            f"{'v' if number % 2 else 'x'}{number}"
            if attached is None
            else f"{attached.digest.replace(':', '-')}.{number}"
        )
        tags.append(Tag(name, target.digest, NOW - draw(st.integers(0, 60)) * DAY))
    return Package("app", tags, manifests, {digest(f"part{number}"): 100 for number in range(8)})


RULES = st.lists(
    st.builds(
        Retention,
        tags=st.sampled_from(["*", "v*", "x*"]),
        keep=st.one_of(st.none(), st.integers(0, 3)),
        days=st.one_of(st.none(), st.integers(0, 60).map(float)),
        untagged_days=st.one_of(st.none(), st.integers(0, 60).map(float)),
    ),
    max_size=3,
)


def left(found: Package, bundles: Sequence[Bundle]) -> Package:
    tags = {item.name for bundle in bundles for item in bundle.tags}
    manifests = {item.digest for bundle in bundles for item in bundle.manifests}
    return Package(
        found.name,
        [item for item in found.tags if item.name not in tags],
        [item for item in found.manifests if item.digest not in manifests],
        found.parts,
    )


@given(found=packages(), rules=RULES)
@settings(deadline=None)
def test_nothing_goes_that_a_rule_keeps_or_that_what_stays_needs(found: Package, rules: list[Retention]) -> None:
    bundles = plan(found, rules, NOW)
    here = {item.digest for item in found.manifests}
    for end in range(len(bundles) + 1):  # broken off anywhere
        after = left(found, bundles[:end])
        staying = {item.digest for item in after.manifests}
        assert {item.digest for item in after.tags} <= staying
        for item in after.manifests:
            assert item.links & here <= staying | {item.digest}, "an index lost a manifest"
    staying = {item.digest for item in left(found, bundles).manifests}
    for item in found.manifests:
        if item.subject in staying:
            assert item.digest in staying, "what stays lost an attachment"
    going = {item.name for bundle in bundles for item in bundle.tags}
    governed = [item for item in found.tags if attached_to(item.name) not in here - {item.digest}]
    for rule in rules:
        named = [item for item in governed if rule.tags == "*" or item.name.startswith(str(rule.tags)[0])]
        newest = sorted(named, key=lambda item: (-item.created, item.name))[: rule.keep or 0]
        young = [item for item in named if rule.days is not None and item.created > NOW - rule.days * DAY]
        assert not going & {item.name for item in [*newest, *young]}
    if not any(rule.keep is not None or rule.days is not None for rule in rules):
        assert not going & {item.name for item in governed}
    for bundle in bundles:
        assert len(bundle.going) == len(bundle.tags) + len(bundle.manifests)
        assert all(item.why for item in bundle.going)


@given(found=packages(), rules=RULES)
@settings(deadline=None)
def test_after_it_nothing_more_goes(found: Package, rules: list[Retention]) -> None:
    assert plan(left(found, plan(found, rules, NOW)), rules, NOW) == []
