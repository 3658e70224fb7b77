"""Deploys artifacts as Maven does, in a process of its own: `... -m bench.maven_load URL LOGIN COUNT ROUND [FOLDER]`.

Each of four connections deploys one artifact after the other, a new one each time: jar, .sha1, .md5, POM, .sha1, .md5,
then the metadata that it has asked for, .sha1, .md5.  With FOLDER, that of a server that does not do so by itself,
each file is made durable before the next is sent.  Prints seconds.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

_CONNECTIONS = 4
_JAR_BYTES = 20 << 10


def main() -> None:
    """See above."""
    url, login, count, mark = sys.argv[1:5]
    folder = Path(sys.argv[5]) if len(sys.argv) > 5 else None
    started = time.perf_counter()
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        parts = [range(first, int(count), _CONNECTIONS) for first in range(_CONNECTIONS)]
        for done in pool.map(lambda part: _deploy(url, login, [f"a{mark}x{n}" for n in part], folder), parts):
            assert done is None
    sys.stdout.write(f"{time.perf_counter() - started}\n")


def _deploy(url: str, login: str, names: list[str], folder: Path | None) -> None:
    target = urlsplit(url)
    connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
    fields = {"Authorization": login} if login else {}

    def ask(method: str, path: str, data: bytes | None = None) -> None:
        connection.request(method, f"{target.path}/{path}", data, fields)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status in ((201, 204) if method == "PUT" else (200, 404)), (path, answer.status, text)
        if folder is not None and method == "PUT":
            for file in (folder / path, (folder / path).parent):
                handle = os.open(file, os.O_RDONLY)
                os.fsync(handle)
                os.close(handle)

    for name in names:
        for path, data in _files(name):
            if path.endswith("maven-metadata.xml"):
                ask("GET", path)
            ask("PUT", path, data)
            for kind in ("sha1", "md5"):
                ask("PUT", f"{path}.{kind}", hashlib.new(kind, data).hexdigest().encode())
    connection.close()


def _files(name: str) -> Iterator[tuple[str, bytes]]:
    base = f"com/example/{name}"
    yield f"{base}/1.0/{name}-1.0.jar", b"PK\x03\x04" + os.urandom(_JAR_BYTES)
    pom = f"<groupId>com.example</groupId><artifactId>{name}</artifactId><version>1.0</version>"
    yield f"{base}/1.0/{name}-1.0.pom", f"<project><modelVersion>4.0.0</modelVersion>{pom}</project>\n".encode()
    listed = "<versioning><release>1.0</release><versions><version>1.0</version></versions>"
    told = f"<groupId>com.example</groupId><artifactId>{name}</artifactId>{listed}"
    updated = "<lastUpdated>20240101000000</lastUpdated></versioning>"
    yield f"{base}/maven-metadata.xml", f"<metadata>{told}{updated}</metadata>\n".encode()


if __name__ == "__main__":
    main()
