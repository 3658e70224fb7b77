"""The tests' own Maven upstream has all that a build needs: where a build fails elsewhere, it is not for lack of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.maven_command import MAVENS, Maven
from kit.maven_project import GROUP, write_build
from kit.maven_tree import Artifact, MavenServer

BASE = Artifact("com.example", "base", "1.0")
APP = Artifact("com.example", "app", "1.0", (BASE.coordinates,))


@pytest.mark.parametrize("version", MAVENS)
def test_a_build_needs_nothing_that_the_real_tree_has_not(version: str, room: Path) -> None:
    upstream = MavenServer(room / "upstream", (BASE, APP))
    try:
        maven = Maven(room / "client", upstream.url, version=version)
        build = write_build(room / "build", "1.0")
        maven.run("clean", "deploy", maven.deploys_to(f"file://{room}/deployed"), cwd=build)
        assert (room / "deployed" / GROUP.replace(".", "/") / "app/1.0/app-1.0.jar").exists()
        maven.get(APP.coordinates)
        assert maven.kept(f"{APP.base}.jar") == APP.jar
        assert maven.kept(f"{BASE.base}.pom") == BASE.pom
        assert upstream.asked()[f"{APP.base}.jar"] == 1
    finally:
        upstream.stop()
