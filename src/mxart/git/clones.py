"""Copies of git repositories on disk: what their servers have by now, and as much of it as was asked for.

Theory of operation
-------------------
A copy is a bare repository.  Its server is asked for branches and tags first, which is cheap; the answer is kept beside
the copy, for all workers.  A commit is fetched without its history, as a tag needs it; all history once, for those who
ask what comes after what.  Nothing is ever removed within a copy: a commit that a tag has been moved away from stays.

Who asks a server, or writes into a copy, holds its lock: in this process and among all processes, so of any number of
requests one does the work and the others find it done.  What git runs holds that lock, too (see process): a worker
that is killed leaves nobody beside a git that still writes.  The next one to have the lock finds the mark `busy`,
and clears away what a killed git has left locked.

A server in trouble is not asked by one after the other of all who wait for it: they are told what the first was told,
and so is whoever comes within a few seconds.

Reading takes no lock.  A copy that nobody has used for days is removed (`tidy`).
"""

from __future__ import annotations

import copy
import logging
import os
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio
from msgspec.structs import replace

from mxart.errors import Problem, StorageFull, UpstreamFailed
from mxart.git.depot import Depot
from mxart.git.failures import Cause, GitFailed, Gone, NotThatWay, no_git
from mxart.git.process import Session
from mxart.git.references import HEADS, TAGS, References
from mxart.git.tidying import BUSY, clear, throw_away
from mxart.git.trees import Commit, Entry, parse_commit, parse_tree
from mxart.git.url import GitUrl
from mxart.store.locks import elect
from mxart.store.paths import DIRECTORY_MODE

_log = logging.getLogger("mxart.git")

_MAX_CLONES = 1024  # remembered; each is a few dictionaries
_MAX_KNOWN = 100_000  # commits that are remembered to be there
_MAX_REFERENCES = 64 << 20
_MAX_TREE = 128 << 20
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.25
_HELD = 5.0  # seconds that a server in trouble is left alone
_MAX_PACKS = 40
_USED = 60.0  # seconds between two notes that a copy is in use
_DAMAGED = 128  # with which git ends where it cannot go on
_HEALED = 300.0  # seconds in which a copy is not thrown away once more
# The go command turns these off as well: an archive does not depend on who made it (golang/go#27153).
_ATTRIBUTES = "* -export-subst -export-ignore\n"
_ALL = (f"+{HEADS}*:{HEADS}*", f"+{TAGS}*:{TAGS}*")


class Clones:
    """The copies of one repository of ours."""

    def __init__(self, depot: Depot) -> None:
        self._depot = depot
        self._known: OrderedDict[tuple[str, str], Clone] = OrderedDict()

    def of(self, url: GitUrl, named_by: str = "") -> Clone:
        """The copy of a repository; it need not be there yet. `named_by` as in Ways.to."""
        key = (str(url), named_by)
        clone = self._known.pop(key, None) or Clone(self._depot, url, named_by)
        self._known[key] = clone
        if len(self._known) > _MAX_CLONES:
            self._known.popitem(last=False)
        return clone


class Clone:
    """One repository. Methods raise the Problem that stands in the way. Cancelled: what git does for them is ended."""

    def __init__(self, depot: Depot, url: GitUrl, named_by: str = "") -> None:
        self.url = url
        self._depot = depot
        self._named_by = named_by
        name = depot.paths.name(depot.name, str(url))
        self._folder = depot.paths.copy(name)
        self._references_file = depot.paths.references(name)
        self._lock_file = depot.paths.lock(name)
        self._lock = trio.Lock()
        self._references = References()
        self._known: set[str] = set()
        self._whole = ""  # the mark of the references when all history was fetched
        self._noted = float("-inf")
        self._discarded = float("-inf")
        self._trouble: tuple[float, Problem] | None = None  # of the last question to the server, and when that ended

    # what its server has

    async def references(self, max_age: float) -> References:
        """Branches and tags, as they were at most so many seconds ago.

        Raises NotFound, UpstreamDenied, UpstreamFailed, UpstreamUnavailable, UpstreamTimeout.
        """
        if self._is_fresh(self._references, max_age):
            return self._references
        began = self._depot.clock()
        async with self._alone() as lock:
            kept = await trio.to_thread.run_sync(self._read_references)
            # Whoever had the lock before may have asked while we waited: that is as new as an answer to us.
            if kept is not None and (kept.asked >= began or self._is_fresh(kept, max_age)):
                self._references = kept
                return kept
            arguments = ["ls-remote", "-q", "--end-of-options", str(self.url)]
            asked = self._depot.clock()
            data = await self._ask(arguments, lock, limit=_MAX_REFERENCES, folder=None)
            found = References.parse(data, asked)
            for tag, (before, now) in found.moved_from(kept or self._references).items():
                _log.warning(
                    "%s: the tag %s of %s was moved from %s to %s: what was served as it before stays as it was",
                    self._depot.name,
                    tag,
                    self.url,
                    before,
                    now,
                )
            await trio.to_thread.run_sync(self._write_references, found)
            self._references = found
            return found

    def _is_fresh(self, references: References, max_age: float) -> bool:
        age = self._depot.clock() - references.asked
        return -60 <= age < max_age

    def _read_references(self) -> References | None:
        try:
            return References.decode(self._references_file.read_bytes())
        except FileNotFoundError:
            return None

    def _write_references(self, found: References) -> None:
        scratch = self._depot.paths.scratch()
        try:
            scratch.write_bytes(found.encode(str(self.url)))
            scratch.replace(self._references_file)
        except OSError as error:  # it is asked for again, then
            _log.warning("%s: cannot be written: %s", self._references_file, error.strerror)
            scratch.unlink(missing_ok=True)

    # fetching

    async def obtain(self, commit: str, name: str = "", *, by_hash: bool = False) -> None:
        """Have a commit, with its files, in the copy; nothing is asked if it is there.

        `name` is that of a branch or tag, in full, that meant it a moment ago.  `by_hash`: it was told by this server
        before, so it may be asked for by itself.  Raises Gone where the server no longer has it.
        """
        if await self._has(commit):
            return
        async with self._alone() as lock:
            if await self._has(commit):
                return
            await self._prepare(commit)
            specs = [f"+{name}:{name}"] if name.startswith((HEADS, TAGS)) else []
            if by_hash or name == "HEAD":
                specs.append(f"+{commit}:refs/mxart/{commit}")
            for spec in specs:
                with suppress(NotThatWay):
                    await self._fetch(lock, "--depth=1", spec)
                if await self._has(commit):
                    return
            await self._fetch_all(lock)
            if not await self._has(commit):
                raise Gone(f"{self.url} no longer has commit {commit}")

    async def history(self, references: References) -> None:
        """Have all that branches and tags lead to, with its history."""
        mark = references.mark
        if self._whole == mark and self._folder.is_dir():
            return
        async with self._alone() as lock:
            if self._whole == mark and self._folder.is_dir():
                return
            await self._prepare(next(iter(references.commits.values()), "0" * 40))
            await self._fetch_all(lock)
            self._whole = mark

    async def _fetch_all(self, lock: int) -> None:
        await self._fetch(lock, "--prune", *_ALL)
        if (self._folder / "shallow").exists():
            await self._fetch(lock, "--unshallow", *_ALL)

    async def _fetch(self, lock: int, *arguments: str) -> None:
        *options, last = arguments
        specs = [last]
        while options and not options[-1].startswith("--"):
            specs.insert(0, options.pop())
        busy = self._folder / BUSY
        busy.touch()
        command = ["fetch", "--progress", "--force", "--no-tags", "--no-write-fetch-head", *options]
        try:
            await self._ask([*command, "--end-of-options", str(self.url), *specs], lock, folder=self._folder)
        except Problem:
            await trio.to_thread.run_sync(clear, self._folder)
            raise
        await self._roll_up(lock)
        busy.unlink(missing_ok=True)

    async def _roll_up(self, lock: int) -> None:
        """Each fetch makes a pack: unite the small ones before they are so many that reading becomes slow."""
        packs = await trio.to_thread.run_sync(lambda: sum(1 for _ in self._folder.glob("objects/pack/*.pack")))
        if packs > _MAX_PACKS:
            try:
                await self._depot.git.run(["repack", "-q", "-d", "--geometric=2"], self._folder, Session(keep=(lock,)))
            except GitFailed as error:
                _log.warning("%s: its packs cannot be united: %s", self.url, error)

    async def _prepare(self, commit: str) -> None:
        """Have the bare repository there, whatever a killed process has left of it. The lock is held."""
        if not (self._folder / "HEAD").exists() or not (self._folder / "info" / "attributes").exists():
            kind = "sha256" if len(commit) == 64 else "sha1"
            self._folder.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            try:
                await self._run(["init", "--quiet", "--bare", f"--object-format={kind}"])
            except GitFailed as error:
                raise error.problem(f"the copy of {self.url}") from None
            attributes = self._folder / "info" / "attributes"
            attributes.parent.mkdir(exist_ok=True)
            attributes.write_text(_ATTRIBUTES)
        if (self._folder / BUSY).exists():
            await trio.to_thread.run_sync(clear, self._folder)

    async def _has(self, commit: str) -> bool:
        if commit in self._known and self._folder.is_dir():
            return True
        if not (self._folder / "HEAD").exists():
            self._known.clear()
            return False
        try:
            await self._run(["cat-file", "-e", f"{commit}^{{commit}}"])
        except GitFailed:
            return False
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known.add(commit)
        return True

    # reading

    async def expand(self, prefix: str) -> str:
        """The whole name of a commit in the copy that begins so; "" if there is none, or several."""
        try:
            data = await self._run(["rev-parse", "--verify", "--quiet", "--end-of-options", f"{prefix}^{{commit}}"])
        except GitFailed:
            return ""
        found = data.decode().strip()
        return found if found.startswith(prefix) else ""

    async def commit(self, commit: str) -> Commit:
        """What a commit that is in the copy says of itself."""
        arguments = ["log", "-n1", "--no-decorate", "--format=format:%H %ct", "--end-of-options", commit, "--"]
        return parse_commit(await self._local(arguments))

    async def entries(self, commit: str, *paths: str) -> dict[str, Entry]:
        """What is at these paths, of those where something is."""
        data = await self._local(["ls-tree", "-z", "-l", "--full-tree", commit, "--", *paths])
        return {entry.path: entry for entry in parse_tree(data)}

    async def files(self, commit: str, folder: str = "") -> list[Entry]:
        """All files, links and submodules in a folder, however deep."""
        below = ["--", f"{folder}/"] if folder else []
        data = await self._local(["ls-tree", "-r", "-z", "-l", "--full-tree", commit, *below], limit=_MAX_TREE)
        return parse_tree(data)

    async def read(self, entry: Entry, limit: int) -> bytes:
        """A file whole. Raises UpstreamFailed if it has more than `limit` bytes."""
        if entry.size > limit:
            raise UpstreamFailed(f"{self.url}: {entry.path} has {entry.size} bytes; at most {limit} are read")
        return await self._local(["cat-file", "blob", entry.object], limit=limit)

    async def archive(self, commit: str, folder: str, into: int) -> None:
        """Write a tar archive of a folder, "" for all, to a descriptor."""
        below = ["--", folder] if folder else []
        await self._local(["archive", "--format=tar", commit, *below], into=into)

    async def tags_before(self, commit: str) -> list[str]:
        """Tags of the commit and of all that it descends from, as far as they are in the copy."""
        data = await self._local(
            ["for-each-ref", "--format=%(refname)", f"--merged={commit}", TAGS], limit=_MAX_REFERENCES
        )
        return [line[len(TAGS) :] for line in data.decode("utf-8", "replace").splitlines()]

    async def descends(self, commit: str, ancestor: str) -> bool:
        """Whether a commit comes after another one, or is that."""
        try:
            await self._run(["merge-base", "--is-ancestor", ancestor, commit])
        except GitFailed as error:
            if error.code == 1:
                return False
            raise error.problem(str(self.url)) from None
        return True

    # git

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[int]:
        """Have the lock; what it gives is its descriptor, for git to hold as well. Cancelled: nothing is held.

        Raises what the server is in trouble with.
        """
        began = trio.current_time()
        async with self._lock:
            self._refuse_trouble(began)
            self._note_use()
            pause = _FIRST_PAUSE
            while True:
                lock, won = elect(self._lock_file)
                if won:
                    break
                os.close(lock)
                await trio.sleep(pause)
                pause = min(_LONGEST_PAUSE, pause * 1.5)
            try:
                yield lock
            finally:
                os.close(lock)

    def _refuse_trouble(self, began: float) -> None:
        """Raise what its server was in trouble with while we waited since `began`, or a moment before."""
        if self._trouble is not None:
            ended, problem = self._trouble
            if ended >= began or trio.current_time() - ended < _HELD:
                raise copy.copy(problem)

    async def _ask(self, arguments: Sequence[str], lock: int, *, folder: Path | None, limit: int = 1 << 20) -> bytes:
        """Run a git that talks to the server. Raises a Problem, and NotThatWay where something else may work."""
        depot = self._depot
        session = replace(await depot.session(self.url, self._named_by), network=True, keep=(lock,))
        started = time.perf_counter()
        try:
            return await depot.git.run(arguments, folder, session, limit=limit)
        except OSError as error:
            raise no_git(error) from None
        except GitFailed as error:
            _log.info("%s: git %s %s fails: %s", depot.name, arguments[0], self.url, error)
            problem = error.problem(str(self.url))
            if arguments[0] == "fetch" and error.cause in (Cause.NO_SUCH_REF, Cause.OTHER):
                raise NotThatWay(problem.message) from None
            if error.cause in (Cause.SILENT, Cause.UNREACHABLE, Cause.BUSY):
                self._trouble = trio.current_time(), copy.copy(problem)
            raise problem from None
        finally:
            _log.debug("%s: git %s %s: %.3f s", depot.name, arguments[0], self.url, time.perf_counter() - started)

    async def _run(self, arguments: Sequence[str], *, limit: int = 1 << 20, into: int | None = None) -> bytes:
        """Run a git that reads the copy. Raises GitFailed, and a Problem where none can be run."""
        try:
            return await self._depot.git.run(arguments, self._folder, limit=limit, into=into)
        except OSError as error:
            raise no_git(error) from None

    async def _local(self, arguments: Sequence[str], *, limit: int = 1 << 20, into: int | None = None) -> bytes:
        """The same. Raises a Problem."""
        try:
            return await self._run(arguments, limit=limit, into=into)
        except GitFailed as error:
            problem = error.problem(f"the copy of {self.url}")
            if isinstance(problem, StorageFull):
                raise problem from None
            if error.code == _DAMAGED:
                await self._discard()
            # Whatever it says: that a copy lacks something is no word of its server's.
            raise UpstreamFailed(f"the copy of {self.url} cannot be read: {error}") from None

    async def _discard(self) -> None:
        """Throw a copy away that cannot be read: the next one to want it fetches it anew. Not over and over."""
        now = trio.current_time()
        if now - self._discarded < _HEALED:
            return
        self._discarded = now
        with suppress(Problem):
            async with self._alone():
                self._known.clear()
                self._whole = ""
                await trio.to_thread.run_sync(throw_away, self._folder, self._depot.paths.scratch())

    def _note_use(self) -> None:
        now = self._depot.clock()
        if now - self._noted > _USED:
            self._noted = now
            with suppress(OSError):
                os.utime(self._references_file, (now, now))
