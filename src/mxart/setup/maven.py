"""Maven: settings that have every repository asked for here, and where a project deploys to. Pure.

The settings are global ones, so that a user's own in `~/.m2/settings.xml` add to them.  Since 3.9 `MAVEN_ARGS` names
them to every `mvn`.
"""

from __future__ import annotations

from xml.sax.saxutils import escape

from mxart.setup.facts import Artifacts, Server
from mxart.setup.plan import HEADER, Files, Plan, Snippet, own_file
from mxart.setup.proxy import direct
from mxart.setup.trust import java_notes, system_store

SETTINGS = "/etc/mxart/maven-settings.xml"
SHELL = "/etc/profile.d/mxart-maven.sh"
MARK = f"<!-- {HEADER.removeprefix('# ')} -->"
ID = "mxart"
"""By which a project's POM names the server, and settings its login."""


def maven(server: Server, files: Files) -> Plan:
    """Where no repository has artifacts, only that is said."""
    found = server.artifacts
    if found is None:
        return _undone(files) + Plan(notes=(MISSING,))
    plan = system_store(server, files) + _settings(files, _mirror(found) + _server() + _profile(found))
    return plan + _deploy(found) + Plan(notes=tuple(_notes(server, found)))


MISSING = 'no repository holds Maven artifacts: add one with format = "maven" and path = "/maven"'


TAKES_NOTHING = "nothing here takes what is deployed: give the group a publish_to, or a local repository a path"


def maven_proxy(server: Server, files: Files) -> Plan:
    """Maven reads no variable of its environment for a proxy."""
    not_ours = escape("|".join(direct(server)))
    tables = "".join(
        f"    <proxy>\n      <id>{ID}-{protocol}</id>\n      <active>true</active>\n"
        f"      <protocol>{protocol}</protocol>\n"
        f"      <host>{escape(server.host)}</host>\n      <port>{server.port}</port>\n"
        f"      <nonProxyHosts>{not_ours}</nonProxyHosts>\n    </proxy>\n"
        for protocol in ("http", "https")
    )
    plan = system_store(server, files) + _settings(files, f"  <proxies>\n{tables}  </proxies>\n")
    notes = java_notes(server)
    if not server.is_plain:
        notes = (*notes, "Maven speaks to its proxy without TLS: give --url http://… of a listener without it")
    return plan + Plan(notes=notes)


def _settings(files: Files, content: str) -> Plan:
    # The declaration of XML would have to come before our comment, and says nothing that is not so anyway.
    text = f'<settings xmlns="http://maven.apache.org/SETTINGS/1.0.0">\n{content}</settings>\n'
    plan = own_file(files, SETTINGS, text, "Maven asks us for every artifact", MARK)
    return plan + own_file(files, SHELL, f'export MAVEN_ARGS="--global-settings {SETTINGS}"\n', "every mvn from 3.9 on")


def _undone(files: Files) -> Plan:
    plan = Plan()
    if (files.read(SHELL) or "").startswith(HEADER):
        plan += own_file(files, SHELL, "", "no artifacts are here any more")
    return plan


def _mirror(found: Artifacts) -> str:
    return (
        "  <mirrors>\n    <mirror>\n"
        f"      <id>{ID}</id>\n      <url>{escape(found.url)}</url>\n      <mirrorOf>*</mirrorOf>\n"
        "    </mirror>\n  </mirrors>\n"
    )


def _server() -> str:
    return (
        "  <servers>\n    <server>\n"
        f"      <id>{ID}</id>\n"
        "      <username>${env.MXART_USER}</username>\n      <password>${env.MXART_TOKEN}</password>\n"
        "    </server>\n  </servers>\n"
    )


def _profile(found: Artifacts) -> str:
    """Central has no snapshots to Maven, and the mirror would not be asked for any."""

    def repository(kind: str) -> str:
        return (
            f"        <{kind}>\n          <id>central</id>\n          <url>{escape(found.url)}</url>\n"
            "          <releases><enabled>true</enabled></releases>\n"
            f"          <snapshots><enabled>true</enabled></snapshots>\n        </{kind}>\n"
        )

    return (
        f"  <profiles>\n    <profile>\n      <id>{ID}</id>\n"
        f"      <repositories>\n{repository('repository')}      </repositories>\n"
        f"      <pluginRepositories>\n{repository('pluginRepository')}      </pluginRepositories>\n"
        "    </profile>\n  </profiles>\n"
        f"  <activeProfiles>\n    <activeProfile>{ID}</activeProfile>\n  </activeProfiles>\n"
    )


def _deploy(found: Artifacts) -> Plan:
    first = found.releases or found.snapshots
    if not first:
        return Plan(notes=(TAKES_NOTHING,))
    text = "".join(
        f"  <{name}>\n    <id>{ID}</id>\n    <url>{escape(url)}</url>\n  </{name}>\n"
        for name, url in (("repository", found.releases), ("snapshotRepository", found.snapshots))
        if url
    )
    text = f"<distributionManagement>\n{text}</distributionManagement>\n"
    note = f"without a change of the POM: mvn deploy -DaltDeploymentRepository={ID}::{first}"
    return Plan(snippets=(Snippet("a project's pom.xml, to deploy", text),), notes=(note,))


def _notes(server: Server, found: Artifacts) -> list[str]:
    notes = [
        f"for one user, or Maven before 3.9: mvn --global-settings {SETTINGS}, or its content in ~/.m2/settings.xml",
        "a user and a token, as `mxart token` makes them, come from the environment: MXART_USER, MXART_TOKEN",
        f"repositories that are not to be asked for here: <mirrorOf>*,!their-id</mirrorOf> in {SETTINGS}",
        *java_notes(server),
    ]
    if server.is_plain and not server.is_loopback:
        notes.append("over plain http whoever listens learns the token, and may change what is built: https is better")
    return notes
