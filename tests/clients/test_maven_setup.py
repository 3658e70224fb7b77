"""What `mxart setup maven` and `gradle` write is all that a build needs: it resolves here, and deploys here.

They are written below a folder, so the one path that a shell's profile names is led there.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from kit.maven_command import Maven, java_environment
from kit.maven_project import LANG, write_build
from kit.maven_tree import MavenServer, real_tree
from kit.maven_world import APP, BASE, served
from kit.people import add_user, new_token
from kit.pushes import mxart_command
from kit.servers import Mxart, mxart, program
from mxart.setup.gradle import SCRIPT
from mxart.setup.maven import SETTINGS, SHELL

LANG_JAR = "org/apache/commons/commons-lang3/3.14.0/commons-lang3-3.14.0.jar"
CENTRAL = "https://repo.maven.apache.org/maven2"


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MavenServer]:
    server = MavenServer(tmp_path_factory.mktemp("upstream"), (BASE, APP))
    yield server
    server.stop()


def written(server: Mxart, room: Path, client: str) -> str:
    """Set up; what was printed."""
    root = room / "root"
    root.mkdir()
    return mxart_command(server, "setup", client, "--url", server.url, "--root", str(root), "--write", "--yes")


def at(room: Path, path: str) -> Path:
    return room / "root" / path.lstrip("/")


def run(*command: str | Path, env: Mapping[str, str], cwd: Path) -> str:
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_maven_resolves_and_deploys_by_its_settings_alone(upstream: MavenServer, room: Path) -> None:
    with mxart(room / "mxart", served(upstream.url), tls=True, workers=2) as server:
        printed = written(server, room, "maven")
        user, token = new_token(server, add_user(server, "ann", "ann-and-her-password")[0])
        (said,) = re.findall(r'^export MAVEN_ARGS="(.*)"$', at(room, SHELL).read_text(), re.MULTILINE)
        arguments = said.replace(SETTINGS, str(at(room, SETTINGS)))
        env = java_environment(room / "home", server.ca)
        env |= {"MAVEN_ARGS": arguments, "MXART_USER": user, "MXART_TOKEN": token}
        (mvn,) = real_tree().glob("apache-maven-3.9.*/bin/mvn")

        build = write_build(room / "build", "1.0-SNAPSHOT")
        (target,) = re.findall(r"<distributionManagement>.*</distributionManagement>", printed, re.DOTALL)
        pom = build / "pom.xml"
        pom.write_text(pom.read_text().replace("</project>", f"{target}</project>"))
        run(mvn, "--batch-mode", f"-Dmaven.repo.local={room}/local", "deploy", env=env, cwd=build)
        assert (room / "local" / LANG_JAR).read_bytes() == (upstream.tree / LANG_JAR).read_bytes()

        other = Maven(room / "other", f"{server.url}/maven", version="3.9", ca=server.ca)
        other.get("com.example.build:lib:1.0-SNAPSHOT")
        assert list((other.local / "com/example/build/lib/1.0-SNAPSHOT").glob("lib-1.0-*.jar"))


def test_gradle_is_led_here_from_central_by_its_script_alone(upstream: MavenServer, room: Path) -> None:
    """The proxy's upstream is the tests' own; the script is told of Central, as that of an ordinary proxy is."""
    with mxart(room / "mxart", served(upstream.url), workers=2) as server:
        written(server, room, "gradle")
        script = at(room, SCRIPT)
        script.write_text(script.read_text().replace(f"'{upstream.url}'", f"'{CENTRAL}'"))
        project = room / "project"
        project.mkdir()
        (project / "settings.gradle").write_text("rootProject.name = 'words'\n")
        (project / "build.gradle").write_text(
            "apply plugin: 'java'\nrepositories { mavenCentral() }\n"
            f"dependencies {{ compile '{LANG}' }}\n"
            "task show { doLast {\n"
            '  repositories.each { println "asked ${it.url}" }\n'
            '  configurations.compile.each { println "fetched $it" }\n} }\n'
        )
        env = java_environment(room / "home")
        gradle = [program("gradle"), "--no-daemon", "--gradle-user-home", room / "gradle", "--init-script", script]
        told = run(*gradle, "--project-dir", project, "show", env=env, cwd=project)
        assert f"asked {server.url}/maven\n" in told
        (jar,) = re.findall(r"^fetched (.*)$", told, re.MULTILINE)
        assert Path(jar).read_bytes() == (upstream.tree / LANG_JAR).read_bytes()
