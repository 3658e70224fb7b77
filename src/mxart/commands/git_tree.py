"""What git knows of a folder: the files that are committed, and the versions that they are tagged with."""

from __future__ import annotations

import subprocess
from pathlib import Path

from msgspec import Struct

from mxart.commands.options import UserError


class GitTree(Struct, frozen=True):
    """A folder within a repository of git's, whose work tree begins at `top`."""

    folder: Path
    top: Path

    @classmethod
    def around(cls, folder: Path) -> GitTree | None:
        """None where there is no repository. Raises UserError where git cannot tell about one."""
        if not any((place / ".git").exists() for place in (folder, *folder.parents)):
            return None
        top = _git(folder, "rev-parse", "--show-toplevel").rstrip("\n")
        return cls(folder, Path(top).resolve())

    @property
    def below(self) -> str:
        """Where in the repository this is; "" at its root."""
        where = self.folder.relative_to(self.top).as_posix()
        return "" if where == "." else where

    def names(self) -> list[str]:
        """The files that are committed, or about to be."""
        return [name for name in _git(self.folder, "ls-files", "-z").split("\0") if name]

    def changes(self) -> list[str]:
        """The files that are not as they were committed."""
        text = _git(self.folder, "status", "--porcelain", "-z", "--untracked-files=no", "--no-renames", "--", ".")
        return [entry[3:] for entry in text.split("\0") if entry]

    def tags(self) -> list[str]:
        """Those of the commit that is checked out."""
        return _git(self.folder, "tag", "--points-at", "HEAD").split()


def _git(folder: Path, *arguments: str) -> str:
    try:
        # Whoever runs this runs his own git, on his own files.
        done = subprocess.run(  # noqa: S603  # his own arguments, and no shell
            ["git", "-C", str(folder), *arguments],  # noqa: S607  # by his PATH
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise UserError(f"{folder} is in a repository of git's, and git does not run: {error.strerror}") from None
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise UserError(f"{folder}: git {arguments[0]}: {said[0] if said else 'failed'}")
    return done.stdout.decode("utf-8", "surrogateescape")
