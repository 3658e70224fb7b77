"""The house's rules that the source itself can break: which room may import which, and what decides without waiting."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

_SOURCE = Path(__file__).resolve().parent.parent / "src" / "mxart"

# From the bottom up. A module may import from its own room and from rooms below; `beside` may not meet.
_VALUES = 0
_LEVELS = {
    "proto": 1,
    "store": 1,
    "upstream": 1,
    "access": 1,
    "git": 2,  # others' git repositories: on disk, and by the ways that upstreams are reached
    "repos": 3,
    "server": 4,
    "web": 4,
    "replicate": 4,  # copies of images elsewhere
    "app": 5,
    "build": 5,
    "listeners": 1,  # opens sockets, serves nothing
    "supervisor": 5,
    "setup": 4,  # settings for clients: plans, and how a plan is written
    "commands": 6,
    "cli": 6,
    "__main__": 7,
}
_BESIDE = {"proto", "store", "upstream", "access"}

# Whole rooms and single files that decide: no task switches in them, so they are tested without a loop.
_PURE = (
    "errors.py",
    "digest.py",
    "conditional.py",
    "config*.py",
    "claims.py",
    "domains.py",
    "access/*.py",
    "proto/sniff.py",
    "proto/client_hello.py",
    "proto/proxy_header.py",
    "proto/h*_head*.py",
    "proto/heads.py",
    "proto/dns*.py",
    "server/dns_cache.py",
    "upstream/challenge.py",
    "upstream/url.py",
    "git/url.py",
    "git/netrc.py",
    "git/logins.py",
    "git/failures.py",
    "git/references.py",
    "git/trees.py",
    "store/paths.py",
    "store/quotas.py",
    "store/space/retention.py",
    "store/space/task.py",
    "repos/oci/*.py",
    "repos/go/*.py",
    "repos/vcs/revisions.py",
    "repos/maven/*.py",
    "server/routes.py",
    "setup/*.py",
    "replicate/reference.py",
    "replicate/manifests.py",
)


def _modules() -> list[str]:
    return sorted(str(file.relative_to(_SOURCE)) for file in _SOURCE.rglob("*.py"))


def _room(dotted: list[str]) -> str:
    """The room of a path below the package: a folder's name, a top module's own where it has a level, else a value."""
    if dotted and dotted[0] in _LEVELS:
        return dotted[0]
    # app and cli may grow into several files: app_workers.py belongs to app.
    return dotted[0].partition("_")[0] if dotted and dotted[0].partition("_")[0] in _LEVELS else "values"


def _imports(module: str) -> set[tuple[int, str]]:
    """Line and dotted name below the package of everything of ours that a module imports, lazily too."""
    tree = ast.parse((_SOURCE / module).read_text())
    package = ["mxart", *Path(module).parts[:-1]]
    found: set[tuple[int, str]] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(node.lineno, alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            # `from mxart import store` names a room just as `import mxart.store` does.
            found |= {(node.lineno, f"{name}.{alias.name}" if name == "mxart" else name) for alias in node.names}
    return {(line, name.partition(".")[2]) for line, name in found if name.partition(".")[0] == "mxart"}


@pytest.mark.parametrize("module", _modules())
def test_imports_point_down_only(module: str) -> None:
    here = _room(list(Path(module).with_suffix("").parts))
    level = _LEVELS.get(here, _VALUES)
    for line, name in sorted(_imports(module)):
        there = _room(name.split("."))
        other = _LEVELS.get(there, _VALUES)
        assert other <= level, f"{module}:{line} in {here} imports {name}: {there} is above it"
        if there != here and {there, here} <= _BESIDE:
            pytest.fail(f"{module}:{line}: {here} and {there} stand side by side and do not import each other")


@pytest.mark.parametrize("pattern", _PURE)
def test_what_decides_does_not_wait(pattern: str) -> None:
    for file in sorted(_SOURCE.glob(pattern)):
        for node in ast.walk(ast.parse(file.read_text())):
            place = f"{file.relative_to(_SOURCE)}:{getattr(node, 'lineno', 0)}"
            assert not isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith), place
            if isinstance(node, ast.Import):
                assert not any(alias.name.partition(".")[0] == "trio" for alias in node.names), place
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] != "trio", place


@pytest.mark.parametrize("module", _modules())
def test_values_touch_neither_loop_nor_sockets(module: str) -> None:
    """What lies at the bottom is used everywhere, so it may need nothing but the standard library's pure parts."""
    name = Path(module).stem
    if "/" in module or name not in {"errors", "digest", "message", "body", "conditional", "config"}:
        return
    tree = ast.parse((_SOURCE / module).read_text())
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for found in names:
            assert found.partition(".")[0] not in {"trio", "socket", "ssl", "OpenSSL", "httpcore", "h11", "h2"}, found
