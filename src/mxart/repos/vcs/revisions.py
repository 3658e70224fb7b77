"""A version of a module and the commit that it is, as they are told and remembered. Pure."""

from __future__ import annotations

import json
import time

from msgspec import Struct

from mxart.git.trees import Commit


class Revision(Struct, frozen=True):
    """A version, and the commit that it is. `name` is the tag or branch, in full, that led there; "" if none did."""

    version: str
    commit: Commit
    name: str = ""

    def info(self, url: str, folder: str) -> bytes:
        """As a GOPROXY tells it; Origin says what it was made of (`go help modules-json`, "Origin")."""
        told = {"VCS": "git", "URL": url, "Subdir": folder, "Ref": self.name, "Hash": self.commit.name}
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.commit.seconds))
        origin = {key: value for key, value in told.items() if value}
        text = {"Version": self.version, "Time": moment, "Origin": origin}
        return json.dumps(text, separators=(",", ":")).encode()


class Pin(Struct, frozen=True):
    """The commit that a version was when it was first told."""

    commit: str
    name: str

    @classmethod
    def read(cls, info: bytes) -> Pin | None:
        """From what Revision.info made; None if it was made elsewhere."""
        origin = json.loads(info).get("Origin") or {}
        return cls(origin["Hash"], origin.get("Ref", "")) if origin.get("Hash") else None
