"""Users and permissions of a server, in the test's own process: a gate, a folder for its users, a clock to set."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import cast

from joserfc import jwt
from joserfc.jwk import ECKey

from kit.wire import PEER
from mxart.access import schema
from mxart.access.audit import Audit, Entry
from mxart.access.control import Access, rules_of
from mxart.access.directory import Directory
from mxart.access.key_files import KeyFiles, new_key
from mxart.access.management import Management
from mxart.body import Body
from mxart.config import Config
from mxart.config_file import decode
from mxart.digest import Digest
from mxart.errors import NotFound
from mxart.message import Headers, Peer, Request, Response, Trace
from mxart.metrics import Metrics
from mxart.repos.base import Format
from mxart.repos.callers import NOBODY, Caller
from mxart.repos.oci.format import Oci
from mxart.repos.operations import File, Found, Listed, Listing
from mxart.server.authentication import Authenticator, Signer
from mxart.server.challenges import Challenges, Doors
from mxart.server.guesses import Guesses
from mxart.server.handler import Gate
from mxart.server.index import Index
from mxart.server.metrics import families
from mxart.server.names import Names, reach_of
from mxart.server.own import OwnPages
from mxart.server.rates import RateTable
from mxart.server.reception import Reception
from mxart.server.routes import Mount, Routes
from mxart.server.token_pages import TokenPages

SUM = Digest.of(b"x")
FORM = "application/x-www-form-urlencoded"


class Empty:
    """A repository that knows nothing, and remembers who asked."""

    def __init__(self, name: str, form: Format, site: str = "") -> None:
        self.name = name
        self.format = form
        self.site = site
        self.callers: list[Caller] = []
        self.raising: Exception | None = None

    def owns(self, package: str) -> bool:
        return False

    async def admit(self, caller: Caller, trace: Trace) -> None:
        self.callers.append(caller)
        if self.raising is not None:
            raise self.raising

    async def file(self, operation: File, trace: Trace, caller: Caller = NOBODY) -> Found:
        self.callers.append(caller)
        raise self.raising or NotFound("nothing here", subject="blob")

    async def listing(self, operation: Listing, trace: Trace, caller: Caller = NOBODY) -> Listed:
        self.callers.append(caller)
        return Listed(["team/app", "team/secret"] if operation.of == "packages" else ["1"], more=False)


class EmptyIndex:
    """An index that finds nothing, and remembers who asked."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []

    async def answer(self, request: Request, caller: Caller) -> Response:
        self.callers.append(caller)
        return Response(200, Headers(()), Body([b"{}"]))


class Form:
    """A request's body, in two pieces."""

    def __init__(self, data: bytes) -> None:
        self.length: int | None = len(data)
        half = len(data) // 2
        self._parts = [part for part in (data[:half], data[half:]) if part]

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return self._parts.pop(0) if self._parts else b""


class Site:
    """A server that is configured by `text`. `now` is its Unix time, and its steady clock's seconds."""

    def __init__(self, folder: Path, text: str) -> None:
        self.now = 1_800_000_000.0
        self.config: Config = decode(text, file="mxart.toml", environment={})
        path = folder / "access.sqlite"
        schema.prepare(path)
        self.directory = Directory(path)
        self.manage = Management(Directory(path), clock=self.clock)
        self.files = KeyFiles("mxart-test", (new_key(),))
        self.repositories = {
            name: Empty(
                name,
                Oci((*(f"https://{host}" for host in item.hosts), *item.upstreams)),
                "up" if item.relay != "never" else "",
            )
            for name, item in self.config.repositories.items()
        }
        access = Access(rules_of(self.config))
        reach = reach_of(self.config)
        hosts, url = self.config.token_server.hosts, self.config.access.url
        routes = Routes(
            (
                Mount(name, item.format, item.hosts, item.path, index=bool(item.index))
                for name, item in self.config.repositories.items()
            ),
            hosts,
        )
        names = Names(routes, lambda name: self.repositories[name].format, reach, hosts, url)
        guesses = Guesses(RateTable(rows=64), lambda: int(self.now * 1e9))
        signer = Signer(self.files, self.clock)
        self.authenticator = Authenticator(access, self.directory, signer, guesses, names, self.clock)
        self.audit = Audit(folder / "audit")
        reception = Reception(
            self.authenticator, Challenges(url, hosts), Doors.of(self.config, access, reach), self.audit
        )
        metrics = Metrics(families(self.repositories), 1)
        self.index = EmptyIndex()
        self.gate = Gate(
            routes,
            self.repositories,
            OwnPages(metrics, lambda: True, lambda: b""),
            metrics,
            indexes={name: cast("Index", self.index) for name, item in self.config.repositories.items() if item.index},
            reception=reception,
            token_pages=TokenPages(self.authenticator, self.manage),
        )

    def clock(self) -> float:
        return self.now

    async def ask(
        self,
        target: str,
        *fields: tuple[str, str],
        method: str = "GET",
        host: str = "mxart.test",
        form: str | None = None,
        peer: Peer = PEER,
    ) -> tuple[Response, dict[str, object]]:
        body = {} if form is None else {"body": Form(form.encode())}
        request = Request(method, target, host, Headers(fields), peer, **body)
        response = await self.gate.handle(request)
        text = b"".join(part for part in response.body.segments if isinstance(part, bytes))
        return response, json.loads(text) if "json" in (response.headers.get("content-type") or "") else {}

    async def token(
        self, *fields: tuple[str, str], scope: str = "", service: str = "mxart.test", host: str = "mxart.test"
    ) -> str:
        """A signed token, as the value of an Authorization field."""
        _, answer = await self.ask(f"/-/token?service={service}&scope={scope}", *fields, host=host)
        return f"Bearer {answer['token']}"

    def claims(self, token: object) -> dict[str, object]:
        return jwt.decode(
            str(token).removeprefix("Bearer "), ECKey.import_key(self.files.keys[0]), algorithms=["ES256"]
        ).claims

    def audited(self) -> list[Entry]:
        """The lines of the audit log, the oldest first."""
        return self.audit.tail(1000)[::-1]


def basic(user: str, password: str) -> tuple[str, str]:
    return "authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def bearer(token: str) -> tuple[str, str]:
    return "authorization", token if token.startswith("Bearer ") else f"Bearer {token}"


def challenge(response: Response) -> str:
    return response.headers.get("www-authenticate") or ""
