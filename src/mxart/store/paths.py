"""Where everything lies on disk. No other module makes a path.

::

    <data>/                           0700, all that must survive
        catalog.sqlite (-wal, -shm)   names: repositories, packages, versions, files, tags
        generation                    a number that all processes map: whether anything has changed (module generation)
        gc, gc-evict                  flock(2) elects who gives space back; the time of `gc`: when that was finished
        linked                        of what a catalog from before links kept, it is known what it needs; always empty
        turns                         locks on names, for all workers (module turns); always empty
        ca/ca.pem, ca-key.pem         the program's own CA (proto.authority), the key 0600
        jobs/                         0700, long work that was asked for: its state, who runs it, a wish to end it
        replications/                 0700, uploads begun at other registries (replicate.memo)
        tokens/                       0700, keys that sign tokens (access.keys)
        access.sqlite (-wal, -shm)    0600, users, groups, tokens (access.directory)
        admin-password                0600, the first administrator's, until it is changed
        audit/                        0700, what was written and what was denied (access.audit)
        sumdb/                        0700, our own checksum database: its keys and marks (repos.own_keys)
        sumdb/log.sqlite (-wal, -shm) 0600, its records, for ever (store.record_log)
        git/                          0700, copies of others' git repositories: all of it can be fetched again
            home/                     what git takes for its user's home; always empty
            tmp/<random>              an archive or a zip under way; or a copy on its way out
            ssh-abcd...               settings for ssh, by their digest
            copies/abcd.../           a bare repository, by the sha256 of whose it is and its URL
            copies/abcd....json       its branches and tags as its server last told them; its time: when it was used
            copies/abcd....lock       flock(2) elects who fetches; whatever git runs for him holds it, too
        store/                        the store named "default", unless the configuration places it elsewhere

    <root of a store>/                0700, one of these for each named store
        blobs/sha256/ab/abcd...       complete files, named by their digest; fsynced before they get this name
        partial/sha256-abcd...        a growing download; flock(2) on it elects its writer; renamed to a blob
        partial/named-abcd...         one whose name does not tell its digest: the sha256 of that name
        partial/<either>.notes        what its writer tells the other processes (module notes)
        tmp/<random>                  a put under way; flock(2) says that its process lives
        uploads/<random>              what a client has sent so far of a file; renamed to a blob
        uploads/<random>.state        whose it is, and its hash (module uploads_state); flock(2) says who is at it
        uploads/<random>.spare        a state file that the next upload takes over: to make a new one is dear
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from mxart.config import Config
from mxart.digest import Digest
from mxart.errors import ConfigError

DIRECTORY_MODE = 0o700
NOTES = ".notes"
STATE = ".state"
SPARE = ".spare"
_NAMED = "named-"
_NAMED_FILE = re.compile(r"named-[0-9a-f]{64}\Z")
_UPLOAD = re.compile(r"[0-9a-f]{32}\Z")


class StorePaths:
    """The layout of one store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs"
        self.partials = root / "partial"
        self.temporary = root / "tmp"
        self.uploads = root / "uploads"
        self._blobs = str(self.blobs)
        self._partials = str(self.partials)
        self._temporary = str(self.temporary)
        self._uploads = str(self.uploads)

    def blob(self, digest: Digest) -> str:
        """The complete file of a digest."""
        return f"{self._blobs}/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"

    def partial(self, digest: Digest) -> str:
        """The growing file of a digest."""
        return f"{self._partials}/{digest.algorithm}-{digest.hex}"

    def partial_named(self, key: str) -> str:
        """The growing file of a name that does not tell its digest."""
        return f"{self._partials}/{_NAMED}{Digest.of(key.encode('utf-8', 'surrogatepass')).hex}"

    def notes(self, digest: Digest) -> str:
        """What is told about the growing file of a digest."""
        return self.notes_of(self.partial(digest))

    def notes_of(self, partial: str) -> str:
        """What is told about a growing file."""
        return partial + NOTES

    def scratch(self) -> str:
        """A new name for a file that is not complete yet."""
        return f"{self._temporary}/{secrets.token_hex(12)}"

    def new_upload(self) -> str:
        """A new id: 128 random bits, so that nobody finds another's."""
        return secrets.token_hex(16)

    def is_upload(self, name: str) -> bool:
        """Whether this could be an upload's id: nothing else is ever made part of a path."""
        return _UPLOAD.match(name) is not None

    def upload(self, name: str) -> str:
        """The bytes of an upload, by its id."""
        return f"{self._uploads}/{name}"

    def upload_state(self, name: str) -> str:
        """What is known of an upload, by its id."""
        return f"{self._uploads}/{name}{STATE}"

    def spare_state(self) -> str:
        """A new name for a state file that belongs to no upload any more."""
        return f"{self._uploads}/{secrets.token_hex(16)}{SPARE}"

    def partial_of(self, name: str) -> tuple[str, Digest | None] | None:
        """The partial file that has this name, or whose notes have it, and its digest if its name tells that.

        None if it is neither.
        """
        stem = name.removesuffix(NOTES)
        if _NAMED_FILE.match(stem) is not None:
            return f"{self._partials}/{stem}", None
        try:
            digest = Digest.parse(stem.replace("-", ":", 1))
        except ValueError:
            return None
        return self.partial(digest), digest

    def create(self) -> None:
        """Make the directories. Raises ConfigError."""
        for path in (self.root, self.blobs, self.partials, self.temporary, self.uploads):
            make_private(path)


class DataPaths:
    """The layout of the data directory."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.catalog = data / "catalog.sqlite"
        self.store = data / "store"
        self.authority = data / "ca"
        self.tokens = data / "tokens"
        self.access = data / "access.sqlite"
        self.admin_password = data / "admin-password"
        self.audit = data / "audit"
        self.replications = data / "replications"
        self.linked = data / "linked"
        self.turns = data / "turns"
        self.jobs = data / "jobs"
        self.generation = data / "generation"
        self.gc = data / "gc"
        self.git = data / "git"
        self.sumdb = data / "sumdb"
        self.sumdb_log = self.sumdb / "log.sqlite"

    def create(self) -> None:
        """Make the data directory, readable by its owner only. Raises ConfigError."""
        make_private(self.data)


class GitPaths:
    """The layout of what is copied from git servers."""

    REFERENCES = ".json"
    LOCK = ".lock"

    def __init__(self, data: Path) -> None:
        self.root = DataPaths(data).git
        self.home = self.root / "home"
        self.temporary = self.root / "tmp"
        self.copies = self.root / "copies"

    def name(self, owner: str, url: str) -> str:
        """What a copy is called: one for each repository of ours, whose login is its own."""
        return Digest.of(f"{owner}\0{url}".encode()).hex

    def copy(self, name: str) -> Path:
        """The bare repository."""
        return self.copies / name

    def references(self, name: str) -> Path:
        """What is known of its branches and tags."""
        return self.copies / f"{name}{self.REFERENCES}"

    def lock(self, name: str) -> str:
        """Held by whoever changes the copy."""
        return f"{self.copies}/{name}{self.LOCK}"

    def ssh(self, settings: str) -> Path:
        """A file with these settings of ssh's."""
        return self.root / f"ssh-{Digest.of(settings.encode()).hex[:16]}"

    def scratch(self) -> Path:
        """A new name for what is there for a moment."""
        return self.temporary / secrets.token_hex(12)

    def create(self) -> None:
        """Make the directories. Raises ConfigError."""
        for path in (self.root, self.home, self.temporary, self.copies):
            make_private(path)


class JobPaths:
    """The layout of what is known of jobs: three files for each, by its id."""

    STATE = ".json"

    def __init__(self, data: Path) -> None:
        self.root = DataPaths(data).jobs

    def state(self, job: str) -> Path:
        """What everybody may read."""
        return self.root / f"{job}{self.STATE}"

    def alive(self, job: str) -> Path:
        """Locked by the process that runs it."""
        return self.root / f"{job}.alive"

    def cancel(self, job: str) -> Path:
        """There, where somebody wants it to end."""
        return self.root / f"{job}.cancel"


def stores(config: Config) -> dict[str, StorePaths]:
    """The layout of every named store of a configuration, "default" among them."""
    found = {"default": StorePaths(DataPaths(config.data).store)}
    found.update((name, StorePaths(Path(store.path))) for name, store in config.stores.items())
    return found


def make_private(path: Path) -> None:
    """Make a directory, and those above it, for its owner only; one that exists stays as it is. Raises ConfigError."""
    try:
        path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        usable = os.access(path, os.R_OK | os.W_OK | os.X_OK)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be made: {error.strerror}; choose a directory that can be written"
        ) from error
    if not usable:
        raise ConfigError(f"{path}: cannot be written by this user; change its owner or choose another directory")
