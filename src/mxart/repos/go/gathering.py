"""What belongs to a module's version beside its zip: its go.mod and its .info. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from mxart.errors import UpstreamFailed
from mxart.repos.go.archives import BadArchive, entries, pieces
from mxart.repos.go.requests import read
from mxart.repos.go.zips import MAX_SMALL
from mxart.repos.operations import Artifact, Document
from mxart.store.base import Unjudged


class Gathering:
    """See roles.Gathering."""

    def beside(self, artifact: Artifact) -> tuple[Document, ...]:
        base = artifact.path.removesuffix(".zip")
        return tuple(
            Document(
                artifact.package, f"{base}.{kind}", kind, mutable=False, small=True, credential=artifact.credential
            )
            for kind in ("info", "mod")
        )

    def agree(self, artifact: Artifact, unjudged: Unjudged, beside: Mapping[str, bytes]) -> None:
        mod = beside.get(f"{artifact.path.removesuffix('.zip')}.mod")
        if mod is None:
            return
        wanted = read(artifact.path)
        within = _go_mod(unjudged, f"{wanted.module}@{wanted.version}/go.mod")
        # One that is not in the zip was made up by whoever serves the .mod; and what git exports into a zip may have
        # other ends of lines than what it shows of a file (gitattributes(5), eol).
        if within is not None and _lines(within) != _lines(mod):
            raise UpstreamFailed(
                f"upstream's zip of {wanted.module}@{wanted.version} holds another go.mod than the .mod that it gave:"
                " that version was changed in between, by a tag that moved, say",
                subject="zip",
            )


def _go_mod(unjudged: Unjudged, name: str) -> bytes | None:
    try:
        for entry in entries(unjudged.file, unjudged.size):
            if entry.name == name and entry.size <= MAX_SMALL:
                return b"".join(pieces(unjudged.file, entry))
    except BadArchive as error:
        raise UpstreamFailed(str(error), subject="zip") from None
    return None


def _lines(mod: bytes) -> bytes:
    return mod.replace(b"\r\n", b"\n")
