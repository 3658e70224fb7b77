"""Go modules made by the test: small, of every sort of path and version, as a GOPROXY's tree of files."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_TIME = "2024-01-02T03:04:05Z"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def escaped(text: str) -> str:
    """A module path or version as a GOPROXY's URLs have it."""
    return re.sub("[A-Z]", lambda match: "!" + match[0].lower(), text)


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip with these names, as they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = method
            info.external_attr = 0o100644 << 16
            archive.writestr(info, data)
    return buffer.getvalue()


@dataclass(frozen=True)
class Module:
    """One version of a module, which needs others. `extra` are files beside the go.mod and one source file."""

    path: str
    version: str
    needs: tuple[tuple[str, str], ...] = ()
    extra: Mapping[str, bytes] = field(default_factory=dict)
    says: str = ""

    @property
    def name(self) -> str:
        """Its package's."""
        last = re.sub(r"(?:/|\.)v\d+\Z", "", self.path).rpartition("/")[2]
        return re.sub("[^a-z]", "", last.lower())

    @property
    def mod(self) -> bytes:
        if self.version.endswith("+incompatible"):
            return f"module {self.path}\n".encode()
        needs = "".join(f"require {path} {version}\n" for path, version in self.needs)
        return f"module {self.path}\n\ngo 1.16\n\n{needs}".encode()

    @property
    def info(self) -> bytes:
        return json.dumps({"Version": self.version, "Time": _TIME}).encode()

    @property
    def files(self) -> dict[str, bytes]:
        """As they are in the module."""
        source = f"package {self.name}\n\nconst Says = {json.dumps(self.says or self.version)}\n"
        found = {f"{self.name}.go": source.encode(), "LICENSE": b"Do what you like.\n", **self.extra}
        return found if self.version.endswith("+incompatible") else {"go.mod": self.mod, **found}

    @property
    def zip(self) -> bytes:
        return zipped({f"{self.path}@{self.version}/{name}": data for name, data in self.files.items()})

    @property
    def base(self) -> str:
        """What the paths of its files begin with; the file's sort follows."""
        return f"{escaped(self.path)}/@v/{escaped(self.version)}"

    def lay_out(self, root: Path) -> None:
        """Add it to a tree of files; what lists its versions, too, unless it is a commit's."""
        folder = root / escaped(self.path) / "@v"
        folder.mkdir(parents=True, exist_ok=True)
        for kind, data in (("info", self.info), ("mod", self.mod), ("zip", self.zip)):
            (folder / f"{escaped(self.version)}.{kind}").write_bytes(data)
        listed = folder / "list"
        before = listed.read_text() if listed.exists() else ""
        listed.write_text(before if _is_commit(self.version) else f"{before}{self.version}\n")


def _is_commit(version: str) -> bool:
    return re.search(r"[-.]\d{14}-[0-9a-f]{12}", version) is not None


def lay_out(root: Path, modules: Iterable[Module]) -> None:
    """A GOPROXY's tree of files."""
    for module in modules:
        module.lay_out(root)


TOML = Module("example.com/BurntWood/Toml", "v1.2.0")
TOOLS = Module("example.com/tools/v2", "v2.3.0", (("example.com/BurntWood/Toml", "v1.2.0"),))
COMMIT = Module("example.com/commit", "v0.0.0-20240102030405-0123456789ab")
OLD = Module("example.com/old", "v3.1.0+incompatible")
GRAPH = (
    Module("example.com/app", "v1.9.0"),
    Module(
        "example.com/app",
        "v1.10.0",
        tuple((module.path, module.version) for module in (TOOLS, COMMIT, OLD)),
        {"big.bin": bytes(range(256)) * 8192},
    ),
    Module("example.com/app", "v1.11.0-rc.1"),
    Module("example.com/BurntWood/Toml", "v1.1.0"),
    TOML,
    TOOLS,
    COMMIT,
    OLD,
)
"""An application and all that it needs, by every sort of path and version."""
