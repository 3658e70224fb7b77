"""`maven-metadata.xml` (maven.apache.org/ref/current/maven-repository-metadata): read, written, united. Pure.

There is one for a group (its plugins and their prefixes), one for an artifact (its versions), one for a snapshot (its
builds).  One file may be the first two at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape

from msgspec import Struct

from mxart.repos.maven.coordinates import FilePath, MetadataPath
from mxart.repos.maven.markup import BadMarkup, read
from mxart.repos.maven.versions import Order, ascending, is_snapshot, order

MAX_ENTRIES = 100_000
"""Versions, builds or plugins: nobody has that many, and a longer list would keep a worker from everybody else."""


class Plugin(Struct, frozen=True):
    """A plugin of a group: `mvn <prefix>:goal` stands for it."""

    prefix: str
    artifact: str
    name: str = ""


class Build(Struct, frozen=True):
    """The newest file of a snapshot with this classifier and extension; `updated` as 20240102030405."""

    classifier: str
    extension: str
    value: str
    updated: str = ""


class Metadata(Struct, frozen=True):
    """What such a file says; "", 0 and () where it does not say it.

    `version` is a snapshot's; `time` and `number` are those of its newest build; `versions` in the file's order.
    """

    group: str = ""
    artifact: str = ""
    version: str = ""
    latest: str = ""
    release: str = ""
    versions: tuple[str, ...] = ()
    updated: str = ""
    time: str = ""
    number: int = 0
    builds: tuple[Build, ...] = ()
    plugins: tuple[Plugin, ...] = ()

    def find(self, classifier: str, extension: str, version: str = "") -> str:
        """The version, with time and number, of the newest such file of a snapshot; "" if that is not told.

        `version` is the snapshot's, where that is known better.
        """
        for build in self.builds:
            if (build.classifier, build.extension) == (classifier, extension):
                return build.value
        if self.builds or not self.time or not self.number:
            return ""
        return f"{(version or self.version).removesuffix('SNAPSHOT')}{self.time}-{self.number}"


_V = ("versioning",)
_SNAPSHOT = (*_V, "snapshot")
_BUILD = (*_V, "snapshotVersions", "snapshotVersion")
_PLUGIN = ("plugins", "plugin")
_PLAIN = {
    ("groupId",): "group",
    ("artifactId",): "artifact",
    ("version",): "version",
    (*_V, "latest"): "latest",
    (*_V, "release"): "release",
    (*_V, "lastUpdated"): "updated",
    (*_SNAPSHOT, "timestamp"): "time",
}
_NUMBER = (*_SNAPSHOT, "buildNumber")
_VERSION = (*_V, "versions", "version")
_OF_BUILD = {(*_BUILD, name): name for name in ("classifier", "extension", "value", "updated")}
_OF_PLUGIN = {(*_PLUGIN, name): name for name in ("prefix", "artifactId", "name")}
_WANTED = frozenset((*_PLAIN, _NUMBER, _VERSION, _BUILD, *_OF_BUILD, _PLUGIN, *_OF_PLUGIN))


def parse(data: bytes) -> Metadata:
    """Read such a file. Raises BadMarkup if it is none."""
    root, found = read(data, _WANTED)
    if root != "metadata":
        raise BadMarkup(f"its root element is {root[:80]!r}, not 'metadata'")
    plain: dict[str, str] = {}
    versions: dict[str, None] = {}
    builds: list[Build] = []
    plugins: list[Plugin] = []
    parts: dict[str, str] = {}
    number = 0
    for path, text in found:
        if path == _VERSION:
            if text:
                versions[text] = None
        elif path in _OF_BUILD:
            parts[_OF_BUILD[path]] = text
        elif path in _OF_PLUGIN:
            parts[_OF_PLUGIN[path]] = text
        elif path == _BUILD:
            build = Build(*(parts.get(name, "") for name in ("classifier", "extension", "value", "updated")))
            parts = {}
            if build.extension and build.value:
                builds.append(build)
        elif path == _PLUGIN:
            plugin = Plugin(*(parts.get(name, "") for name in ("prefix", "artifactId", "name")))
            parts = {}
            if plugin.prefix and plugin.artifact:
                plugins.append(plugin)
        elif path == _NUMBER:
            number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
        else:
            plain[_PLAIN[path]] = text
    if max(len(versions), len(builds), len(plugins)) > MAX_ENTRIES:
        raise BadMarkup(f"it lists more than {MAX_ENTRIES} versions, builds or plugins")
    return Metadata(
        group=plain.get("group", ""),
        artifact=plain.get("artifact", ""),
        version=plain.get("version", ""),
        latest=plain.get("latest", ""),
        release=plain.get("release", ""),
        versions=tuple(versions),
        updated=plain.get("updated", ""),
        time=plain.get("time", ""),
        number=number,
        builds=tuple(builds),
        plugins=tuple(plugins),
    )


def render(metadata: Metadata) -> bytes:
    """The file that says this, as Maven itself writes it."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<metadata modelVersion="1.1.0">']

    def put(depth: int, name: str, text: str) -> None:
        if text:
            lines.append(f"{'  ' * depth}<{name}>{escape(text, quote=False)}</{name}>")

    put(1, "groupId", metadata.group)
    put(1, "artifactId", metadata.artifact)
    put(1, "version", metadata.version)
    start = len(lines)
    lines.append("  <versioning>")
    put(2, "latest", metadata.latest)
    put(2, "release", metadata.release)
    if metadata.number:  # without a time: there is no build any more, and the next one gets the next number
        lines.append("    <snapshot>")
        put(3, "timestamp", metadata.time)
        put(3, "buildNumber", str(metadata.number))
        lines.append("    </snapshot>")
    if metadata.versions:
        lines.append("    <versions>")
        for version in metadata.versions:
            put(3, "version", version)
        lines.append("    </versions>")
    put(2, "lastUpdated", metadata.updated)
    if metadata.builds:
        lines.append("    <snapshotVersions>")
        for build in metadata.builds:
            lines.append("      <snapshotVersion>")
            put(4, "classifier", build.classifier)
            put(4, "extension", build.extension)
            put(4, "value", build.value)
            put(4, "updated", build.updated)
            lines.append("      </snapshotVersion>")
        lines.append("    </snapshotVersions>")
    if len(lines) == start + 1:
        lines.pop()  # a group's has none
    else:
        lines.append("  </versioning>")
    if metadata.plugins:
        lines.append("  <plugins>")
        for plugin in metadata.plugins:
            lines.append("    <plugin>")
            put(3, "name", plugin.name)
            put(3, "prefix", plugin.prefix)
            put(3, "artifactId", plugin.artifact)
            lines.append("    </plugin>")
        lines.append("  </plugins>")
    lines.append("</metadata>")
    return ("\n".join(lines) + "\n").encode()


def merge(answers: Sequence[bytes]) -> bytes:
    """One file that says what all of these say. There is at least one; a single one survives with all that is in it.

    Raises BadMarkup.
    """
    if len(set(answers)) == 1:
        return answers[0]
    return render(unite([parse(answer) for answer in answers]))


def unite(found: Sequence[Metadata]) -> Metadata:
    """What several say together: all versions, the newest build of each kind of file, all plugins.

    The order of `found` makes no difference but to what a plugin is called, and whose name a group or artifact has.
    """

    def first(texts: Iterable[str]) -> str:
        return next((text for text in texts if text), "")

    versions = tuple(ascending({version for one in found for version in one.versions}))
    releases = [version for version in versions if not is_snapshot(version)]
    builds: dict[tuple[str, str], Build] = {}
    plugins: dict[tuple[str, str], Plugin] = {}
    for one in found:
        for build in one.builds:
            known = builds.get((build.classifier, build.extension))
            if known is None or _age(build) > _age(known):
                builds[build.classifier, build.extension] = build
        for plugin in one.plugins:
            known_plugin = plugins.get((plugin.artifact, plugin.prefix))
            if known_plugin is None or (plugin.name and not known_plugin.name):
                plugins[plugin.artifact, plugin.prefix] = plugin
    time, number = max(((one.time, one.number) for one in found), key=lambda build: (_digits(build[0]), *build))
    # Without a list of versions its ends are the members' word.
    latest = versions[-1] if versions else first(ascending({one.latest for one in found})[::-1])
    release = releases[-1] if releases else ""
    return Metadata(
        group=first(one.group for one in found),
        artifact=first(one.artifact for one in found),
        version=first(one.version for one in found),
        latest=latest,
        release=release if versions else first(ascending({one.release for one in found})[::-1]),
        versions=versions,
        updated=max((one.updated for one in found), key=lambda text: (_digits(text), text)),
        time=time,
        number=number,
        builds=tuple(builds[key] for key in sorted(builds)),
        plugins=tuple(plugins[key] for key in sorted(plugins)),
    )


def _age(build: Build) -> tuple[str, Order, str, str]:
    return _digits(build.updated), order(build.value), build.value, build.updated


def _digits(text: str) -> str:
    """A time without its dots, 20240102.030405 or 20240102030405; "" if it is none."""
    text = text.replace(".", "")
    return text if len(text) == 14 and text.isascii() and text.isdigit() else ""


def compose_versions(
    place: MetadataPath, versions: Mapping[str, float], plugins: Iterable[Plugin] = ()
) -> Metadata | None:
    """What a repository says of an artifact or a group of its own; None if it has neither.

    `versions` with when each was last published, in seconds since the epoch.
    """
    known = tuple(sorted(set(plugins), key=lambda plugin: (plugin.artifact, plugin.prefix)))
    if not versions:
        return Metadata(plugins=known) if known else None
    group, _, artifact = place.package.rpartition("/")
    listed = ascending(versions)
    return Metadata(
        group=group.replace("/", "."),
        artifact=artifact,
        latest=listed[-1],
        release=next((version for version in reversed(listed) if not is_snapshot(version)), ""),
        versions=tuple(listed),
        updated=stamp(max(versions.values())),
        plugins=known,
    )


def compose_builds(place: MetadataPath, files: Iterable[FilePath]) -> Metadata | None:
    """What a repository says of a snapshot of its own, by its files; None if it has no build of it."""
    builds: dict[tuple[str, str], tuple[tuple[str, int], Build]] = {}
    for file in files:
        made = file.build
        if made is None:
            continue
        known = builds.get((file.classifier, file.extension))
        if known is None or made > known[0]:
            build = Build(file.classifier, file.extension, file.value, made[0].replace(".", ""))
            builds[file.classifier, file.extension] = (made, build)
    if not builds:
        return None
    time, number = max(made for made, _ in builds.values())
    group, _, artifact = place.package.rpartition("/")
    return Metadata(
        group=group.replace("/", "."),
        artifact=artifact,
        version=place.version,
        updated=time.replace(".", ""),
        time=time,
        number=number,
        builds=tuple(builds[key][1] for key in sorted(builds)),
    )


def stamp(seconds: float) -> str:
    """A time as such files have it, in UTC: 20240102030405."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%d%H%M%S")


def disagrees(metadata: Metadata, place: MetadataPath) -> str:
    """What a client's file says that its path does not; "" if they agree."""
    group, _, artifact = place.package.rpartition("/")
    if not metadata.artifact:  # a group's, whose path is all of it
        group = place.package
    if metadata.version not in ("", place.version) and place.version:
        return f"version {metadata.version[:80]!a}, and is that of {place.version}"
    if metadata.group not in ("", group.replace("/", ".")):
        return f"group {metadata.group[:80]!a}, and is that of {group.replace('/', '.')}"
    if metadata.artifact not in ("", artifact) and not artifact.startswith(f"{metadata.artifact}_"):
        return f"artifact {metadata.artifact[:80]!a}, and is that of {artifact}"
    return ""
