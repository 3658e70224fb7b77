"""Gradle: an init script that leads the repositories that we mirror here, and where a build publishes to. Pure.

Gradle has no settings for a whole machine but those in its own installation: a user links the script into the folder
of his own, or names it by `-I`.
"""

from __future__ import annotations

from mxart.setup.facts import Artifacts, Server
from mxart.setup.maven import MISSING, TAKES_NOTHING
from mxart.setup.plan import HEADER, Files, Plan, Snippet, own_file
from mxart.setup.proxy import direct
from mxart.setup.trust import java_notes, system_store

SCRIPT = "/etc/mxart/mxart.init.gradle"
_MARK = f"// {HEADER.removeprefix('# ')}"
_LINK = "mkdir -p ~/.gradle/init.d && ln -sf {path} ~/.gradle/init.d/"


def gradle(server: Server, files: Files) -> Plan:
    """Where no repository has artifacts, only that is said."""
    found = server.artifacts
    if found is None:
        return Plan(notes=(MISSING,))
    plan = system_store(server, files) + own_file(files, SCRIPT, _script(server, found), "Gradle asks us", _MARK)
    return plan + Plan(
        commands=(_LINK.format(path=SCRIPT),),
        snippets=(_settings(server, found), *_publishing(server, found)),
        notes=tuple(_notes(server, found)),
    )


def gradle_proxy(server: Server, files: Files) -> Plan:
    """Gradle reads no variable of its environment for a proxy, but properties."""
    skipped = "|".join(direct(server))
    lines = "".join(
        f"systemProp.{protocol}.proxyHost={server.host}\nsystemProp.{protocol}.proxyPort={server.port}\n"
        f"systemProp.{protocol}.nonProxyHosts={skipped}\n"
        for protocol in ("http", "https")
    )
    plan = system_store(server, files) + Plan(snippets=(Snippet("~/.gradle/gradle.properties", lines),))
    notes = java_notes(server)
    if not server.is_plain:
        notes = (*notes, "Gradle speaks to its proxy without TLS: give --url http://… of a listener without it")
    return plan + Plan(notes=notes)


def _script(server: Server, found: Artifacts) -> str:
    plain = ""
    if server.is_plain:
        # Gradle has it since 6.0, and wants it since 7.
        plain = (
            "\n            if (repository.hasProperty('allowInsecureProtocol')) repository.allowInsecureProtocol = true"
        )
    mirrored = ", ".join(f"'{_quoted(url)}'" for url in found.mirrored)
    return f"""\
def mirrored = [{mirrored}]
def redirect = {{ repositories ->
    repositories.all {{ repository ->
        if (repository instanceof org.gradle.api.artifacts.repositories.MavenArtifactRepository
                && mirrored.any {{ repository.url.toString().startsWith(it) }}) {{
            repository.url = '{_quoted(found.url)}'{plain}
            if (System.getenv('MXART_TOKEN')) {{
                repository.credentials {{
                    username = System.getenv('MXART_USER')
                    password = System.getenv('MXART_TOKEN')
                }}
            }}
        }}
    }}
}}
def early = {{ settings ->
    redirect(settings.buildscript.repositories)
    redirect(settings.pluginManagement.repositories)
    if (settings.metaClass.respondsTo(settings, 'getDependencyResolutionManagement')) {{
        redirect(settings.dependencyResolutionManagement.repositories)
    }}
}}
if (gradle.metaClass.respondsTo(gradle, 'beforeSettings')) {{
    gradle.beforeSettings(early)
}} else {{
    gradle.settingsEvaluated(early)
}}
allprojects {{
    redirect(buildscript.repositories)
    redirect(repositories)
}}
"""


def _settings(server: Server, found: Artifacts) -> Snippet:
    plain = "; isAllowInsecureProtocol = true" if server.is_plain else ""
    repository = f'maven {{ url = uri("{found.url}"){plain} }}'
    return Snippet(
        "settings.gradle.kts, instead of the init script",
        f"pluginManagement {{\n    repositories {{\n        {repository}\n        gradlePluginPortal()\n    }}\n}}\n"
        f"dependencyResolutionManagement {{\n    repositories {{\n        {repository}\n    }}\n}}\n",
    )


def _publishing(server: Server, found: Artifacts) -> tuple[Snippet, ...]:
    url = f'"{found.releases or found.snapshots}"'
    if url == '""':
        return ()
    if found.snapshots not in ("", found.releases) and found.releases:
        url = f'if (version.toString().endsWith("SNAPSHOT")) "{found.snapshots}" else "{found.releases}"'
    plain = "\n            isAllowInsecureProtocol = true" if server.is_plain else ""
    text = f"""\
publishing {{
    repositories {{
        maven {{
            name = "mxart"
            url = uri({url}){plain}
            credentials {{
                username = System.getenv("MXART_USER")
                password = System.getenv("MXART_TOKEN")
            }}
            authentication {{ create<BasicAuthentication>("basic") }}
        }}
    }}
}}
"""
    return (Snippet("build.gradle.kts, with the plugin maven-publish", text),)


def _notes(server: Server, found: Artifacts) -> list[str]:
    notes = [
        f"for one build: gradle -I {SCRIPT}",
        "a user and a token, as `mxart token` makes them, come from the environment: MXART_USER, MXART_TOKEN",
        *java_notes(server),
    ]
    if found.mirrored:
        notes.append(
            f"the script leads here what is at {', '.join(found.mirrored)}; other repositories stay as they are"
        )
    if not any("plugins.gradle.org" in url for url in found.mirrored):
        notes.append(
            "plugins come from the plugin portal itself: add a proxy of https://plugins.gradle.org/m2 to the group"
        )
    if not found.releases and not found.snapshots:
        notes.append(TAKES_NOTHING)
    return notes


def _quoted(text: str) -> str:
    """Within a Groovy string of single quotes."""
    return text.replace("\\", "\\\\").replace("'", "\\'")
