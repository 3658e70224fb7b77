"""Which tags and manifests of a package stay, by rules. Pure: from records to a plan with its reasons.

A tag stays if no rule names it, or if any rule that names it keeps it: as one of the newest, or as young.
A manifest stays for a tag that does, or because nothing points at it anyway and no rule lets it go for that.  What
these need stays with them: an index's manifests, and what was attached to a manifest that stays (signatures, lists of
contents).  All else goes: what went with its last tag, and what was there for that only.

Tags like `sha256-<hex>.sig` are attachments as well (distribution-spec, "Referrers Tag Schema"; cosign): they
stay and go with the manifest that they name, and count in no rule, as long as that is here.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from mxart.config import Retention
from mxart.patterns import PathPattern

DAY = 24 * 3600.0
_TOGETHER = 100  # tags in a bundle

_ATTACHED = re.compile(r"(sha256|sha512)-([0-9a-f]{64,128})(\..+)?\Z")


class Tag(Struct, frozen=True):
    """A tag; `created` is when it was pointed there, in seconds since the epoch."""

    name: str
    digest: str
    created: float


class Manifest(Struct, frozen=True):
    """A manifest, what it links (parts and manifests of its package) and what it is attached to ("": nothing)."""

    digest: str
    size: int
    created: float
    used: float  # when it was last pushed or pulled; 0.0: never since it came
    links: frozenset[str] = frozenset()
    subject: str = ""


class Package(Struct, frozen=True):
    """A package of a repository. `parts` are sizes, by digest, of what manifests link and what is no manifest."""

    name: str
    tags: Sequence[Tag]
    manifests: Sequence[Manifest]
    parts: Mapping[str, int]


class Going(Struct, frozen=True):
    """A tag, a manifest or a build that goes, and why."""

    what: Literal["tag", "manifest", "build"]
    name: str
    digest: str
    why: str


Note = Callable[[str, Going, int], None]
"""Told what goes: the package, what and why, and how many bytes come free; for what hangs together, with its first."""


class Bundle(Struct, frozen=True):
    """What hangs together and goes at once: tags, and manifests that nothing else needs.

    `freed` are sizes by digest.  `near`: what these manifests hold, of which some may stay for another reason.
    """

    tags: tuple[Tag, ...]
    manifests: tuple[Manifest, ...]
    going: tuple[Going, ...]
    freed: Mapping[str, int]
    near: frozenset[str] = frozenset()


def plan(package: Package, rules: Sequence[Retention], now: float) -> list[Bundle]:
    """What goes. Each bundle by itself leaves whole what stays, so it does not matter where this is broken off."""
    rules = [rule for rule in rules if PathPattern(rule.packages).matches(package.name)]
    if not rules:
        return []
    graph = _Graph(package)
    tags = _tags_that_go(graph.governed, rules, now)
    staying = {tag.digest for tag in graph.governed if tag.name not in tags}
    expired = {}
    for manifest in graph.needless():
        why = _why_untagged_goes(manifest, rules, now)
        if why:
            expired[manifest.digest] = why
        else:
            staying.add(manifest.digest)
    kept = graph.reach(staying)
    going = [manifest for manifest in package.manifests if manifest.digest not in kept]
    gone = {manifest.digest for manifest in going}
    for tag in graph.attachments:
        if (subject := attached_to(tag.name)) in gone:
            tags[tag.name] = f"attached to {_short(subject)}, which goes"
    return _bundles(graph, going, tags, expired)


class _Graph:
    """Who holds whom in a package."""

    def __init__(self, package: Package) -> None:
        self.package = package
        self.manifests = {manifest.digest: manifest for manifest in package.manifests}
        self.governed: list[Tag] = []  # by rules
        self.attachments: list[Tag] = []
        self.tags_of: dict[str, list[Tag]] = defaultdict(list)
        subjects: dict[str, set[str]] = defaultdict(set)
        for manifest in package.manifests:
            subjects[manifest.digest].add(manifest.subject)
        for tag in package.tags:
            self.tags_of[tag.digest].append(tag)
            subject = attached_to(tag.name)
            attached = subject in self.manifests and subject != tag.digest
            (self.attachments if attached else self.governed).append(tag)
            if attached:
                subjects[tag.digest].add(subject)
        self._holds: dict[str, set[str]] = defaultdict(set)
        for manifest in package.manifests:
            mine = subjects[manifest.digest] - {manifest.digest}
            self._holds[manifest.digest] |= (manifest.links & self.manifests.keys()) - {manifest.digest}
            for subject in mine & self.manifests.keys():
                self._holds[subject].add(manifest.digest)
        self._subjects = subjects

    def holds(self, digest: str) -> set[str]:
        """Manifests that stay as long as this one does."""
        return self._holds.get(digest, set())

    def is_attached(self, digest: str) -> bool:
        """Whether it is attached to a manifest that is here."""
        return bool(self._subjects[digest] & self.manifests.keys() - {digest})

    def reach(self, roots: Iterable[str]) -> set[str]:
        """These, all that they hold, and so on."""
        found: set[str] = set()
        left = [digest for digest in roots if digest in self.manifests]
        while left:
            digest = left.pop()
            if digest not in found:
                found.add(digest)
                left += self.holds(digest) - found
        return found

    def needless(self) -> list[Manifest]:
        """Manifests that nothing points at: no tag that rules are about, and no other manifest."""
        tagged = {tag.digest for tag in self.governed}
        held = set().union(*self._holds.values())
        tops = {digest for digest in self.manifests if digest not in tagged and digest not in held}
        # An index that is attached to what it links: each holds the other, and nothing else does.
        round_about = self.manifests.keys() - self.reach(tagged | tops)
        return [manifest for digest, manifest in self.manifests.items() if digest in tops or digest in round_about]


def _tags_that_go(tags: Sequence[Tag], rules: Sequence[Retention], now: float) -> dict[str, str]:
    """Why, by name."""
    reasons: dict[str, list[str]] = defaultdict(list)
    kept: set[str] = set()
    for rule in rules:
        if rule.keep is None and rule.days is None:
            continue
        patterns = [PathPattern(text) for text in rule.patterns]
        named = [tag for tag in tags if any(pattern.matches(tag.name) for pattern in patterns)]
        named.sort(key=lambda tag: (-tag.created, tag.name))
        for rank, tag in enumerate(named):
            newest = rule.keep is not None and rank < rule.keep
            young = rule.days is not None and tag.created > now - rule.days * DAY
            if newest or young:
                kept.add(tag.name)
            else:
                reasons[tag.name].append(why_not_kept(rule))
    return {name: "; ".join(dict.fromkeys(why)) for name, why in reasons.items() if name not in kept}


def why_not_kept(rule: Retention) -> str:
    """What a rule says of what it names and does not keep."""
    parts = []
    if rule.keep is not None:
        parts.append(f"not one of the newest {rule.keep}" if rule.keep else "none is kept")
    if rule.days is not None:
        parts.append(f"older than {rule.days:g} days")
    return f"{', and '.join(parts)} ({', '.join(rule.patterns)})"


def _why_untagged_goes(manifest: Manifest, rules: Sequence[Retention], now: float) -> str:
    days = [rule.untagged_days for rule in rules if rule.untagged_days is not None]
    if not days or max(manifest.created, manifest.used) > now - max(days) * DAY:
        return ""
    return f"nothing points at it, and nobody pushed or pulled it for {max(days):g} days"


def _bundles(
    graph: _Graph, going: Sequence[Manifest], tags: Mapping[str, str], expired: Mapping[str, str]
) -> list[Bundle]:
    gone = {manifest.digest for manifest in going}
    holders = {held: digest for digest in sorted(gone, reverse=True) for held in graph.holds(digest)}
    linkers: Counter[str] = Counter()
    for manifest in graph.package.manifests:
        linkers.update(manifest.links)
    bundles = []
    for group in _groups(graph, going):
        freed: dict[str, int] = {}
        reasons = []
        mine = [tag for manifest in group for tag in graph.tags_of[manifest.digest]]
        # A bundle goes in one transaction: where there are very many tags, most go before it, by themselves.
        bundles += [_alone(tag, tags) for tag in mine[_TOGETHER:]]
        del mine[_TOGETHER:]
        reasons += [Going("tag", tag.name, tag.digest, tags[tag.name]) for tag in mine]
        for manifest in group:
            why = _why_manifest_goes(graph, manifest, holders.get(manifest.digest, ""), expired)
            reasons.append(Going("manifest", manifest.digest, manifest.digest, why))
            freed[manifest.digest] = manifest.size
            linkers.subtract(manifest.links)
        parts = {link for manifest in group for link in manifest.links} - graph.manifests.keys()
        freed.update((part, graph.package.parts.get(part, 0)) for part in sorted(parts) if linkers[part] <= 0)
        near = frozenset().union(*(graph.holds(manifest.digest) for manifest in group))
        bundles.append(Bundle(tuple(mine), tuple(group), tuple(reasons), freed, near))
    alone = [tag for tag in graph.package.tags if tag.name in tags and tag.digest not in gone]
    return bundles + [_alone(tag, tags) for tag in alone]


def _alone(tag: Tag, why: Mapping[str, str]) -> Bundle:
    return Bundle((tag,), (), (Going("tag", tag.name, tag.digest, why[tag.name]),), {})


def _why_manifest_goes(graph: _Graph, manifest: Manifest, holder: str, expired: Mapping[str, str]) -> str:
    if manifest.digest in expired:
        return expired[manifest.digest]
    if holder and graph.is_attached(manifest.digest) and manifest.digest not in graph.manifests[holder].links:
        return f"attached to {_short(holder)}, which goes"
    if graph.tags_of[manifest.digest]:
        return "its tags go"
    return f"only {_short(holder)} needed it, which goes"


def _groups(graph: _Graph, going: Sequence[Manifest]) -> list[list[Manifest]]:
    """What hangs together, whoever holds whom."""
    near: dict[str, set[str]] = defaultdict(set)
    gone = {manifest.digest: manifest for manifest in going}
    for digest in gone:
        for held in graph.holds(digest) & gone.keys():
            near[digest].add(held)
            near[held].add(digest)
    seen: set[str] = set()
    groups = []
    for digest in gone:
        group: list[Manifest] = []
        left = [digest]
        while left:
            one = left.pop()
            if one not in seen:
                seen.add(one)
                group.append(gone[one])
                left += near[one] - seen
        if group:
            groups.append(group)
    return groups


def attached_to(tag: str) -> str:
    """The digest of the manifest that a tag's name says it is attached to; "" if it says nothing like that."""
    match = _ATTACHED.match(tag)
    return f"{match[1]}:{match[2]}" if match is not None else ""


def _short(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    return f"{algorithm}:{value[:12]}"
