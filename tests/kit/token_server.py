"""A token server of a registry (distribution's token protocol), as auth.docker.io is one: a thread of the test's.

It knows users, their passwords, and which repositories each may pull; nobody in particular may pull the public ones.
As registries do, it grants what it may and says 200, and only refuses a wrong password.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import secrets
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from joserfc import jwt
from joserfc.jwk import ECKey

from kit.netns import World
from kit.servers import Service

ISSUER, SERVICE = "kit-tokens", "kit-registry"


def auth(realm: str, bundle: Path) -> str:
    """What a registry's configuration has to say to rely on a token server."""
    return f"{{token: {{realm: {realm}, service: {SERVICE}, issuer: {ISSUER}, rootcertbundle: {bundle}}}}}"


class TokenServer:
    """`users` are passwords by name; `rights` the repositories that each may pull and push, "" for nobody special."""

    def __init__(
        self,
        folder: Path,
        users: Mapping[str, str],
        rights: dict[str, frozenset[str]],
        *,
        address: tuple[str, int] = ("127.0.0.1", 0),
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._users = users
        self.rights = rights
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        self._bundle = folder / "tokens.pem"
        self._bundle.write_bytes(certificate.public_bytes(Encoding.PEM))
        self._chain = [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()]
        self._key = ECKey.import_key(key)
        self.asked: list[tuple[str, str]] = []  # user and scope of each question that was answered with a token
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                answer = server.answer(self.headers.get("Authorization", ""), query.get("scope", []))
                self._send(answer)

            def do_POST(self) -> None:  # clients fall back to GET
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                self.send_error(404)

            def _send(self, answer: dict[str, object] | None) -> None:
                data = json.dumps(answer or {"details": "incorrect username or password"}).encode()
                self.send_response(200 if answer else 401)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's word
                pass

        self._server = ThreadingHTTPServer(address, Handler)
        self._server.daemon_threads = True
        if tls is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/token"

    @property
    def auth(self) -> str:
        """What a registry's configuration has to say to rely on this."""
        return auth(self.url, self._bundle)

    def answer(self, authorization: str, scopes: list[str]) -> dict[str, object] | None:
        """A token, None for a wrong password."""
        user = ""
        if authorization:
            with contextlib.suppress(ValueError):
                user, _, password = base64.b64decode(authorization.partition(" ")[2]).decode().partition(":")
            if not user or self._users.get(user) != password:
                return None
        scopes = [one for scope in scopes for one in scope.split()]
        self.asked.append((user, " ".join(scopes)))
        return {"token": self.token(user, scopes), "expires_in": 300}

    def token(self, user: str, scopes: list[str]) -> str:
        """What this user may of what he asks for."""
        may = self.rights.get(user, frozenset()) | self.rights.get("", frozenset())
        access = [
            {"type": "repository", "name": scope.split(":")[1], "actions": scope.split(":")[2].split(",")}
            for scope in scopes
            if scope.startswith("repository:") and scope.split(":")[1] in may
        ]
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": user,
            "aud": SERVICE,
            "iat": now,
            "nbf": now - 10,
            "exp": now + 300,
            "jti": secrets.token_hex(8),
            "access": access,
        }
        return str(jwt.encode({"alg": "ES256", "typ": "JWT", "x5c": self._chain}, claims, self._key))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No thread and no socket stays."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@contextlib.contextmanager
def token_server(folder: Path, users: Mapping[str, str], rights: dict[str, frozenset[str]]) -> Iterator[TokenServer]:
    """Running inside the block."""
    server = TokenServer(folder, users, rights)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def token_service(
    folder: Path,
    users: Mapping[str, str],
    rights: dict[str, frozenset[str]],
    *,
    address: tuple[str, int],
    certificate: tuple[Path, Path],
    inside: World,
) -> Iterator[Path]:
    """The same over TLS in a process of its own, inside a world; the file that registries are to trust."""
    told = {"users": dict(users), "rights": {user: sorted(names) for user, names in rights.items()}}
    command = [sys.executable, "-m", "kit.token_server", str(folder), *map(str, (*address, *certificate))]
    env = {"PYTHONPATH": str(Path(__file__).parent.parent)}
    service = Service("tokens", [*command, json.dumps(told)], folder, env=env, within=inside.enter)
    try:
        service.wait_for_line("tokens are given out")
        yield folder / "tokens.pem"
    finally:
        service.kill()


def _main(folder: str, host: str, port: str, certificate: str, key: str, told: str) -> None:
    known = json.loads(told)
    rights = {user: frozenset(names) for user, names in known["rights"].items()}
    files = (Path(certificate), Path(key))
    server = TokenServer(Path(folder), known["users"], rights, address=(host, int(port)), tls=files)
    server.start()
    sys.stdout.write("tokens are given out\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    _main(*sys.argv[1:])
