"""Fills the tree that the tests' Maven upstream serves: what the ordinary client downloads for `kit.maven_project`.

`PYTHONPATH=tests python3 -m kit.maven_fill`, once on a machine, with the network that the machine's own `mvn` uses;
the tests themselves talk to loopback only.  Three Mavens fill it, since each asks for other plugins of its own: the
machine's (3.8, whose transport is wagon), 3.9 (Apache's HTTP client) and 4 (the JDK's HTTP client).  The later two come
from the same repository, as everything else does, checked by the client against its checksums.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from kit import maven_project
from kit.maven_project import DEPENDENCY_PLUGIN, LANG, write_build

VERSIONS = ("3.9.16", "4.0.0-rc-5")
"""Mavens beside the machine's own."""

# A range makes it ask for metadata.
_GOT = (LANG.replace("3.14.0", "[3.12,3.14.0]"), "com.google.guava:guava:33.1.0-jre", f"{LANG}:jar:sources")
_OURS = "com/example/"
_BOOKKEEPING = re.compile(
    r"(^|/)(_remote\.repositories|resolver-status\.properties|\.[^/]*/.*|.*\.(lastUpdated|lock))$"
)
_METADATA = re.compile(r"/maven-metadata-[^/]+\.xml(\.sha1)?$")


def place() -> Path:
    """Where what was filled lies: of other versions, or by another script, it is another place."""
    hasher = hashlib.sha256()
    for module in (__file__, maven_project.__file__):
        hasher.update(Path(module).read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "mxart-tests" / f"maven-{hasher.hexdigest()[:12]}"


def fill(target: Path) -> None:
    """Make `target` with `tree` and one folder for each of VERSIONS in it; whole, or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="filling-", dir=target.parent) as name:
        folder = Path(name)
        local, made = folder / "local", folder / "made"
        made.mkdir()
        mavens = ["mvn"]
        for version in VERSIONS:
            artifact = f"org.apache.maven:apache-maven:{version}:tar.gz:bin"
            _mvn("mvn", local, f"{DEPENDENCY_PLUGIN}:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={folder}")
            subprocess.run(["tar", "-xzf", folder / f"apache-maven-{version}-bin.tar.gz", "-C", made], check=True)
            mavens.append(str(made / f"apache-maven-{version}" / "bin" / "mvn"))
        build = write_build(folder / "build", "1.0")
        for number, mvn in enumerate(mavens):
            away = f"-DaltDeploymentRepository=away::file://{folder}/deployed{number}"
            _mvn(mvn, local, "-f", build, "clean", "deploy", "dependency:tree", away)
            for artifact in _GOT if number == 0 else _GOT[:1]:
                _mvn(mvn, local, f"{DEPENDENCY_PLUGIN}:get", f"-Dartifact={artifact}")
        _publish(local, made / "tree")
        shutil.rmtree(made / "tree/org/apache/maven/apache-maven", ignore_errors=True)  # large, and nobody asks for it
        made.rename(target)


def _mvn(mvn: str, local: Path, *arguments: str | Path) -> None:
    # Maven 4 would ask every repository that a POM names for its prefixes.
    quiet = ("-B", "-ntp", "-q", "-Daether.remoteRepositoryFilter.prefixes=false", f"-Dmaven.repo.local={local}")
    for last in (False, False, True):  # a transfer may break: what is there already is not asked for again
        done = subprocess.run([mvn, *quiet, *arguments], check=last, stdin=subprocess.DEVNULL, timeout=1200)
        if done.returncode == 0:
            break


def _publish(local: Path, tree: Path) -> None:
    """A local repository's files as a server has them: without the client's bookkeeping, with all checksums."""
    for file in sorted(local.rglob("*")):
        path = str(file.relative_to(local))
        if not file.is_file() or path.startswith(_OURS) or _BOOKKEEPING.search(path):
            continue
        published = tree / _METADATA.sub(r"/maven-metadata.xml\1", path)
        published.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, published)
    for file in sorted(tree.rglob("*")):
        if file.is_file() and file.suffix not in (".sha1", ".md5"):
            data = file.read_bytes()
            for name in ("sha1", "md5"):
                Path(f"{file}.{name}").write_text(hashlib.new(name, data).hexdigest())


def main() -> int:
    """Nothing is done where it is there already."""
    target = place()
    if not target.exists():
        fill(target)
    sys.stdout.write(f"{target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
