"""What our own checksum database is called and signs with, as files: made at the first start, kept for ever.

    <directory>/            0700
      name                  what it is called where the configuration does not say: other than any other installation's
      <name>.key   0600     the key that signs under a name
      <name>.mark  0600     the largest tree that was signed by it

The name is part of a key, and clients remember for each name the newest tree that they have seen; so a name belongs to
one log only.  A mark is written before a tree that large is shown to anybody: a log that was put back from a backup
older than that, and is let grow, would become another one, which clients take for an attack.  Whoever puts it back
has to choose another name then.  A mark need not be on disk when power fails: the log is, before.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from mxart.atomic import locked_directory, write_atomically
from mxart.config import SUMDB_NAME
from mxart.discreet import Discreet
from mxart.errors import ConfigError
from mxart.repos.go.notes import SignerKey
from mxart.repos.go.trees import Tree, node_hash, peaks, record_hash, root
from mxart.store.record_log import LogBroken, RecordLog


class OwnKey(Discreet, frozen=True):
    """The key, and where its mark lies."""

    hidden: ClassVar = frozenset({"signer"})

    signer: SignerKey
    mark: Path

    @property
    def name(self) -> str:
        """The database's."""
        return self.signer.name

    @classmethod
    def open(cls, directory: Path, name: str = "") -> OwnKey:
        """Of a name, "" for the one that was made up; made now if need be. Blocks on the disk and on others who do so.

        Raises ConfigError if what is there cannot be used.
        """
        try:
            with locked_directory(directory):
                if not name:
                    name = _made_up(directory / "name")
                path = _path(directory, name, "key")
                if not path.exists():
                    write_atomically(path, f"{SignerKey.generate(name).secret}\n".encode(), 0o600)
                return cls(_read(path, name), _path(directory, name, "mark"))
        except OSError as error:
            raise ConfigError(f"the key of the checksum database in {directory}: {error.strerror}") from error

    @classmethod
    def find(cls, directory: Path, name: str = "") -> OwnKey | None:
        """The same, if it was made before. Raises ConfigError."""
        known = _path(directory, name, "key") if name else directory / "name"
        return cls.open(directory, name) if known.exists() else None

    def marked(self) -> Tree | None:
        """The largest tree that was signed. Raises OSError."""
        try:
            return Tree.parse(self.mark.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):  # half of one is left by a power failure only
            return None

    def note(self, tree: Tree) -> None:
        """Note that a tree is about to be signed. Blocks on other processes. Raises OSError."""
        with locked_directory(self.mark.parent):
            known = self.marked()
            if known is None or known.size < tree.size:
                aside = self.mark.with_name(f".{self.mark.name}")
                aside.touch(0o600)
                aside.write_text(str(tree), encoding="ascii")
                aside.replace(self.mark)

    def check(self, records: RecordLog) -> None:
        """See that the log is the one that was signed. Raises ConfigError saying what to do if it is not."""
        try:
            known = self.marked()
        except OSError as error:
            raise ConfigError(f"{self.mark} cannot be read: {error.strerror}") from error
        if known is None:
            return
        size = records.size()
        if size < known.size:
            what = f"has {size} records, and {known.size} of it were signed"
        else:
            try:
                if tree_of(records, known.size) == known:
                    return
                what = f"is not the one whose first {known.size} records were signed"
            except LogBroken as error:
                what = f"is broken: {error.message}"
        raise ConfigError(
            f"the log of the checksum database {self.name} {what}: it was put back, and clients would take what it"
            " says from now on for an attack; put back a newer copy of the data directory's sumdb, or give the log"
            ' another name by [go] sumdb_name = "..." and clients the new key'
        )


def tree_of(records: RecordLog, size: int) -> Tree:
    """The tree of the first so many records, which there are. Raises LogBroken."""
    return Tree(size, root(records.nodes(peaks(size))))


def open_log(path: Path) -> RecordLog:
    """The log of a checksum database. Raises ConfigError."""
    return RecordLog(path, record_hash, node_hash)


def _path(directory: Path, name: str, what: str) -> Path:
    return directory / f"{quote(name, safe='')}.{what}"


def _made_up(path: Path) -> str:
    try:
        found = path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        found = f"sum-{secrets.token_hex(6)}.mxart.internal"
        write_atomically(path, f"{found}\n".encode(), 0o600)
    if not re.fullmatch(SUMDB_NAME, found):
        raise ConfigError(f"{path} does not hold a name: put back what it held, or set [go] sumdb_name")
    return found


def _read(path: Path, name: str) -> SignerKey:
    remedy = "put back what it held, or set another [go] sumdb_name: clients believe a name by one key only"
    try:
        signer = SignerKey.parse(path.read_text(encoding="ascii").strip())
    except ValueError as error:
        raise ConfigError(f"{path}: {error}; {remedy}") from None
    if signer.name != name:
        raise ConfigError(f"{path} is the key of {signer.name}; {remedy}")
    return signer
