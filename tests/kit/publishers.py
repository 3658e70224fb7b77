"""Whoever publishes Go modules to a running program, and looks what became of them."""

from __future__ import annotations

import base64
import ssl

import trio

from kit.http import Got, get, head, parse
from kit.modules import Module
from kit.servers import Mxart
from mxart.repos.go.notes import SignerKey


def sumdb_key(server: Mxart) -> str:
    """What `mxart go sumdb` prints, without waiting for a command."""
    (file,) = (server.data / "sumdb").glob("*.key")
    return str(SignerKey.parse(file.read_text().strip()).verifier)


class Publisher:
    """Whoever may do everything, by a path ("/go")."""

    def __init__(self, server: Mxart, path: str = "/go") -> None:
        self.port = server.port
        self.path = path
        self.ca = server.ca if server.url.startswith("https") else None
        password = (server.data / "admin-password").read_text().strip()
        self.login = {"authorization": "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()}

    async def put(self, module: Module, data: bytes | None = None) -> Got:
        body = module.zip if data is None else data
        return await self._ask(f"{self.path}/{module.base}.zip", method="PUT", body=body)

    async def delete(self, module: Module) -> Got:
        return await self._ask(f"{self.path}/{module.base}.zip", method="DELETE")

    async def get(self, path: str, *, login: bool = True, below: str = "") -> Got:
        return await self._ask(f"{below or self.path}/{path}", login=login)

    async def _ask(self, target: str, *, method: str = "GET", body: bytes | None = None, login: bool = True) -> Got:
        fields = self.login if login else {}
        if self.ca is None:
            return await get(self.port, target, method=method, headers=fields, body=body)
        if body is not None:
            fields = {**fields, "content-length": str(len(body))}
        trust = ssl.create_default_context(cafile=self.ca)
        stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", self.port, ssl_context=trust, https_compatible=True)
        async with stream:
            await stream.send_all(head(target, method=method, headers=fields) + (body or b""))
            data = bytearray()
            while chunk := await stream.receive_some(1 << 18):
                data += chunk
        return parse(bytes(data))
