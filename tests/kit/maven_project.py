"""A build of three modules, as Maven and Gradle see it: a parent, a library, and an application that needs both.

Every version is pinned: the tree that the tests' upstream serves (`kit.maven_tree`) holds these and what they need.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

GROUP = "com.example.build"
PLUGINS = {
    "clean": "3.3.2",
    "resources": "3.3.1",
    "compiler": "3.13.0",
    "surefire": "3.2.5",
    "jar": "3.4.2",
    "source": "3.3.1",
    "install": "3.1.3",
    "deploy": "3.1.3",
    "dependency": "3.8.1",
}
DEPENDENCY_PLUGIN = f"org.apache.maven.plugins:maven-dependency-plugin:{PLUGINS['dependency']}"
DEPLOY_PLUGIN = f"org.apache.maven.plugins:maven-deploy-plugin:{PLUGINS['deploy']}"

LANG = "org.apache.commons:commons-lang3:3.14.0"
TEXT = "org.apache.commons:commons-text:1.12.0"  # needs the one before
LOGGING = "org.slf4j:slf4j-simple:2.0.13"  # needs slf4j-api


def write_build(folder: Path, version: str) -> Path:
    """The three modules at a version; the folder that `mvn` runs in."""
    _write(folder / "pom.xml", _parent(version))
    _write(folder / "lib" / "pom.xml", _module(version, "lib", LANG))
    _write(
        folder / "lib" / "src/main/java/com/example/build/Words.java",
        """
        package com.example.build;
        public final class Words {
            public static String twice(String word) { return org.apache.commons.lang3.StringUtils.repeat(word, 2); }
        }
        """,
    )
    _write(folder / "lib" / "src/main/resources/words.txt", f"words of {version}\n")
    needs = (f"{GROUP}:lib:{version}", TEXT, LOGGING)
    _write(folder / "app" / "pom.xml", _module(version, "app", *needs))
    _write(folder / "app" / "src/main/java/com/example/build/App.java", _application('Words.twice("ab")'))
    return folder


def write_consumer(folder: Path, version: str) -> Path:
    """Another team's build, that needs the library at a version."""
    _write(folder / "pom.xml", _alone("consumer", f"{GROUP}:lib:{version}"))
    _write(folder / "src/main/java/com/example/build/App.java", _application('Words.twice("cd")'))
    return folder


def _application(value: str) -> str:
    return f"""
        package com.example.build;
        public final class App {{
            public static void main(String[] arguments) {{ System.out.println({value}); }}
        }}
        """


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(dedent(text).lstrip())


def _project(body: str) -> str:
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
{body}
</project>
"""


def _settings_of_a_build() -> str:
    """Properties, and the plugins' versions."""
    plugins = "".join(
        f"      <plugin><artifactId>maven-{name}-plugin</artifactId><version>{version}</version></plugin>\n"
        for name, version in PLUGINS.items()
    )
    return f"""  <properties>
    <maven.compiler.release>11</maven.compiler.release>
    <project.build.sourceEncoding>UTF-8</project.build.sourceEncoding>
    <project.build.outputTimestamp>2024-01-01T00:00:00Z</project.build.outputTimestamp>
  </properties>
  <build>
    <pluginManagement><plugins>
{plugins}    </plugins></pluginManagement>
    <plugins><plugin>
      <artifactId>maven-source-plugin</artifactId>
      <executions><execution><goals><goal>jar-no-fork</goal></goals></execution></executions>
    </plugin></plugins>
  </build>"""


def _dependencies(coordinates: tuple[str, ...]) -> str:
    lines = []
    for one in coordinates:
        group, artifact, version = one.split(":")
        lines.append(
            f"    <dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
            f"<version>{version}</version></dependency>"
        )
    return "\n".join(["  <dependencies>", *lines, "  </dependencies>"])


def _parent(version: str) -> str:
    return _project(f"""  <groupId>{GROUP}</groupId><artifactId>parent</artifactId><version>{version}</version>
  <packaging>pom</packaging>
  <modules><module>lib</module><module>app</module></modules>
{_settings_of_a_build()}""")


def _module(version: str, name: str, *needs: str) -> str:
    return _project(f"""  <parent>
    <groupId>{GROUP}</groupId><artifactId>parent</artifactId><version>{version}</version>
  </parent>
  <artifactId>{name}</artifactId>
{_dependencies(needs)}""")


def _alone(name: str, *needs: str) -> str:
    return _project(f"""  <groupId>{GROUP}</groupId><artifactId>{name}</artifactId><version>1</version>
{_settings_of_a_build()}
{_dependencies(needs)}""")
