"""The kind `group`: several repositories under one name, nested to any depth.

A package that a member owns, because it is published there, is asked of its owners only: no upstream
can put its own bytes under a name of the team's.  For any other package the members are asked in
order and the first that has it answers; the other files of the same version then come from there, whatever an earlier
member has by then (Format.together).  "Not found" is said only if every member said so.

What is pushed to a group goes to its `publish_to`, and so do deletions, to the first one that they suit where there are
several; the rights that count are those on that repository.  Two things follow for reading:

- Who signs an image of an upstream's, or attaches an SBOM to it (cosign, oras), pushes to the same name.  That must not
  take the image itself away from everybody who pulls it by the group.  So a remark on what others hold makes nobody
  the owner of a package (Repository.owns): the image comes from its upstream, what refers to it from all members.
- Who pushes a package asks first, by HEAD, what is there already, and leaves out what he is told is there.  It must be
  there for `publish_to`: that alone is asked for blobs by whoever may publish.  And while that repository holds
  parts of a package and nothing whole, no upstream that refuses the name because it does not know it
  (most do), or is down or offline, is in its publisher's way: it counts as one that has nothing.

A caller's credentials are for one upstream, and nobody can tell from them for which.  So a group has one site: that of
its first member that relays credentials.  Only members of that site are shown them, and only their challenges are
passed on; another's is a failure of that member.  A login that is wanted hides no other member's copy, but comes
before a failure of another member: it is what the client can do something about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from msgspec.structs import replace

from mxart.access.base import ANYBODY
from mxart.errors import ConfigError, NotFound, Problem, Unauthorized, UpstreamFailed
from mxart.message import Trace
from mxart.repos.base import Format, Repository
from mxart.repos.callers import NOBODY, Caller
from mxart.repos.merging import Merging
from mxart.repos.operations import (
    Artifact,
    Blob,
    Descriptor,
    Directory,
    Document,
    Entry,
    File,
    Found,
    Index,
    Indexed,
    Listed,
    Listing,
    Read,
    Referred,
    Referrers,
)
from mxart.repos.publishing import Publisher
from mxart.repos.referring import cut
from mxart.repos.roles import having
from mxart.repos.seen import packages_seen


def building_order(groups: Mapping[str, Sequence[str]], others: Iterable[str]) -> tuple[str, ...]:
    """The groups in an order in which each comes after the groups among its members.

    Raises ConfigError, naming the chain, for a group that contains itself, and for an unknown member.
    """
    done: dict[str, None] = {}
    known = {*groups, *others}

    def visit(name: str, chain: tuple[str, ...]) -> None:
        if name in chain:
            raise ConfigError("members go round: " + " → ".join((*chain[chain.index(name) :], name)))
        if name not in known:
            raise ConfigError(f"there is no repository {name}, a member in " + " → ".join((*chain, name)))
        if name in groups and name not in done:
            for member in groups[name]:
                visit(member, (*chain, name))
            done[name] = None

    for name in groups:
        visit(name, ())
    return tuple(done)


class Group:
    """A repository made of others, in order. `publish_to` names the members that take what is pushed, if any do."""

    def __init__(
        self,
        name: str,
        format: Format,  # noqa: A002 the word of the house
        members: Sequence[Repository],
        publish_to: str | Sequence[str] = (),
    ) -> None:
        if not members:
            raise ConfigError(f"group {name} has no members")
        self.name = name
        self.format = format
        self._members = tuple(members)
        by_name = {member.name: member for member in members}
        wanted = (publish_to,) if isinstance(publish_to, str) and publish_to else tuple(publish_to)
        for target in wanted:
            if target not in by_name or not by_name[target].publishers():
                raise ConfigError(f"group {name} cannot publish to {target}: name a local member")
        self._targets = tuple(by_name[target] for target in wanted)
        self._merging = Merging(name, format.indexing) if format.indexing is not None else None
        self.site = next((member.site for member in members if member.site), "")
        _refuse_cycle(self, ())

    @property
    def members(self) -> tuple[Repository, ...]:
        """In the order in which they are asked."""
        return self._members

    def owns(self, package: str) -> bool:
        return any(member.owns(package) for member in self._members)

    @property
    def reaches(self) -> bool:
        return any(member.reaches for member in self._members)

    def keeps(self, paths: Sequence[str]) -> bool:
        return any(member.keeps(paths) for member in self._members)

    def begun(self, package: str) -> bool:
        return any(member.begun(package) for member in self._members)

    def publishers(self) -> Sequence[Publisher]:
        return [publisher for target in self._targets for publisher in target.publishers()]

    def _publishing(self, package: str, caller: Caller) -> list[Repository]:
        """Where this caller may publish the package by this group, if anywhere."""
        may = caller.grants.may
        return [
            target
            for target in self._targets
            if any(may("publish", publisher.name, package) for publisher in target.publishers())
        ]

    def candidates(self, operation: Read, caller: Caller) -> Sequence[Repository]:
        """Who may be asked, in order.

        Raises Unauthorized or Forbidden where the caller may ask nobody; so is an owned name, which then is asked
        nowhere else.
        """
        asked = self._asked(operation, caller)
        grants = caller.grants
        if grants is ANYBODY:
            return asked
        # In the names of each member: that is what its rules are about.
        named = [(member, member.format.adopt(operation).package) for member in asked]
        readable = [member for member, name in named if grants.may("read", member.name, name)]
        if not readable:
            grants.demand("read", named[0][0].name, named[0][1])
        return readable

    def _pushes(self, package: str, caller: Caller) -> bool:
        """Whether the caller, for all we know, is about to push the first version of a package."""
        return any(target.begun(package) for target in self._publishing(package, caller))

    def _asked(self, operation: Read, caller: Caller) -> Sequence[Repository]:
        """Whose word counts, whether the caller may hear it or not."""
        package = operation.package
        head = isinstance(operation, Blob) and operation.head
        if head and (targets := self._publishing(package, caller)):
            return targets
        return [member for member in self._members if member.owns(package)] or self._keeper(operation) or self._members

    def _keeper(self, operation: Read) -> Sequence[Repository]:
        """The first member that has given out a part of the same version, if any has: the rest comes from there too."""
        if not isinstance(operation, Document | Artifact) or len(self._members) == 1:
            return ()
        paths = self.format.together(operation)
        keeper = next((member for member in self._members if paths and member.keeps(paths)), None)
        return (keeper,) if keeper is not None else ()

    def _as(self, member: Repository, caller: Caller) -> Caller:
        """What a member is shown of a caller."""
        return caller if member.site and member.site == self.site else caller.unshown()

    def _told(self, member: Repository, problem: Problem) -> Problem:
        """A member's problem as the group's: nobody logs in at one member to have another get his credentials."""
        if isinstance(problem, Unauthorized) and member.site != self.site:
            return UpstreamFailed(f"{problem.message} (a login for {member.name} is not taken here)")
        return problem

    async def admit(self, caller: Caller, trace: Trace) -> None:
        for member in self._members:
            if member.site and member.site == self.site:
                await member.admit(caller, trace)

    async def file(self, operation: File, trace: Trace, caller: Caller = NOBODY) -> Found:
        if isinstance(operation, Document) and operation.chosen:
            return await self._best(operation, trace, caller)
        absent: NotFound | None = None
        failure: Problem | None = None
        for member in self.candidates(operation, caller):
            try:
                return await member.file(operation, trace, self._as(member, caller))
            except NotFound as problem:
                absent = _closer(absent, problem, operation.subject)
                trace.decided("%s: not in member %s", operation.path, member.name)
            except Problem as problem:
                if member not in self._targets and self._pushes(operation.package, caller):
                    absent = absent or NotFound(f"{operation.path} is not here yet", subject=operation.subject)
                else:
                    failure = _first(failure, self._told(member, problem))
                trace.decided("%s: member %s fails: %s", operation.path, member.name, problem.message)
                trace.notes.append(f"{member.name}: {problem.message}")
        if failure is not None:
            self._ask_for_login(operation, caller)
            raise failure
        assert absent is not None, "a group has members"
        raise absent

    async def _best(self, document: Document, trace: Trace, caller: Caller) -> Found:
        """Of all members' answers the best one. One member that fails fails it all, as with lists."""
        candidates = self.candidates(document, caller)
        if len(candidates) > 1 and all(member.owns(document.package) for member in candidates):
            return await self._best_owned(document, trace, caller)
        found: list[Found] = []
        absent: NotFound | None = None
        outcomes: set[str] = set()
        for member in candidates:
            try:
                found.append(await member.file(document, trace, self._as(member, caller)))
            except NotFound as problem:
                absent = _closer(absent, problem, document.subject)
                continue
            except Problem as problem:
                raise self._told(member, problem) from None
            outcomes.add(trace.outcome)
        if not found:
            assert absent is not None, "a group has members"
            raise absent
        trace.outcome = _foremost(outcomes, trace)
        answers = [one.content for one in found if isinstance(one.content, bytes)]
        assert len(answers) == len(found), "a document's content is bytes"
        return found[having(self.format.choosing).choose(document, answers)]

    async def _best_owned(self, document: Document, trace: Trace, caller: Caller) -> Found:
        """Of what several members have published: one's newest version says what counts of another's, too."""
        choosing = having(self.format.choosing)
        versions = (await self.listing(choosing.listing(document), trace, caller)).names
        guide = choosing.guide(document, versions)
        if guide is None:
            raise NotFound(f"{self.name} has no version of {document.package}", subject=document.subject)
        said = (await self.file(guide, trace, caller)).content
        assert isinstance(said, bytes), "a document's content is bytes"
        return await self.file(choosing.best(document, versions, said), trace, caller)

    def _ask_for_login(self, operation: File, caller: Caller) -> None:
        """Before nobody in particular is told of a failure, by HEAD: raise Unauthorized where a login may help.

        It is none to whoever may publish the package (see above), and some clients show what they have only when they
        are asked: containerd.  Whoever shows a token, nobody's own too, is told the failure.
        """
        nobody = not caller.name and not caller.authorization and not caller.grants.delegated
        if operation.head and nobody and (publishers := self.publishers()):
            caller.grants.demand("publish", publishers[0].name, operation.package)

    async def index(self, operation: Index, trace: Trace, caller: Caller = NOBODY) -> Indexed:
        candidates = self.candidates(operation, caller)
        if len(candidates) == 1:
            return await self._index_of(candidates[0], operation, caller, trace)
        asks = [partial(self._index_of, member, operation, caller) for member in candidates]
        # Whoever may have to wait for an upstream is not waited for by others that may have to.
        at_once = sum(member.reaches for member in candidates) > 1
        return await having(self._merging).index(operation, asks, trace, at_once=at_once)

    async def _index_of(self, member: Repository, operation: Index, caller: Caller, trace: Trace) -> Indexed:
        try:
            return await member.index(operation, trace, self._as(member, caller))
        except NotFound:
            trace.decided("%s: not in member %s", operation.path, member.name)
            raise
        except Problem as problem:
            trace.notes.append(f"{member.name}: {problem.message}")
            raise self._told(member, problem) from None

    async def directory(self, operation: Directory, trace: Trace, caller: Caller = NOBODY) -> Sequence[Entry]:
        """The union, the first member's word first."""
        below = replace(operation, through=(*operation.through, self.name))
        found: dict[str, Entry] = {}
        absent: NotFound | None = None
        there = False
        for member in self._asked(operation, caller):
            try:
                for entry in await member.directory(below, trace, self._as(member, caller)):
                    found.setdefault(entry.name, entry)
                there = True
            except NotFound as problem:
                absent = absent or problem
        if absent is not None and not there:
            raise absent
        return [found[name] for name in sorted(found)]

    async def listing(self, operation: Listing, trace: Trace, caller: Caller = NOBODY) -> Listed:
        """The union. One member that fails without an old list to show fails it all: never silently short."""
        if operation.of == "packages":
            candidates: Sequence[Repository] = self._members
        else:
            candidates = self.candidates(operation, caller)
        names: set[str] = set()
        found = more = False
        warning = ""
        absent: NotFound | None = None
        outcomes: set[str] = set()
        for member in candidates:
            try:
                shown = self._as(member, caller)
                if operation.of == "packages":
                    part = await packages_seen(member, operation, trace, shown)
                else:
                    part = await member.listing(operation, trace, shown)
            except NotFound as problem:
                absent = _closer(absent, problem, operation.subject)
                continue
            except Problem as problem:
                raise self._told(member, problem) from None
            found = True
            names.update(part.names)
            more = more or part.more
            warning = warning or part.warning
            outcomes.add(trace.outcome)
        if not found:
            assert absent is not None, "a group has members"
            raise absent
        trace.outcome = _foremost(outcomes, trace)
        merged = sorted(names)
        if operation.limit is not None and len(merged) > operation.limit:
            return Listed(merged[: operation.limit], more=True, warning=warning)
        # Each member gave its first names after the mark, so this many of the union are right.
        return Listed(merged, more=more, warning=warning)

    async def referrers(self, operation: Referrers, trace: Trace, caller: Caller = NOBODY) -> Referred:
        """The union by digest, the first member's word first. One member that fails fails it all, as with lists."""
        found: list[Descriptor] = []
        ends: list[str] = []  # behind each of these a member has more that it has not told
        warning = ""
        absent: NotFound | None = None
        outcomes: set[str] = set()
        for member in self.candidates(operation, caller):
            try:
                part = await member.referrers(operation, trace, self._as(member, caller))
            except NotFound as problem:
                absent = absent or problem
                continue
            except Problem as problem:
                raise self._told(member, problem) from None
            found += part.descriptors
            if part.more and part.descriptors:
                ends.append(str(part.descriptors[-1].digest))
            warning = warning or part.warning
            outcomes.add(trace.outcome)
        if not outcomes:
            assert absent is not None, "a group has members"
            raise absent
        trace.outcome = _foremost(outcomes, trace)
        known = [item for item in found if not ends or str(item.digest) <= min(ends)]
        page = cut(known, operation, warning)
        return page if page.more or not ends else Referred(page.descriptors, more=True, warning=warning)


def _foremost(outcomes: set[str], trace: Trace) -> str:
    """What to tell of several members' outcomes: the one that took longest."""
    return next((outcome for outcome in ("stale", "miss", "joined") if outcome in outcomes), trace.outcome)


def _closer(seen: NotFound | None, new: NotFound, subject: str) -> NotFound:
    """The refusal that says most: one about the thing itself rather than about its package."""
    if seen is None:
        return new
    # Upstream's own refusal has no subject: it is about what was asked for.
    return new if seen.subject not in ("", subject) and new.subject in ("", subject) else seen


def _first(seen: Problem | None, new: Problem) -> Problem:
    """The failure to tell: the first one, but a login that is wanted before anything else."""
    return new if seen is None or (isinstance(new, Unauthorized) and not isinstance(seen, Unauthorized)) else seen


def _refuse_cycle(repository: Repository, chain: tuple[str, ...]) -> None:
    if repository.name in chain:
        raise ConfigError("members go round: " + " → ".join((*chain[chain.index(repository.name) :], repository.name)))
    if isinstance(repository, Group):
        for member in repository.members:
            _refuse_cycle(member, (*chain, repository.name))
