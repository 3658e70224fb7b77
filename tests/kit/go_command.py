"""The real go command, with a home and a module cache of its own, and a GOPROXY of files for it to get modules from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from kit.client_base import clean_environment
from kit.modules import Module, lay_out
from kit.servers import Service, free_port, missing, nginx, program

GO_VERSIONS = ("1.21", "1.24", "1.27")
"""Of the commands that `make go` installs (tests/go-versions.txt): before and after GOAUTH came and the rule about what
is vendored changed, both with 1.24, and the newest."""

_TOOLCHAINS = Path(__file__).parents[2] / ".go"


def go_program(version: str = "") -> str:
    """Where a go command is; "": the newest, or what the machine has. As `program` where there is none."""
    found = sorted(_TOOLCHAINS.glob(f"{version or GO_VERSIONS[-1]}.*/go/bin/go"))
    if found:
        return str(found[-1])
    return missing(f"go {version} is not installed: make go") if version else program("go")


class Refused(Exception):
    """The command failed; the text is what it showed its user."""


@dataclass(frozen=True)
class Downloaded:
    """What `go mod download -json` says of one module, and the bytes that it keeps."""

    path: str
    version: str
    sum: str
    mod_sum: str
    zip: bytes
    mod: bytes
    info: bytes


class GoCommand:
    """The go command in a new module. `proxy` is its GOPROXY; `ca` all that it trusts; `version` one of `GO_VERSIONS`;
    `within` is a command that runs others."""

    def __init__(
        self,
        folder: Path,
        proxy: str,
        ca: Path | None = None,
        *,
        within: Sequence[str] = (),
        version: str = "",
        **variables: str,
    ) -> None:
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        self._command = [*within, program("env"), f"--chdir={self.work}", go_program(version)]
        (self.work / "go.mod").write_text("module example.com/mine\n\ngo 1.16\n")
        kept = {key: value for key, value in clean_environment(folder / "home", ca).items() if key[:2] != "GO"}
        self.env = kept | {
            "GOPROXY": proxy,
            "GOPATH": str(folder / "path"),
            "GOCACHE": str(folder / "cache"),
            "GOFLAGS": "-mod=mod -modcacherw",
            "GOTOOLCHAIN": "local",
            "GOENV": "off",
            "GOSUMDB": "off",
            **variables,
        }

    def run(self, *arguments: str, stdin: str = "") -> str:
        """What `go` printed. Raises Refused."""
        done = subprocess.run(
            [*self._command, *arguments],
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode != 0:
            raise Refused(done.stderr + done.stdout)
        return done.stdout

    def logs_in(self, address: str, user: str, password: str) -> None:
        """Lines of ~/.netrc, which the go command shows over TLS only; some before 1.21 want no port in them."""
        file = Path(self.env["HOME"]) / ".netrc"
        machines = (address, address.partition(":")[0])
        file.write_text("".join(f"machine {name} login {user} password {password}\n" for name in machines))
        file.chmod(0o600)

    def requires(self, *modules: Module) -> None:
        """Write a go.mod that needs these, and nothing else of what was known."""
        needs = "".join(f"require {module.path} {module.version}\n" for module in modules)
        (self.work / "go.mod").write_text(f"module example.com/mine\n\ngo 1.16\n\n{needs}")
        (self.work / "go.sum").unlink(missing_ok=True)

    def download(self, *names: str) -> dict[str, Downloaded]:
        """`go mod download`, by `path@version`; of all that the module needs where no names are given."""
        text = self.run("mod", "download", "-json", *names)
        found: dict[str, Downloaded] = {}
        decoder, at = json.JSONDecoder(), 0
        while text[at:].strip():
            at += len(text[at:]) - len(text[at:].lstrip())
            told, at = decoder.raw_decode(text, at)
            files = [Path(told[key]).read_bytes() for key in ("Zip", "GoMod", "Info")]
            one = Downloaded(told["Path"], told["Version"], told["Sum"], told["GoModSum"], *files)
            found[f"{one.path}@{one.version}"] = one
        return found


class ModuleServer:
    """nginx over a GOPROXY's tree of files, which has no /@latest; what it was asked for is in its log."""

    def __init__(self, folder: Path, modules: Iterable[Module], within: Sequence[str] = (), rate: str = "") -> None:
        """`rate` is what each connection gets at most, as nginx writes it."""
        self.tree = folder / "tree"
        self.tree.mkdir(parents=True)
        lay_out(self.tree, modules)
        self._log = folder / "asked"
        self.port = free_port()
        pace = f"limit_rate {rate};" if rate else ""
        server = f"listen 127.0.0.1:{self.port}; root {self.tree}; default_type application/octet-stream; {pace}"
        self._service: Service | None = nginx(
            folder, f"server {{ {server} access_log {self._log} plain; }}", port=self.port, within=within
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def asked(self) -> Counter[str]:
        """How often each path was asked for by GET."""
        lines = (line.split() for line in self._log.read_text().splitlines())
        return Counter(unquote(line[1]).removeprefix("/") for line in lines if line[0] == "GET")

    def file(self, module: Module, kind: str) -> Path:
        """Where a file of a version lies, to be changed."""
        return self.tree / f"{module.base}.{kind}"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Meanwhile it takes connections and questions, and answers none."""
        assert self._service is not None
        os.killpg(self._service.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self._service.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Idempotent."""
        if self._service is not None:
            self._service.stop()
            self._service = None
