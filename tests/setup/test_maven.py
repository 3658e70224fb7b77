"""What makes Maven and Gradle ask us and deploy to us, and which of our URLs they are told."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from kit.settings import Kept, configured
from mxart.setup import gradle as gradle_module
from mxart.setup.clients import CLIENTS
from mxart.setup.facts import Artifacts, Server, server
from mxart.setup.maven import MARK, SETTINGS, SHELL

_CA = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
_NS = "{http://maven.apache.org/SETTINGS/1.0.0}"
_CENTRAL = (
    '[repository.central]\nformat = "maven"\nkind = "proxy"\nupstream = "https://repo.maven.apache.org/maven2/"\n'
)
_OTHER = '[repository.other]\nformat = "maven"\nkind = "proxy"\nupstream = "https://maven.example/r"\n'
_SNAPSHOTS = '[repository.snapshots]\nformat = "maven"\nkind = "local"\npath = "/s"\npolicy = "snapshots"\n'
_OWN = '[repository.own]\nformat = "maven"\nkind = "local"\n'
_GROUP = '[repository.all]\nformat = "maven"\nkind = "group"\nmembers = ["own", "central", "other"]\n'
_MIRRORED = ("https://repo.maven.apache.org/maven2", "https://repo1.maven.org/maven2", "https://maven.example/r")
_BOTH = (_MIRRORED[0], _MIRRORED[2], _MIRRORED[1])


@pytest.mark.parametrize(
    ("text", "url", "expected"),
    [
        (_CENTRAL + 'path = "/c"\n', "https://box.test", Artifacts("https://box.test/c", "", "", _MIRRORED[:2])),
        (_OWN + 'path = "/own"\n', "http://b:81", Artifacts(*["http://b:81/own"] * 3)),
        (
            _OWN + 'path = "/r"\npolicy = "releases"\n' + _SNAPSHOTS + _CENTRAL + 'path = "/c"\n',
            "https://box.test",
            Artifacts("https://box.test/r", "https://box.test/r", "https://box.test/s"),
        ),
        (
            _CENTRAL + _OTHER + _OWN + 'path = "/own"\n' + _GROUP + 'path = "/all"\n',
            "https://box.test",
            Artifacts("https://box.test/all", *["https://box.test/own"] * 2, _BOTH),
        ),
        (
            _CENTRAL + _OTHER + _OWN + _GROUP + 'path = "/all"\npublish_to = "own"\n',
            "https://box.test",
            Artifacts(*["https://box.test/all"] * 3, _BOTH),
        ),
        (
            _OWN + 'hosts = ["maven.test"]\n',
            "https://maven.test",
            Artifacts(*["https://maven.test"] * 3),
        ),
        (_OWN, "https://box.test", None),
    ],
    ids=["proxy", "local", "by policies", "group and local", "group that publishes", "host", "not exposed"],
)
def test_the_urls_of_the_artifacts(text: str, url: str, expected: Artifacts | None) -> None:
    assert server(configured(text), url).artifacts == expected


def test_without_configuration_there_is_one_url_for_all() -> None:
    found = server(configured(""), "https://box.test").artifacts
    assert found is not None
    assert (found.url, found.releases, found.snapshots) == ("https://box.test/maven",) * 3
    assert found.mirrored == _MIRRORED[:2]


def _box(
    url: str = "https://box.test/m?a=b&c", ca: str = _CA, releases: str | None = None, snapshots: str | None = None
) -> Server:
    artifacts = Artifacts(
        url, url if releases is None else releases, url if snapshots is None else snapshots, _MIRRORED
    )
    return Server(url.partition(":")[0], "box.test", 8443, ca, artifacts=artifacts)


def test_maven_has_settings_that_are_xml_and_lead_everything_here() -> None:
    plan = CLIENTS["maven"].plan("mirror", _box(), Kept())
    there = Kept().after(plan)
    assert there[SETTINGS].startswith(MARK)
    tree = ET.fromstring(there[SETTINGS])
    assert tree.findtext(f"{_NS}mirrors/{_NS}mirror/{_NS}mirrorOf") == "*"
    assert tree.findtext(f"{_NS}mirrors/{_NS}mirror/{_NS}url") == "https://box.test/m?a=b&c"
    assert tree.findtext(f"{_NS}servers/{_NS}server/{_NS}password") == "${env.MXART_TOKEN}"
    ids = {tree.findtext(f"{_NS}{name}/{_NS}{name[:-1]}/{_NS}id") for name in ("mirrors", "servers", "profiles")}
    assert ids == {"mxart"} == {tree.findtext(f"{_NS}activeProfiles/{_NS}activeProfile")}
    profile = f"{_NS}profiles/{_NS}profile"
    for kind in ("repositories/repository", "pluginRepositories/pluginRepository"):
        first, second = kind.split("/")
        assert tree.findtext(f"{profile}/{_NS}{first}/{_NS}{second}/{_NS}snapshots/{_NS}enabled") == "true"
    assert there[SHELL].endswith(f'export MAVEN_ARGS="--global-settings {SETTINGS}"\n')
    assert "/usr/local/share/ca-certificates/mxart.crt" in there


def test_a_project_is_told_where_to_deploy() -> None:
    (snippet,) = CLIENTS["maven"].plan("mirror", _box(), Kept()).snippets
    assert "pom.xml" in snippet.where
    tree = ET.fromstring(snippet.text)
    assert tree.tag == "distributionManagement"
    for name in ("repository", "snapshotRepository"):
        assert tree.findtext(f"{name}/id") == "mxart"
        assert tree.findtext(f"{name}/url") == "https://box.test/m?a=b&c"
    plan = CLIENTS["maven"].plan("mirror", _box(releases="", snapshots=""), Kept())
    assert not plan.snippets
    assert any("nothing here takes what is deployed" in note for note in plan.notes)


def test_releases_and_snapshots_may_go_to_different_places() -> None:
    box = _box(releases="https://box.test/r", snapshots="https://box.test/s")
    (snippet,) = CLIENTS["maven"].plan("mirror", box, Kept()).snippets
    tree = ET.fromstring(snippet.text)
    assert tree.findtext("repository/url") == "https://box.test/r"
    assert tree.findtext("snapshotRepository/url") == "https://box.test/s"
    script = CLIENTS["gradle"].plan("mirror", box, Kept()).snippets[1].text
    assert 'endsWith("SNAPSHOT")) "https://box.test/s" else "https://box.test/r")' in script
    (only,) = CLIENTS["maven"].plan("mirror", _box(snapshots=""), Kept()).snippets
    assert ET.fromstring(only.text).find("snapshotRepository") is None


def test_java_is_told_of_the_ca_where_there_is_one() -> None:
    for name in ("maven", "gradle"):
        assert any("keytool -importcert" in note for note in CLIENTS[name].plan("mirror", _box(), Kept()).notes)
        plain = CLIENTS[name].plan("mirror", _box(url="http://box.test/m", ca=""), Kept())
        assert not any("keytool" in note for note in plain.notes)


def test_settings_that_somebody_else_wrote_are_a_conflict() -> None:
    plan = CLIENTS["maven"].plan("mirror", _box(), Kept({SETTINGS: "<settings/>"}))
    assert [conflict.path for conflict in plan.conflicts] == [SETTINGS]


def test_gradle_has_a_script_that_leads_here_what_we_mirror() -> None:
    plan = CLIENTS["gradle"].plan("mirror", _box(), Kept())
    script = Kept().after(plan)[gradle_module.SCRIPT]
    assert script.startswith("// Written by `mxart setup`")
    assert "'https://repo1.maven.org/maven2', 'https://maven.example/r'" in script
    assert "repository.url = 'https://box.test/m?a=b&c'\n" in script
    assert "allowInsecureProtocol" not in script
    assert script.count("{") == script.count("}")
    settings, publishing = plan.snippets
    assert "settings.gradle.kts" in settings.where
    assert 'url = uri("https://box.test/m?a=b&c")' in settings.text
    assert 'create<BasicAuthentication>("basic")' in publishing.text
    assert any("~/.gradle/init.d" in command for command in plan.commands)


def test_gradle_is_told_that_plain_http_is_meant() -> None:
    plan = CLIENTS["gradle"].plan("mirror", _box(url="http://box.test/m", ca=""), Kept())
    assert "repository.allowInsecureProtocol = true" in Kept().after(plan)[gradle_module.SCRIPT]
    assert all("isAllowInsecureProtocol = true" in snippet.text for snippet in plan.snippets)


def test_where_there_are_no_artifacts_that_is_said_and_what_we_set_is_undone() -> None:
    before = Kept().after(CLIENTS["maven"].plan("mirror", _box(), Kept()))
    bare = Server("https", "box.test", 443, _CA)
    plan = CLIENTS["maven"].plan("mirror", bare, before)
    assert "MAVEN_ARGS" not in before.after(plan)[SHELL]
    for name in ("maven", "gradle"):
        assert any('format = "maven"' in note for note in CLIENTS[name].plan("mirror", bare, Kept()).notes)


def test_through_a_proxy_both_are_told_by_settings_of_their_own() -> None:
    plain = Server("http", "box.test", 8080)
    tree = ET.fromstring(Kept().after(CLIENTS["maven"].plan("proxy", plain, Kept()))[SETTINGS])
    proxies = tree.findall(f"{_NS}proxies/{_NS}proxy")
    assert [proxy.findtext(f"{_NS}protocol") for proxy in proxies] == ["http", "https"]
    assert proxies[0].findtext(f"{_NS}port") == "8080"
    (snippet,) = CLIENTS["gradle"].plan("proxy", plain, Kept()).snippets
    assert "systemProp.https.proxyHost=box.test\n" in snippet.text
    secure = CLIENTS["gradle"].plan("proxy", _box(), Kept())
    assert any("without TLS" in note for note in secure.notes)
