"""What the questions share: an origin with known bytes, our server, load generators, medians, and the table's rows."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.registry import OCI_MANIFEST
from kit.servers import Mxart, free_port, mxart, nginx, program

MIB = 1 << 20
CIPHER = "TLS_AES_128_GCM_SHA256"
HEADING = ("| work | ours | peer | ratio | target | verdict |", "|---|---|---|---|---|---|")


@dataclass(frozen=True)
class Row:
    """One line of the table. `reached` is None where a figure is only shown."""

    work: str
    ours: str
    peer: str = "–"
    ratio: str = "–"
    target: str = "shown"
    reached: bool | None = None

    def markdown(self) -> str:
        verdict = {True: "reached", False: "**missed**", None: ""}[self.reached]
        return f"| {self.work} | {self.ours} | {self.peer} | {self.ratio} | {self.target} | {verdict} |"


def compare(
    work: str,
    unit: str,
    ours: float,
    peer: tuple[str, float],
    *,
    at_least: float | None = None,
    scale: float = 1.0,
    who: str = "",
) -> Row:
    """A row where more is better; `peer` is a name and its figure, `scale` what one of the unit is.

    `who`: the first figure is another program's, shown beside ours.
    """
    name, theirs = peer
    ratio = ours / theirs
    reached = None if at_least is None else ratio >= at_least
    target = "shown" if at_least is None else f"≥ {at_least:g}"
    return Row(
        work,
        f"{who} {ours / scale:,.0f} {unit}".strip(),
        f"{name} {theirs / scale:,.0f} {unit}",
        f"{ratio:.2f}",
        target,
        reached,
    )


class Bench:
    """A folder for one question, and whether the figures matter. What it starts ends with the question."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.folder = folder
        self.quick = quick
        self._count = 0

    @property
    def rounds(self) -> int:
        return 1 if self.quick else 5

    @property
    def seconds(self) -> int:
        """Of one round of load."""
        return 1 if self.quick else 3

    def size(self, mebibytes: int) -> int:
        """Bytes of a blob."""
        return (mebibytes // 8 if self.quick else mebibytes) * MIB

    def fresh(self, name: str) -> Path:
        """A new folder."""
        self._count += 1
        folder = self.folder / f"{name}{self._count}"
        folder.mkdir()
        return folder

    @contextlib.contextmanager
    def ours(
        self,
        config: str,
        *,
        workers: int = 1,
        tls: bool = False,
        folder: Path | None = None,
        listen: Sequence[str] = ("127.0.0.1:0",),
    ) -> Iterator[Mxart]:
        with mxart(folder or self.fresh("mxart"), config, listen=listen, workers=workers, tls=tls) as server:
            yield server

    def interleaved(self, measures: Mapping[str, Callable[[], float]]) -> dict[str, float]:
        """The median of every measure; in each round all of them, so that a slow minute hits them alike.

        A round before the first is not counted: it fills caches on both sides.
        """
        found: dict[str, list[float]] = {name: [] for name in measures}
        for number in range(self.rounds + 1):
            for name, measure in measures.items():
                value = measure()
                if number:
                    found[name].append(value)
        return {name: statistics.median(values) for name, values in found.items()}


@dataclass(frozen=True)
class Content:
    """A registry's files as a static server finds them: one image with one large blob."""

    root: Path
    manifest: str  # path below /v2/<repository>/: "manifests/1"
    blob: str  # "blobs/sha256:..."
    blob_bytes: int


REPOSITORY = "library/bench"


def content(folder: Path, blob_bytes: int) -> Content:
    """Make the files. The blob's bytes do not compress and are not all the same."""
    base = folder / "v2" / REPOSITORY
    for name in ("manifests", "blobs"):
        (base / name).mkdir(parents=True)
    partial, hasher = base / "blobs" / "partial", hashlib.sha256()
    block = os.urandom(MIB)
    with partial.open("wb") as file:
        for number in range(blob_bytes // MIB):
            piece = number.to_bytes(8, "big") + block[8:]
            hasher.update(piece)
            file.write(piece)
    blob = f"blobs/sha256:{hasher.hexdigest()}"
    partial.rename(base / blob)
    config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
    (base / "blobs" / f"sha256:{hashlib.sha256(config).hexdigest()}").write_bytes(config)
    manifest = manifest_of(config, hasher.hexdigest(), blob_bytes)
    for name in ("1", f"sha256:{hashlib.sha256(manifest).hexdigest()}"):
        (base / "manifests" / name).write_bytes(manifest)
    return Content(folder, "manifests/1", blob, blob_bytes)


def manifest_of(config: bytes, layer: str, size: int) -> bytes:
    """A manifest of about 500 bytes, as a small image has."""
    descriptor = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": f"sha256:{hashlib.sha256(config).hexdigest()}",
        "size": len(config),
    }
    layers = [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": f"sha256:{layer}", "size": size}]
    value = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor, "layers": layers}
    return json.dumps(value, indent=2).encode()


class Origin:
    """nginx over such files: a registry that can only be read, as upstream and as the peer to beat.

    `rate` paces every connection, in bytes a second.
    """

    def __init__(
        self,
        bench: Bench,
        files: Content,
        *,
        tls: bool = False,
        rate: int = 0,
        host: str = "127.0.0.1",
        within: Sequence[str] = (),
    ) -> None:
        self._folder = bench.fresh("nginx")
        self._log = self._folder / "access.log"
        self.port = free_port()
        self.url = f"http{'s' if tls else ''}://{host}:{self.port}"
        digest = hashlib.sha256((files.root / "v2" / REPOSITORY / files.manifest).read_bytes()).hexdigest()
        secure = ""
        if tls:
            certificate, key = server_certificate(self._folder)
            secure = f"ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.3; "
            secure += f"ssl_conf_command Ciphersuites {CIPHER};"
        self.service = nginx(
            self._folder,
            f"""
            sendfile on; tcp_nopush on; tcp_nodelay on; limit_rate {rate};
            server {{
              listen {host}:{self.port} {"ssl http2" if tls else ""}; {secure}
              root {files.root}; access_log {self._log} plain;
              types {{ }} default_type application/octet-stream;
              location = /v2/ {{ return 200 '{{}}'; }}
              location ~ /manifests/ {{
                default_type {OCI_MANIFEST}; add_header Docker-Content-Digest sha256:{digest};
              }}
            }}""",
            port=self.port,
            host=host,
            within=within,
        )

    def gets(self, path: str) -> int:
        """How often a path was asked for and answered to the end."""
        return self._log.read_text().count(f"GET /v2/{REPOSITORY}/{path} ")

    def at(self, path: str) -> str:
        return f"{self.url}/v2/{REPOSITORY}/{path}"

    def close(self) -> None:
        self.service.kill()


@contextlib.contextmanager
def origin(
    bench: Bench,
    files: Content,
    *,
    tls: bool = False,
    rate: int = 0,
    host: str = "127.0.0.1",
    within: Sequence[str] = (),
) -> Iterator[Origin]:
    """An origin that ends with the block."""
    made = Origin(bench, files, tls=tls, rate=rate, host=host, within=within)
    try:
        yield made
    finally:
        made.close()


def proxy_of(upstream: str) -> str:
    """Our configuration: a proxy of that upstream under /hub."""
    return f'[repository.hub]\nformat = "oci"\nkind = "proxy"\nupstream = "{upstream}"\npath = "/hub"\nttl = 86400\n'


def through(server: Mxart, path: str) -> str:
    """The URL of something of the origin, through our proxy."""
    return f"{server.url}/v2/hub/{REPOSITORY}/{path}"


def server_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for a peer, of the same kind as ours: ECDSA P-256."""
    import trustme  # noqa: PLC0415  # only the questions about TLS need it

    issued = trustme.CA().issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    return folder / "cert.pem", folder / "key.pem"


def touch(folder: Path, size: int) -> None:
    """Have the kernel use so much page cache, and free it again (bench/cold_one.py says why)."""
    block, path = bytes(MIB), folder / "touched"
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(block)
    path.unlink()


# --- load ---


@dataclass(frozen=True)
class Download:
    """What curl measured."""

    bytes_per_second: float
    first_byte: float  # seconds from the start, connecting included
    seconds: float


_CURL = ("--silent", "--show-error", "--fail", "--noproxy", "*", "--output", "/dev/null", "--insecure")
_TOLD = "%{size_download} %{time_starttransfer} %{time_total}"


def curl_command(url: str, *options: str) -> list[str]:
    """A download to nowhere that tells `curl_told` what it measured."""
    return [program("curl"), *_CURL, "--tls13-ciphers", CIPHER, "--write-out", _TOLD, *options, url]


def curl_told(text: str, expected: int) -> Download:
    """What it told; the size must be the expected one."""
    size, first, total = text.split()
    assert int(size) == expected, f"{size} bytes instead of {expected}"
    return Download(int(size) / float(total), float(first), float(total))


def download(url: str, expected: int, *options: str) -> Download:
    """One download by curl to nowhere; it must be whole."""
    done = subprocess.run(curl_command(url, *options), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return curl_told(done.stdout, expected)


def wrk(url: str, seconds: int, connections: int = 16, *headers: str, threads: int = 1) -> float:
    """Requests a second; every one must have been answered with 2xx."""
    options = [f"-t{threads}", f"-c{connections}", f"-d{seconds}"]
    for header in headers:
        options += ["-H", header]
    text = _load([program("wrk"), *options, url])
    assert "Non-2xx" not in text, text
    match = re.search(r"Requests/sec:\s+([0-9.]+)", text)
    assert match, text
    return float(match[1])


def h2load(url: str, seconds: int, connections: int = 16, streams: int = 1) -> float:
    """Requests a second over HTTP/2 on TLS; every one must have been answered with 2xx."""
    options = ["-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}", f"--tls13-ciphers={CIPHER}"]
    text = _load([program("h2load"), *options, url])
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    assert codes, text
    assert codes.groups()[1:] == ("0", "0", "0"), text
    assert "Application protocol: h2" in text, text
    return int(codes[1]) / seconds


def _load(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def resident(pid: int) -> int:
    """Bytes of a process in memory (VmRSS)."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match
    return int(match[1]) * 1024
