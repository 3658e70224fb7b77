"""A module's zip made of a folder, as the go command makes it (golang.org/x/mod/zip): the same files, so the same h1.

Left out are vendored packages, modules within the module, what is neither file nor folder (links, above all) and the
folders of version control.  Blocks.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, BinaryIO

from msgspec import Struct

from mxart.repos.go import gomod

_VCS = frozenset((".bzr", ".git", ".hg", ".svn"))
_EPOCH = (1980, 1, 1, 0, 0, 0)
_VENDOR = "vendor/"
# From this Go on, vendor/modules.txt is left out, and what lies right in a vendor folder deeper down is not.
_MENDED = (1, 24)


class Item(Struct, frozen=True):
    """A file of a module: its name there, and where it is read."""

    name: str
    file: Path


def walk(folder: Path) -> Iterator[str]:
    """The names of all files below, but for folders of version control. Raises OSError."""

    def fail(error: OSError) -> None:
        raise error

    for path, folders, files in os.walk(folder, onerror=fail):
        folders[:] = sorted(set(folders) - _VCS)
        below = Path(path).relative_to(folder)
        yield from ((below / name).as_posix() for name in files)


def choose(folder: Path, names: Iterable[str], mod: gomod.GoMod, licence: Path | None = None) -> list[Item]:
    """Which of these files make the module that has its root here; `licence` is there if it has none itself.

    Raises OSError.
    """
    found = [Item(name, folder / name) for name in select((name for name in names if _is_regular(folder / name)), mod)]
    if licence is not None and _is_regular(licence) and all(item.name != "LICENSE" for item in found):
        found.append(Item("LICENSE", licence))
    return found


def select(names: Iterable[str], mod: gomod.GoMod) -> list[str]:
    """Which files of a folder are of the module at its root; only names of regular files are given."""
    regular = sorted(names)
    nested = {
        name.rpartition("/")[0] + "/" for name in regular if "/" in name and name.rpartition("/")[2].lower() == "go.mod"
    }
    return [
        name
        for name in regular
        if not _is_vendored(name, mended=mod.go >= _MENDED)
        and not _is_within(name, nested)
        and name != ".hg_archival.txt"
    ]


def pack(items: Iterable[Item], path: str, version: str, out: BinaryIO) -> None:
    """Write the zip of a module's version. Raises OSError."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for item in items:
            size = item.file.stat().st_size
            with item.file.open("rb") as source:
                _add(archive, f"{path}@{version}/{item.name}", source, size)


def pack_archive(
    tar: BinaryIO, folder: str, names: Collection[str], more: Mapping[str, bytes], prefix: str, out: BinaryIO
) -> None:
    """The same from a tar archive of git's: of what it has in `folder` the files of these names, and `more` of others.

    `prefix` is what every name in a module's zip begins with: `<module>@<version>/`.

    Raises OSError, and ValueError where the archive is broken, or lacks one of them.
    """
    wanted = {f"{folder}/{name}" if folder else name: name for name in names}
    try:
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive, tarfile.open(fileobj=tar, mode="r|") as source:
            for entry in source:
                name = wanted.pop(entry.name, None) if entry.isreg() else None
                if name is not None and (content := source.extractfile(entry)) is not None:
                    _add(archive, prefix + name, content, entry.size)
            for name, data in more.items():
                _add(archive, prefix + name, io.BytesIO(data), len(data))
    except tarfile.TarError as error:
        raise ValueError(f"git's archive is broken: {error}") from None
    if wanted:
        raise ValueError(f"git's archive lacks {min(wanted)!r}")


def _add(archive: zipfile.ZipFile, name: str, source: IO[bytes], size: int) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    info.file_size = size
    with archive.open(info, "w") as target:
        shutil.copyfileobj(source, target, 1 << 18)


def _is_regular(file: Path) -> bool:
    try:
        return stat.S_ISREG(file.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False  # deleted, and still known to version control


def _is_within(name: str, nested: set[str]) -> bool:
    """Whether a file belongs to a module within this one."""
    return any(name[: at + 1] in nested for at, sign in enumerate(name) if sign == "/")


def _is_vendored(name: str, *, mended: bool) -> bool:
    """Whether a file is of a package that was copied into a vendor folder (golang/go#37397 for what was mended)."""
    if mended and name == "vendor/modules.txt":
        return True
    if name.startswith(_VENDOR):
        return "/" in name[len(_VENDOR) :]
    at = name.find("/" + _VENDOR)
    if at < 0:
        return False
    # Before, the begin of the name was skipped, wherever the vendor folder was; checksums depend on it.
    return "/" in name[(at if mended else 0) + len("/" + _VENDOR) :]
