"""`mxart go publish`, and `mxart go sumdb`."""

from __future__ import annotations

import base64
import http.client
import sqlite3
import ssl
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlsplit

import click

from mxart.commands.git_tree import GitTree
from mxart.commands.options import Options, UserError
from mxart.errors import ConfigError
from mxart.repos.go import gomod
from mxart.repos.go.packing import Item, choose, pack, walk
from mxart.repos.go.paths import check_path, escape, split_major
from mxart.repos.go.versions import canonical, fits, is_canonical
from mxart.repos.go.zips import BadModule, check_zip
from mxart.repos.own_keys import OwnKey, open_log
from mxart.store.paths import DataPaths
from mxart.store.record_log import LogBroken

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SECONDS = 300.0
_PIECE = 256 << 10
_MAX_ANSWER = 64 << 10


class _Refused(click.ClickException):
    """The server's own words, and exit code 1."""

    exit_code = 1


@click.group()
def go() -> None:
    """Go modules."""


@go.command()
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--to", "url", required=True, metavar="URL", help="What GOPROXY has for it: https://packages.example/go")
@click.option("--version", default="", metavar="VERSION", help="v1.2.3.  [default: the tag of the commit]")
@click.option("--uncommitted", is_flag=True, help="Take files as they are, although they differ from the commit.")
@click.option("--user", default="", metavar="NAME", envvar="MXART_USER", help="Or MXART_USER.")
@click.option("--password-stdin", is_flag=True, help="The user's password, or a token of his, is on standard input.")
@click.option("--token-file", metavar="FILE", help="A token; - is standard input.")
@click.option("--ca", metavar="FILE", help="Believe this CA (PEM) instead of the system's.")
@click.option("--dry-run", is_flag=True, help="Say what would be published, and publish nothing.")
def publish(
    folder: Path,
    url: str,
    version: str,
    uncommitted: bool,
    user: str,
    password_stdin: bool,
    token_file: str | None,
    ca: str | None,
    dry_run: bool,
) -> None:
    """Publish the module in DIR: the files that the go command would take, so with the same checksum.

    In a repository of git's these are the committed ones. A version can be published once, and never changes.
    """
    try:
        login = _login(user, password_stdin=password_stdin, token_file=token_file)
        path, version, items = _module(folder.resolve(), version, uncommitted=uncommitted)
        with tempfile.TemporaryFile() as file:
            pack(items, path, version, file)
            size = file.tell()
            checksum = check_zip(file, size, path, version)
            click.echo(f"{path}@{version}: {len(items)} files, {size} bytes, {checksum}")
            if not dry_run:
                file.seek(0)
                click.echo(_put(_target(url, path, version, secret=bool(login)), file, size, login, ca))
    except BadModule as error:
        raise UserError(f"{folder} cannot be published: {error}") from None
    except UnicodeEncodeError:
        raise UserError(f"{folder} cannot be published: a file in it has a name that is not UTF-8") from None
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from None


@go.command()
@click.option("--check", is_flag=True, help="Hash the whole log anew, and compare it with what was signed.")
@click.pass_obj
def sumdb(options: Options, check: bool) -> None:
    """Print the key of this server's own checksum database, as GOSUMDB takes it.

    Behind it goes where the database is: GOSUMDB="KEY https://packages.example/go/sumdb/NAME"; `mxart setup go` has it.
    """
    try:
        config = options.load()
        paths = DataPaths(config.data)
        key = OwnKey.find(paths.sumdb, config.go.sumdb_name)
        if key is None:
            raise UserError(f"{config.data} has no checksum database yet: the server makes its key when it starts")
        if check:
            with closing(open_log(paths.sumdb_log)) as records:
                key.check(records)
                click.echo(f"{key.name}: {records.audit()} records, as they were written and signed", err=True)
    except ConfigError as error:
        raise UserError(str(error)) from None
    except (LogBroken, sqlite3.Error) as error:
        raise _Refused(f"the log of checksums is damaged: {error}; put back a copy of {paths.sumdb}") from None
    click.echo(str(key.signer.verifier))


def _module(folder: Path, version: str, *, uncommitted: bool) -> tuple[str, str, list[Item]]:
    """The module's path, its version, and its files."""
    try:
        said = gomod.read((folder / "go.mod").read_bytes())
        path = check_path(said.module) if said.module else ""
    except FileNotFoundError:
        raise UserError(f"{folder} has no go.mod: `go mod init` makes one") from None
    except ValueError as error:
        raise UserError(f"{folder / 'go.mod'}: {error}") from None
    if not path:
        raise UserError(f"{folder / 'go.mod'} names no module")
    tree = GitTree.around(folder)
    version = _version(path, version, tree)
    if tree is None:
        return path, version, choose(folder, walk(folder), said)
    if not uncommitted and (changes := tree.changes()):
        raise UserError(f"{changes[0]} is not as it was committed: commit it, or say --uncommitted")
    licence = tree.top / "LICENSE" if tree.below else None
    return path, version, choose(folder, tree.names(), said, licence)


def _version(path: str, version: str, tree: GitTree | None) -> str:
    if not version:
        found = _tagged(path, tree) if tree is not None else []
        if len(found) != 1:
            what = (
                f"the commit has {len(found)} tags that are versions of {path}" if found else "no tag tells a version"
            )
            raise UserError(f"{what}: say --version v1.2.3")
        return found[0]
    if version.endswith("+incompatible"):
        raise UserError(f"{version}: what has a go.mod is not +incompatible; from v2 on its path ends with /v2")
    if is_canonical(path, version):
        return version
    right = canonical(version)
    if right and not fits(path, version):
        raise UserError(f"{path} cannot have version {version}: from v2 on the major version ends a module's path")
    raise UserError(f"{version} is no whole version: {right or 'v1.2.3'} is one")


def _tagged(path: str, tree: GitTree) -> list[str]:
    """A module below the root of its repository has tags like sub/v1.2.3 (go.dev/ref/mod#vcs-version).

    So has one whose folder is sub/v2.
    """
    below, _, last = f"/{tree.below}".rpartition("/")
    parts = split_major(path)
    below = (below if parts is not None and parts[1] == f"/{last}" else tree.below).strip("/")
    prefix = f"{below}/" if below else ""
    found = [tag.removeprefix(prefix) for tag in tree.tags() if tag.startswith(prefix)]
    return [version for version in found if is_canonical(path, version) and "+" not in version]


def _login(user: str, *, password_stdin: bool, token_file: str | None) -> str:
    """The Authorization field's value, "" for nobody in particular."""
    if password_stdin and token_file:
        raise UserError("--password-stdin and --token-file: one of them")
    if password_stdin:
        if not user:
            raise UserError("--password-stdin: say --user, too")
        pair = f"{user}:{sys.stdin.readline().rstrip(chr(10))}"
        return "Basic " + base64.b64encode(pair.encode()).decode()
    if token_file:
        on_stdin = token_file == "-"  # noqa: S105  # no secret, a file's name
        token = (sys.stdin.read() if on_stdin else Path(token_file).read_text(encoding="utf-8")).strip()
        if not token or not (token.isascii() and token.isprintable()):
            raise UserError(f"{token_file} holds no token")
        return f"Bearer {token}"
    if user:
        raise UserError("--user: say --password-stdin, too")
    return ""


def _target(url: str, path: str, version: str, *, secret: bool) -> str:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.query or parts.fragment:
        raise UserError(f"--to {url}: a URL like https://packages.example/go is wanted")
    if parts.username or parts.password:
        raise UserError("--to: passwords are not for URLs; say --user and --password-stdin")
    if secret and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise UserError(f"--to {url}: a password would be sent in plain text; use https")
    return f"{url.rstrip('/')}/{quote(escape(path), safe='/~')}/@v/{quote(escape(version), safe='+')}.zip"


def _put(target: str, file: BinaryIO, size: int, login: str, ca: str | None) -> str:
    """What the server says. Raises OSError, _Refused."""
    parts = urlsplit(target)
    assert parts.hostname is not None, "checked before"
    if parts.scheme == "https":
        trust = ssl.create_default_context(cafile=ca)
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=_SECONDS, context=trust
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=_SECONDS)
    fields = {"content-type": "application/zip", "content-length": str(size), "user-agent": "mxart"}
    if login:
        fields["authorization"] = login
    try:
        connection.putrequest("PUT", parts.path, skip_accept_encoding=True)
        for name, value in fields.items():
            connection.putheader(name, value)
        connection.endheaders()
        try:
            while piece := file.read(_PIECE):
                connection.send(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it wants no more of it, and says why
        response = connection.getresponse()
        said = response.read(_MAX_ANSWER).decode("utf-8", "replace").strip()
    except http.client.HTTPException as error:
        raise _Refused(f"{parts.netloc} answers with no HTTP: {error!r}") from None
    finally:
        connection.close()
    if response.status not in (200, 201):
        raise _Refused(f"{parts.netloc} says {response.status}: {said or response.reason}")
    return said
