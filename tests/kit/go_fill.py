"""Fills the tree that a Go upstream of the tests serves: a real graph of modules, as the ordinary client has it.

`PYTHONPATH=tests .venv/bin/python -m kit.go_fill`, once on a machine, with the network that the go command uses by
itself; the tests talk to loopback only.  A module cache is laid out as a GOPROXY is, and the client verified all of it
by the checksum database that it knows.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from kit.go_command import GoCommand

NEEDS = {
    "github.com/spf13/viper": "v1.19.0",
    "github.com/gin-gonic/gin": "v1.10.0",
    "go.uber.org/zap": "v1.27.0",
    "google.golang.org/grpc": "v1.64.0",
}


def require(go: GoCommand) -> None:
    """Write a go.mod that needs the graph."""
    needs = "".join(f"require {path} {version}\n" for path, version in NEEDS.items())
    (go.work / "go.mod").write_text(f"module example.com/real\n\ngo 1.21\n\n{needs}")


def place() -> Path:
    """Where it lies, as `download` (the tree), `go.sum` and `sums.json`; of other modules it is another place."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "mxart-tests" / f"go-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]}"


def fill(target: Path) -> None:
    """Make `target`, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="filling-", dir=target.parent) as name:
        folder = Path(name)
        go = GoCommand(folder / "ordinary", "", GOSUMDB="sum.golang.org")  # by the proxy that is its own default
        require(go)
        sums = {module: one.sum for module, one in go.download("all").items()}
        made = folder / "made"
        shutil.copytree(Path(go.env["GOPATH"]) / "pkg" / "mod" / "cache" / "download", made / "download")
        shutil.copy(go.work / "go.sum", made / "go.sum")
        (made / "sums.json").write_text(json.dumps(sums))
        made.rename(target)


def main() -> int:
    """Nothing is done where it is there already."""
    target = place()
    if not target.exists():
        fill(target)
    sys.stdout.write(f"{target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
