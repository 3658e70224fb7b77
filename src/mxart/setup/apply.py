"""Reads and writes the files of a machine, or of one that lies below a folder.

Writing is atomic: a new file beside the old one, on disk, with its mode and owner, takes its name.
A copy of what somebody else wrote is kept beside it, once: `NAME.before-mxart`.
"""

from __future__ import annotations

import difflib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from mxart.setup.plan import Change, SetupError

_BACKUP = ".before-mxart"


class Disk:
    """The files below `root` (plan.Files), and how to change them. Links may not lead out of `root`."""

    def __init__(self, root: str = "/") -> None:
        self._root = Path(root).resolve()

    def place(self, path: str) -> Path:
        """Where a path of the machine lies here, links followed. Raises SetupError if that is outside of `root`."""
        try:
            found = (self._root / path.lstrip("/")).resolve()
        except (OSError, RuntimeError):  # RuntimeError: pathlib's word for links in a circle, before Python 3.13
            raise SetupError(f"{path} cannot be found: its links go round") from None
        if not found.is_relative_to(self._root):
            raise SetupError(f"{path} leads to {found}, which is outside of {self._root}")
        return found

    def read(self, path: str) -> str | None:
        """A file's text, None if there is no such file. Raises SetupError."""
        try:
            return self.place(path).read_bytes().decode("utf-8")
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            raise SetupError(f"{path} is not UTF-8 text") from None
        except OSError as error:
            raise SetupError(f"{path} cannot be read: {error.strerror}") from None

    def names(self, folder: str) -> list[str] | None:
        """What a folder holds, in order; None if there is no such folder. Raises SetupError."""
        try:
            return sorted(os.listdir(self.place(folder)))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise SetupError(f"{folder} cannot be read: {error.strerror}") from None

    def is_done(self, change: Change) -> bool:
        """Whether a file is as it should be."""
        return self.read(change.path) == change.content

    def diff(self, change: Change) -> str:
        """What a change is, as a unified diff; empty if there is nothing to do."""
        there = self.read(change.path)
        old, new = (text.splitlines(keepends=True) for text in (there or "", change.content))
        before = "/dev/null" if there is None else change.path
        lines = difflib.unified_diff(old, new, before, change.path)
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)

    def write(self, change: Change) -> None:
        """Make a file what it should be. Raises SetupError; the file is then as it was."""
        try:
            self._write(self.place(change.path), change)
        except OSError as error:
            hint = "; run this as root, or give --root" if isinstance(error, PermissionError) else ""
            raise SetupError(f"{change.path} cannot be written: {error.strerror}{hint}") from None

    def _write(self, target: Path, change: Change) -> None:
        _make_folder(target.parent)
        before = target.stat() if target.exists() else None
        backup = target.with_name(target.name + _BACKUP)
        if before is not None and not change.owned and not backup.exists():
            shutil.copy2(target, backup)
            os.chown(backup, before.st_uid, before.st_gid)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(change.content.encode())
                os.fchmod(file.fileno(), change.mode if before is None else stat.S_IMODE(before.st_mode))
                if before is not None and (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync(target.parent)


def _make_folder(folder: Path) -> None:
    """With the mode that daemons of other users can read, whatever the umask."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir()
    folder.chmod(0o755)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
