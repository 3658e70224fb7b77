"""What the real clients share: a home of their own, and what they are asked to do."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Protocol

from kit.netns import World
from kit.registry import Blob
from kit.servers import program

_NAMES_OF_CA_AND_PROXY = ("SSL_CERT", "CA_BUNDLE", "CAINFO", "CA_CERTS", "PROXY", "DOCKER_")


def clean_environment(home: Path, ca: Path | None = None) -> dict[str, str]:
    """The environment without proxies and foreign trust; `ca` becomes all that is trusted."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not any(part in key.upper() for part in _NAMES_OF_CA_AND_PROXY)
    }
    home.mkdir(parents=True, exist_ok=True)
    kept |= {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "TMPDIR": str(home)}
    if ca is not None:
        kept |= {"SSL_CERT_FILE": str(ca), "SSL_CERT_DIR": "/nonexistent", "CURL_CA_BUNDLE": str(ca)}
    return kept


class Client(Protocol):
    """Something that pulls."""

    def pull(self, reference: str) -> str:
        """Pull `host[:port]/name:tag` as if for the first time; the config digest of what was kept."""
        ...

    def kept(self, blob: Blob) -> bool | None:
        """Whether these very bytes are in the client's store; None where it keeps them in a form of its own."""
        ...

    def close(self) -> None: ...


class Pusher(Client, Protocol):
    """Something that also pushes, and logs in for it."""

    def login(self, registry: str, user: str, password: str) -> None:
        """Show a registry (`host[:port]`) who pushes and pulls from now on; a refusal fails with the client's words."""
        ...

    def logout(self, registry: str) -> None:
        """Forget it."""
        ...

    def push(self, source: str, target: str) -> str:
        """Push what was pulled as `source` under another name; the digest of the manifest as the registry has it."""
        ...


class Commands:
    """What the clients share: running a command in the world, with a clean environment."""

    def __init__(self, folder: Path, inside: World, ca: Path | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.inside = inside
        self.env = clean_environment(folder / "home", ca)

    def run(self, *command: str | Path, seconds: float = 90.0, stdin: bytes = b"") -> bytes:
        return self.inside.run(*command, env=self.env, seconds=seconds, stdin=stdin)

    def close(self) -> None:
        """Nothing runs on."""


def accepts_anything(folder: Path) -> Path:
    """A signature policy that asks for none."""
    file = folder / "policy.json"
    file.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    return file


def curl(inside: World | None, *arguments: str | Path, ca: Path | None = None, home: Path) -> bytes:
    """Run curl quietly and return what it printed; an HTTP error is a failure."""
    command = [
        *(inside.enter if inside else []),
        program("curl"),
        "--silent",
        "--show-error",
        "--fail",
        "--noproxy",
        "*",
    ]
    if ca is not None:
        command += ["--cacert", str(ca)]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, env=clean_environment(home), timeout=60, check=False
    )
    assert done.returncode == 0, (arguments, done.returncode, done.stderr)
    return done.stdout
