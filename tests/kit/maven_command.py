"""The real `mvn`, each with a local repository, settings and trust of its own: nothing of the machine's is read."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from kit.client_base import clean_environment
from kit.maven_fill import VERSIONS
from kit.maven_project import DEPENDENCY_PLUGIN
from kit.maven_tree import real_tree
from kit.servers import program

MAVENS = ("3.8", "3.9", "4")
"""The machine's, whose transport is wagon, and two by the resolver's own transports: Apache's client, the JDK's."""

MIRROR = "mxart"
"""The id under which settings know our server, and a login for it."""

_PASSWORD = "changeit"  # of a store of public certificates


class Refused(Exception):
    """The command failed; the text is what it showed its user."""


def trust_store(folder: Path, ca: Path) -> Sequence[str]:
    """Options of a JVM that trusts this authority and nobody else."""
    store = folder / "trust.p12"
    if not store.exists():
        command = [program("keytool"), "-importcert", "-noprompt", "-alias", "ca", "-file", ca, "-keystore", store]
        subprocess.run(
            [*command, "-storetype", "PKCS12", "-storepass", _PASSWORD], check=True, capture_output=True, timeout=60
        )
    return [f"-Djavax.net.ssl.trustStore={store}", f"-Djavax.net.ssl.trustStorePassword={_PASSWORD}"]


def java_environment(home: Path, ca: Path | None = None) -> dict[str, str]:
    """Nothing of the machine's settings for Maven, Gradle and Java; a home of its own, which Java has to be told."""
    kept = clean_environment(home)
    for key in ("MAVEN_OPTS", "MAVEN_ARGS", "JAVA_OPTS", "GRADLE_OPTS", "JAVA_TOOL_OPTIONS", "MAVEN_CONFIG"):
        kept.pop(key, None)
    options = [f"-Duser.home={home}", f"-Djava.io.tmpdir={home}", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]
    options += trust_store(home, ca) if ca is not None else []
    return kept | {"MAVEN_OPTS": " ".join(options), "GRADLE_OPTS": " ".join(options), "JAVA_OPTIONS": " ".join(options)}


class Maven:
    """One of MAVENS, that gets everything from one URL, and shows it a login where it has one."""

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        version: str = "3.8",
        ca: Path | None = None,
        login: tuple[str, str] | None = None,
        within: Sequence[str] = (),
    ) -> None:
        """`ca`: all that it trusts; `within` is a command that runs others."""
        self.folder = folder
        self.url = url
        self.local = folder / "local"
        self.env = java_environment(folder / "home", ca)
        self._settings = folder / "settings.xml"
        none = folder / "none.xml"
        none.write_text("<settings/>")
        self.logs_in(login)
        names = {name: one for one in VERSIONS for name in MAVENS if one.startswith(f"{name}.")}
        mvn = real_tree() / f"apache-maven-{names[version]}/bin/mvn" if version in names else Path(program("mvn"))
        self._command = [*within, mvn, "--batch-mode", "--no-transfer-progress", "--settings", self._settings]
        self._command += ["--global-settings", none, f"-Dmaven.repo.local={self.local}", "-Dstyle.color=never"]

    def logs_in(self, login: tuple[str, str] | None) -> None:
        """User and password from now on."""
        self._settings.write_text(settings(self.url, login))

    def run(self, *arguments: str | Path, cwd: Path | None = None) -> str:
        """What it printed. Raises Refused."""
        done = subprocess.run(
            [*self._command, *arguments],
            env=self.env,
            cwd=cwd or self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode != 0:
            raise Refused(done.stdout + done.stderr)
        return done.stdout

    def get(self, coordinates: str, *options: str) -> None:
        """`dependency:get` of group:artifact:version[:packaging[:classifier]] and all that it needs."""
        self.run(f"{DEPENDENCY_PLUGIN}:get", f"-Dartifact={coordinates}", *options)

    def deploys_to(self, url: str) -> str:
        """The option that says where `deploy` is to go, with the login of this client."""
        return f"-DaltDeploymentRepository={MIRROR}::{url}"

    def kept(self, path: str) -> bytes | None:
        """A file of its local repository."""
        file = self.local / path
        return file.read_bytes() if file.exists() else None

    def forget(self, path: str = "") -> None:
        """Empty its local repository, or what is below a path."""
        shutil.rmtree(self.local / path, ignore_errors=True)


def settings(url: str, login: tuple[str, str] | None, extra: Mapping[str, tuple[str, str]] | None = None) -> str:
    """A settings.xml: everything, snapshots included, from one URL; `extra` logins by the ids of other servers."""
    logins = {**({MIRROR: login} if login else {}), **(extra or {})}
    servers = "".join(
        f"<server><id>{name}</id><username>{escape(user)}</username><password>{escape(secret)}</password></server>"
        for name, (user, secret) in logins.items()
    )
    both = "<releases><enabled>true</enabled></releases><snapshots><enabled>true</enabled></snapshots>"
    central = f"<id>central</id><url>http://central.invalid</url>{both}"
    return f"""<settings>
  <servers>{servers}</servers>
  <mirrors><mirror><id>{MIRROR}</id><mirrorOf>*</mirrorOf><url>{escape(url)}</url></mirror></mirrors>
  <profiles><profile>
    <id>all</id>
    <repositories><repository>{central}</repository></repositories>
    <pluginRepositories><pluginRepository>{central}</pluginRepository></pluginRepositories>
  </profile></profiles>
  <activeProfiles><activeProfile>all</activeProfile></activeProfiles>
</settings>
"""
