"""Debian's Gradle, with a home of its own: resolves with Gradle's HTTP client, publishes with Maven's wagon."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from kit.maven_command import Refused, java_environment
from kit.servers import program

_UPLOADERS = ("maven-resolver-transport-wagon", "wagon-http-shaded", "wagon-provider-api")
"""Of /usr/share/java: Debian's Gradle is packaged without a transport to upload by."""


class Gradle:
    """A build of one module of `com.example.build`, that gets everything from one URL, and uploads to another."""

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        ca: Path | None = None,
        login: tuple[str, str] | None = None,
        upload: str = "",
        name: str = "words",
        version: str = "1.0",
    ) -> None:
        self._folder = folder
        self._home = folder / "gradle"
        self._home.mkdir(parents=True)
        self.env = java_environment(folder / "home", ca)
        options = [one[2:] for one in self.env["GRADLE_OPTS"].split() if one.startswith("-Djavax")]
        self._home.joinpath("gradle.properties").write_text("".join(f"systemProp.{one}\n" for one in options))
        self._url, self._upload, self._login = url, upload or url, login
        self._name, self._version = name, version
        self._command = [program("gradle"), "--no-daemon", "--gradle-user-home", self._home, "--project-dir"]

    def run(self, task: str, *needs: str, options: tuple[str, ...] = ()) -> str:
        """What it printed, for a build that needs these. Raises Refused."""
        project = self._folder / "project"
        sources = project / "src/main/java/com/example/build"
        sources.mkdir(parents=True, exist_ok=True)
        (project / "settings.gradle").write_text(f"rootProject.name = '{self._name}'\n")
        (sources / "Words.java").write_text("package com.example.build;\npublic final class Words {}\n")
        (project / "build.gradle").write_text(self._build(needs))
        command = [*self._command, project, *options, task]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=200, check=False)
        if done.returncode != 0:
            raise Refused(done.stdout + done.stderr)
        return done.stdout + done.stderr

    def resolve(self, *needs: str, refresh: bool = False) -> dict[str, bytes]:
        """The files that these and all that they need come to, by name."""
        told = self.run("fetch", *needs, options=("--refresh-dependencies",) if refresh else ())
        files = [Path(line) for line in re.findall(r"^fetched (.*)$", told, re.MULTILINE)]
        return {file.name: file.read_bytes() for file in files}

    def publish(self) -> str:
        """Upload its jar and POM."""
        return self.run("uploadArchives")

    def forget(self) -> None:
        """Empty its cache of what it resolved."""
        shutil.rmtree(self._home / "caches", ignore_errors=True)

    def _build(self, needs: tuple[str, ...]) -> str:
        user, secret = self._login or ("", "")
        shown = f"credentials {{ username '{user}'; password '{secret}' }}" if self._login else ""
        uploads = f"authentication(userName: '{user}', password: '{secret}')" if self._login else ""
        wanted = "\n".join(f"    compile '{one}'" for one in needs)
        jars = ", ".join(f"'{name}.jar'" for name in _UPLOADERS)
        return f"""
apply plugin: 'java'
apply plugin: 'maven'
group = 'com.example.build'
version = '{self._version}'
repositories {{ maven {{ url '{self._url}'; {shown} }} }}
configurations {{ uploaders }}
dependencies {{
    uploaders fileTree('/usr/share/java').matching {{ include {jars} }}
{wanted}
}}
configurations.all {{ resolutionStrategy.cacheChangingModulesFor 0, 'seconds' }}
uploadArchives {{
    repositories.mavenDeployer {{
        configuration = configurations.uploaders
        repository(url: '{self._upload}') {{ {uploads} }}
    }}
}}
task fetch {{ doLast {{ configurations.compile.each {{ println "fetched $it" }} }} }}
"""
