"""oras, the client for artifacts that are no images, as the Python library of that name: a process for each command."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from kit.client_base import Commands
from kit.netns import World

_COMMAND = Path(__file__).with_name("oras_command.py")


class Oras(Commands):
    """Pushes files as an artifact, and pulls them."""

    def __init__(self, folder: Path, inside: World, *, ca: Path | None = None, auth: str = "token") -> None:
        """Plain HTTP where no `ca` is given; `auth` is "token" (the registry's token server) or "basic"."""
        super().__init__(folder, inside, ca)
        self._shared = {"plain": ca is None, "trust": str(ca) if ca else True, "auth": auth, "folder": str(folder)}

    def login(self, registry: str, user: str, password: str) -> None:
        """Nothing is asked of the registry now."""
        self._do("login", registry=registry, user=user, password=password)

    def push(
        self,
        target: str,
        files: dict[str, bytes],
        *,
        artifact_type: str = "application/vnd.unknown.config.v1+json",
        subject: dict[str, object] | None = None,
        annotations: dict[str, str] | None = None,
        chunk: int = 0,
    ) -> str:
        """The digest of the artifact's manifest. `chunk`: in requests of so many bytes each; 0: a blob in one."""
        for name, data in files.items():
            (self.folder / name).write_bytes(data)
        paths = [str(self.folder / name) for name in files]
        fields = {"type": artifact_type, "subject": subject, "annotations": annotations or {}, "chunk": chunk}
        return str(self._do("push", target=target, files=paths, **fields))

    def pull(self, reference: str) -> dict[str, bytes]:
        """The artifact's files by name."""
        folder = self.folder / "pulled"
        found = self._do("pull", reference=reference, folder=str(folder))
        assert isinstance(found, list)
        return {Path(path).name: Path(path).read_bytes() for path in found}

    def tags(self, name: str) -> Sequence[str]:
        found = self._do("tags", name=name)
        assert isinstance(found, list)
        return found

    def delete(self, name: str, tag: str) -> None:
        """It deletes the manifest that the tag names."""
        assert self._do("delete", name=name, tag=tag) == [tag]

    def _do(self, what: str, **arguments: object) -> object:
        asked = {**self._shared, "do": what, **arguments}
        told = self.run(sys.executable, "-P", _COMMAND, stdin=json.dumps(asked).encode())
        return json.loads(told.splitlines()[-1])
