"""Hosts with git repositories, served by git's own http-backend over TLS; and pages that tell where they are.

One server is all hosts.  It can be dialled (TLS on `port`), or used as an HTTP proxy (`proxy`): then whichever host is
meant by a CONNECT is this server, so that real names work without anybody's DNS.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import socketserver
import ssl
import subprocess
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from kit.servers import program

_TIMES = iter(range(1_704_164_645, 2_000_000_000, 60))  # from 2024-01-02T03:04:05Z on, a commit a minute


def git(folder: Path, *arguments: str, **variables: str) -> str:
    """Run git as somebody who commits things."""
    done = subprocess.run(
        [program("git"), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in _SOMEBODY.items()},
            **variables,
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


_SOMEBODY = {"NAME": "Ann", "EMAIL": "ann@example.com"}


class Repository:
    """One that is written to. `folder` is the bare one that is served."""

    def __init__(self, folder: Path, work: Path, kind: str = "sha1") -> None:
        self.folder = folder
        self._work = work
        folder.parent.mkdir(parents=True, exist_ok=True)
        work.mkdir(parents=True)
        git(work, "init", "-q", "-b", "main", f"--object-format={kind}", "--bare", str(folder))
        git(work, "init", "-q", "-b", "main", f"--object-format={kind}")
        git(work, "remote", "add", "origin", str(folder))

    def commit(self, files: dict[str, str | bytes | None], *tags: str, branch: str = "main") -> str:
        """Change files (None: remove one), commit, tag, push. Returns the commit's name."""
        if branch != git(self._work, "symbolic-ref", "--short", "HEAD") and self._commits():
            git(self._work, "checkout", "-q", "-B", branch)
        for name, content in files.items():
            path = self._work / name
            if content is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        when = f"{next(_TIMES)} +0100"
        if files:
            git(self._work, "add", "--force", "--all", "--", *files)
        git(
            self._work,
            *("commit", "-q", "--allow-empty", "-m", "more"),
            GIT_AUTHOR_DATE=when,
            GIT_COMMITTER_DATE=when,
        )
        for tag in tags:
            self.tag(tag)
        git(self._work, "push", "-q", "--force", "origin", f"HEAD:refs/heads/{branch}")
        return git(self._work, "rev-parse", "HEAD")

    def _commits(self) -> bool:
        return bool(git(self._work, "for-each-ref"))

    def link(self, name: str, target: str) -> None:
        """A symbolic link, to be committed."""
        (self._work / name).symlink_to(target)
        git(self._work, "add", name)

    def submodule(self, name: str) -> None:
        """Another repository's commit in a folder, to be committed: nothing of it is here."""
        git(self._work, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},{name}")

    def tag(self, name: str, commit: str = "HEAD", *, annotated: bool = False) -> None:
        """Set a tag, or move it by force, and push it."""
        options = ["-a", "-m", "a release"] if annotated else []
        git(self._work, "tag", "-f", *options, name, commit)
        git(self._work, "push", "-q", "--force", "origin", f"refs/tags/{name}")

    def untag(self, name: str) -> None:
        git(self._work, "tag", "-d", name)
        git(self._work, "push", "-q", "origin", f":refs/tags/{name}")

    def rewind(self, commit: str, branch: str = "main") -> None:
        """Throw away what was committed after this one."""
        git(self._work, "reset", "-q", "--hard", commit)
        git(self._work, "push", "-q", "--force", "origin", f"HEAD:refs/heads/{branch}")

    def prune(self) -> None:
        """Have the server forget whatever no name leads to."""
        git(self.folder, "reflog", "expire", "--expire=now", "--all")
        git(self.folder, "gc", "-q", "--prune=now")


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    host: str
    method: str
    path: str
    query: str
    authorization: str

    @property
    def is_fetch(self) -> bool:
        """Whether objects are asked for, or references; the first request of each is neither."""
        return self.path.endswith("/git-upload-pack")


@dataclass
class Reply:
    """An answer of the test's own. `hold` is waited for before it; `cut`: no more than so many bytes, then nothing."""

    status: int = 200
    body: bytes = b""
    fields: tuple[tuple[str, str], ...] = ()
    hold: threading.Event | None = None
    cut: int | None = None


@dataclass
class Site:
    """One host: its repositories lie below `folder`; `pages` by path; who may read, if not everybody."""

    folder: Path
    pages: dict[str, Reply] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)
    on: Callable[[Asked], Reply | None] = lambda asked: None

    def tells(self, root: str, url: str, vcs: str = "git", *more: str) -> None:
        """A page for a root, and for what is asked for below it."""
        content = " ".join((root, vcs, url, *more))
        text = f'<!DOCTYPE html><html><head><meta name="go-import" content="{content}"></head></html>'
        self.pages["/" + root.partition("/")[2]] = Reply(body=text.encode())

    def page(self, path: str) -> Reply | None:
        """The page of the longest root above a path."""
        while path not in self.pages:
            if path in ("", "/"):
                return None
            path = path.rpartition("/")[0] or "/"
        return self.pages[path]


class GitHosts:
    """The server. `ca` is the file of the authority that vouches for all its names."""

    def __init__(self, folder: Path, *names: str) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self.sites = {name: Site(folder / name) for name in names}
        self.asked: list[Asked] = []
        self.connected: list[str] = []
        self.ca = folder / "ca.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca))
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names, "localhost", "127.0.0.1").configure_cert(self.tls)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._servers = [_Server(("127.0.0.1", 0), _Handler, self, tls=tls) for tls in (False, True)]
        self._threads = [threading.Thread(target=server.serve_forever, args=(0.05,)) for server in self._servers]
        for thread in self._threads:
            thread.start()

    @property
    def proxy(self) -> str:
        """As HTTPS_PROXY, and in our configuration."""
        return f"http://127.0.0.1:{self._servers[0].server_address[1]}"

    @property
    def port(self) -> int:
        return int(self._servers[1].server_address[1])

    def site(self, name: str) -> Site:
        """A host by its name; whoever dials an address means the first one."""
        return self.sites.get(name) or next(iter(self.sites.values()))

    def repository(self, path: str, kind: str = "sha1") -> Repository:
        """A new one at host/path."""
        return Repository(self._folder / path, self._folder / "work" / path, kind)

    def note(self, asked: Asked) -> None:
        with self._lock:
            self.asked.append(asked)

    def fetches(self) -> int:
        """How often objects were fetched: POSTs that ask for some. Those for references are the first of each two."""
        return sum(asked.is_fetch for asked in self.asked)

    def count(self, end: str) -> int:
        """Requests whose path ends so."""
        return sum(asked.path.endswith(end) for asked in self.asked)

    def wait(self, event: threading.Event) -> None:
        """Wait in a request's thread, but not longer than the server lives."""
        while not event.wait(0.02) and not self._stopping.is_set():
            pass

    def stop(self) -> None:
        self._stopping.set()
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = False
    block_on_close = True
    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], handler: type[_Handler], hosts: GitHosts, *, tls: bool) -> None:
        super().__init__(address, handler)
        self.hosts = hosts
        self._tls = tls

    def finish_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        assert isinstance(request, socket.socket)
        request.settimeout(30)
        with contextlib.suppress(OSError):
            if self._tls:
                with self.hosts.tls.wrap_socket(request, server_side=True) as wrapped:
                    _Handler(wrapped, client_address, self)
                    wrapped.unwrap()
            else:
                _Handler(request, client_address, self)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed break off."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 its name there
        pass

    def do_CONNECT(self) -> None:
        self.server.hosts.connected.append(self.path)
        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        self.wfile.flush()
        with self.server.hosts.tls.wrap_socket(self.connection, server_side=True) as wrapped:
            _Handler(wrapped, self.client_address, self.server)
            with contextlib.suppress(OSError):
                wrapped.unwrap()
        self.close_connection = True

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self._body())

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _serve(self, body: bytes) -> None:
        hosts = self.server.hosts
        path, _, query = self.path.partition("?")
        name = (self.headers.get("host") or "").partition(":")[0]
        site = hosts.site(name)
        asked = Asked(name, self.command, path, query, self.headers.get("authorization") or "")
        hosts.note(asked)
        reply = site.on(asked)
        if reply is None and site.users and asked.authorization not in _shown(site.users):
            reply = Reply(401, b"who are you?", (("www-authenticate", 'Basic realm="git"'),))
        if reply is None and "go-get=1" in query.split("&"):
            reply = site.page(path)
        if reply is None:
            reply = self._backend(site, path, query, body)
        self._send(reply)

    def _backend(self, site: Site, path: str, query: str, body: bytes) -> Reply:
        variables = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(site.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("content-type") or "",
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding") or "",
            "GIT_PROTOCOL": self.headers.get("git-protocol") or "",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "HOME": str(site.folder),
        }
        done = subprocess.run(
            [program("git"), "http-backend"], input=body, capture_output=True, env=variables, check=False
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n") if ": " in line]
        status = next((int(value[:3]) for key, value in fields if key.lower() == "status"), 200)
        return Reply(status, content, tuple((key, value) for key, value in fields if key.lower() != "status"))

    def _send(self, reply: Reply) -> None:
        hosts = self.server.hosts
        if reply.hold is not None:
            hosts.wait(reply.hold)
        self.send_response(reply.status)
        for key, value in reply.fields:
            self.send_header(key, value)
        self.send_header("content-length", str(len(reply.body)))
        self.end_headers()
        body = reply.body if reply.cut is None else reply.body[: reply.cut]
        self.wfile.write(body)
        self.wfile.flush()
        if len(body) < len(reply.body):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)


def _shown(users: dict[str, str]) -> set[str]:
    return {"Basic " + b64encode(f"{user}:{password}".encode()).decode() for user, password in users.items()}


@contextlib.contextmanager
def git_hosts(folder: Path, *names: str) -> Iterator[GitHosts]:
    """A running server."""
    hosts = GitHosts(folder, *names)
    try:
        yield hosts
    finally:
        hosts.stop()
