"""One module in a repository: its versions, and the files of a version, as the go command would have them from there.

What a tag or a commit is, as a version, follows the go command's own rules to the letter (`cmd/go`, coderepo), or a
module would have other checksums here than where it is fetched directly.  How the words of these rules are read is in
repos.go.commits, which is pure; here the repository is asked.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import BinaryIO

import trio
from msgspec import Struct

from mxart.errors import NotFound, Problem, StorageFull, UpstreamFailed
from mxart.git.clones import Clone
from mxart.git.references import TAGS, References
from mxart.git.trees import Commit
from mxart.repos.go import gomod, packing
from mxart.repos.go.commits import (
    INCOMPATIBLE,
    SHORT,
    Place,
    base_of,
    guide,
    is_major,
    newest_of_majors,
    pseudo,
    same,
    tagged,
)
from mxart.repos.go.paths import shown
from mxart.repos.go.versions import canonical, is_pseudo, is_version, latest, major, order, pseudo_revision, pseudo_time
from mxart.repos.go.zips import MAX_SMALL, MAX_ZIP
from mxart.repos.vcs.revisions import Pin, Revision

_MAX_ARCHIVE = 4 << 30  # bytes of a folder, with the modules in it that are others
_HASH = re.compile(r"[0-9a-f]{7,64}\Z")
_Retracted = Callable[[str], bool]


class _Located(Struct, frozen=True):
    """Where a commit has the module, and its go.mod, None if it has none."""

    folder: str
    mod: bytes | None


class Module:
    """One module in the copy of its repository. Methods raise NotFound for what cannot be a version of it.

    `max_age`: how old, in seconds, branches and tags may be.  `packers`: how many zips are packed at once.
    """

    def __init__(self, place: Place, clone: Clone, max_age: float, packers: trio.CapacityLimiter) -> None:
        self._place = place
        self._clone = clone
        self._max_age = max_age
        self._packers = packers

    @property
    def where(self) -> str:
        """The repository, for messages."""
        return str(self._clone.url)

    # versions

    async def versions(self) -> list[str]:
        """Those that are tagged, in order, without those of commits."""
        references = await self._references()
        found = tagged(self._place, references.tags())
        own = list(found.own)
        if not found.foreign or (own and await self._has_mod(references, own[-1])):
            return own
        # Whoever writes go.mods means to name other major versions in the path.
        bare = [
            number
            for number, newest in newest_of_majors(found.foreign).items()
            if not await self._has_mod(references, newest)
        ]
        return own + [version + INCOMPATIBLE for version in found.foreign if major(version) in bare]

    async def _has_mod(self, references: References, version: str) -> bool:
        name = TAGS + self._place.tag(version)
        commit = references.commits[name]
        await self._clone.obtain(commit, name)
        return bool(await self._clone.entries(commit, "go.mod"))

    async def latest(self) -> Revision:
        """The newest release that was not retracted, else a pre-release, else the newest commit."""
        versions = await self.versions()
        if not versions:
            return await self.find("HEAD")
        retracted = await self._retracted(await self._references())
        best = latest(version for version in versions if not retracted(version)) or latest(versions)
        return await self.find(best)

    async def _retracted(self, references: References) -> _Retracted:
        newest = guide(tagged(self._place, references.tags()).own)
        if not newest:
            return lambda version: False
        name = TAGS + self._place.tag(newest)
        commit = references.commits[name]
        try:
            await self._clone.obtain(commit, name)
            said = gomod.read((await self._locate(commit, newest)).mod or b"")
        except (NotFound, ValueError):
            return lambda version: False
        return said.retracts

    async def find(self, query: str) -> Revision:
        """What a version, a tag, a branch or a commit stands for."""
        if is_pseudo(query):
            return await self._find_pseudo(query)
        references = await self._references()
        if canonical(query) == query:
            return await self._find_tagged(query, references)
        return await self._find_other(query, references)

    async def _find_tagged(self, version: str, references: References) -> Revision:
        tag = self._place.tag(version)
        commit = references.commits.get(TAGS + tag)
        if commit is None:
            raise self._none(version, f"{self.where} has no tag {tag}")
        await self._clone.obtain(commit, TAGS + tag)
        found = await self._checked(version, commit, version)
        return Revision(found, await self._clone.commit(commit), TAGS + tag)

    async def _find_other(self, query: str, references: References) -> Revision:
        asked = self._place.prefix + query if is_version(query) else query
        commit, name = await self._resolve(query, asked, references)
        await self._clone.obtain(commit, name)
        told = await self._clone.commit(commit)
        tags = [tag for tag, target in references.tags().items() if target == commit]
        retracted = await self._retracted(references)
        if name == TAGS + asked and self._place.version(asked)[1]:
            try:
                return Revision(await self._checked(self._place.version(asked)[0], commit, query), told, name)
            except NotFound:
                pass  # the tag is not that of a version, but the commit may have one
        best = base = ""
        for tag in tags:
            version, exact = self._place.version(tag)
            if not version:
                continue
            if same(version, query):
                if exact:
                    return Revision(await self._checked(version, commit, query), told, TAGS + tag)
                base = version
            if (
                exact
                and not retracted(version)
                and (not best or order(best) < order(version))
                and await self._allows(commit, version, query)
            ):
                best = version
        if best:
            tag = TAGS + self._place.tag(best)
            return Revision(await self._checked(best, commit, query), told, tag)
        base = base or await self._base(commit, query, references, retracted)
        version = pseudo(self._place.major[1:].removesuffix("-unstable"), base, told.seconds, commit)
        return Revision(await self._checked(version, commit, query), told, name)

    async def _resolve(self, query: str, asked: str, references: References) -> tuple[str, str]:
        """A commit, and the tag or branch that means it."""
        if (named := references.named(asked)) is not None:
            return named[1], named[0]
        if _HASH.match(query):
            known = {commit: name for name, commit in references.commits.items() if commit.startswith(query)}
            if len(known) > 1:
                raise self._none(query, f"several commits of {self.where} begin so")
            if known:
                return next(iter(known.items()))
            await self._clone.history(references)
            if commit := await self._clone.expand(query):
                return commit, ""
        raise self._none(query, f"{self.where} has no tag, branch or commit {shown(query)}")

    async def _base(self, commit: str, query: str, references: References, retracted: _Retracted) -> str:
        """The newest version that a commit comes after; "" if there is none."""
        if not any(self._place.version(tag)[0] for tag in references.tags()):
            return ""
        await self._clone.history(references)
        best = ""
        for tag in await self._clone.tags_before(commit):
            version, _ = self._place.version(tag)
            if (
                version
                and tag in references.tags()
                and not retracted(version)
                and (not best or order(best) < order(version))
                and await self._allows(commit, version, query)
            ):
                best = version
        return best

    async def _find_pseudo(self, version: str) -> Revision:
        references = await self._references()
        revision = pseudo_revision(version)
        if not _HASH.match(revision):
            raise self._none(version, f"{shown(revision)} is no commit of git's")
        commit, name = await self._resolve(revision, revision, references)
        await self._clone.obtain(commit, name)
        told = await self._clone.commit(commit)
        found = await self._checked(version, commit, version)
        await self._validate(version, told, references)
        return Revision(found, told, name)

    async def _validate(self, version: str, commit: Commit, references: References) -> None:
        """Raise NotFound if a version of a commit is not one that it may have: each has few (`go help modules`)."""
        if pseudo_revision(version) != commit.name[:SHORT]:
            raise self._none(version, f"its commit is written {commit.name[:SHORT]}")
        moment = time.strftime("%Y%m%d%H%M%S", time.gmtime(commit.seconds))
        if pseudo_time(version) != moment:
            raise self._none(version, f"its commit was made at {moment}")
        try:
            base = base_of(version.removesuffix(INCOMPATIBLE))
        except ValueError as error:
            raise self._none(version, str(error)) from None
        if not base:
            if not self._place.major and major(version) == "v1":
                raise self._none(version, "without a version before it, it begins with v0")
            return
        tags = references.tags()
        if tags.get(self._place.prefix + base) == commit.name:
            raise self._none(version, f"its commit is {base} itself")
        before = [
            tag for tag in tags if tag.startswith(self._place.prefix) and same(tag[len(self._place.prefix) :], base)
        ]
        if not before:
            raise self._none(version, f"there is no {base} before it")
        await self._clone.history(references)
        for tag in before:
            if await self._clone.descends(commit.name, tags[tag]):
                return
        raise self._none(version, f"its commit does not come after {base}")

    # rules

    async def _checked(self, version: str, commit: str, asked: str) -> str:
        """The version, with +incompatible where that belongs. Raises NotFound if the commit cannot be that."""
        await self._locate(commit, version)
        if version == asked.removesuffix(INCOMPATIBLE):
            version = asked
        base = version.removesuffix(INCOMPATIBLE)
        if not self._place.fits(base):
            if not await self._may_be_incompatible(commit, base, asked):
                right = f"its path would have to end with /{major(base)}"
                why = (
                    "from v2 on the path tells the major version"
                    if self._place.major
                    else f"there is a go.mod: {right}"
                )
                raise self._none(version, why)
            version = base + INCOMPATIBLE
        elif version.endswith(INCOMPATIBLE):
            raise self._none(version, f"{major(base)} of it is never {INCOMPATIBLE}")
        if canonical(asked) == asked and asked.removesuffix(INCOMPATIBLE) != base:
            raise self._none(asked, f"it is {version}, and no tag")
        return version

    async def _allows(self, commit: str, version: str, asked: str) -> bool:
        return self._place.fits(version) or await self._may_be_incompatible(commit, version, asked)

    async def _may_be_incompatible(self, commit: str, version: str, asked: str) -> bool:
        if self._place.folder or self._place.major:
            return False
        second = f"{major(version)}/go.mod"
        found = await self._clone.entries(commit, "go.mod", second)
        return "go.mod" not in found and (asked.endswith(INCOMPATIBLE) or second not in found)

    async def _locate(self, commit: str, version: str) -> _Located:
        """Where the module is: one go.mod that declares the right major version. Raises NotFound."""
        place = self._place
        first = f"{place.prefix}go.mod"
        second = f"{place.second}/go.mod" if place.second else ""
        mods: dict[str, bytes] = {}
        for path, entry in (await self._clone.entries(commit, *filter(None, (first, second)))).items():
            if entry.is_blob:
                mods[path] = await self._clone.read(entry, MAX_SMALL)
        declared = {path: _declares(data) for path, data in mods.items()}
        fits = {path: is_major(module, place) for path, module in declared.items()}
        if second in mods and place.major:
            if fits[second] and not fits.get(first):
                return _Located(place.second, mods[second])
            why = f"both {first} and {second} are its go.mod" if fits[second] else self._says(second, declared)
            raise self._none(version, f"at {commit[:SHORT]} {why}")
        if fits.get(first):
            return _Located(place.folder, mods[first])
        if first in mods:
            raise self._none(version, f"at {commit[:SHORT]} {self._says(first, declared)}")
        if place.may_lack_mod:
            return _Located("", None)
        wanted = f"neither {first} nor {second}" if second else f"no {first}"
        raise self._none(version, f"at {commit[:SHORT]} {self.where} has {wanted}")

    def _says(self, path: str, declared: dict[str, str]) -> str:
        return f"{path} is that of {shown(declared[path])}" if declared[path] else f"{path} names no module"

    # files

    async def pinned(self, version: str, pin: Pin) -> Revision:
        """A version as it was first told. Raises UpstreamFailed where the server no longer has that."""
        await self._clone.obtain(pin.commit, pin.name, by_hash=True)
        return Revision(version, await self._clone.commit(pin.commit), pin.name)

    async def mod(self, revision: Revision) -> bytes:
        """The go.mod, or the one that stands for none."""
        found = await self._locate(revision.commit.name, revision.version)
        return f"module {self._place.module}\n".encode() if found.mod is None else found.mod

    async def zip(self, revision: Revision, out: BinaryIO, scratch: BinaryIO) -> None:
        """Write the zip of a version. `scratch` is an empty file for what is on the way.

        Raises UpstreamFailed for what makes no module, StorageFull.
        """
        commit = revision.commit.name
        located = await self._locate(commit, revision.version)
        folder = f"{located.folder}/" if located.folder else ""
        entries = await self._clone.files(commit, located.folder)
        if (everything := sum(entry.size for entry in entries)) > _MAX_ARCHIVE:
            raise self._bad(revision, f"{everything} bytes lie in its folder, of which at most {_MAX_ARCHIVE} are read")
        names = [entry.path[len(folder) :] for entry in entries if entry.is_file]
        chosen = packing.select(names, gomod.read(located.mod or b""))
        wanted = set(chosen)
        total = sum(entry.size for entry in entries if entry.path[len(folder) :] in wanted)
        if total > MAX_ZIP:
            raise self._bad(revision, f"it has {total} bytes; a module has at most {MAX_ZIP}")
        more: dict[str, bytes] = {}
        if folder and all(entry.path != f"{folder}LICENSE" for entry in entries):
            root = (await self._clone.entries(commit, "LICENSE")).get("LICENSE")
            if root is not None and root.is_blob and root.size <= MAX_SMALL:
                more["LICENSE"] = await self._clone.read(root, MAX_SMALL)
        await self._clone.archive(commit, located.folder, scratch.fileno())
        prefix = f"{self._place.module}@{revision.version}/"
        pack = partial(_pack, scratch, located.folder, chosen, more, prefix, out)
        try:
            await trio.to_thread.run_sync(pack, limiter=self._packers)
        except ValueError as error:
            raise self._bad(revision, str(error)) from None
        except OSError as error:
            raise StorageFull(f"{self._place.module}@{revision.version} cannot be packed: {error.strerror}") from None

    def _bad(self, revision: Revision, why: str) -> Problem:
        return UpstreamFailed(f"{self._place.module}@{revision.version} makes no module: {why}", subject="zip")

    async def _references(self) -> References:
        return await self._clone.references(self._max_age)

    def _none(self, version: str, why: str) -> NotFound:
        return NotFound(f"there is no version {shown(version)} of {self._place.module}: {why}", subject="version")


def _declares(mod: bytes) -> str:
    try:
        return gomod.read(mod).module
    except ValueError:
        return ""


def _pack(
    scratch: BinaryIO, folder: str, names: Sequence[str], more: dict[str, bytes], prefix: str, out: BinaryIO
) -> None:
    scratch.seek(0)
    packing.pack_archive(scratch, folder, names, more, prefix, out)
    out.flush()
    out.seek(0, os.SEEK_SET)
