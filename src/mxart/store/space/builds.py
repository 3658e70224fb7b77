"""Which builds of a version that moves stay, by rules. Pure: from files to those that go, with the reasons.

A version like `1.0-SNAPSHOT` is built over and over, and each build brings files of several kinds: the jar, its
sources, the POM.  A rule counts the builds of each kind by itself, for not every build has all of them; so whatever a
client asks for stays there as long as one of the newest has it.  A build stays if no rule names it, or if any rule that
names it keeps it: as one of the newest, or as young.  Files that belong to no build are of no concern here.

A build whose deploy is under way, or was broken off, counts as none of the newest, and does not go for that.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from mxart.config import Retention
from mxart.patterns import PathPattern
from mxart.store.space.retention import DAY, Going, why_not_kept


class File(Struct, frozen=True):
    """A file of a package; `created` is when it came, in seconds since the epoch."""

    path: str
    digest: str
    size: int
    created: float


class Build(Struct, frozen=True):
    """The files of one kind that a build of a version brought: a file, and what signs it."""

    version: str
    kind: str
    time: str
    number: int
    files: tuple[File, ...]

    @property
    def value(self) -> str:
        """Time and number, as in the names of its files."""
        return f"{self.time}-{self.number}"

    def going(self, why: str) -> Going:
        """The word on it."""
        return Going("build", f"{self.version}/{self.value}{self.kind}", self.files[0].digest, why)


def read_builds(files: Iterable[File], pattern: str) -> list[Build]:
    """The builds that files belong to. `pattern` has groups called version, time, number and kind (Member.builds)."""
    match = re.compile(pattern).match
    found: dict[tuple[str, str, str, int], list[File]] = defaultdict(list)
    for file in files:
        if (said := match(file.path)) is not None:
            found[said["version"], said["kind"], said["time"], int(said["number"])].append(file)
    return [Build(*key, tuple(sorted(mine, key=lambda file: file.path))) for key, mine in found.items()]


def plan_builds(
    package: str,
    builds: Iterable[Build],
    rules: Sequence[Retention],
    now: float,
    complete: Mapping[str, int] | None = None,
) -> list[tuple[Build, str]]:
    """What goes, and why; the oldest first.

    `complete`: by version the highest number of a complete build; of a version that is not there, all are taken for
    complete.
    """
    rules = [rule for rule in rules if PathPattern(rule.packages).matches(package)]
    if not rules:
        return []
    lines: dict[tuple[str, str], list[Build]] = defaultdict(list)
    for build in builds:
        lines[build.version, build.kind].append(build)
    going: list[tuple[Build, str]] = []
    for (version, _), line in lines.items():
        named = [rule for rule in rules if any(PathPattern(text).matches(version) for text in rule.patterns)]
        line.sort(key=lambda build: (build.time, build.number), reverse=True)
        last = (complete or {}).get(version)
        rank = 0
        for build in line:
            created = max(file.created for file in build.files)
            if last is not None and build.number > last:
                newer = 0  # than this one, as far as it counts
            else:
                newer, rank = rank, rank + 1
            if named and not any(_keeps(rule, newer, created, now) for rule in named):
                going.append((build, "; ".join(dict.fromkeys(map(why_not_kept, named)))))
    return sorted(going, key=lambda item: (item[0].version, item[0].time, item[0].number, item[0].kind))


def _keeps(rule: Retention, newer: int, created: float, now: float) -> bool:
    newest = rule.keep is not None and newer < rule.keep
    return newest or (rule.days is not None and created > now - rule.days * DAY)
