"""Reads and writes the files of a machine, or of one that lies below a folder.

Writing is atomic: a new file beside the old one, on disk, with its mode and owner, takes its name.
A copy of what somebody else wrote is kept beside it, once: `NAME.before-mxart`.  Only ordinary files
are read and written: a link to /dev/null, by which a machine's owner says that there is to be no such
file, is no reason to replace /dev/null.
"""

from __future__ import annotations

import difflib
import os
import stat
import tempfile
from pathlib import Path

from mxart.setup.plan import Change, SetupError

_BACKUP = ".before-mxart"
_LARGEST = 4 << 20  # bytes; no settings are longer
_MASK = Path("/dev/null")


class Disk:
    """The files below `root` (plan.Files), and how to change them. Links may not lead out of `root`.

    What was read is what a change is made of: a file that others change meanwhile is not written.
    """

    def __init__(self, root: str = "/") -> None:
        """Raises SetupError if there is no such folder."""
        self._root = Path(root).resolve()
        if not self._root.is_dir():
            raise SetupError(f"{root} is not a folder")
        self._read: dict[str, str | None] = {}

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
        """A file's text, None if there is no such file, "" where a link to /dev/null masks it. Raises SetupError."""
        text = self._text(path)
        self._read.setdefault(path, text)
        return text

    def _text(self, path: str) -> str | None:
        try:
            return "" if self._is_masked(path) else _content(path, self.place(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except UnicodeDecodeError:
            raise SetupError(f"{path} is not UTF-8 text") from None
        except OSError as error:
            raise SetupError(f"{path} cannot be read: {error.strerror}") from None

    def _is_masked(self, path: str) -> bool:
        here = self._root / path.lstrip("/")
        return here.is_symlink() and here.readlink() == _MASK

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
        if self._is_masked(change.path):
            raise SetupError(f"{change.path} is a link to {_MASK}, so that there be no such file: remove it first")
        there = self._text(change.path)
        if there != self._read.get(change.path, there):
            raise SetupError(f"{change.path} was changed by somebody else meanwhile: run this again")
        try:
            _write(self.place(change.path), change)
            self._read[change.path] = change.content
        except OSError as error:
            hint = "; run this as root, or give --root" if isinstance(error, PermissionError) else ""
            raise SetupError(f"{change.path} cannot be written: {error.strerror}{hint}") from None


def _content(path: str, target: Path) -> str:
    """Raises OSError, UnicodeDecodeError, SetupError."""
    found = target.stat()
    if not stat.S_ISREG(found.st_mode):
        raise SetupError(f"{path} is not an ordinary file")
    if found.st_size > _LARGEST:
        raise SetupError(f"{path} has {found.st_size} bytes: that is no file of settings")
    return target.read_bytes().decode("utf-8")


def _write(target: Path, change: Change) -> None:
    _make_folder(target.parent)
    before = target.stat() if target.exists() else None
    backup = target.with_name(target.name + _BACKUP)
    if before is not None and not change.owned and not os.path.lexists(backup):
        _put(backup, target.read_bytes(), before)
        os.utime(backup, ns=(before.st_atime_ns, before.st_mtime_ns))
    _put(target, change.content.encode(), before, change.mode)
    _sync(target.parent)


def _put(target: Path, data: bytes, like: os.stat_result | None, mode: int = 0) -> None:
    """A whole file at once, with the mode and owner of another if there is one, else with `mode`."""
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode if like is None else stat.S_IMODE(like.st_mode))
            if like is not None and (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), like.st_uid, like.st_gid)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


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
