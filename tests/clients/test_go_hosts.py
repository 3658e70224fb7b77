"""Modules called after a host of ours, for go commands that know of no proxy: `GOPROXY=direct`."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trustme

from kit.go_command import GO_VERSIONS, GoCommand, Refused
from kit.modules import Module
from kit.netns import world
from kit.publishers import sumdb_key
from kit.servers import mxart, nginx

BASE = Module("modules.test/team/Base/v2", "v2.0.1")
LIB = Module("modules.test/team/lib", "v1.2.0", ((BASE.path, BASE.version),))

_CONFIG = """
[access]
url = "https://packages.test"
[repository.own]
format = "go"
kind = "local"
[repository.inner]
format = "go"
kind = "group"
members = ["own"]
publish_to = "own"
[repository.all]
format = "go"
kind = "group"
members = ["inner"]
publish_to = "inner"
path = "/go"
hosts = ["modules.test"]
"""


@pytest.mark.parametrize("version", GO_VERSIONS)
async def test_behind_a_proxy_that_does_tls_modules_are_had_from_their_own_host_and_verified(
    room: Path, version: str
) -> None:
    """We are asked by plain http, and must not send the go command there: it goes by https only."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(room / "ca.pem")
    made = ca.issue_cert("modules.test", "packages.test")
    made.private_key_and_cert_chain_pem.write_to_path(room / "cert.pem")
    names = dict.fromkeys(("modules.test", "packages.test"), "127.0.0.1")
    with (
        world(room / "world", names) as inside,
        mxart(room / "mxart", _CONFIG, listen=["127.0.0.1:8080"], within=inside.enter) as server,
    ):
        front = nginx(
            room / "front",
            f"""server {{
              listen 127.0.0.1:443 ssl; ssl_certificate {room}/cert.pem; ssl_certificate_key {room}/cert.pem;
              location / {{ proxy_pass http://127.0.0.1:8080; proxy_set_header Host $host; }}
            }}""",
            port=443,
            within=inside.enter,
        )
        try:
            password = (server.data / "admin-password").read_text().strip()
            for module in (BASE, LIB):
                file = room / "module.zip"
                file.write_bytes(module.zip)
                url = f"http://127.0.0.1:8080/go/{module.base}.zip"
                inside.run("curl", "-fsS", "-u", f"admin:{password}", "-T", file, url)
            key = sumdb_key(server)
            place = f"{key} https://modules.test/sumdb/{key.partition('+')[0]}"
            go = GoCommand(
                room / "client",
                "direct",
                room / "ca.pem",
                within=inside.enter,
                version=version,
                GOSUMDB=place,
            )
            await trio.to_thread.run_sync(go.run, "get", LIB.path)
            found = await trio.to_thread.run_sync(go.download, "all")
            assert [found[f"{one.path}@{one.version}"].zip for one in (LIB, BASE)] == [LIB.zip, BASE.zip]
            sums = (go.work / "go.sum").read_text()
            assert f"{BASE.path} {BASE.version} h1:" in sums
            with pytest.raises(Refused, match=r"modules\.test/other"):
                await trio.to_thread.run_sync(go.run, "get", "modules.test/other")
        finally:
            front.stop()
