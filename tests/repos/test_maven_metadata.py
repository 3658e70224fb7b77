"""maven-metadata.xml: read from anybody, written as Maven does, united so that nothing is lost."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxart.repos.maven import metadata as m
from mxart.repos.maven.coordinates import MetadataPath, file_path
from mxart.repos.maven.markup import MAX_ELEMENTS, MAX_SIZE, BadMarkup
from mxart.repos.maven.markup import read as read_markup
from mxart.repos.maven.metadata import Build, Metadata, Plugin

ARTIFACT = b"""<?xml version="1.0" encoding="UTF-8"?>
<metadata>
  <groupId>com.example</groupId>
  <artifactId>app</artifactId>
  <versioning>
    <latest>1.2-SNAPSHOT</latest>
    <release>1.1</release>
    <versions>
      <version>1.0</version>
      <version>1.1</version>
      <version>1.2-SNAPSHOT</version>
    </versions>
    <lastUpdated>20240102030405</lastUpdated>
  </versioning>
</metadata>
"""
SNAPSHOT = b"""<?xml version="1.0" encoding="UTF-8"?>
<metadata modelVersion="1.1.0">
  <groupId>com.example</groupId>
  <artifactId>app</artifactId>
  <version>1.2-SNAPSHOT</version>
  <versioning>
    <snapshot>
      <timestamp>20240102.030405</timestamp>
      <buildNumber>6</buildNumber>
    </snapshot>
    <lastUpdated>20240102030405</lastUpdated>
    <snapshotVersions>
      <snapshotVersion>
        <extension>jar</extension>
        <value>1.2-20240102.030405-6</value>
        <updated>20240102030405</updated>
      </snapshotVersion>
      <snapshotVersion>
        <classifier>sources</classifier>
        <extension>jar</extension>
        <value>1.2-20240102.030405-6</value>
        <updated>20240102030405</updated>
      </snapshotVersion>
    </snapshotVersions>
  </versioning>
</metadata>
"""
GROUP = b"""<?xml version="1.0" encoding="UTF-8"?>
<metadata modelVersion="1.1.0">
  <plugins>
    <plugin>
      <name>The App Plugin &amp; more</name>
      <prefix>app</prefix>
      <artifactId>app-maven-plugin</artifactId>
    </plugin>
  </plugins>
</metadata>
"""
BUILD = Build("", "jar", "1.2-20240102.030405-6", "20240102030405")


def artifact(*versions: str, updated: str = "") -> Metadata:
    return Metadata("g", "a", versions=versions, updated=updated)


def test_what_a_file_says() -> None:
    assert m.parse(ARTIFACT) == Metadata(
        "com.example", "app", "", "1.2-SNAPSHOT", "1.1", ("1.0", "1.1", "1.2-SNAPSHOT"), "20240102030405"
    )
    found = m.parse(SNAPSHOT)
    assert (found.version, found.time, found.number) == ("1.2-SNAPSHOT", "20240102.030405", 6)
    assert found.builds[0] == BUILD
    assert m.parse(GROUP).plugins == (Plugin("app", "app-maven-plugin", "The App Plugin & more"),)


@pytest.mark.parametrize("data", [SNAPSHOT, GROUP, ARTIFACT.replace(b"<metadata>", b'<metadata modelVersion="1.1.0">')])
def test_it_is_written_as_maven_writes_it(data: bytes) -> None:
    assert m.render(m.parse(data)) == data


def test_what_others_write_is_read() -> None:
    assert m.parse(b"\xef\xbb\xbf\n <metadata/>") == Metadata()
    other = b'<m:metadata xmlns:m="http://maven.apache.org/METADATA/1.1.0"><m:groupId>g</m:groupId></m:metadata>'
    assert m.parse(other).group == "g"
    assert (
        m.parse(
            '<?xml version="1.0" encoding="ISO-8859-1"?><metadata><groupId>\xe9</groupId></metadata>'.encode("latin-1")
        ).group
        == "é"
    )
    assert m.parse(ARTIFACT.decode().replace("UTF-8", "UTF-16").encode("utf-16")).artifact == "app"
    assert (
        m.parse(b"<metadata><a><versioning><versions><version>1</version></versions></versioning></a></metadata>")
        == Metadata()
    )
    odd = b"<metadata><versioning><versions><version/><version>1</version><version>1</version></versions><snapshot>"
    odd += b"<buildNumber>x</buildNumber></snapshot><snapshotVersions><snapshotVersion/></snapshotVersions>"
    odd += b"</versioning></metadata>"
    assert m.parse(odd) == Metadata(versions=("1",))


ENTITIES = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><metadata><groupId>&b;</groupId></metadata>'
HOSTILE = {
    "a laughing billion": (ENTITIES, "DOCTYPE"),
    "an external entity": (b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hosts">]><metadata>&a;</metadata>', "DOCTYPE"),
    "a document type": (b'<!DOCTYPE metadata SYSTEM "http://evil.example/x.dtd"><metadata/>', "DOCTYPE"),
    "an unknown entity": (b"<metadata>&oslash;</metadata>", "not well-formed"),
    "an instruction": (b"<?php x ?><metadata/>", "processing instruction"),
    "another document": (b"<html><body>login</body></html>", "root element is 'html'"),
    "no XML": (b"not found", "not well-formed"),
    "nothing": (b"", "not well-formed"),
    "half of one": (ARTIFACT[:-20], "not well-formed"),
    "something behind": (ARTIFACT + b"<a/>", "not well-formed"),
    "a tower": (b"<metadata>" + b"<a>" * 100 + b"</a>" * 100 + b"</metadata>", "nested deeper"),
    "ten megabytes": (b"<metadata>" + b" " * MAX_SIZE + b"</metadata>", "larger than"),
    "a crowd": (b"<metadata>" + b"<a/>" * MAX_ELEMENTS + b"</metadata>", "more than"),
    "a strange encoding": (b'<?xml version="1.0" encoding="GBK"?><metadata/>', "encoding"),
    "no encoding": (b'<?xml version="1.0" encoding="nonsense"?><metadata/>', "encoding"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_the_hostile_is_refused_with_what_it_is(name: str) -> None:
    data, why = HOSTILE[name]
    with pytest.raises(BadMarkup, match=why):
        m.parse(data)


def test_too_many_versions_are_refused() -> None:
    versions = b"".join(b"<version>%d</version>" % n for n in range(m.MAX_ENTRIES + 1))
    with pytest.raises(BadMarkup, match="lists more than"):
        m.parse(b"<metadata><versioning><versions>" + versions + b"</versions></versioning></metadata>")


def test_old_poms_may_have_letters_by_name_and_a_document_type_but_no_entities_of_their_own() -> None:
    wanted = {("a",)}
    assert read_markup(b"<project><a>Laugst&oslash;l</a></project>", wanted, lenient=True) == (
        "project",
        [(("a",), "Laugstl")],
    )
    typed = b'<!DOCTYPE project SYSTEM "x.dtd"><project><a>b</a></project>'
    assert read_markup(typed, wanted, lenient=True)[1] == [(("a",), "b")]
    with pytest.raises(BadMarkup, match="declares entities"):
        read_markup(ENTITIES, wanted, lenient=True)
    with pytest.raises(BadMarkup, match="declares entities"):
        read_markup(b'<!DOCTYPE x [<!ENTITY % p SYSTEM "http://evil.example/"> %p;]><x/>', wanted, lenient=True)


@given(st.binary(max_size=200))
def test_nothing_but_a_refusal_comes_of_any_bytes(data: bytes) -> None:
    for lenient in (False, True):
        try:
            read_markup(b"<" + data, {("a",)}, lenient=lenient)
        except BadMarkup:
            continue


# union


def test_versions_are_united_in_mavens_order() -> None:
    one = artifact("1.10", "1.9", updated="20240102030405")
    two = artifact("1.9", "2.0-SNAPSHOT", "2.0-rc1", updated="20240101000000")
    assert m.unite([one, two]) == Metadata(
        "g", "a", "", "2.0-SNAPSHOT", "2.0-rc1", ("1.9", "1.10", "2.0-rc1", "2.0-SNAPSHOT"), "20240102030405"
    )


def test_a_newer_build_of_one_kind_of_file_does_not_hide_the_others() -> None:
    older = Build("sources", "jar", "1.2-20240102.030405-6", "20240102030405")
    newer = Build("", "jar", "1.2-20240103.000000-1", "20240103000000")
    left = Metadata("g", "a", "1.2-SNAPSHOT", time="20240102.030405", number=6, builds=(BUILD, older))
    right = Metadata("g", "a", "1.2-SNAPSHOT", time="20240103.000000", number=1, builds=(newer,))
    for found in (m.unite([left, right]), m.unite([right, left])):
        assert found.builds == (newer, older)
        assert (found.time, found.number) == ("20240103.000000", 1)


def test_a_single_answer_survives_with_what_we_do_not_know() -> None:
    strange = ARTIFACT.replace(b"</versioning>", b"<extra a='b'>c</extra></versioning>")
    assert m.merge([strange]) == strange
    assert m.merge([strange, strange]) == strange
    assert b"extra" not in m.merge([strange, ARTIFACT])


def test_plugins_are_united_by_prefix_and_artifact() -> None:
    left = Metadata(plugins=(Plugin("app", "app-maven-plugin"), Plugin("x", "x-maven-plugin", "X")))
    right = Metadata(plugins=(Plugin("app", "app-maven-plugin", "App"), Plugin("app", "other-maven-plugin")))
    found = m.unite([left, right]).plugins
    assert found == (
        Plugin("app", "app-maven-plugin", "App"),
        Plugin("app", "other-maven-plugin"),
        Plugin("x", "x-maven-plugin", "X"),
    )


def test_a_group_may_be_an_artifact_as_well() -> None:
    both = m.unite([m.parse(GROUP), m.parse(ARTIFACT)])
    assert both.plugins
    assert both.versions
    assert m.parse(m.render(both)) == both


short = st.sampled_from(["", "1", "1.0", "1.10", "2-SNAPSHOT", "2-rc1", "x"])
times = st.sampled_from(["", "20240102030405", "20240103000000", "nonsense"])
builds = st.builds(
    Build,
    st.sampled_from(["", "sources"]),
    st.sampled_from(["jar", "pom"]),
    st.sampled_from(["1-20240102.030405-6", "1-20240103.000000-1", "1-SNAPSHOT"]),
    times,
)
some = st.builds(
    Metadata,
    st.just("g"), st.just("a"), st.just("1-SNAPSHOT"), short, short,
    st.lists(short.filter(bool), max_size=4, unique=True).map(tuple),
    times, st.sampled_from(["", "20240102.030405", "20240103.000000"]), st.integers(0, 3),
    st.lists(builds, max_size=3, unique_by=lambda build: (build.classifier, build.extension)).map(tuple),
    st.lists(st.builds(Plugin, st.sampled_from("ab"), st.sampled_from("cd")), max_size=3, unique=True).map(tuple),
)  # fmt: skip


@given(st.lists(some, min_size=1, max_size=3))
def test_a_union_does_not_depend_on_the_order_and_says_nothing_new_when_repeated(found: list[Metadata]) -> None:
    united = m.unite(found)
    assert all(m.unite(again) == united for again in permutations(found))
    assert m.unite([united, united]) == united == m.unite([united, *found])
    assert {version for one in found for version in one.versions} == set(united.versions)


@given(some, some, some)
def test_groups_may_nest(one: Metadata, two: Metadata, three: Metadata) -> None:
    assert m.unite([m.unite([one, two]), three]) == m.unite([one, m.unite([two, three])]) == m.unite([one, two, three])


@given(some)
def test_what_is_written_is_read_again(one: Metadata) -> None:
    again = m.parse(m.render(one))
    assert (again.versions, again.builds, again.plugins) == (one.versions, one.builds, one.plugins)
    assert (again.latest, again.release, again.updated) == (one.latest, one.release, one.updated)


@given(
    st.text(
        st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"), max_size=20
    )
)
def test_any_text_survives(text: str) -> None:
    assert m.parse(m.render(Metadata(group=text))).group == text.strip()


# a repository's own


def test_what_a_repository_says_of_its_versions() -> None:
    place = MetadataPath("com/example/app/maven-metadata.xml", "")
    found = m.compose_versions(place, {"1.10": 1704164645.0, "1.9": 1.0, "1.11-SNAPSHOT": 2.0})
    assert found == Metadata(
        "com.example", "app", "", "1.11-SNAPSHOT", "1.10", ("1.9", "1.10", "1.11-SNAPSHOT"), "20240102030405"
    )
    assert m.compose_versions(place, {}) is None
    plugins = m.compose_versions(place, {}, [Plugin("b", "c"), Plugin("a", "b"), Plugin("a", "b")])
    assert plugins == Metadata(plugins=(Plugin("a", "b"), Plugin("b", "c")))


def test_what_a_repository_says_of_the_builds_of_a_snapshot() -> None:
    base = "com/example/app/1.2-SNAPSHOT"
    names = ["app-1.2-20240102.030405-6.jar", "app-1.2-20240102.030405-6-sources.jar", "app-1.2-20240103.000000-7.jar",
             "app-1.2-20240101.000000-5.pom", "app-1.2-SNAPSHOT.war"]  # fmt: skip
    found = m.compose_builds(
        MetadataPath(f"{base}/maven-metadata.xml", "1.2-SNAPSHOT"), [file_path(f"{base}/{name}") for name in names]
    )
    assert found is not None
    assert (found.time, found.number, found.updated) == ("20240103.000000", 7, "20240103000000")
    assert found.find("", "jar") == "1.2-20240103.000000-7"
    assert found.find("sources", "jar") == "1.2-20240102.030405-6"
    assert found.find("", "pom") == "1.2-20240101.000000-5"
    assert found.find("", "war") == ""
    assert m.parse(m.render(found)) == found
    assert m.compose_builds(MetadataPath(f"{base}/maven-metadata.xml", "1.2-SNAPSHOT"), []) is None


def test_old_metadata_tell_one_build_for_all_files() -> None:
    old = Metadata("g", "a", "1.2-SNAPSHOT", time="20240102.030405", number=6)
    assert old.find("sources", "jar") == "1.2-20240102.030405-6"
    assert Metadata("g", "a", "1.2-SNAPSHOT").find("", "jar") == ""


@pytest.mark.parametrize(
    ("said", "path", "version", "why"),
    [
        (Metadata("com.example", "app"), "com/example/app", "", ""),
        (Metadata("com.example", "app"), "com/example/app_2.12_1.0", "", ""),
        (Metadata(), "com/example/app", "", ""),
        (Metadata("com.example.app"), "com/example/app", "", ""),
        (Metadata("com.example", "app", "1.2-SNAPSHOT"), "com/example/app", "1.2-SNAPSHOT", ""),
        (Metadata("com.example", "app", "1.2"), "com/example/app", "1.2-SNAPSHOT", "version '1.2'"),
        (Metadata("com.evil", "app"), "com/example/app", "", "group 'com.evil'"),
        (Metadata("com.example", "other"), "com/example/app", "", "artifact 'other'"),
        (Metadata("com.example"), "com/example/app", "", "group 'com.example'"),
    ],
    ids=range(9),
)  # fmt: skip
def test_coordinates_are_those_of_the_path(said: Metadata, path: str, version: str, why: str) -> None:
    place = MetadataPath(f"{path}/{version}/maven-metadata.xml" if version else f"{path}/maven-metadata.xml", version)
    assert m.disagrees(said, place)[: len(why) or None] == why
