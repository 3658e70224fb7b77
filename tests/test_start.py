"""A start is mostly imports, a quarter of a millisecond each: what serving does not need at once it does not import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable

import pytest

# Imported where a request, a command or a repository of that kind first needs it.
_RARE = (
    "mxart.commands",
    "mxart.git",
    "mxart.replicate",
    "mxart.repos.vcs",
    "mxart.setup",
    "mxart.web",
    "argon2",  # passwords
    "dns",  # answers to DNS queries
    "jwt",
    "tomlkit",  # settings of clients, rewritten
    "asyncio",
)
_NEEDED = {"mxart.commands", "mxart.commands.options", "mxart.web", "mxart.web.jobs", "mxart.web.prefix"}
_MOST = 350  # of our own: some 90 ms of processor time


@pytest.fixture(scope="module")
def imported() -> list[str]:
    """What is there when the server begins to read its configuration."""
    return _imports("mxart.__main__, mxart.cli_serve")


@pytest.mark.parametrize("rare", _RARE)
def test_serving_does_not_wait_for_what_it_rarely_needs(imported: list[str], rare: str) -> None:
    assert set(_within(rare, imported)) <= _NEEDED, "import it in the function that needs it"


def test_the_modules_of_serving_do_not_become_too_many(imported: list[str]) -> None:
    assert len(list(_within("mxart", imported))) <= _MOST


@pytest.mark.parametrize("command", ["__main__", "commands.ca", "commands.setup", "commands.token", "commands.user"])
def test_a_command_does_not_wait_for_the_server(command: str) -> None:
    imported = _imports(f"mxart.{command}")
    assert "mxart.build" not in imported
    assert "mxart.app" not in imported


def _imports(modules: str) -> list[str]:
    """What a fresh interpreter has imported after these."""
    program = f"import sys, {modules}; print(*sys.modules)"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()


def _within(package: str, modules: Iterable[str]) -> Iterable[str]:
    return (name for name in modules if name == package or name.startswith(f"{package}."))
