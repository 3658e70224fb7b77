"""Lists that clients send (maven-metadata.xml): what they say that no file tells. Pure.

Of three kinds there are: the builds of a snapshot, which the files' names tell better, but for which of them is
complete: this list comes after all its files; an artifact's versions, which are in the catalog, and whose list is the
last that a deploy sends; and a group's plugins with their prefixes, which nobody else tells.  A list is what its client
has read before, perhaps of many repositories, with a line of his own; so what it says of others' is passed over, and
what is not here.
"""

from __future__ import annotations

import re
from collections.abc import Container
from functools import partial

from mxart.errors import BadRequest
from mxart.repos.maven import metadata, plugins
from mxart.repos.maven.builds import highest, told
from mxart.repos.maven.coordinates import MetadataPath, shown
from mxart.repos.maven.markup import MAX_SIZE, BadMarkup
from mxart.repos.maven.metadata import Plugin
from mxart.repos.maven.staging import reveal
from mxart.repos.maven.versions import TOLD
from mxart.repos.publishing import Hearing, Spot
from mxart.store.changes import NOTHING, Change, Note, View

MAX_METADATA = MAX_SIZE
"""Bytes: the longest lists there are have some hundred kilobytes."""
_WORD = re.compile(r"[^\s/\x00-\x1f\x7f]{1,255}\Z")
_MAX_NAME = 200


def hear_metadata(place: MetadataPath, data: bytes) -> Hearing:
    """Read a list. Raises BadRequest."""
    try:
        said = metadata.parse(data)
    except BadMarkup as error:
        raise BadRequest(f"this is not {place}: {error}", subject="metadata") from None
    if why := metadata.disagrees(said, place):
        raise BadRequest(f"this is not {place}: it names the {why}", subject="metadata")
    if place.version:
        return Hearing((), partial(_builds_told, place, said.number))
    listed = [_checked(plugin, place) for plugin in said.plugins]
    package = place.package
    about = {f"{package}/{plugin.artifact}": plugin for plugin in listed}
    versions = frozenset((*said.versions, said.latest, said.release)) - {""}
    own = (package,) if said.artifact or versions or not about else ()

    def decide(view: View, spot: Spot, allowed: Container[str]) -> Change:
        notes = tuple(
            note
            for artifact, plugin in about.items()
            if artifact in allowed and (note := _note(plugin, artifact, package, view, spot)) is not None
        )
        shown_now = reveal(package, versions, view, spot) if package in allowed else NOTHING
        return Change(shown_now.gone, shown_now.files, shown_now.tags, (*shown_now.notes, *notes))

    return Hearing((*own, *about), decide)


def _builds_told(place: MetadataPath, number: int, view: View, spot: Spot, allowed: Container[str]) -> Change:
    """A snapshot's list comes when all files of a build are here: then it is shown (indexes)."""
    repository, directory = spot.repository, place.directory
    before, most = told(view, repository, directory), highest(view, repository, directory)
    # Until the first list all is shown, and what was shown stays.
    complete = min(number, most) if before else most
    if not number or complete <= before:
        return NOTHING
    return Change(notes=(Note(repository, directory, TOLD, str(complete)),))


def _checked(plugin: Plugin, place: MetadataPath) -> Plugin:
    for text in (plugin.prefix, plugin.artifact):
        if _WORD.match(text) is None:
            raise BadRequest(
                f"this is not {place}: {shown(text)} is no plugin's artifact or prefix", subject="metadata"
            )
    return plugin


def _note(plugin: Plugin, artifact: str, group: str, view: View, spot: Spot) -> Note | None:
    """What is new of a plugin that is here, or in the caller's deploy."""
    if not any(view.has_package(name, artifact) for name in (spot.repository, spot.held) if name):
        return None
    key, value = f"{plugins.PLUGIN}{plugin.artifact}", plugins.value(plugin.prefix, plugin.name[:_MAX_NAME])
    return Note(spot.repository, group, key, value) if view.notes(spot.repository, group).get(key) != value else None
